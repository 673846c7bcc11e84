//! What operators read: one line for each thing that happens to a connection, and few for floods.

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use futures::StreamExt;
use mcp_ws_transport::{
    accept, connect, connect_over,
    event::Event,
    server::{BearerTokens, Config, Identity, RegistryEvent, WebSocketService},
};
use rmcp::{
    RoleClient, RoleServer, ServiceExt, model::CallToolRequestParams, service::RunningService,
};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::Instant,
};

use crate::common::{
    LIMIT, Tools,
    handshake::{ask, try_upgrade, upgrade},
    limit,
    logs::Log,
    pair,
    proxy::Proxy,
    raw::{Frame, Raw, upgrade_request},
    reconnect_within, serve_tools,
};

const SERVER: &str = "otel.kind=\"server\"";
const CLIENT: &str = "otel.kind=\"client\"";

/// Returns the lines from INFO on that have this text in them.
fn logged(log: &Log, text: &str) -> Vec<String> {
    let all = log.text();
    let lines = all.lines().filter(|line| {
        let level = line.split_whitespace().nth(1).unwrap();
        ["INFO", "WARN", "ERROR"].contains(&level) && line.contains(text)
    });
    lines.map(str::to_owned).collect()
}

/// Returns the words behind the span and the target: the event, and its fields.
fn event(line: &str) -> &str {
    line.rsplit_once("}: ").map_or(line, |(_, event)| event).split_once(": ").unwrap().1
}

/// Asserts that the events of `lines` are these, in this order.
fn assert_events(lines: &[String], events: &[&str]) {
    let logged: Vec<_> = lines.iter().map(|line| event(line)).collect();
    let fits = |(logged, event): (&&str, &&str)| logged.starts_with(event);
    assert!(logged.len() == events.len() && logged.iter().zip(events).all(fits), "{logged:#?}");
}

/// Asserts that `line` has all of these `fields`.
fn assert_fields(line: &str, fields: &[&str]) {
    for field in fields {
        assert!(
            line.contains(&format!(" {field}")) || line.contains(&format!("{{{field}")),
            "{field}: {line}"
        );
    }
}

async fn echo(client: &RunningService<RoleClient, ()>) {
    client.call_tool(CallToolRequestParams::new("echo")).await.unwrap();
}

/// Returns the value of a field of a line.
fn value<'a>(line: &'a str, field: &str) -> &'a str {
    let (_, behind) =
        line.split_once(&format!(" {field}=")).unwrap_or_else(|| panic!("{field}: {line}"));
    behind.split([' ', '}']).next().unwrap()
}

#[tokio::test]
async fn each_thing_that_happens_to_a_connection_is_one_line_on_either_side() {
    let (log, _capture) = Log::capture();
    limit(async {
        let config = Config::default()
            .authenticator(BearerTokens::default().token("t", Identity::new("alice")));
        let (server, address) = serve_tools(&Tools::default(), config).await;
        let mut registry = server.registry().events();
        let proxy = Proxy::new(address).await;
        let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let connect = connect(format!("{}?token=private", proxy.url())).bearer("t");
        let connect = reconnect_within(Duration::from_millis(5), connect);
        let mut events = connect.events();
        let client = ().serve(connect.await.unwrap()).await.unwrap();
        let before = logged(&log, "").len();
        for _ in 0..20 {
            echo(&client).await;
        }
        assert_eq!(logged(&log, "").len(), before, "nothing for a message: {}", log.text());

        // The server has to notice the loss before the client is back.
        *proxy.target.lock().unwrap() = nowhere;
        proxy.cut();
        while !matches!(registry.next().await.unwrap(), RegistryEvent::Detached(_)) {}
        *proxy.target.lock().unwrap() = address;
        while !matches!(events.next().await.unwrap(), Event::Resumed { .. }) {}
        echo(&client).await;
        client.cancel().await.unwrap();
        while !matches!(registry.next().await.unwrap(), RegistryEvent::Disconnected { .. }) {}
        server.shutdown().await;
    })
    .await;

    let lines = logged(&log, SERVER);
    assert_events(
        &lines,
        &["connected", "connection lost; the session is kept", "reconnected", "connection ended"],
    );
    assert_fields(
        &lines[0],
        &[
            "INFO",
            "network.protocol.name=\"websocket\"",
            "network.transport=\"tcp\"",
            "network.peer.address=127.0.0.1",
            "network.peer.port=",
            "url.scheme=\"ws\"",
            "url.path=\"/mcp\"",
            "user_agent.original=\"mcp-ws-transport/",
            "client.address=127.0.0.1",
            "enduser.id=\"alice\"",
            "mcp_ws.connection.id=1",
            "subprotocol=\"mcp.resume.v1\"",
            "session=\"new\"",
        ],
    );
    assert_fields(&lines[1], &["INFO", "mcp_ws.connection.id=1", "cause=\""]);
    assert_fields(
        &lines[2],
        &["INFO", "mcp_ws.connection.id=1", "session=\"resumed\"", "outage_ms="],
    );
    assert_fields(
        &lines[3],
        &[
            "INFO",
            "mcp_ws.connection.id=1",
            "code=1000",
            "reason=\"1000 (normal closure)",
            "age_ms=",
        ],
    );
    for count in ["messages_received", "messages_sent"] {
        assert!(value(&lines[3], count).parse::<u64>().unwrap() >= 22, "{}", lines[3]);
    }

    let lines = logged(&log, CLIENT);
    assert_events(
        &lines,
        &["connected", "connection lost; reconnecting", "reconnected", "connection ended"],
    );
    assert_fields(
        &lines[0],
        &[
            "INFO",
            "network.protocol.name=\"websocket\"",
            "server.address=\"127.0.0.1\"",
            "server.port=",
            "url.scheme=\"ws\"",
            "url.path=\"/mcp\"",
            "subprotocol=\"mcp.resume.v1\"",
            "session=\"new\"",
        ],
    );
    assert_fields(&lines[1], &["WARN", "cause=\""]);
    assert_fields(&lines[2], &["INFO", "session=\"resumed\"", "outage_ms="]);
    assert!(value(&lines[2], "attempts").parse::<u32>().unwrap() >= 1, "{}", lines[2]);
    assert_fields(
        &lines[3],
        &["INFO", "code=1000", "age_ms=", "messages_received=", "messages_sent="],
    );
    assert!(!log.text().contains("private"));
}

/// A server that is mounted has the same lines, in a span within that of the server around it.
#[tokio::test]
async fn a_mounted_server_and_a_stream_of_ones_own_have_the_same_lines() {
    let (log, _capture) = Log::capture();
    limit(async {
        let mcp = WebSocketService::new(|| Ok(Tools::default()), Config::default()).unwrap();
        let mut registry = mcp.registry().events();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            axum::serve(listener, Router::new().route_service("/mcp", mcp)).await
        });
        let client = ().serve(connect(format!("ws://{address}/mcp")).await.unwrap()).await.unwrap();
        client.cancel().await.unwrap();
        while !matches!(registry.next().await.unwrap(), RegistryEvent::Disconnected { .. }) {}
        let lines = logged(&log, SERVER);
        assert_events(&lines, &["connected", "connection ended"]);
        assert_fields(
            &lines[0],
            &["url.path=\"/mcp\"", "mcp_ws.connection.id=1", "session=\"new\""],
        );
        assert!(!lines[0].contains("network.peer.address"), "{}", lines[0]);

        let (near, far) = pair().await;
        let serving = async {
            let transport = accept::<RoleServer, _>(far).await.unwrap();
            Tools::default().serve(transport).await.unwrap().waiting().await.unwrap();
        };
        let dialling = async {
            let transport =
                connect_over::<RoleClient, _>(near, "ws://127.0.0.1/mcp").await.unwrap();
            ().serve(transport).await.unwrap().cancel().await.unwrap();
        };
        tokio::join!(serving, dialling);
        for side in [SERVER, CLIENT] {
            let lines = logged(&log, side);
            assert_events(&lines[2..], &["connected", "connection ended"]);
            assert_fields(&lines[2], &["session=\"none\""]);
        }
    })
    .await;
}

/// Asserts that a request with a wrong token is refused.
async fn assert_refused(address: SocketAddr) {
    let (head, _raw) = try_upgrade(address, "Authorization: Bearer wrong\r\n").await;
    assert_eq!(head.status(), 401);
}

#[tokio::test]
async fn floods_of_refusals_are_few_lines_which_say_how_many_there_were() {
    let (log, _capture) = Log::capture();
    limit(async {
        let config = Config::default()
            .authenticator(BearerTokens::from_iter(["right"]))
            .in_band_authentication();
        let (server, address) = serve_tools(&Tools::default(), config).await;
        let began = Instant::now();
        for _ in 0..50 {
            assert_refused(address).await;
        }
        let at_most = 4 + began.elapsed().as_secs() / 10;
        let lines = || logged(&log, "refused: authentication required");
        assert!((3..=at_most).contains(&(lines().len() as u64)), "{:#?}", lines());
        for line in lines() {
            assert_fields(
                &line,
                &[
                    "WARN",
                    "error.type=\"unauthorized\"",
                    "http.response.status_code=401",
                    "client.address=127.0.0.1",
                    "suppressed=",
                    "url.path=\"/mcp\"",
                ],
            );
        }
        // Those of another kind have a limit of their own.
        let foreign = upgrade_request(address, "Origin: https://foreign.example\r\n");
        assert_eq!(ask(address, foreign).await.0.status(), 403);
        let [line] = &logged(&log, "refused: web pages of the Origin")[..] else {
            panic!("{}", log.text())
        };
        assert_fields(
            line,
            &["WARN", "error.type=\"origin\"", "http.response.status_code=403", "suppressed=0"],
        );

        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(10)).await;
        tokio::time::resume();
        assert_refused(address).await;
        let suppressed = lines()
            .iter()
            .map(|line| value(line, "suppressed").parse::<usize>().unwrap())
            .sum::<usize>();
        assert_eq!(lines().len() + suppressed, 51, "{:#?}", lines());
        assert_eq!(server.registry().health().rejected_by["unauthorized"], 51, "each is counted");
    })
    .await;
}

#[tokio::test]
async fn who_is_refused_after_the_upgrade_or_before_a_request_is_told_too() {
    let (log, _capture) = Log::capture();
    limit(async {
        let config = Config::default()
            .authenticator(BearerTokens::from_iter(["right"]))
            .in_band_authentication();
        let (server, address) = serve_tools(&Tools::default(), config.clone()).await;
        let mut raw = upgrade(address, "").await;
        let wrong = serde_json::json!({
            "jsonrpc": "2.0", "id": 1, "method": "authenticate", "params": { "token": "wrong" },
        });
        raw.ask(&wrong).await;
        assert_eq!(raw.closed().await.0, 4401);
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"SSH-2.0-OpenSSH_9.7\r\n\r\n").await.unwrap();
        let mut registry = server.registry().events();
        while server.registry().health().rejected < 2 {
            registry.next().await.unwrap();
        }
        let lines = logged(&log, "refused: ");
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert_fields(
            &lines[0],
            &["WARN", "error.type=\"unauthorized\"", "code=4401", "client.address=127.0.0.1"],
        );
        assert!(!lines[0].contains("status_code"), "{}", lines[0]);
        assert_fields(
            &lines[1],
            &["WARN", "error.type=\"no_handshake\"", "client.address=127.0.0.1"],
        );
        assert!(logged(&log, "connected").is_empty(), "{}", log.text());

        // One that has left is not refused.
        drop(upgrade(address, "").await);
        while !log.text().contains("the client has left") {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut leaving = upgrade(address, "").await;
        leaving.send(Frame::close(1000)).await;
        assert_eq!(leaving.closed().await.0, 1000);
        assert_eq!(logged(&log, "refused: ").len(), 2, "{}", log.text());
        assert_eq!(server.registry().health().rejected, 2);

        // The same on a stream of one's own.
        let (near, far) = pair().await;
        let accepting =
            tokio::spawn(async { accept::<RoleServer, _>(far).config(config).await.map(drop) });
        let mut raw = Raw::over(near, true);
        let address = raw.stream.peer_addr().unwrap();
        raw.write(upgrade_request(address, "Authorization: Bearer wrong\r\n")).await;
        assert_eq!(raw.head().await.unwrap().status(), 401);
        drop(raw);
        assert!(accepting.await.unwrap().is_err());
        let lines = logged(&log, "http.response.status_code=401");
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert_fields(&lines[0], &["WARN", "error.type=\"unauthorized\""]);
    })
    .await;
}

/// What a client says of itself is cut, and cannot look like another line.
#[tokio::test]
async fn what_a_client_chooses_makes_no_line_of_its_own() {
    let (log, _capture) = Log::capture();
    limit(async {
        let [agent, subject, version] = ["x", "y", "z"].map(|text| text.repeat(1000));
        let tokens = BearerTokens::default().token("t", Identity::new(subject));
        let config = Config::default().authenticator(tokens);
        let (server, address) = serve_tools(&Tools::default(), config).await;
        let mut registry = server.registry().events();
        let lines = format!(
            "Authorization: Bearer t\r\nUser-Agent: {agent}\r\n\
             Sec-WebSocket-Protocol: mcp.version.{version}\r\n"
        );
        let mut raw = upgrade(address, &lines).await;
        raw.initialize().await;
        let mut close = 3000_u16.to_be_bytes().to_vec();
        close.extend(b"bye\n2026-01-01T00:00:00.000000Z  INFO connected");
        raw.send(Frame::new(8, close)).await;
        while !matches!(registry.next().await.unwrap(), RegistryEvent::Disconnected { .. }) {}
        let lines = logged(&log, SERVER);
        assert_events(&lines, &["connected", "connection ended"]);
        for (char, kept) in [("x", 200), ("y", 200), ("z", 200 - "mcp.version.".len())] {
            assert!(!log.text().contains(&char.repeat(kept + 1)), "{char}: {}", log.text());
            assert!(log.text().contains(&char.repeat(kept)), "{char}: {}", log.text());
        }
        assert_fields(&lines[1], &["code=3000", "reason=\"3000: bye\\\\n2026"]);
        assert!(log.text().lines().all(|line| !line.starts_with("2026-01-01")), "{}", log.text());
    })
    .await;
}

/// Sends this many requests with a token that is wrong, then one that is upgraded.
async fn send_requests(raw: &mut Raw, wrong: usize) {
    let address = raw.stream.peer_addr().unwrap();
    for number in 0..=wrong {
        let token = if number == wrong { "t" } else { "wrong" };
        let lines = format!("Authorization: Bearer {token}\r\nUser-Agent: agent-{number}\r\n");
        raw.write(upgrade_request(address, &lines)).await;
        let head = raw.head().await.unwrap();
        assert_eq!(head.status(), if number == wrong { 101 } else { 401 }, "{number}");
        if let Some(length) = head.get("content-length") {
            raw.body(length.parse().unwrap()).await;
        }
    }
}

/// The fmt layer of tracing-subscriber keeps every value of a field that is recorded again.
#[tokio::test]
async fn the_requests_of_one_connection_have_a_span_each() {
    let (log, _capture) = Log::capture();
    limit(async {
        let config = Config::default()
            .authenticator(BearerTokens::default().token("t", Identity::new("alice")))
            .handshake_timeout(LIMIT);
        let (server, address) = serve_tools(&Tools::default(), config.clone()).await;
        let mut registry = server.registry().events();
        let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
        send_requests(&mut raw, 1000).await;
        raw.initialize().await;
        raw.send(Frame::close(1000)).await;
        while !matches!(registry.next().await.unwrap(), RegistryEvent::Disconnected { .. }) {}

        // And on a stream of one's own.
        let (near, far) = pair().await;
        let accepting = async {
            let transport = accept::<RoleServer, _>(far).config(config).await.unwrap();
            let mut transport = transport.into_sink_stream();
            while transport.next().await.is_some() {}
        };
        let asking = async {
            let mut raw = Raw::over(near, true);
            send_requests(&mut raw, 10).await;
            raw.send(Frame::close(1000)).await;
            assert_eq!(raw.closed().await.0, 1000);
        };
        tokio::join!(accepting, asking);
    })
    .await;

    let text = log.text();
    let longest = text.lines().map(str::len).max().unwrap();
    assert!(longest < 2048, "{longest} bytes");
    let refusals = text.lines().filter(|line| line.contains("authentication required"));
    let agents = refusals.map(|line| value(line, "user_agent.original").to_owned());
    let expected = (0..1000).chain(0..10).map(|number| format!("\"agent-{number}\""));
    assert_eq!(agents.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    let lines = logged(&log, SERVER);
    let lines: Vec<_> = lines.into_iter().filter(|line| line.contains(": connect")).collect();
    assert_events(&lines, &["connected", "connection ended", "connected", "connection ended"]);
    for (line, agent) in lines.iter().zip(["agent-1000", "agent-1000", "agent-10", "agent-10"]) {
        assert_eq!(value(line, "user_agent.original"), format!("\"{agent}\""), "{line}");
        for field in ["otel.kind=", "user_agent.original=", "url.path=", "enduser.id="] {
            // A transport of one's own is in no registry, which tells whose it is.
            let is_told = field != "enduser.id=" || agent == "agent-1000";
            assert_eq!(line.matches(field).count(), usize::from(is_told), "{field}: {line}");
        }
    }
    assert_fields(
        &lines[0],
        &[
            "network.peer.address=127.0.0.1",
            "url.scheme=\"ws\"",
            "client.address=127.0.0.1",
            "mcp_ws.connection.id=1",
        ],
    );
}
