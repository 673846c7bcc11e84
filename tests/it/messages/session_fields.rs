//! SEP-1288's members that name the session, between both ends.

use std::time::Duration;

use futures::StreamExt;
use mcp_ws_transport::{
    client::{Connect, ReconnectPolicy},
    connect,
    event::Event,
    framing::JsonRpc,
    server,
};
use rmcp::{RoleClient, ServiceExt, service::RunningService};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::common::{
    Tools, call, limit, listen,
    proxy::Proxy,
    raw::{Frame, Raw, accepted, initialize, upgrade_request},
    serve_tools, text_of, tool_call,
};

fn fields() -> JsonRpc {
    JsonRpc::default().session_fields()
}

fn config() -> server::Config {
    server::Config::default().framing(fields())
}

fn dial(url: String) -> Connect<RoleClient> {
    let soon = ReconnectPolicy::default().first(Duration::ZERO).min(Duration::from_millis(1));
    connect(url).framing(fields()).reconnect(soon)
}

async fn echo(client: &RunningService<RoleClient, ()>, text: &str) -> String {
    let params = tool_call("echo", json!({ "text": text }));
    let result = client.call_tool(params).await.unwrap();
    result.content[0].as_text().unwrap().text.clone()
}

#[tokio::test]
async fn a_server_names_the_session_and_refuses_what_is_for_another() {
    limit(async {
        let (server, address) = serve_tools(&Tools::default(), config()).await;
        let mut sessions = Vec::new();
        for _ in 0..2 {
            let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
            raw.write(upgrade_request(address, "Sec-WebSocket-Protocol: mcp\r\n")).await;
            let head = raw.head().await.unwrap();
            let answer = raw.ask(&initialize("init")).await;
            let id = answer["result"]["mcpSessionId"].clone();
            assert_eq!(head.get("mcp-session-id"), id.as_str());
            sessions.push((raw, id));
        }
        let [(raw, own), (_, other)] = &mut sessions[..] else { panic!("two") };
        raw.json(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        let named = |id: &Value| {
            let mut call = call(1, "echo", json!({ "text": "hi" }));
            call["params"]["mcpSessionId"] = id.clone();
            call
        };
        assert_eq!(text_of(&raw.ask(&named(own)).await), "hi");
        assert_eq!(text_of(&raw.ask(&call(2, "echo", json!({ "text": "hi" }))).await), "hi");
        let error = raw.ask(&named(other)).await;
        assert_eq!(error["error"], json!({ "code": -32602, "message": "Invalid mcpSessionId" }));
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn a_client_comes_back_to_its_session_by_name() {
    limit(async {
        let (server, address) = serve_tools(&Tools::default(), config()).await;
        for resumes in [false, true] {
            let proxy = Proxy::new(address).await;
            let connect = dial(format!("ws://{}/mcp", proxy.address)).resume(resumes);
            let mut events = connect.events();
            let transport = connect.await.unwrap();
            let reconnect_handle = transport.reconnect_handle().unwrap();
            let client = ().serve(transport).await.unwrap();
            assert_eq!(echo(&client, "one").await, "one");
            let total = server.registry().health().total;
            // The first time it has lost its connection, and the second it wants another.
            for cut in [true, false] {
                if cut {
                    proxy.cut()
                } else {
                    reconnect_handle.reconnect()
                }
                loop {
                    match events.next().await.unwrap() {
                        Event::Restarted { .. } if !resumes => break,
                        Event::Resumed { .. } if resumes => break,
                        Event::Closed(error) => panic!("{error}"),
                        _ => {}
                    }
                }
                assert_eq!(echo(&client, "two").await, "two");
                let health = server.registry().health();
                assert_eq!((health.total, health.active), (total, 1), "resumes: {resumes}");
            }
            client.cancel().await.unwrap();
            while server.registry().health().active > 0 {
                tokio::task::yield_now().await;
            }
        }
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn a_client_says_the_name_that_it_was_told_last() {
    limit(async {
        let (listener, url) = listen().await;
        let client = async { ().serve(dial(url).resume(false).await.unwrap()).await.unwrap() };
        let serve = async |offer: &str, name: Option<&str>| {
            let (stream, _) = listener.accept().await.unwrap();
            let mut raw = Raw::over(stream, false);
            let head = raw.head().await.unwrap();
            assert_eq!(head.all("sec-websocket-protocol"), [offer]);
            raw.write(accepted(&head, "Sec-WebSocket-Protocol: mcp\r\n")).await;
            loop {
                let request = raw.receive().await;
                let mut answer = json!({ "jsonrpc": "2.0", "id": request["id"] });
                if request["method"] != "initialize" {
                    answer["error"] = json!({ "code": -32601, "message": "unknown" });
                    raw.json(&answer).await;
                    continue;
                }
                assert_eq!(request["params"].get("mcpSessionId"), None);
                answer["result"] = json!({
                    "protocolVersion": "2025-11-25", "capabilities": { "tools": {} },
                    "serverInfo": { "name": "raw", "version": "1" },
                });
                if let Some(name) = name {
                    answer["result"]["mcpSessionId"] = name.into();
                }
                raw.json(&answer).await;
                let initialized = raw.receive().await;
                assert_eq!(initialized["method"], "notifications/initialized");
                assert_eq!(initialized["params"]["mcpSessionId"], json!(name));
                return raw;
            }
        };
        let (client, mut raw) = tokio::join!(client, serve("mcp", Some("first")));
        for (name, offer, next) in [
            (Some("first"), "mcp, mcp.session-id.first", Some("no token")),
            (Some("no token"), "mcp", None),
            (None, "mcp", None),
        ] {
            let asked = async {
                let call = raw.receive().await;
                assert_eq!(call["params"]["mcpSessionId"], json!(name));
                let text = &call["params"]["arguments"]["text"];
                let content = json!([{ "type": "text", "text": text }]);
                let result = json!({ "content": content });
                raw.json(&json!({ "jsonrpc": "2.0", "id": call["id"], "result": result })).await;
            };
            assert_eq!(tokio::join!(echo(&client, "hi"), asked).0, "hi");
            raw.reset();
            raw = serve(offer, next).await;
        }
        client.cancel().await.unwrap();
    })
    .await;
}

/// A server that knows SEP-1288 alone tells by 1000 that another connection has taken over.
#[tokio::test]
async fn a_client_that_takes_its_own_session_over_goes_on() {
    limit(async {
        let (listener, url) = listen().await;
        let client = async {
            let transport = dial(url).resume(false).await.unwrap();
            let reconnect_handle = transport.reconnect_handle().unwrap();
            (().serve(transport).await.unwrap(), reconnect_handle)
        };
        let answer = async |raw: &mut Raw| {
            loop {
                let request = raw.receive().await;
                let mut answer = json!({ "jsonrpc": "2.0", "id": request["id"] });
                match request["method"].as_str() {
                    Some("notifications/initialized") => return,
                    Some("initialize") => {
                        answer["result"] = json!({
                            "protocolVersion": "2025-11-25", "capabilities": {}, "mcpSessionId": "a",
                            "serverInfo": { "name": "raw", "version": "1" },
                        });
                    }
                    _ => answer["error"] = json!({ "code": -32601, "message": "unknown" }),
                }
                raw.json(&answer).await;
            }
        };
        let serve = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut raw = Raw::upgraded(stream).await;
            answer(&mut raw).await;
            raw
        };
        let ((client, reconnect_handle), mut old) = tokio::join!(client, serve);
        reconnect_handle.reconnect();
        let (stream, _) = listener.accept().await.unwrap();
        let mut new = Raw::over(stream, false);
        let head = new.head().await.unwrap();
        old.send(Frame::close(1000)).await;
        assert_eq!(old.closed().await.0, 1000);
        new.write(accepted(&head, "Sec-WebSocket-Protocol: mcp\r\n")).await;
        answer(&mut new).await;
        // Otherwise it is the end.
        new.send(Frame::close(1000)).await;
        client.waiting().await.unwrap();
    })
    .await;
}
