//! Sizes of messages, and what they cost.

use std::{net::SocketAddr, time::Duration};

use mcp_ws_transport::{
    Error,
    layer::framed,
    server::{Config, Server},
    transport,
};
use rmcp::model::{CustomNotification, ServerNotification};
use serde_json::{Value, json};

use crate::{
    HEAP,
    common::{
        Tools, call,
        raw::{CONTINUATION, Frame, Raw, head},
        serve_tools, text_of, within,
    },
};

/// Default limit of a server.
const LIMIT: usize = 4 << 20;

/// A `ping` of `size` bytes, of which most are blank.
async fn ping(raw: &mut Raw, size: usize) {
    let ping = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    raw.write(head(&Frame::text(""), size as u64, true)).await;
    raw.write(ping).await;
    let blank = [b' '; 64 << 10];
    let mut left = size - ping.len();
    while left > 0 {
        let some = left.min(blank.len());
        if raw.try_write(&blank[..some]).await.is_err() {
            return;
        }
        left -= some;
    }
}

/// Values that take much more memory than room in a message, and what the server reckons for each:
/// where its own decoder reads them, and where rmcp's does.
const DENSE: &[(&str, usize, usize)] = &[
    ("0", 144, 320),
    (r#""""#, 144, 320),
    ("[]", 352, 864),
    ("[0]", 352, 864),
    ("[0,0,0,0,0]", 928, 2144),
    ("[[[]]]", 768, 1952),
    ("{}", 848, 1792),
    (r#"{"":0}"#, 848, 1792),
    (r#"{"a":0,"b":0,"c":0}"#, 1232, 2560),
    (r#"{"a":{"b":{"c":""}}}"#, 2256, 4736),
];

/// A request with a list of `count` of these values.
fn dense(method: &str, unit: &str, count: usize) -> String {
    let mut message = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":"#);
    message.reserve_exact(count * (unit.len() + 1) + 64);
    message += r#"{"name":"none","arguments":{"a":["#;
    for number in 0..count {
        message += if number > 0 { "," } else { "" };
        message += unit;
    }
    message + "]}}}"
}

/// Asserts that no more than `bytes` were in use beyond `before`, so far. Returns the peak, in limits.
fn assert_peak(before: usize, bytes: usize) -> f64 {
    let peak = HEAP.max_allocated().saturating_sub(before);
    println!("peak: {} KiB of {}", peak >> 10, bytes >> 10);
    assert!(peak <= bytes, "{peak} bytes, not {bytes}");
    peak as f64 / LIMIT as f64
}

/// A server whose own messages have a limit of a mebibyte.
async fn serve() -> (Server, SocketAddr) {
    let layers =
        transport::Config::default().framed(framed::Config::default().max_message_size(1 << 20));
    serve_tools(&Tools::default(), Config::default().transport(layers)).await
}

#[tokio::test]
async fn a_message_costs_little_more_than_its_size() {
    alone!();
    within(Duration::from_secs(180), async {
        let (server, address) = serve().await;
        let mut raw = Raw::initialized(address).await;
        raw.ping().await;
        let fragment = Frame::new(CONTINUATION, " ").more().bytes(true).repeat(10_000);
        let before = HEAP.allocated();
        raw.send(Frame::text(" ").more()).await;
        for _ in 0..100 {
            raw.write(&fragment).await;
        }
        let ping_frame = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        raw.send(Frame::new(CONTINUATION, ping_frame)).await;
        assert_eq!(raw.receive().await["id"], 1);
        assert_peak(before, LIMIT * 5 / 4);

        ping(&mut raw, LIMIT).await;
        assert_eq!(raw.receive().await["id"], 1);
        let peak = assert_peak(before, LIMIT * 5 / 4);
        println!("figure: the limit, and a million fragments: a peak of {peak:.2} × the limit");

        // In fragments it is no different.
        let mut many = Raw::initialized(address).await;
        many.send(Frame::text(" ").more()).await;
        let chunk = Frame::new(CONTINUATION, vec![b' '; 64 << 10]).more().bytes(true);
        for _ in 0..LIMIT / (64 << 10) {
            if many.try_write(&chunk).await.is_err() {
                break;
            }
        }
        assert_eq!(many.closed().await.0, 1009);
        ping(&mut raw, LIMIT + 1).await;
        assert_eq!(raw.closed().await.0, 1009);
        let peak = assert_peak(before, LIMIT * 9 / 4);
        println!("figure: two that go beyond it at once: {peak:.2} ×");

        // What is too big to be sent fails alone.
        let mut raw = Raw::initialized(address).await;
        let failed = raw.ask(&call(1, "big", json!({ "size": 1 << 20 }))).await;
        assert_eq!((&failed["id"], &failed["error"]["code"]), (&json!(1), &json!(-32603)));
        let fits = raw.ask(&call(2, "big", json!({ "size": (1 << 20) - 200 }))).await;
        assert_eq!(text_of(&fits).len(), (1 << 20) - 200);
        let large = json!({ "padding": "x".repeat(1 << 20) });
        let large: ServerNotification =
            CustomNotification::new("notifications/large", Some(large)).into();
        let failed = server.registry().notify_all(large).unwrap_err();
        assert!(matches!(failed, Error::Message(_)), "{failed:?}");
        raw.ping().await;
    })
    .await;
}

/// What is decoded takes no more than eight times the limit, beside what is read and written.
#[tokio::test]
async fn the_worst_json_costs_eight_times_its_size_or_is_refused() {
    alone!();
    within(Duration::from_secs(180), async {
        let (_server, address) = serve().await;
        Raw::initialized(address).await.ping().await;
        let before = HEAP.allocated();
        // Many small values: as many as the limit has room for, and as are just not refused.
        for (unit, usual, buffered) in DENSE {
            for (method, takes) in [("acme/x", buffered), ("tools/call", usual)] {
                let mut raw = Raw::initialized(address).await;
                raw.ping().await;
                let (room, size) = (unit.len() + 1, unit.len() + 1 + takes);
                for count in [LIMIT / room - 50, (LIMIT * 8 - 9000) / size] {
                    let message = dense(method, unit, count);
                    if message.len() > LIMIT {
                        continue;
                    }
                    raw.write(head(&Frame::text(""), message.len() as u64, true)).await;
                    for chunk in message.as_bytes().chunks(64 << 10) {
                        raw.write(chunk).await;
                    }
                    let answer = raw.receive().await;
                    let is_refused = answer["error"]["data"]["reason"] == "too_large";
                    assert_eq!(is_refused, message.len() > LIMIT - 2000, "{unit}: {answer}");
                    assert_peak(before, LIMIT * 8 + LIMIT * 9 / 4);
                }
            }
        }

        for method in ["acme/x", "tools/call"] {
            let members = (0..80_000).map(|member| format!(r#""{member:x}":0"#));
            let members = members.collect::<Vec<_>>().join(",");
            let params = format!(r#"{{"name":"none","arguments":{{{members}}}}}"#);
            let mut raw = Raw::initialized(address).await;
            raw.text(format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#
            ))
            .await;
            assert_eq!(raw.receive().await["error"]["data"]["reason"], Value::Null);
            assert_peak(before, LIMIT * 8 + LIMIT * 9 / 4);
        }
        let peak = assert_peak(before, LIMIT * 8 + LIMIT * 9 / 4);
        println!(
            "figure: {} units, a peak of {peak:.2} × the limit, the message itself at both ends included",
            DENSE.len()
        );
    })
    .await;
}
