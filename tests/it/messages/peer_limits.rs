//! Each side keeps to what the other takes: the size of a message, and the number of requests.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all, stream::FuturesUnordered};
use mcp_ws_transport::{
    State, accept,
    client::{Connect, ToolClient, ToolError},
    connect,
    framing::{Envelope, ToolCall},
    layer::{correlation, socket},
    server::{self, Config},
    transport,
};
use rmcp::{
    ClientHandler, ErrorData, RoleClient, RoleServer, ServiceError, ServiceExt,
    model::{
        CallToolRequest, ClientNotification, CustomNotification, CustomRequest, CustomResult,
        ServerRequest,
    },
    service::{Peer, PeerRequestOptions, RequestContext, RunningService, serve_directly},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::common::{
    Observer, Tools, call, host, limit, listen,
    raw::{Frame, Raw, accepted, upgrade_request},
    scale,
    scripted::{Link, Scene, client, immediate_reconnect, result, session},
    serve_tools, tool_call, within,
};

type Client = RunningService<RoleClient, ()>;

type Form = fn(Connect<RoleClient>) -> Connect<RoleClient>;

/// Default limit of a server.
const TAKES: usize = 4 << 20;

const LARGE: usize = 5 << 20;

async fn echo(client: &Peer<RoleClient>, text: &str) -> Result<String, ServiceError> {
    let result = client.call_tool(tool_call("echo", json!({ "text": text }))).await?;
    Ok(result.content[0].as_text().unwrap().text.clone())
}

/// Returns the error that ended a call.
fn error_of<T: std::fmt::Debug>(result: Result<T, ServiceError>) -> ErrorData {
    match result.unwrap_err() {
        ServiceError::McpError(error) => error,
        other => panic!("{other:?}"),
    }
}

/// Asserts that a call was not sent, since it has more than `size` bytes where `limit` are taken.
fn assert_too_large(error: &ErrorData, size: usize, limit: usize) {
    let data = error.data.as_ref().unwrap();
    assert_eq!((error.code.0, &data["reason"]), (-32000, &json!("not_sent")), "{error:?}");
    assert_eq!(data["limit"], limit);
    let told = data["size"].as_u64().unwrap() as usize;
    assert!((size..size + 1000).contains(&told), "{told}");
    for number in [told, limit] {
        assert!(error.message.contains(&number.to_string()), "{}", error.message);
    }
}

/// Small calls around a large one: that fails, and they do not notice.
async fn a_large_call_among_small_ones(tools: &Tools, client: &Client) {
    let waiting = {
        let client = client.peer().clone();
        tokio::spawn(async move { client.call_tool(tool_call("wait", json!({}))).await })
    };
    tools.begun(1).await;
    let large = "x".repeat(LARGE);
    let (before, refused, after) =
        tokio::join!(echo(client, "a"), echo(client, &large), echo(client, "b"));
    assert_eq!((before.unwrap().as_str(), after.unwrap().as_str()), ("a", "b"));
    assert_too_large(&error_of(refused), LARGE, TAKES);
    tools.gate.notify_waiters();
    assert!(waiting.await.unwrap().is_ok());
    assert_eq!(echo(client, "c").await.unwrap(), "c");
}

#[tokio::test]
async fn a_call_larger_than_the_server_takes_fails_alone() {
    limit(async {
        for resume in [true, false] {
            let tools = Tools::default();
            let (server, address) = serve_tools(&tools, Config::default()).await;
            let connect = connect(format!("ws://{address}/mcp")).resume(resume);
            let mut state = connect.state();
            let client = ().serve(connect.await.unwrap()).await.unwrap();
            state.mark_unchanged();
            a_large_call_among_small_ones(&tools, &client).await;
            assert!(!state.has_changed().unwrap(), "the connection is the same");
            assert_eq!(server.registry().list().len(), 1);

            let padding = json!({ "padding": "x".repeat(LARGE) });
            let large = CustomNotification::new("acme/large", Some(padding));
            let failed = client.send_notification(ClientNotification::from(large)).await;
            let error = failed.unwrap_err().to_string();
            assert!(error.contains("4194304") && error.contains("52429"), "{error}");
            assert_eq!(echo(&client, "d").await.unwrap(), "d");
        }
    })
    .await;
}

#[tokio::test]
async fn whoever_accepts_a_stream_of_their_own_says_what_they_take() {
    limit(async {
        let tools = Tools::default();
        let (address, mut connections) = host(tools.clone(), transport::Config::default()).await;
        let connect = connect(format!("ws://{address}/mcp")).no_reconnect();
        let client = ().serve(connect.await.unwrap()).await.unwrap();
        let Observer { state, .. } = connections.recv().await.unwrap();
        a_large_call_among_small_ones(&tools, &client).await;
        assert_eq!(*state.borrow(), State::Connected);
    })
    .await;
}

#[tokio::test]
async fn the_older_forms_of_messages_keep_to_it_too() {
    limit(async {
        let tools = Tools::default();
        let configs: [(server::Config, Form); 3] = [
            (Config::default().framing(Envelope::default()), |connect| {
                connect.framing(Envelope::default())
            }),
            (Config::default().framing(Envelope::default()), |connect| {
                connect.framing(Envelope::default().bare_tools())
            }),
            (Config::default().framing(ToolCall::default()), |connect| {
                connect.framing(ToolCall::default())
            }),
        ];
        for (number, (config, form)) in configs.into_iter().enumerate() {
            let (_server, address) = serve_tools(&tools, config).await;
            let transport = form(connect(format!("ws://{address}/mcp"))).await.unwrap();
            let client = serve_directly::<RoleClient, _, _, _, _>((), transport, None);
            let large = "x".repeat(LARGE);
            let calls = ["a", &large, "b"]
                .map(|text| client.call_tool(tool_call("echo", json!({ "text": text }))));
            let [before, refused, after] = &mut join_all(calls).await[..] else { panic!() };
            assert!(before.is_ok() && after.is_ok(), "{number}: {before:?} {after:?}");
            let refused = std::mem::replace(refused, Err(ServiceError::UnexpectedResponse));
            assert_too_large(&error_of(refused), LARGE, TAKES);
        }
    })
    .await;
}

#[tokio::test]
async fn a_toolbox_says_both_sizes() {
    limit(async {
        let (listener, url) = listen().await;
        let serving = tokio::spawn(async move {
            let mut raw = accept_with_limits(&listener, "Mcp-Max-Message-Bytes: 5000\r\n").await;
            raw.answer_initialize().await;
            let list = raw.receive().await;
            let tools = json!([{ "name": "echo", "inputSchema": { "type": "object" } }]);
            let result = json!({ "tools": tools });
            raw.json(&json!({ "jsonrpc": "2.0", "id": list["id"], "result": result })).await;
            raw
        });
        let tools = ToolClient::connect(connect(url)).await.unwrap();
        let text = "x".repeat(6000);
        let error = tools.call::<Value>("echo", json!({ "text": text })).await.unwrap_err();
        assert!(matches!(error, ToolError::NotSent(_)), "{error:?}");
        let shown = error.to_string();
        assert!(shown.starts_with("not sent: ") && shown.contains("5000"), "{shown}");
        drop(serving.await.unwrap());
    })
    .await;
}

/// The server's end of the next connection, which says that it takes so much.
async fn accept_with_limits(listener: &TcpListener, limits: &str) -> Raw {
    let (stream, _) = listener.accept().await.unwrap();
    let mut raw = Raw::over(stream, false);
    let head = raw.head().await.unwrap();
    assert_eq!(head.get("mcp-max-message-bytes"), Some("16777216"));
    assert_eq!(head.get("mcp-max-requests"), Some("1024"));
    raw.write(accepted(&head, &format!("Sec-WebSocket-Protocol: mcp\r\n{limits}"))).await;
    raw
}

/// A client of a server that takes so much.
async fn client_of(limits: &str) -> (Client, Raw) {
    let (listener, url) = listen().await;
    let client = async { ().serve(connect(url).await.unwrap()).await.unwrap() };
    let server = async {
        let mut raw = accept_with_limits(&listener, limits).await;
        raw.answer_initialize().await;
        raw
    };
    tokio::join!(client, server)
}

/// A client that is spoken for by hand, and takes so much.
async fn raw_client(address: SocketAddr, limits: &str) -> Raw {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut raw = Raw::over(stream, true);
    let offer = format!("Sec-WebSocket-Protocol: mcp\r\n{limits}");
    raw.write(upgrade_request(address, &offer)).await;
    let head = raw.head().await.unwrap();
    assert_eq!(head.get("mcp-max-message-bytes"), Some("4194304"));
    assert_eq!(head.get("mcp-max-requests"), Some("1024"));
    raw.initialize().await;
    raw
}

#[tokio::test]
async fn a_result_larger_than_the_client_takes_is_an_error_in_its_place() {
    limit(async {
        let (_server, address) = serve_tools(&Tools::default(), Config::default()).await;
        let mut raw = raw_client(address, "Mcp-Max-Message-Bytes: 5000\r\n").await;
        let failed = raw.ask(&call(1, "big", json!({ "size": 6000 }))).await;
        assert_eq!((&failed["id"], &failed["error"]["code"]), (&json!(1), &json!(-32603)));
        let message = failed["error"]["message"].as_str().unwrap();
        assert!(message.contains(" 60") && message.contains("5000"), "{message}");
        // An error is an answer too.
        let unknown = "y".repeat(6000);
        let failed = raw.ask(&call(2, &unknown, json!({}))).await;
        assert_eq!((&failed["id"], &failed["error"]["code"]), (&json!(2), &json!(-32603)));
        raw.ping().await;

        // As this crate's client says it, which takes less than the server would send.
        for resume in [true, false] {
            let config = transport::Config::default()
                .socket(socket::Config::default().max_message_size(64 << 10));
            let connect = connect(format!("ws://{address}/mcp")).transport(config).resume(resume);
            let mut state = connect.state();
            let client = ().serve(connect.await.unwrap()).await.unwrap();
            state.mark_unchanged();
            let error =
                error_of(client.call_tool(tool_call("big", json!({ "size": 70_000 }))).await);
            assert_eq!(error.code.0, -32603, "{error:?}");
            assert!(error.message.contains("65536"), "{error:?}");
            assert_eq!(echo(&client, "on").await.unwrap(), "on");
            assert!(!state.has_changed().unwrap());
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_larger_than_the_client_takes_fails_alone() {
    limit(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = async {
            let (stream, _) = listener.accept().await.unwrap();
            let transport = accept::<RoleServer, _>(stream).await.unwrap();
            Tools::default().serve(transport).await.unwrap()
        };
        let (server, mut raw) =
            tokio::join!(serving, raw_client(address, "Mcp-Max-Message-Bytes: 5000\r\n"));
        let padding = json!({ "padding": "x".repeat(6000) });
        let large = CustomRequest::new("acme/large", Some(padding));
        let refused = server.peer().send_request(ServerRequest::CustomRequest(large)).await;
        assert_too_large(&error_of(refused), 6000, 5000);
        raw.ping().await;
    })
    .await;
}

#[tokio::test]
async fn a_session_says_what_the_server_takes_and_says_it_anew_on_the_next_link() {
    limit(async {
        let limits = |session: String, bytes: usize| {
            session.replace("\"window_s\"", &format!("\"max_message\":{bytes},\"window_s\""))
        };
        let (listener, url) = listen().await;
        let dialling = client(url);
        let serving = async {
            let mut link = Link::new(&listener).await;
            assert_eq!(link.open().await, json!({}));
            link.begins(limits(session("s-1", "one", 0, false), 5000)).await
        };
        let (client, link) = tokio::join!(dialling, serving);
        assert_too_large(&error_of(echo(&client, &"x".repeat(6000)).await), 6000, 5000);

        let (mut link, _) = link.cut(&listener).await;
        link.raw.text(limits(session("s-1", "two", link.received, true), 8000)).await;
        let (answered, ()) = tokio::join!(
            async {
                // It has to know of the next link.
                link_is_back(&client).await;
                echo(&client, &"x".repeat(7000)).await
            },
            async {
                loop {
                    let call = link.receive().await;
                    let done = call["params"]["arguments"]["text"] != "on";
                    link.answer(&call, "done").await;
                    if done {
                        break;
                    }
                }
            }
        );
        assert_eq!(answered.unwrap(), "done");
        assert_too_large(&error_of(echo(&client, &"x".repeat(9000)).await), 9000, 8000);
    })
    .await;
}

/// A small call has its answer.
async fn link_is_back(client: &Client) {
    echo(client, "on").await.unwrap();
}

#[tokio::test]
async fn no_more_requests_are_sent_than_the_server_takes() {
    limit(async {
        let (client, mut raw) = client_of("Mcp-Max-Requests: 2\r\n").await;
        let mut calls: Vec<_> = Vec::new();
        for number in 0..5 {
            let client = client.clone();
            calls.push(tokio::spawn(async move { echo(&client, &number.to_string()).await }));
            tokio::task::yield_now().await;
        }
        let answer = |call: &Value| {
            let content = json!([{ "type": "text", "text": call["params"]["arguments"]["text"] }]);
            json!({ "jsonrpc": "2.0", "id": call["id"], "result": { "content": content } })
        };
        let (first, second) = (raw.receive().await, raw.receive().await);
        raw.assert_silent(Duration::from_millis(50)).await;
        // What is no request does not wait.
        raw.ping().await;
        raw.json(&answer(&second)).await;
        let third = raw.receive().await;
        assert_eq!(third["params"]["arguments"]["text"], "2");
        raw.json(&answer(&third)).await;
        let fourth = raw.receive().await;
        raw.assert_silent(Duration::from_millis(50)).await;
        for call in [&first, &fourth] {
            raw.json(&answer(call)).await;
        }
        let fifth = raw.receive().await;
        raw.json(&answer(&fifth)).await;
        for (number, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.unwrap().unwrap(), number.to_string());
        }
    })
    .await;
}

/// Makes 100 calls of a server that has two places, which the first two calls still take after
/// their callers have given up. It refuses all others so long, and answers each at once then.
/// Returns the texts of the calls that it answered, in order, and the number of its refusals.
async fn overloaded_calls(
    client: Client,
    mut raw: Raw,
    patience: Duration,
) -> (Vec<String>, usize) {
    let mut calls = Vec::new();
    for number in 0..100 {
        let client = client.clone();
        calls.push(tokio::spawn(async move {
            if number >= 2 {
                return echo(&client, &number.to_string()).await;
            }
            let mut options = PeerRequestOptions::default();
            options.timeout = Some(Duration::from_millis(200));
            let call = CallToolRequest::new(tool_call("echo", json!({ "text": "given up" })));
            let call = client.send_request_with_option(call.into(), options).await?;
            call.await_response().await.map(|_| String::new())
        }));
        tokio::task::yield_now().await;
    }
    let serving = tokio::spawn(async move {
        let (mut answered, mut refused, mut taken) = (Vec::new(), 0, 0);
        let begun = Instant::now();
        while answered.len() < 98 {
            let call = raw.receive().await;
            if call["method"] != "tools/call" {
                continue;
            }
            taken += 1;
            if taken <= 2 {
                assert_eq!(call["params"]["arguments"]["text"], "given up");
            } else if begun.elapsed() < patience {
                refused += 1;
                raw.json(&too_many(&call)).await;
            } else {
                let text = &call["params"]["arguments"]["text"];
                answered.push(text.as_str().unwrap().to_owned());
                let content = json!([{ "type": "text", "text": text }]);
                let result = json!({ "content": content });
                raw.json(&json!({ "jsonrpc": "2.0", "id": call["id"], "result": result })).await;
            }
        }
        (answered, refused, raw)
    });
    for (number, call) in calls.into_iter().enumerate() {
        let answer = call.await.unwrap();
        match number {
            0 | 1 => assert!(matches!(answer, Err(ServiceError::Timeout { .. })), "{answer:?}"),
            _ => assert_eq!(answer.unwrap(), number.to_string()),
        }
    }
    let (answered, refused, _raw) = serving.await.unwrap();
    (answered, refused)
}

fn too_many(call: &Value) -> Value {
    let data = json!({ "reason": "too_many_requests", "limit": 2 });
    let error = json!({ "code": -32000, "message": "too many requests in flight", "data": data });
    json!({ "jsonrpc": "2.0", "id": call["id"], "error": error })
}

/// The places of calls that their callers have given up are not free before their handlers end.
#[tokio::test]
async fn calls_that_a_full_server_refuses_wait_until_it_takes_them() {
    limit(async {
        let in_order: Vec<_> = (2..100).map(|number| number.to_string()).collect();
        for (limits, at_most) in [("Mcp-Max-Requests: 2\r\n", 10), ("", 98 + 10)] {
            for once in [false, true] {
                let (listener, url) = listen().await;
                let connect = connect(url);
                let connect = if once { connect.no_reconnect() } else { connect };
                let client = async { ().serve(connect.await.unwrap()).await.unwrap() };
                let server = async {
                    let mut raw = accept_with_limits(&listener, limits).await;
                    raw.answer_initialize().await;
                    raw
                };
                let (client, raw) = tokio::join!(client, server);
                let (answered, refused) =
                    overloaded_calls(client, raw, Duration::from_secs(1)).await;
                assert_eq!(answered, in_order);
                assert!((1..at_most).contains(&refused), "{limits:?}, {once}: {refused}");
            }
        }
    })
    .await;
}

/// The calls were not executed, and say so where the connection ends before the server takes them.
#[tokio::test]
async fn calls_that_a_full_server_has_refused_end_unsent_with_the_connection() {
    limit(async {
        let (listener, url) = listen().await;
        let client = async { ().serve(connect(url).no_reconnect().await.unwrap()).await.unwrap() };
        let server = async {
            let mut raw = accept_with_limits(&listener, "").await;
            raw.answer_initialize().await;
            raw
        };
        let (client, mut raw) = tokio::join!(client, server);
        let call = {
            let client = client.clone();
            tokio::spawn(async move { echo(&client, "refused").await })
        };
        let refused = raw.receive().await;
        raw.json(&too_many(&refused)).await;
        raw.ping().await;
        drop(raw);
        assert_eq!(error_of(call.await.unwrap()).data.unwrap()["reason"], "not_sent");
    })
    .await;
}

/// A real server, whose handlers do not heed that they are cancelled.
#[tokio::test]
async fn calls_wait_for_handlers_that_go_on_after_their_callers_have_left() {
    limit(async {
        let tools = Tools::default();
        let layers =
            transport::Config::default().correlation(correlation::Config::default().max_inbound(2));
        let (_server, address) = serve_tools(&tools, Config::default().transport(layers)).await;
        let connect = connect(format!("ws://{address}/mcp"));
        let client = ().serve(connect.await.unwrap()).await.unwrap();
        for _ in 0..2 {
            let mut options = PeerRequestOptions::default();
            options.timeout = Some(Duration::from_millis(50));
            let call = CallToolRequest::new(tool_call("uncancellable", json!({})));
            let call = client.send_request_with_option(call.into(), options).await.unwrap();
            assert!(matches!(call.await_response().await, Err(ServiceError::Timeout { .. })));
        }
        let calls = (0..100).map(|number| {
            let client = client.peer().clone();
            async move { echo(&client, &number.to_string()).await.unwrap() }
        });
        let (answers, ()) = tokio::join!(join_all(calls), async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            tools.gate.notify_waiters();
        });
        assert_eq!(answers, (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
    })
    .await;
}

/// A client that asks the server something before it answers.
struct Asking;

impl ClientHandler for Asking {
    async fn on_custom_request(
        &self,
        _: CustomRequest,
        context: RequestContext<RoleClient>,
    ) -> Result<CustomResult, ErrorData> {
        let text = echo(&context.peer, "nested").await.unwrap();
        Ok(CustomResult::new(json!({ "text": text })))
    }
}

/// All that the server has may wait for that.
#[tokio::test]
async fn a_call_within_an_answer_does_not_wait_for_the_call_that_waits_for_it() {
    limit(async {
        let (listener, url) = listen().await;
        let client = async { Asking.serve(connect(url).await.unwrap()).await.unwrap() };
        let server = async {
            let mut raw = accept_with_limits(&listener, "Mcp-Max-Requests: 1\r\n").await;
            raw.answer_initialize().await;
            raw
        };
        let (client, mut raw) = tokio::join!(client, server);
        let calls = ["first", "second"].map(|text| {
            let client = client.peer().clone();
            tokio::spawn(async move { echo(&client, text).await })
        });
        let first = raw.receive().await;
        raw.json(&json!({ "jsonrpc": "2.0", "id": "q", "method": "question" })).await;
        let nested = raw.receive().await;
        assert_eq!(nested["params"]["arguments"]["text"], "nested", "{nested}");
        let answer = |call: &Value| {
            let content = json!([{ "type": "text", "text": call["params"]["arguments"]["text"] }]);
            json!({ "jsonrpc": "2.0", "id": call["id"], "result": { "content": content } })
        };
        raw.json(&answer(&nested)).await;
        assert_eq!(raw.receive().await["result"]["text"], "nested");
        raw.json(&answer(&first)).await;
        let second = raw.receive().await;
        raw.json(&answer(&second)).await;
        for call in calls {
            call.await.unwrap().unwrap();
        }
    })
    .await;
}

/// Far more than the server takes at a time, and more bytes than any window.
#[tokio::test]
async fn as_many_calls_as_there_are_all_have_their_answers() {
    within(Duration::from_secs(120), async {
        let calls = scale(15_000, 60_000);
        let layers = transport::Config::default()
            .correlation(correlation::Config::default().max_inbound(100));
        let config = Config::default().transport(layers);
        let (_server, address) = serve_tools(&Tools::default(), config).await;
        for resume in [true, false] {
            let connect = connect(format!("ws://{address}/mcp")).resume(resume);
            let client = ().serve(connect.await.unwrap()).await.unwrap();
            let mut calling: FuturesUnordered<_> = (0..calls)
                .map(|number| {
                    let client = client.peer().clone();
                    async move { (number, echo(&client, &number.to_string()).await) }
                })
                .collect();
            let mut answered = 0;
            while let Some((number, answer)) = calling.next().await {
                assert_eq!(answer.unwrap(), number.to_string());
                answered += 1;
            }
            assert_eq!(answered, calls);
            client.cancel().await.unwrap();
        }
    })
    .await;
}

/// The server says nothing, closes with 1009 where it cannot help it, and lives on.
#[tokio::test]
async fn a_client_lives_on_that_was_closed_for_one_large_call() {
    limit(async {
        let tools = Tools::default();
        let address = crate::common::host_without_limits(tools.clone()).await;
        let client =
            ().serve(immediate_reconnect(connect(format!("ws://{address}/mcp"))).await.unwrap());
        let client = client.await.unwrap();
        assert_eq!(echo(&client, "a").await.unwrap(), "a");
        let large = "x".repeat(LARGE);
        let (refused, after) = tokio::join!(echo(&client, &large), echo(&client, "b"));
        let error = error_of(refused);
        assert_eq!(error.data.as_ref().unwrap()["reason"], "not_sent", "{error:?}");
        assert!(error.message.contains("1009") && error.message.contains("52430"), "{error:?}");
        // It was sent behind that, so it never arrived, and is sent again.
        assert_eq!(after.unwrap(), "b");
        assert_eq!(echo(&client, "c").await.unwrap(), "c");
        let again = error_of(echo(&client, &large).await);
        assert_eq!(again.data.unwrap()["reason"], "not_sent");
        assert_eq!(echo(&client, "d").await.unwrap(), "d");
    })
    .await;
}

/// The client has a session to lose.
#[tokio::test]
async fn a_session_that_ends_for_one_large_call_is_followed_by_another() {
    limit(async {
        let (scene, mut link) = Scene::new().await;
        let (calling, _) = scene.called(&mut link).await;
        let client = scene.client.peer().clone();
        let large = tokio::spawn(async move { echo(&client, &"x".repeat(LARGE)).await });
        assert_eq!(link.receive().await["method"], "tools/call");
        link.raw.send(Frame::close(1009)).await;
        let mut next = Link::new(&scene.listener).await;
        assert_eq!(next.open().await, json!({}), "what would be sent again would be refused again");
        let mut next = next.begins(session("s-2", "two", 0, false)).await;
        assert_eq!(result(calling).await, Err("outcome_unknown".into()));
        let error = error_of(large.await.unwrap());
        assert_eq!(error.data.unwrap()["reason"], "not_sent");
        let (calling, call) = scene.called(&mut next).await;
        next.answer(&call, "done").await;
        assert_eq!(result(calling).await.unwrap(), "done");
    })
    .await;
}

/// The message that is too large may be the answer: then this side closes, and goes on as well.
#[tokio::test]
async fn a_client_lives_on_that_has_closed_for_one_large_answer() {
    limit(async {
        let address = crate::common::host_without_limits(Tools::default()).await;
        let config = transport::Config::default()
            .socket(socket::Config::default().max_message_size(64 << 10));
        let connect = immediate_reconnect(connect(format!("ws://{address}/mcp"))).transport(config);
        let client = ().serve(connect.await.unwrap()).await.unwrap();
        let error = error_of(client.call_tool(tool_call("big", json!({ "size": 70_000 }))).await);
        let data = error.data.unwrap();
        assert_eq!(data["reason"], "outcome_unknown");
        assert!(data["cause"].as_str().unwrap().contains("65536"), "{data}");
        assert_eq!(echo(&client, "on").await.unwrap(), "on");
    })
    .await;
}

#[tokio::test]
async fn a_server_that_closes_so_time_and_again_is_not_dialled_for_ever() {
    limit(async {
        let (listener, url) = listen().await;
        let serving = tokio::spawn(async move {
            let mut served = 0;
            while let Ok(Ok((stream, _))) =
                tokio::time::timeout(Duration::from_secs(1), listener.accept()).await
            {
                let mut raw = Raw::upgraded(stream).await;
                raw.answer_initialize().await;
                raw.send(Frame::close(1009)).await;
                served += 1;
            }
            served
        });
        let connect = immediate_reconnect(connect(url));
        let mut state = connect.state();
        let client = ().serve(connect.await.unwrap()).await.unwrap();
        state.wait_for(|state| matches!(state, State::Closed(_))).await.unwrap();
        assert_eq!(serving.await.unwrap(), 6);
        client.cancel().await.unwrap();
    })
    .await;
}
