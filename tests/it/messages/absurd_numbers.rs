//! No number that a peer may choose, however absurd, stops a connection from receiving, costs memory, or is
//! waited for: it is taken for the nearest that makes sense, or the connection is closed with the
//! code that is documented.

use std::time::Duration;

use mcp_ws_transport::{connect, server::Config};
use rmcp::{RoleClient, ServiceExt};
use serde_json::{Value, json};

use crate::common::{
    Tools,
    flood::{OFFER, dial, dial_and_open},
    handshake::{ask, try_upgrade},
    limit, listen,
    raw::{Frame, PONG, Raw, TEXT, upgrade_request},
    scripted::{Link, Scene, immediate_reconnect, result},
    serve_tools, within,
};

/// Numbers that fit in 64 bits, as they are written in JSON.
const FIT: [&str; 4] = ["0", "1", "9223372036854775808", "18446744073709551615"];

/// Texts that are no such number.
const UNFIT: [&str; 9] = [
    "18446744073709551616",
    "-1",
    "1.5",
    "1e400",
    "-9223372036854775809",
    "null",
    "\"5\"",
    "[]",
    "99999999999999999999999999999999999999999999999999",
];

fn all() -> impl Iterator<Item = &'static str> {
    FIT.into_iter().chain(UNFIT)
}

/// Longer than an answer takes, and shorter than any timeout.
const SOON: Duration = Duration::from_secs(5);

/// The code with which the connection is closed; `None` if a ping request is answered.
async fn outcome(raw: &mut Raw) -> Option<u16> {
    let ping = json!({ "jsonrpc": "2.0", "id": "ping", "method": "ping" }).to_string();
    // It may be closed already.
    let _ = raw.try_write(Frame::text(ping).bytes(raw.masked)).await;
    let answered = async {
        loop {
            let frame = raw.next().await.expect("the stream ended without a Close frame");
            match frame.opcode {
                TEXT if frame.payload.starts_with(b"@") => {}
                TEXT => {
                    let message: Value = serde_json::from_slice(&frame.payload).unwrap();
                    if message["id"] == "ping" {
                        assert_eq!(message["result"], json!({}));
                        return None;
                    }
                }
                PONG => {}
                _ => return Some(u16::from_be_bytes([frame.payload[0], frame.payload[1]])),
            }
        }
    };
    within(SOON, answered).await
}

/// A field is as valid as its number.
fn expected(number: &str) -> Option<u16> {
    UNFIT.contains(&number).then_some(1002)
}

#[tokio::test]
async fn what_a_client_says_it_takes() {
    limit(async {
        let (_server, address) = serve_tools(&Tools::default(), Config::default()).await;
        for (field, header) in
            [("max_message", "Mcp-Max-Message-Bytes"), ("max_inbound", "Mcp-Max-Requests")]
        {
            for number in all() {
                let mut raw = dial(address, OFFER).await;
                raw.text(format!("@open {{\"{field}\":{number}}}")).await;
                if expected(number).is_none() {
                    assert!(raw.next().await.unwrap().payload.starts_with(b"@session "));
                    raw.initialize().await;
                }
                assert_eq!(outcome(&mut raw).await, expected(number), "{field}: {number}");

                // A header is no part of the protocol: what cannot be read is not there.
                let (head, mut raw) =
                    try_upgrade(address, &format!("{header}: {number}\r\n")).await;
                assert_eq!(head.status(), 101);
                raw.initialize().await;
                assert_eq!(outcome(&mut raw).await, None, "{header}: {number}");
            }
        }
    })
    .await;
}

/// A client acknowledges the one message that the server has sent.
#[tokio::test]
async fn what_a_client_says_it_has_received() {
    limit(async {
        let (_server, address) = serve_tools(&Tools::default(), Config::default()).await;
        let code = |number| if ["0", "1"].contains(&number) { None } else { Some(1002) };
        for number in all().chain(["01", "+1", "", " 1", "1 ", "0x1"]) {
            let (mut raw, _) = dial_and_open(address, &json!({})).await;
            raw.initialize().await;
            raw.text(format!("@ack {number}")).await;
            assert_eq!(outcome(&mut raw).await, code(number), "@ack {number}");
        }
        for number in all() {
            let (mut raw, session) = dial_and_open(address, &json!({})).await;
            raw.initialize().await;
            raw.reset();
            let (id, secret) = (&session["session"], &session["secret"]);
            let mut raw = dial(address, OFFER).await;
            let open = format!("{{\"session\":{id},\"secret\":{secret},\"received\":{number}}}");
            raw.text(format!("@open {open}")).await;
            assert_eq!(outcome(&mut raw).await, code(number), "received: {number}");
        }
    })
    .await;
}

/// Messages with a number in them, of either side.
fn messages(number: &str) -> Vec<String> {
    let progress = |token: &str, done: &str, total: &str| {
        let params = format!(r#"{{"progressToken":{token},"progress":{done},"total":{total}}}"#);
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}"#)
    };
    vec![
        format!(r#"{{"jsonrpc":"2.0","id":{number},"method":"ping"}}"#),
        format!(r#"{{"jsonrpc":{number},"id":1,"method":"ping"}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"acme/x","params":{{"n":{number}}}}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{{}}}}"#),
        format!(r#"{{"jsonrpc":"2.0","id":7,"error":{{"code":{number},"message":"x"}}}}"#),
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{number}}}}}"#
        ),
        progress(number, "1", "2"),
        progress("0", number, "2"),
        progress("0", "1", number),
    ]
}

#[tokio::test]
async fn what_is_in_a_clients_messages() {
    limit(async {
        let (_server, address) = serve_tools(&Tools::default(), Config::default()).await;
        let mut raw = Raw::initialized(address).await;
        for message in all().flat_map(messages) {
            raw.text(&message).await;
            assert_eq!(outcome(&mut raw).await, None, "{message}");
        }
        for number in all() {
            let meta = format!(r#"{{"progressToken":{number}}}"#);
            let params = format!(r#"{{"name":"echo","arguments":{{"text":"hi"}},"_meta":{meta}}}"#);
            raw.text(format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#
            ))
            .await;
            let answer = within(SOON, raw.receive()).await;
            assert_eq!(answer["id"], 1, "{number}: {answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_in_the_head_of_a_request() {
    limit(async {
        let (_server, address) = serve_tools(&Tools::default(), Config::default()).await;
        let offer = |bits: &str| {
            format!("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits={bits}")
        };
        for number in all() {
            for line in [
                format!("Content-Length: {number}"),
                format!("Sec-WebSocket-Version: {number}"),
                format!("Keep-Alive: timeout={number}, max={number}"),
                format!("Max-Forwards: {number}"),
                offer(number),
            ] {
                let request = upgrade_request(address, &format!("{line}\r\n"));
                let (head, _) = within(SOON, ask(address, request)).await;
                assert!([101, 400, 426, 431].contains(&head.status()), "{line}: {head:?}");
            }
        }
        Raw::initialized(address).await.ping().await;
    })
    .await;
}

/// A server says this of a new session, and is closed with this code, or heeded.
async fn assert_session(fields: String, code: Option<u16>) {
    let (listener, url) = listen().await;
    let client = tokio::spawn(async move {
        let transport = immediate_reconnect(connect::<RoleClient>(url)).await.unwrap();
        let client = ().serve(transport).await.unwrap();
        client.waiting().await
    });
    let mut link = Link::new(&listener).await;
    link.open().await;
    let session = format!(r#"@session {{"session":"s","secret":"x","resumed":false,{fields}}}"#);
    match code {
        None => {
            let mut link = within(SOON, link.begins(session)).await;
            assert_eq!(outcome(&mut link.raw).await, None, "{fields}");
        }
        Some(code) => {
            link.raw.text(session).await;
            assert_eq!(within(SOON, link.raw.closed()).await.0, code, "{fields}");
        }
    }
    client.abort();
}

#[tokio::test]
async fn what_a_server_says_of_a_session() {
    limit(async {
        let usual = [("received", "0"), ("window_s", "120"), ("window_bytes", "1048576")];
        for field in ["received", "window_s", "window_bytes", "max_message", "max_inbound"] {
            for number in all().chain(["4294967295", "4294967296"]) {
                let fields = usual.into_iter().filter(|(name, _)| *name != field);
                let fields: Vec<_> = fields
                    .chain([(field, number)])
                    .map(|(name, number)| format!("\"{name}\":{number}"))
                    .collect();
                let code = match (field, number) {
                    // A new session begins with it.
                    ("received", "0") => None,
                    // Seconds in 32 bits are 136 years.
                    ("window_s", "0" | "1" | "4294967295") => None,
                    ("received" | "window_s", _) => Some(1002),
                    _ => expected(number),
                };
                assert_session(fields.join(","), code).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_in_a_servers_messages() {
    limit(async {
        let (scene, mut link) = Scene::new().await;
        let (calling, called) = scene.called(&mut link).await;
        for message in all().flat_map(messages) {
            // This may be meant for the only call there is.
            if message.contains(r#""result""#) || message.contains(r#""error""#) {
                continue;
            }
            link.raw.text(&message).await;
            assert_eq!(outcome(&mut link.raw).await, None, "{message}");
        }
        link.answer(&called, "done").await;
        assert_eq!(result(calling).await.unwrap(), "done");
        for number in all() {
            // The id is right, and the code is what it is.
            let (calling, called) = scene.called(&mut link).await;
            let id = &called["id"];
            link.raw
                .text(format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{number},"message":"x"}}}}"#
                ))
                .await;
            within(SOON, calling).await.unwrap().expect_err(number);
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_in_the_head_of_an_answer() {
    limit(async {
        for number in all() {
            for (status, name) in [
                ("503 Unavailable", "Retry-After"),
                ("503 Unavailable", "Content-Length"),
                ("401 Unauthorized", "Age"),
                ("101 Switching Protocols", "Content-Length"),
                ("101 Switching Protocols", "Mcp-Max-Message-Bytes"),
                ("101 Switching Protocols", "Mcp-Max-Requests"),
            ] {
                let (listener, url) = listen().await;
                let dialling =
                    tokio::spawn(async move { connect::<RoleClient>(url).no_reconnect().await });
                let (mut raw, _) = Link::asked(&listener).await;
                let head = format!("HTTP/1.1 {status}\r\n{name}: {number}\r\n\r\n");
                let _ = raw.try_write(head).await;
                drop(raw);
                let failed = within(SOON, dialling).await.unwrap();
                // Nothing of what it takes to upgrade is there.
                failed.map(drop).expect_err(&format!("{status}, {name}: {number}"));
            }
        }
    })
    .await;
}
