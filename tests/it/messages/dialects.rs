//! The older forms of messages, over real connections, with clients of this crate and raw ones.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use mcp_ws_transport::{
    Error,
    client::{Connect, TokenRequest},
    connect,
    error::HandshakeError,
    framing::{Envelope, ToolCall},
    layer::heartbeat,
    server::{BearerTokens, Config, Identity, Server},
    transport,
};
use rmcp::{
    RoleClient, ServiceError, ServiceExt,
    model::{CallToolResult, ErrorCode},
    service::{PeerRequestOptions, RunningService, serve_directly},
};
use serde_json::{Value, json};

use crate::common::{
    Tools,
    handshake::{Recorder, upgrade},
    limit, listen,
    raw::{Raw, TEXT, accepted},
    tool_call,
};

fn text(result: &CallToolResult) -> &str {
    &result.content[0].as_text().unwrap().text
}

async fn host(config: Config) -> (Server, SocketAddr, Tools) {
    let recorder = Recorder::default();
    let (server, address) = recorder.start_server(config).await;
    (server, address, recorder.tools)
}

fn dial(address: SocketAddr) -> Connect<RoleClient> {
    connect(format!("ws://{address}/mcp"))
}

/// A client of a server that knows no `initialize`.
async fn direct(connect: Connect<RoleClient>) -> RunningService<RoleClient, ()> {
    serve_directly((), connect.await.unwrap(), None)
}

#[tokio::test]
async fn any_client_and_any_service_speak_in_envelopes() {
    limit(async {
        for envelope in
            [Envelope::default(), Envelope::default().general(), Envelope::default().sep_1288()]
        {
            let config = Config::default().framing(envelope.clone());
            let (_server, address, tools) = host(config).await;
            let transport = dial(address).framing(envelope).await.unwrap();
            assert_eq!(transport.subprotocol(), None);
            let client = ().serve(transport).await.unwrap();
            let echoed =
                client.call_tool(tool_call("echo", json!({"text": "hello"}))).await.unwrap();
            assert_eq!(text(&echoed), "hello");
            let unknown = client.call_tool(tool_call("nope", json!({}))).await.unwrap_err();
            let ServiceError::McpError(error) = unknown else { panic!("{unknown}") };
            assert_eq!(error.code, ErrorCode::INVALID_PARAMS);

            let calls = (0..64).map(|number| {
                let client = client.peer().clone();
                async move {
                    let number = number.to_string();
                    let echo = tool_call("echo", json!({"text": number}));
                    assert_eq!(text(&client.call_tool(echo).await.unwrap()), number);
                }
            });
            futures::future::join_all(calls).await;

            // What is given up here is cancelled there.
            let request = rmcp::model::CallToolRequest::new(tool_call("wait", json!({})));
            let options = PeerRequestOptions::no_options();
            let waiting = client.send_cancellable_request(request.into(), options).await.unwrap();
            tools.begun(1).await;
            waiting.cancel(None).await.unwrap();
            client.call_tool(tool_call("echo", json!({}))).await.unwrap();
            client.cancel().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn tools_are_called_where_nothing_is_initialized() {
    limit(async {
        let config = Config::default().framing(Envelope::default());
        let (_envelopes, address, _) = host(config).await;
        let bare = direct(dial(address).framing(Envelope::default().bare_tools())).await;
        let config = Config::default().framing(ToolCall::default()).in_band_authentication();
        let (_calls, address, _) = host(config).await;
        let guide = direct(dial(address).framing(ToolCall::default())).await;
        for client in [bare, guide] {
            let echoed =
                client.call_tool(tool_call("echo", json!({"text": "hello"}))).await.unwrap();
            let whole: Value = serde_json::from_str(text(&echoed)).unwrap();
            assert_eq!(whole["content"][0]["text"], "hello", "a tool without structured content");
            assert_eq!(echoed.structured_content, Some(whole));
            let unknown = client.call_tool(tool_call("nope", json!({}))).await.unwrap_err();
            assert!(matches!(unknown, ServiceError::McpError(_)), "{unknown}");
            client.cancel().await.unwrap();
        }
        // Nobody is asked here, which is said to those who ask to be.
        let mut raw = upgrade(address, "").await;
        let answer = raw.ask(&json!({"id": "auth", "token": "anything"})).await;
        assert_eq!(answer, json!({"id": "auth", "success": true}));
    })
    .await;
}

#[tokio::test]
async fn what_has_no_form_fails_at_once() {
    limit(async {
        let (_server, address, _) = host(Config::default().framing(ToolCall::default())).await;
        let client = direct(dial(address).framing(ToolCall::default())).await;
        let error = client.list_tools(None).await.unwrap_err();
        assert!(error.to_string().contains("a request other than tools/call"), "{error}");
        client.call_tool(tool_call("echo", json!({}))).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn answers_without_an_id_come_in_order_and_others_overtake_them() {
    limit(async {
        let (_server, address, tools) =
            host(Config::default().framing(Envelope::default())).await;
        let mut raw = upgrade(address, "").await;
        let ask = |tool: &str, text: &str| {
            json!({"type": "mcp_request", "request": {"method": tool, "params": {"text": text}}})
        };
        raw.json(&ask("wait", "")).await;
        tools.begun(1).await;
        for number in 0..100 {
            raw.json(&ask("echo", &number.to_string())).await;
        }
        let mut named = ask("echo", "named");
        named["requestId"] = "n".into();
        assert_eq!(raw.ask(&named).await["requestId"], "n");
        tools.gate.notify_one();
        let text_of = |answer: Value| answer["result"]["content"][0]["text"].clone();
        assert_eq!(text_of(raw.receive().await), "waited");
        for number in 0..100 {
            assert_eq!(text_of(raw.receive().await), number.to_string());
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_asks_for_a_sign_of_life_in_its_own_form() {
    limit(async {
        for (framing, ping, pong) in [
            (0, json!("ping"), json!({"type": "pong", "timestamp": "now"})),
            (1, json!("ping"), json!({"messageType": "pong", "timestamp": 1})),
        ] {
            let (listener, url) = listen().await;
            let layers = transport::Config::default().heartbeat(
                heartbeat::Config::default()
                    .ping_interval(Duration::from_millis(20))
                    .pong_timeout(Duration::from_millis(1500)),
            );
            let connect = connect(url).no_reconnect().transport(layers);
            let connect = match framing {
                0 => connect.framing(Envelope::default()),
                _ => connect.framing(ToolCall::default()),
            };
            let server = async {
                let (stream, _) = listener.accept().await.unwrap();
                let mut raw = Raw::over(stream, false);
                let head = raw.head().await.unwrap();
                assert_eq!(head.get("sec-websocket-protocol"), None);
                raw.write(accepted(&head, "")).await;
                raw
            };
            let (client, mut raw) = tokio::join!(direct(connect), server);
            for _ in 0..3 {
                let frame = raw.next().await.unwrap();
                assert_eq!(frame.opcode, TEXT);
                let told: Value = serde_json::from_slice(&frame.payload).unwrap();
                assert!(told["type"] == ping || told["messageType"] == ping, "{told}");
                raw.json(&pong).await;
            }
            assert!(!client.is_transport_closed());
            // Now that nothing is said any more, the client is gone.
            client.waiting().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_takes_no_longer_than_it_may() {
    limit(async {
        let config = Config::default().request_timeout(Duration::from_millis(50));
        let (_server, address, tools) = host(config).await;
        let mut raw = Raw::initialized(address).await;
        let answer = raw.ask(&crate::common::call("slow", "uncancellable", json!({}))).await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("slow"), &json!(-32001)));
        assert_eq!(answer["error"]["data"]["reason"], "timed_out");
        tools.begun(1).await;
        raw.ping().await;
    })
    .await;
}

#[tokio::test]
async fn a_client_says_who_it_is_within_the_connection() {
    limit(async {
        let config = || {
            let tokens = BearerTokens::default().token("s3cr3t", Identity::new("alice"));
            Config::default().authenticator(tokens).in_band_authentication()
        };
        let (_json, json, _) = host(config()).await;
        let (_envelopes, envelopes, _) = host(config().framing(Envelope::default())).await;
        let (_calls, calls, _) = host(config().framing(ToolCall::default())).await;
        let dial = |form| match form {
            0 => dial(json),
            1 => dial(envelopes).framing(Envelope::default().bare_tools()),
            _ => dial(calls).framing(ToolCall::default()),
        };
        for form in 0..3 {
            let connect = dial(form).bearer("s3cr3t").authenticate_in_band();
            let client = match form {
                0 => ().serve(connect.await.unwrap()).await.unwrap(),
                _ => direct(connect).await,
            };
            client.call_tool(tool_call("echo", json!({}))).await.unwrap();
            client.cancel().await.unwrap();

            let wrong = dial(form).bearer("wrong").authenticate_in_band().await.unwrap_err();
            let Error::Handshake(HandshakeError::Refused(refusal)) = wrong else {
                panic!("{wrong}")
            };
            assert_eq!((refusal.status.as_u16(), &*refusal.body), (401, "Authentication failed"));

            // A token that was refused is asked for anew, once.
            let tokens = move |request: TokenRequest| async move {
                Ok::<_, Infallible>(if request.refused { "s3cr3t" } else { "old" }.to_owned())
            };
            drop(dial(form).bearer_provider(tokens).authenticate_in_band().await.unwrap());

            let none = dial(form).authenticate_in_band();
            let basic = dial(form).header("authorization", "Basic eDp5").authenticate_in_band();
            for connect in [none, basic] {
                let error = connect.await.unwrap_err();
                assert!(matches!(error, Error::Handshake(HandshakeError::Invalid(_))), "{error}");
            }
        }
    })
    .await;
}
