//! Answers of a server to bad input, which its link outlives.

use std::{net::SocketAddr, time::Duration};

use mcp_ws_transport::{
    layer::{correlation, framed, socket},
    serve,
    transport::Config,
};
use serde_json::{Value, json};

use crate::common::{
    Tools, call, host, limit,
    logs::Log,
    raw::{BINARY, CONTINUATION, Frame, PING, PONG, Raw, TEXT, head, initialize},
    text_of,
};

async fn server() -> (mcp_ws_transport::server::Server, SocketAddr, Tools) {
    let tools = Tools::default();
    let service = tools.clone();
    let server = serve("127.0.0.1:0", move || service.clone()).await.unwrap();
    let address = server.local_addr();
    (server, address, tools)
}

#[tokio::test]
async fn what_is_no_request_is_answered_with_an_error_and_harms_nothing() {
    let nested = |depth, open: &str, close: &str| open.repeat(depth) + &close.repeat(depth);
    let deep = nested(50_000, "[", "]");
    let rows: &[(&str, String, i64, Value)] = &[
        ("nothing", "".into(), -32700, Value::Null),
        ("white space", " \n".into(), -32700, Value::Null),
        ("not JSON", "hello".into(), -32700, Value::Null),
        ("half a message", r#"{"jsonrpc":"2.0","id":1,"met"#.into(), -32700, Value::Null),
        (
            "two messages",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"}{"jsonrpc":"2.0","id":2,"method":"ping"}"#
                .into(),
            -32700,
            Value::Null,
        ),
        ("a BOM alone", "\u{feff}".into(), -32700, Value::Null),
        ("two BOMs", "\u{feff}\u{feff}{}".into(), -32700, Value::Null),
        ("NUL", "\0".into(), -32700, Value::Null),
        (
            "a lone surrogate",
            r#"{"jsonrpc":"2.0","id":1,"method":"\ud800"}"#.into(),
            -32600,
            json!(1),
        ),
        ("unclosed depth", "[".repeat(100_000), -32600, Value::Null),
        ("unclosed depth", "[".repeat(50_000), -32700, Value::Null),
        ("a number", "7".into(), -32600, Value::Null),
        ("a string", r#""ping""#.into(), -32600, Value::Null),
        ("null", "null".into(), -32600, Value::Null),
        ("an empty object", "{}".into(), -32600, Value::Null),
        ("no version", r#"{"id":5,"method":"ping"}"#.into(), -32600, json!(5)),
        ("version 1.0", r#"{"jsonrpc":"1.0","id":"a","method":"ping"}"#.into(), -32600, json!("a")),
        ("version 2", r#"{"jsonrpc":2.0,"id":"a","method":"ping"}"#.into(), -32600, json!("a")),
        ("no method", r#"{"jsonrpc":"2.0","id":6}"#.into(), -32600, json!(6)),
        (
            "a method that is none",
            r#"{"jsonrpc":"2.0","id":6,"method":7}"#.into(),
            -32600,
            json!(6),
        ),
        (
            "an id null",
            r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#.into(),
            -32600,
            Value::Null,
        ),
        ("an id 1.5", r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#.into(), -32600, Value::Null),
        ("an id []", r#"{"jsonrpc":"2.0","id":[],"method":"ping"}"#.into(), -32600, Value::Null),
        (
            "an id past 64 bits",
            r#"{"jsonrpc":"2.0","id":18446744073709551616,"method":"ping"}"#.into(),
            -32600,
            Value::Null,
        ),
        (
            "two ids",
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#.into(),
            -32600,
            Value::Null,
        ),
        (
            "a method and a result",
            r#"{"jsonrpc":"2.0","id":8,"method":"ping","result":{}}"#.into(),
            -32600,
            json!(8),
        ),
        ("an empty batch", "[]".into(), -32600, Value::Null),
        ("a batch", r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#.into(), -32600, Value::Null),
        (
            "a batch with an answer",
            r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":"x","result":{}}]"#
                .into(),
            -32600,
            Value::Null,
        ),
        ("deep arrays", deep.clone(), -32600, Value::Null),
        (
            "deep params",
            format!(r#"{{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{deep}}}"#),
            -32600,
            json!(9),
        ),
        (
            "a deep argument",
            format!(
                r#"{{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{{"name":"echo","arguments":{{"text":{deep}}}}}}}"#
            ),
            -32600,
            json!(9),
        ),
        (
            "a deep id",
            format!(r#"{{"jsonrpc":"2.0","method":"ping","id":{deep}}}"#),
            -32600,
            Value::Null,
        ),
        (
            "an unknown method",
            r#"{"jsonrpc":"2.0","id":3,"method":"no/such"}"#.into(),
            -32601,
            json!(3),
        ),
        ("an unknown tool", call(4, "no such", json!({})).to_string(), -32602, json!(4)),
    ];
    limit(async {
        let (_server, address, _) = server().await;
        let mut other = Raw::initialized(address).await;
        let mut raw = Raw::initialized(address).await;
        for (what, input, code, id) in rows {
            raw.text(input).await;
            let answer = raw.receive().await;
            assert_eq!(answer["error"]["code"], *code, "{what}: {answer}");
            assert_eq!(answer["id"], *id, "{what}: {answer}");
            raw.ping().await;
            other.ping().await;
        }
    })
    .await;
}

/// The error names the fault.
#[tokio::test]
async fn an_error_says_what_is_wrong() {
    let deep = "[".repeat(200) + &"]".repeat(200);
    let dense = vec!["{}"; 60_000].join(",");
    limit(async {
        let (_server, address, _) = server().await;
        let mut raw = Raw::initialized(address).await;
        for (rest, what) in [
            (&*format!(r#""id":1,"method":"x","params":{{"a":{deep}}}"#), "127 levels"),
            (r#""id":1,"method":"x","params":{"a":1e999}"#, "64-bit float"),
            (r#""id":1,"method":"x","params":{"a":"\ud800"}"#, "surrogate"),
            (r#""id":1,"method":"x","params":[]"#, "`params` is not an object"),
            (r#""id":9223372036854775808,"method":"x""#, "64 bits"),
            (r#""id":1,"method":"x","params":{"a":NaN}"#, "NaN is no JSON value"),
            (r#""id":1,"method":"x","params":{"$serde_json::private::Number":"1"}"#, "reserved"),
            (
                &*format!(r#""id":1,"method":"x","params":{{"a":[{dense}]}}"#),
                "the limit of 33554432",
            ),
        ] {
            raw.text(format!(r#"{{"jsonrpc":"2.0",{rest}}}"#)).await;
            let answer = raw.receive().await;
            let told = answer["error"]["message"].as_str().unwrap_or_default();
            assert!(told.contains(what), "{what}: {answer}");
            let id = if what == "64 bits" { Value::Null } else { json!(1) };
            assert_eq!(answer["id"], id, "{what}: {answer}");
            raw.ping().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_notification_is_never_answered() {
    let deep = "[".repeat(200) + &"]".repeat(200);
    let dense = vec!["{}"; 60_000].join(",");
    limit(async {
        let (_server, address, _) = server().await;
        let mut raw = Raw::initialized(address).await;
        for notification in [
            r#"{"jsonrpc":"1.0","method":"x"}"#,
            r#"{"method":"x"}"#,
            r#"{"jsonrpc":"2.0","method":7}"#,
            r#"{"jsonrpc":"2.0","method":"x","params":[]}"#,
            r#"{"jsonrpc":"2.0","method":"x","params":{"_meta":7}}"#,
            r#"{"jsonrpc":"2.0","method":"x","params":{"a":NaN}}"#,
            r#"{"jsonrpc":"2.0","method":"x","params":{"a":1e999}}"#,
            r#"{"jsonrpc":"2.0","method":"x","params":{"$serde_json::private::RawValue":"1"}}"#,
            &format!(r#"{{"jsonrpc":"2.0","method":"x","params":{{"a":{deep}}}}}"#),
            &format!(r#"{{"jsonrpc":"2.0","method":"x","params":{{"a":[{dense}]}}}}"#),
        ] {
            raw.text(notification).await;
            let answer = raw.ask(&json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" })).await;
            assert_eq!(answer["id"], 1, "{notification}: {answer}");
        }
    })
    .await;
}

/// The log at WARN tells a few times that a message cannot be read, and nothing of the message.
#[tokio::test]
async fn the_log_tells_of_unreadable_requests_without_their_words() {
    let (log, _capture) = Log::capture();
    limit(async {
        let config = Config::default().framed(framed::Config::default().max_message_size(1000));
        let (address, _) = host(Tools::default(), config).await;
        let mut raw = Raw::initialized(address).await;
        for _ in 0..10 {
            for input in [
                "c4n4ry",
                r#"{"jsonrpc":"2.0","id":"c4n4ry","method":"c4n4ry","params":[]}"#,
                r#"{"jsonrpc":"2.0","id":"c4n4ry","method":"x","params":{"c4n4ry":NaN}}"#,
                r#"{"jsonrpc":"2.0","id":"c4n4ry","method":"x","params":{"$serde_json::private::c4n4ry":1}}"#,
                r#"[{"jsonrpc":"2.0","id":"c4n4ry","method":"ping"}]"#,
                // Its answer is larger than may be sent.
                r#"{"jsonrpc":"2.0","id":"c4n4ry","method":"tools/call","params":{"name":"big","arguments":{"size":2000}}}"#,
            ] {
                raw.text(input).await;
                assert!(raw.receive().await["error"].is_object(), "{input}");
            }
        }
    })
    .await;
    let text = log.text();
    let above = |line: &&str| ["ERROR", " WARN", " INFO"].iter().any(|level| line.contains(level));
    let lines: Vec<_> = text.lines().filter(above).collect();
    assert!(lines.iter().all(|line| !line.contains("c4n4ry")), "{lines:#?}");
    let warnings = lines.iter().filter(|line| !line.contains(" INFO ")).count();
    assert!((1..=3).contains(&warnings), "{lines:#?}");
}

/// JSON-RPC 2.0, section 5: "it MUST be Null".
#[tokio::test]
async fn an_error_without_a_readable_id_says_null() {
    limit(async {
        let (_server, address, _) = server().await;
        let mut raw = Raw::initialized(address).await;
        for input in ["hello", "[]", "{}"] {
            raw.text(input).await;
            let answer = raw.receive().await;
            assert_eq!(answer.get("id"), Some(&Value::Null), "{answer}");
        }
    })
    .await;
}

/// Params that rmcp cannot read as those of the method are rmcp's to answer.
#[tokio::test]
async fn bad_params_are_answered_under_their_id() {
    limit(async {
        let (_server, address, _) = server().await;
        let mut raw = Raw::initialized(address).await;
        for params in [json!({ "name": 7 }), json!({}), json!([]), json!(7), json!("x")] {
            let answer = raw
                .ask(
                    &json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }),
                )
                .await;
            assert_eq!(answer["id"], 1, "{params}: {answer}");
            assert!(answer["error"]["code"].is_i64(), "{params}: {answer}");
            raw.ping().await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_unusual_but_right_is_understood() {
    let ping = json!({ "jsonrpc": "2.0", "id": "odd", "method": "ping" }).to_string();
    let (left, right) = ping.as_bytes().split_at(20);
    let fragments = |opcode| {
        [
            Frame::new(opcode, left).more(),
            Frame::new(PING, "in between"),
            Frame::new(CONTINUATION, "").more(),
            Frame::new(CONTINUATION, right).more(),
            Frame::new(PONG, "unasked"),
            Frame::new(CONTINUATION, ""),
        ]
    };
    let rows: &[(&str, Vec<Frame>)] = &[
        ("a trailing newline", vec![Frame::text(format!("{ping}\n"))]),
        ("a trailing CR LF", vec![Frame::text(format!("{ping}\r\n"))]),
        ("a leading BOM", vec![Frame::text(format!("\u{feff}{ping}"))]),
        ("a BOM and a newline", vec![Frame::text(format!("\u{feff} {ping} \n"))]),
        ("a binary frame", vec![Frame::new(BINARY, &*ping)]),
        ("a binary frame with a BOM", vec![Frame::new(BINARY, format!("\u{feff}{ping}"))]),
        ("fragments", fragments(TEXT).into()),
        ("binary fragments", fragments(BINARY).into()),
        ("one byte per fragment", {
            let last = Frame::new(CONTINUATION, "");
            let bytes = ping.bytes().enumerate().map(|(index, byte)| {
                Frame::new(if index == 0 { TEXT } else { CONTINUATION }, [byte]).more()
            });
            bytes.chain([last]).collect()
        }),
    ];
    limit(async {
        let (_server, address, _) = server().await;
        let mut other = Raw::initialized(address).await;
        let mut raw = Raw::initialized(address).await;
        for (what, frames) in rows {
            for frame in frames {
                raw.send(frame.clone()).await;
            }
            let answer = raw.receive().await;
            assert_eq!(answer, json!({ "jsonrpc": "2.0", "id": "odd", "result": {} }), "{what}");
            raw.ping().await;
            other.ping().await;
        }
    })
    .await;
}

/// A character may be cut in two by a frame's border (RFC 6455, section 5.6).
#[tokio::test]
async fn fragments_may_cut_characters() {
    limit(async {
        let (_server, address, _) = server().await;
        let mut raw = Raw::initialized(address).await;
        let message = call(1, "echo", json!({ "text": "käse 🧀" })).to_string();
        let cut = message.find("🧀").unwrap() + 2;
        raw.send(Frame::new(TEXT, &message.as_bytes()[..cut]).more()).await;
        raw.send(Frame::new(CONTINUATION, &message.as_bytes()[cut..])).await;
        assert_eq!(text_of(&raw.receive().await), "käse 🧀");
    })
    .await;
}

#[tokio::test]
async fn pings_between_fragments_are_answered_before_the_message_ends() {
    limit(async {
        let (_server, address, _) = server().await;
        let mut raw = Raw::initialized(address).await;
        raw.send(Frame::new(TEXT, r#"{"jsonrpc":"2.0","#).more()).await;
        raw.send(Frame::new(PING, "there?")).await;
        assert_eq!(raw.next().await.unwrap(), Frame::new(PONG, "there?"));
        raw.send(Frame::new(CONTINUATION, r#""id":1,"method":"ping"}"#)).await;
        assert_eq!(raw.receive().await["id"], 1);
    })
    .await;
}

/// Messages that the peer of a server may send without being answered, and how they are counted.
#[tokio::test]
async fn answers_to_nothing_are_dropped_and_counted() {
    let rows: &[(&str, &str, u64, u64)] = &[
        ("a result", r#"{"jsonrpc":"2.0","id":77,"result":{}}"#, 1, 0),
        ("an error", r#"{"jsonrpc":"2.0","id":77,"error":{"code":1,"message":"m"}}"#, 1, 0),
        ("an error without an id", r#"{"jsonrpc":"2.0","error":{"code":1,"message":"m"}}"#, 1, 0),
        (
            "an error with id null",
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"m"}}"#,
            1,
            0,
        ),
        ("a result without an id", r#"{"jsonrpc":"2.0","result":{}}"#, 1, 1),
        ("a result with id null", r#"{"jsonrpc":"2.0","id":null,"result":{}}"#, 1, 1),
        ("a malformed error", r#"{"jsonrpc":"2.0","id":77,"error":7}"#, 1, 1),
        ("a result and an error", r#"{"jsonrpc":"2.0","id":77,"result":{},"error":{}}"#, 1, 1),
    ];
    limit(async {
        let (address, mut connections) = host(Tools::default(), Config::default()).await;
        let mut raw = Raw::initialized(address).await;
        let observer = connections.recv().await.unwrap();
        for (what, input, orphans, malformed) in rows {
            let before = observer.stats();
            raw.text(input).await;
            raw.ping().await;
            let after = observer.stats();
            let dropped =
                |counters: mcp_ws_transport::stats::Snapshot| counters.orphans + counters.malformed;
            assert_eq!(after.malformed - before.malformed, *malformed, "{what}");
            assert_eq!(after.orphans - before.orphans, *orphans, "{what}");
            assert!(dropped(after) > dropped(before), "{what}");
            assert_eq!(after.messages_sent - before.messages_sent, 1, "{what}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_id_in_flight_is_refused_and_the_first_undisturbed() {
    limit(async {
        let tools = Tools::default();
        let (address, mut connections) = host(tools.clone(), Config::default()).await;
        let mut raw = Raw::initialized(address).await;
        let observer = connections.recv().await.unwrap();
        raw.json(&call(7, "wait", json!({}))).await;
        tools.begun(1).await;
        let answer = raw.ask(&call(7, "echo", json!({ "text": "second" }))).await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(7), &json!(-32600)));
        assert_eq!(observer.stats().refused, 1);
        raw.ping().await;
        // "7" is another id than 7.
        let answer = raw.ask(&call("7", "echo", json!({ "text": "other" }))).await;
        assert_eq!((&answer["id"], text_of(&answer)), (&json!("7"), "other"));
        tools.gate.notify_waiters();
        let answer = raw.receive().await;
        assert_eq!((&answer["id"], text_of(&answer)), (&json!(7), "waited"));
        // Free again.
        assert_eq!(text_of(&raw.ask(&call(7, "echo", json!({ "text": "third" }))).await), "third");
        assert_eq!(*tools.started.borrow(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_repeated_initialize_is_tolerated() {
    limit(async {
        let (_server, address, _) = server().await;
        let mut raw = Raw::initialized(address).await;
        let answer = raw.ask(&initialize("again")).await;
        assert_eq!(answer["id"], "again");
        assert!(answer["result"].is_object(), "{answer}");
        raw.json(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        raw.ping().await;
    })
    .await;
}

#[tokio::test]
async fn rubbish_before_initialize_harms_nothing() {
    limit(async {
        let (_server, address, _) = server().await;
        let mut raw = Raw::dial(address).await;
        raw.text("rubbish").await;
        assert_eq!(raw.receive().await["error"]["code"], -32700);
        raw.text("[]").await;
        assert_eq!(raw.receive().await["error"]["code"], -32600);
        raw.text(r#"{"jsonrpc":"2.0","id":9,"result":{}}"#).await;
        raw.send(Frame::new(PING, "")).await;
        assert_eq!(raw.next().await.unwrap(), Frame::new(PONG, ""));
        raw.initialize().await;
        raw.ping().await;
    })
    .await;
}

#[tokio::test]
async fn a_message_of_exactly_the_limit_passes() {
    limit(async {
        let size = 4096;
        let config = Config::default().socket(socket::Config::default().max_message_size(size));
        let (address, _) = host(Tools::default(), config).await;
        let mut raw = Raw::initialized(address).await;
        let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
        let padded = ping.clone() + &" ".repeat(size - ping.len());
        raw.text(&padded).await;
        assert_eq!(raw.receive().await["id"], 1);
        // The limit is that of the message, however it is cut.
        let (left, right) = padded.as_bytes().split_at(size / 2);
        raw.send(Frame::new(TEXT, left).more()).await;
        raw.send(Frame::new(CONTINUATION, right)).await;
        assert_eq!(raw.receive().await["id"], 1);
        raw.send(Frame::new(TEXT, left).more()).await;
        raw.send(Frame::new(CONTINUATION, [right, b" "].concat())).await;
        assert_eq!(raw.closed().await.0, 1009);
    })
    .await;
}

#[tokio::test]
async fn requests_past_the_cap_are_refused_and_a_cancellation_frees_a_place() {
    limit(async {
        let tools = Tools::default();
        let config = Config::default().correlation(correlation::Config::default().max_inbound(3));
        let (address, mut connections) = host(tools.clone(), config).await;
        let mut raw = Raw::initialized(address).await;
        let observer = connections.recv().await.unwrap();
        for id in 0..3 {
            raw.json(&call(id, "wait", json!({}))).await;
        }
        tools.begun(3).await;
        let answer = raw.ask(&call(3, "wait", json!({}))).await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(3), &json!(-32000)));
        assert_eq!(answer["error"]["data"]["reason"], "too_many_requests", "{answer}");
        assert_eq!(observer.stats().refused, 1);
        assert_eq!(*tools.started.borrow(), 3);
        // Answers, though to nothing, and notifications still pass.
        raw.text(r#"{"jsonrpc":"2.0","id":77,"result":{}}"#).await;
        let cancelled = json!({
            "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 },
        });
        raw.json(&cancelled).await;
        // The place is free as soon as the handler has ended, which takes note in its own time.
        for id in 4.. {
            let answer = raw.ask(&call(id, "echo", json!({ "text": "free" }))).await;
            if answer.get("error").is_none() {
                assert_eq!((&answer["id"], text_of(&answer)), (&json!(id), "free"));
                break;
            }
            assert_eq!(answer["error"]["data"]["reason"], "too_many_requests", "{answer}");
        }
        assert_eq!(observer.stats().orphans, 1);
        tools.gate.notify_waiters();
        let mut ids = [raw.receive().await["id"].clone(), raw.receive().await["id"].clone()];
        ids.sort_by_key(Value::as_i64);
        assert_eq!(ids, [json!(0), json!(2)]);
        raw.ping().await;
    })
    .await;
}

/// The frames of a peer whose frame header promises more than it sends do not allocate for it.
#[tokio::test]
async fn a_promise_past_the_limit_is_refused_at_once() {
    limit(async {
        let (_server, address, _) = server().await;
        for length in [(4 << 20) + 1, u64::from(u32::MAX), i64::MAX as u64, u64::MAX] {
            let mut raw = Raw::initialized(address).await;
            raw.write(head(&Frame::text(""), length, true)).await;
            assert_eq!(raw.closed().await.0, 1009, "{length}");
        }
        let mut raw = Raw::initialized(address).await;
        raw.write(head(&Frame::text(""), 4 << 20, true)).await;
        raw.assert_silent(Duration::from_millis(100)).await;
    })
    .await;
}
