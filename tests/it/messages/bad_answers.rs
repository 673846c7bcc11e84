//! A client whose server answers badly: each call ends once, and the link stays open.

use std::time::Duration;

use futures::StreamExt;
use mcp_ws_transport::{
    connect,
    event::Event,
    layer::{correlation, framed, socket},
    transport::Config,
};
use rmcp::{
    RoleClient, ServiceError, ServiceExt,
    model::{CallToolRequestParams, CallToolResult},
    service::RunningService,
};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::common::{
    client_and_raw, host, limit, listen,
    logs::Log,
    raw::{BINARY, Frame, Raw},
    tool_call, within,
};

type Call = JoinHandle<Result<CallToolResult, ServiceError>>;

/// A call that is under way, and its id.
async fn call(client: &RunningService<RoleClient, ()>, raw: &mut Raw) -> (Call, Value) {
    let peer = client.peer().clone();
    let call =
        tokio::spawn(async move { peer.call_tool(CallToolRequestParams::new("echo")).await });
    let request = raw.receive().await;
    assert_eq!(request["method"], "tools/call");
    (call, request["id"].clone())
}

async fn end(call: Call) -> Result<CallToolResult, ServiceError> {
    within(Duration::from_secs(1), call).await.unwrap()
}

/// Asserts that a call is answered.
async fn assert_answers(client: &RunningService<RoleClient, ()>, raw: &mut Raw) {
    let (call, id) = call(client, raw).await;
    raw.json(&json!({ "jsonrpc": "2.0", "id": id, "result": result() })).await;
    end(call).await.unwrap();
}

fn result() -> Value {
    json!({ "content": [{ "type": "text", "text": "hello" }] })
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_ends_its_call() {
    limit(async {
        let (client, _, mut raw) = client_and_raw(connect).await;
        for (what, answer) in [
            ("a result of another type", r#"{"jsonrpc":"2.0","id":ID,"result":7}"#),
            ("no version", r#"{"id":ID,"result":{"content":[]}}"#),
            ("version 1.0", r#"{"jsonrpc":"1.0","id":ID,"result":{"content":[]}}"#),
            (
                "a result and an error",
                r#"{"jsonrpc":"2.0","id":ID,"result":{},"error":{"code":1,"message":"m"}}"#,
            ),
            ("an error that is none", r#"{"jsonrpc":"2.0","id":ID,"error":"boom"}"#),
            ("an error without a code", r#"{"jsonrpc":"2.0","id":ID,"error":{"message":"m"}}"#),
            (
                "an error with a large code",
                r#"{"jsonrpc":"2.0","id":ID,"error":{"code":99999999999,"message":"m"}}"#,
            ),
            ("neither a result nor an error", r#"{"jsonrpc":"2.0","id":ID}"#),
            ("a result null", r#"{"jsonrpc":"2.0","id":ID,"result":null}"#),
            (
                "a result twice",
                r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[]},"result":{"content":[]}}"#,
            ),
            ("content of another type", r#"{"jsonrpc":"2.0","id":ID,"result":{"content":7}}"#),
            (
                "a content nobody knows",
                r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"hologram"}]}}"#,
            ),
        ] {
            let (call, id) = call(&client, &mut raw).await;
            raw.text(answer.replace("ID", &id.to_string())).await;
            assert!(end(call).await.is_err(), "{what}");
            println!("count: 1 answers that cannot be read");
        }
        assert_answers(&client, &mut raw).await;
    })
    .await;
}

/// The call ends with an error that says why, whatever the peer's JSON library has made of its
/// answer.
#[tokio::test]
async fn an_answer_that_is_not_json_ends_its_call_with_the_cause() {
    limit(async {
        let (client, _, mut raw) = client_and_raw(connect).await;
        for (answer, code, cause) in [
            (
                r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[],"structuredContent":{"mean":NaN}}}"#,
                -32700,
                "NaN is no JSON value",
            ),
            (
                r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[],"structuredContent":{"a":-Infinity}}}"#,
                -32700,
                "-Infinity is no JSON value",
            ),
            (r#"{"jsonrpc":"2.0","result":NaN,"id":ID}"#, -32700, "NaN"),
            (
                "{\"jsonrpc\":\"2.0\",\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"a\nb\"}]},\"id\":ID}",
                -32700,
                "control character",
            ),
            (r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"te"#, -32700, "EOF"),
            (r#"{"jsonrpc":"2.0","id":ID,"resu"#, -32700, "EOF"),
            (r#"[{"jsonrpc":"2.0","id":ID,"result":{"content":[]}}]"#, -32600, "batching"),
            (
                r#"[{"jsonrpc":"2.0","id":999,"result":{}},{"jsonrpc":"2.0","id":ID,"result":{}}]"#,
                -32600,
                "batching",
            ),
            (
                "{\"jsonrpc\":\"2.0\",\"id\":998,\"result\":{}}\n{\"jsonrpc\":\"2.0\",\"id\":ID,\"result\":{}}",
                -32700,
                "trailing characters",
            ),
            (
                r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[],"structuredContent":{"a":1e999}}}"#,
                -32600,
                "64-bit float",
            ),
            (r#"{"jsonrpc":"2.0","id":ID,"error":{"code":-32099}}"#, -32099, "no `message`"),
        ] {
            let (call, id) = call(&client, &mut raw).await;
            raw.text(answer.replace("ID", &id.to_string())).await;
            let ServiceError::McpError(error) = end(call).await.unwrap_err() else {
                panic!("{answer}")
            };
            assert_eq!(error.code.0, code, "{answer}: {error:?}");
            let said = "the answer to this call could not be read: ";
            assert!(error.message.starts_with(said), "{answer}: {error:?}");
            assert!(error.message.contains(cause), "{answer}: {error:?}");
            let data = error.data.unwrap_or_default();
            assert_eq!(data["reason"], "unreadable", "{answer}: {data}");
            assert_eq!(data["outcome"], "outcome_unknown", "{answer}: {data}");
            println!("count: 1 answers that cannot be read");
        }
        assert_answers(&client, &mut raw).await;
    })
    .await;
}

/// An id that only might be that of a call ends none.
#[tokio::test]
async fn no_call_ends_by_a_guess() {
    limit(async {
        let (client, _, mut raw) = client_and_raw(connect).await;
        let (first, one) = call(&client, &mut raw).await;
        let (second, two) = call(&client, &mut raw).await;
        for text in [
            r#"{"jsonrpc":"2.0","id":ONE,"result":NaN,"id":TWO}"#,
            r#"{"jsonrpc":"2.0","result":{"id":ONE,"x":NaN}}"#,
            r#"{"jsonrpc":"2.0","result":"say "hi"","id":ONE}"#,
            r#"{"jsonrpc":"2.0","result":{"a":[1,2},"id":ONE}"#,
            r#"{"jsonrpc":"2.0","result":NaN,"id":ONE"#,
            r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"id":ONE,"x":NaN}}"#,
            "Welcome to ONE",
        ] {
            let text = text.replace("ONE", &one.to_string()).replace("TWO", &two.to_string());
            raw.text(text).await;
        }
        for id in [one, two] {
            raw.json(&json!({ "jsonrpc": "2.0", "id": id, "result": result() })).await;
        }
        end(first).await.unwrap();
        end(second).await.unwrap();
    })
    .await;
}

/// The size of an answer once decoded is bounded, and its call ends with both numbers.
#[tokio::test]
async fn an_answer_that_would_take_too_much_ends_its_call() {
    limit(async {
        let (client, _, mut raw) = client_and_raw(|url| {
            let config =
                Config::default().framed(framed::Config::default().max_decoded_size(1 << 20));
            connect(url).transport(config)
        })
        .await;
        let (call, id) = call(&client, &mut raw).await;
        let dense = vec!["{}"; 4000].join(",");
        let content = format!(r#"{{"content":[],"structuredContent":{{"a":[{dense}]}}}}"#);
        raw.text(format!(r#"{{"jsonrpc":"2.0","result":{content},"id":{id}}}"#)).await;
        let ServiceError::McpError(error) = end(call).await.unwrap_err() else { panic!("told so") };
        assert_eq!(error.code.0, -32600, "{error:?}");
        assert!(error.message.contains("more than the limit of 1048576"), "{error:?}");
        let data = error.data.unwrap_or_default();
        assert_eq!(data["limit_bytes"], 1 << 20, "{data}");
        assert!(data["decoded_bytes"].as_u64() > Some(1 << 20), "{data}");
    })
    .await;
}

#[tokio::test]
async fn an_answer_is_understood_however_it_is_written() {
    limit(async {
        let (client, observer, mut raw) = client_and_raw(connect).await;
        let before = observer.stats();
        for answer in [
            r#"{"jsonrpc":"2.0","id":ID,"result":RESULT}"#,
            r#"{"jsonrpc":"2.0","id":"ID","result":RESULT}"#,
            r#"{"result":RESULT,"id":ID,"jsonrpc":"2.0"}"#,
            r#"{"jsonrpc":"2.0","result":RESULT,"id":"ID"}"#,
            "\u{feff}{\"jsonrpc\":\"2.0\",\"id\":ID,\"result\":RESULT}\n",
            r#"{"jsonrpc":"2.0","id":ID,"extra":1,"result":RESULT}"#,
        ] {
            for binary in [false, true] {
                let (call, id) = call(&client, &mut raw).await;
                let answer =
                    answer.replace("ID", &id.to_string()).replace("RESULT", &result().to_string());
                let frame = Frame::text(&answer);
                raw.send(if binary { Frame::new(BINARY, answer.clone()) } else { frame }).await;
                let result = end(call).await.unwrap_or_else(|error| panic!("{answer}: {error}"));
                assert_eq!(result.content[0].as_text().unwrap().text, "hello", "{answer}");
            }
        }
        let after = observer.stats();
        assert_eq!((after.orphans, after.malformed), (before.orphans, before.malformed));
    })
    .await;
}

#[tokio::test]
async fn a_second_answer_and_one_to_another_id_are_dropped() {
    limit(async {
        let (client, observer, mut raw) = client_and_raw(connect).await;
        let before = observer.stats().orphans;
        let (first, id) = call(&client, &mut raw).await;
        let answer = json!({ "jsonrpc": "2.0", "id": id, "result": result() });
        raw.json(&json!({ "jsonrpc": "2.0", "id": 999, "result": result() })).await;
        raw.json(&json!({ "jsonrpc": "2.0", "id": "other", "result": result() })).await;
        raw.json(&answer).await;
        raw.json(&answer).await;
        let error = json!({ "code": 1, "message": "too late" });
        raw.json(&json!({ "jsonrpc": "2.0", "id": id, "error": error })).await;
        end(first).await.unwrap();
        let (next, id) = call(&client, &mut raw).await;
        raw.json(&json!({ "jsonrpc": "2.0", "id": id, "result": result() })).await;
        end(next).await.unwrap();
        assert_eq!(observer.stats().orphans, before + 4);
    })
    .await;
}

/// Rubbish from a server answers nothing and is not answered: two ends that answer each other's
/// errors would never stop.
#[tokio::test]
async fn rubbish_from_a_server_is_not_answered() {
    limit(async {
        let (client, observer, mut raw) = client_and_raw(connect).await;
        let before = observer.stats();
        let rubbish = ["", "hello", "[]", "{}", "7", r#"{"jsonrpc":"2.0","error":{}}"#];
        for text in rubbish {
            raw.text(text).await;
        }
        raw.ping().await;
        let after = observer.stats();
        assert_eq!(after.malformed - before.malformed, rubbish.len() as u64);
        assert_eq!(after.messages_sent - before.messages_sent, 1);
        assert_answers(&client, &mut raw).await;
        // What asks for something by an id is.
        let answer = raw.ask(&json!({ "jsonrpc": "1.0", "id": 5, "method": "ping" })).await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(5), &json!(-32600)));
        raw.ping().await;
    })
    .await;
}

#[tokio::test]
async fn an_answer_past_the_clients_limit_ends_the_link_and_every_call() {
    limit(async {
        let (client, _, mut raw) = client_and_raw(|url| {
            let config = Config::default().socket(socket::Config::default().max_message_size(1000));
            connect(url).transport(config)
        })
        .await;
        let (first, id) = call(&client, &mut raw).await;
        let (second, _) = call(&client, &mut raw).await;
        let text = json!({ "content": [{ "type": "text", "text": "x".repeat(2000) }] });
        raw.json(&json!({ "jsonrpc": "2.0", "id": id, "result": text })).await;
        for call in [first, second] {
            let error = end(call).await.unwrap_err().to_string();
            assert!(error.contains("before the response arrived"), "{error}");
        }
        assert_eq!(raw.closed().await.0, 1009);
    })
    .await;
}

/// A message that this side may not send fails alone.
#[tokio::test]
async fn a_request_past_the_own_limit_fails_alone() {
    limit(async {
        let (client, _, mut raw) = client_and_raw(|url| {
            let config = Config::default().framed(framed::Config::default().max_message_size(1000));
            connect(url).transport(config)
        })
        .await;
        let large = tool_call("echo", json!({ "text": "x".repeat(1000) }));
        let error = client.call_tool(large).await.unwrap_err();
        let ServiceError::McpError(error) = error else { panic!("{error:?}") };
        let data = error.data.unwrap();
        assert_eq!((error.code.0, &data["reason"]), (-32000, &json!("not_sent")));
        assert_eq!(data["limit"], 1000);
        assert_answers(&client, &mut raw).await;
    })
    .await;
}

/// A response that may not be sent is an error in its place, so that the caller does not wait.
#[tokio::test]
async fn a_response_past_the_own_limit_is_replaced_by_an_error() {
    limit(async {
        let config = Config::default().framed(framed::Config::default().max_message_size(1000));
        let (address, _) = host(crate::common::Tools::default(), config).await;
        let mut raw = Raw::initialized(address).await;
        let answer = raw.ask(&crate::common::call(1, "big", json!({ "size": 2000 }))).await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(1), &json!(-32603)));
        raw.ping().await;
    })
    .await;
}

/// Several clients at once, so that writes and the server's Close meet in every way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_that_sends_too_much_learns_so() {
    limit(async {
        let address = crate::common::host_without_limits(crate::common::Tools::default()).await;
        let clients = (0..8).map(|number| {
            tokio::spawn(async move {
                let config =
                    Config::default().framed(framed::Config::default().max_message_size(32 << 20));
                let url = format!("ws://{address}/");
                let client = ().serve(connect(url).transport(config).await.unwrap()).await.unwrap();
                let text = "x".repeat((5 + number) << 20);
                let large = tool_call("echo", json!({ "text": text }));
                let error = client.call_tool(large).await.unwrap_err();
                assert!(error.to_string().contains("1009"), "{number}: {error}");
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
    })
    .await;
}

/// The server has told its limit: then nothing of it is sent, and the link lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_that_would_send_too_much_learns_so() {
    limit(async {
        let (address, _connections) =
            host(crate::common::Tools::default(), Config::default()).await;
        let clients = (0..8).map(|number| {
            tokio::spawn(async move {
                let config =
                    Config::default().framed(framed::Config::default().max_message_size(32 << 20));
                let url = format!("ws://{address}/");
                let client = ().serve(connect(url).transport(config).await.unwrap()).await.unwrap();
                let echo =
                    |text: String| client.call_tool(tool_call("echo", json!({ "text": text })));
                let size = (5 + number) << 20;
                let error = echo("x".repeat(size)).await.unwrap_err();
                let ServiceError::McpError(error) = error else { panic!("{number}: {error:?}") };
                let data = error.data.unwrap();
                assert_eq!(data["reason"], "not_sent", "{number}: {data}");
                assert_eq!(data["limit"], 4 << 20, "{number}: {data}");
                assert!(data["size"].as_u64() > Some(size as u64), "{number}: {data}");
                echo("small".into()).await.unwrap();
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
    })
    .await;
}

/// The log at WARN tells a few times that a message cannot be read, and nothing of the message.
#[tokio::test]
async fn the_log_tells_of_unreadable_answers_without_their_words() {
    let (log, _capture) = Log::capture();
    limit(async {
        let (client, _, mut raw) = client_and_raw(connect).await;
        for round in 0..10 {
            for answer in [
                r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[{"c4n4ry":NaN}]}}"#,
                r#"{"jsonrpc":"2.0","id":ID,"result":{"content":[{"type":"c4n4ry"}]}}"#,
                r#"{"jsonrpc":"2.0","id":ID,"error":{"code":1,"reason":"c4n4ry"}}"#,
                r#"{"jsonrpc":"2.0","id":ID,"error":"c4n4ry"}"#,
                r#"{"jsonrpc":"2.0","id":ID,"result":{"c4n4ry":{"$serde_json::private::Number":"1"}}}"#,
                r#"[{"jsonrpc":"2.0","id":ID,"result":{"content":[],"c4n4ry":1}}]"#,
                r#"{"jsonrpc":"2.0","id":ID,"result":{"a":"c4n4ry"#,
            ] {
                let (call, id) = call(&client, &mut raw).await;
                raw.text(answer.replace("ID", &id.to_string())).await;
                assert!(end(call).await.is_err(), "{round}: {answer}");
            }
            for rubbish in [
                "c4n4ry",
                r#"{"jsonrpc":"2.0","id":"c4n4ry","method":7}"#,
                r#"{"jsonrpc":"2.0","method":"c4n4ry","params":[]}"#,
                r#"{"jsonrpc":"2.0","id":null,"error":{"code":7,"message":"c4n4ry"}}"#,
            ] {
                raw.text(rubbish).await;
            }
            assert_eq!(raw.receive().await["id"], "c4n4ry", "a request is answered");
        }
        assert_answers(&client, &mut raw).await;
    })
    .await;
    assert_told_without_words(&log);
}

fn assert_told_without_words(log: &Log) {
    let text = log.text();
    let above = |line: &&str| ["ERROR", " WARN", " INFO"].iter().any(|level| line.contains(level));
    let lines: Vec<_> = text.lines().filter(above).collect();
    assert!(lines.iter().all(|line| !line.contains("c4n4ry")), "{lines:#?}");
    let told = lines.iter().filter(|line| line.contains("cannot be read")).count();
    assert!((1..=3).contains(&told), "{lines:#?}");
    assert!(lines.len() <= 7, "{lines:#?}");
}

/// A server that cannot read a request has no id for its error.
#[tokio::test]
async fn an_error_without_an_id_is_that_of_the_only_call() {
    limit(async {
        let (client, _, mut raw) = client_and_raw(connect).await;
        for error in [
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"what?"}}"#,
            r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"what?"}}"#,
        ] {
            let (call, _) = call(&client, &mut raw).await;
            raw.text(error).await;
            let ServiceError::McpError(error) = end(call).await.unwrap_err() else {
                panic!("not what the server said")
            };
            assert_eq!((error.code.0, &*error.message), (-32700, "what?"));
        }
    })
    .await;
}

/// The error may be for any of them: it is reported as an event, and no caller waits for ever.
#[tokio::test]
async fn an_error_without_an_id_for_one_of_several_calls_ends_those_without_a_sign_of_life() {
    limit(async {
        let (listener, url) = listen().await;
        let patience = Duration::from_millis(300);
        let config = Config::default()
            .correlation(correlation::Config::default().lost_answer_timeout(patience));
        let connect = connect(url).transport(config);
        let mut events = connect.events();
        let client = async { ().serve(connect.resume(false).await.unwrap()).await.unwrap() };
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut raw = Raw::upgraded(stream).await;
            raw.answer_initialize().await;
            raw
        };
        let (client, mut raw) = tokio::join!(client, server);
        let (lost, _) = call(&client, &mut raw).await;
        let (answered, id) = call(&client, &mut raw).await;
        raw.text(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"what?"}}"#).await;
        let event = within(Duration::from_secs(1), events.next()).await.unwrap();
        assert!(matches!(&event, Event::UnmatchedError(error) if error.message == "what?"));
        raw.json(&json!({ "jsonrpc": "2.0", "id": id, "result": result() })).await;
        end(answered).await.unwrap();
        let ServiceError::McpError(error) = end(lost).await.unwrap_err() else { panic!() };
        let data = error.data.unwrap();
        assert_eq!(
            (&data["reason"], &data["outcome"], &data["cause"]),
            (&json!("timed_out"), &json!("outcome_unknown"), &json!("unreadable_answer"))
        );
        assert_eq!(raw.receive().await["method"], "notifications/cancelled");
    })
    .await;
}
