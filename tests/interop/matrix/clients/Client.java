// Java's own HttpClient, with messages written by hand.
//
//     java Client.java MATH ASKS

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

class Client implements WebSocket.Listener {
  final BlockingQueue<String> messages = new LinkedBlockingQueue<>();
  final StringBuilder message = new StringBuilder();
  WebSocket socket;
  int id;

  @Override
  public CompletionStage<?> onText(WebSocket socket, CharSequence data, boolean last) {
    message.append(data);
    if (last) {
      messages.add(message.toString());
      message.setLength(0);
    }
    socket.request(1);
    return null;
  }

  void send(String text) {
    socket.sendText(text, true).join();
  }

  /** Returns the answer; what comes before it goes to `others`. */
  String request(String method, String params, List<String> others) throws Exception {
    send("{\"jsonrpc\":\"2.0\",\"id\":%d,\"method\":\"%s\",\"params\":%s}".formatted(++id, method, params));
    for (;;) {
      String text = messages.poll(15, TimeUnit.SECONDS);
      if (text == null) throw new Exception("no answer to " + method);
      if (text.contains("\"method\"")) others.add(text);
      if (text.contains("elicitation/create")) {
        String asked = find("\"id\":\\s*(\"[^\"]*\"|\\d+)", text);
        send("{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{\"action\":\"accept\",\"content\":{\"confirm\":true}}}".formatted(asked));
      }
      if (text.contains("\"result\":") && text.matches(".*\"id\":\\s*%d\\b.*".formatted(id))) return text;
      if (text.contains("\"error\":")) throw new Exception(find("\"message\":\"([^\"]*)", text));
    }
  }

  String call(String tool, String arguments, List<String> others) throws Exception {
    String params = "{\"name\":\"%s\",\"arguments\":%s,\"_meta\":{\"progressToken\":1}}";
    return request("tools/call", params.formatted(tool, arguments), others);
  }

  static String find(String pattern, String text) {
    Matcher matcher = Pattern.compile(pattern).matcher(text);
    return matcher.find() ? matcher.group(1) : null;
  }

  static Client connect(String url) throws Exception {
    Client client = new Client();
    client.socket = HttpClient.newHttpClient().newWebSocketBuilder().subprotocols("mcp")
        .buildAsync(URI.create(url), client).get(15, TimeUnit.SECONDS);
    String info = "{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"elicitation\":{}},\"clientInfo\":{\"name\":\"java\",\"version\":\"1.0.0\"}}";
    client.request("initialize", info, new ArrayList<>());
    client.send("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
    return client;
  }

  public static void main(String[] urls) throws Exception {
    List<String> others = new ArrayList<>();
    Client math = connect(urls[0]);
    System.out.println("{\"initialize\": true}");
    Matcher tools = Pattern.compile("\"inputSchema\"").matcher(math.request("tools/list", "{}", others));
    System.out.println("{\"tools\": " + tools.results().count() + "}");
    System.out.println("{\"add\": " + find("\"result\":(\\d+)", math.call("add", "{\"a\":5,\"b\":3}", others)) + "}");
    math.call("sum", "{\"numbers\":[1,2,3]}", others);
    List<String> progress = new ArrayList<>();
    for (String other : others) progress.add(find("\"progress\":(\\d+)", other));
    System.out.println("{\"progress\": " + progress + "}");
    String asked = connect(urls[1]).call("ask", "{}", others);
    System.out.println("{\"asked\": \"" + find("\"text\":\\s*\"([^\"]*)", asked) + "\"}");
    System.exit(0);
  }
}
