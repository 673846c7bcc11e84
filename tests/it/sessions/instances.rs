//! Several instances of one server: the ids of a session tell whose it is, and lead nobody astray.

use std::net::SocketAddr;

use mcp_ws_transport::{
    framing::JsonRpc,
    serve,
    server::{Config, Server, SessionConfig, SessionIdPolicy, WebSocketService},
};
use serde_json::{Value, json};

use crate::common::{
    Tools, call,
    handshake::{try_upgrade, upgrade},
    limit,
    raw::{Raw, initialize},
    serve_tools, text_of,
};

const RESUMES: &str = "Sec-WebSocket-Protocol: mcp, mcp.resume.v1\r\n";

async fn instance(tag: &str) -> (Server, SocketAddr) {
    serve_tools(&Tools::default(), Config::default().instance(tag)).await
}

/// Opens a session on `raw` as `open` says, and returns what the server says of it.
async fn open(raw: &mut Raw, open: &Value) -> Value {
    raw.text(format!("@open {open}")).await;
    let frame = raw.next().await.unwrap();
    let text = String::from_utf8(frame.payload).unwrap();
    serde_json::from_str(text.strip_prefix("@session ").expect(&text)).unwrap()
}

#[tokio::test]
async fn each_id_that_is_issued_begins_with_the_tag() {
    limit(async {
        let framing = JsonRpc::default().session_fields();
        let config = Config::default().instance("mcp-0").framing(framing);
        let (server, address) = serve_tools(&Tools::default(), config).await;
        for kept in ["", "Cookie: mcp_session_id=mcp-1.x\r\n", "Mcp-Session-Id: mcp-1.x\r\n"] {
            let (head, mut raw) = try_upgrade(address, kept).await;
            let id = head.get("mcp-session-id").unwrap();
            assert!(id.starts_with("mcp-0.") && id.len() == 49, "{id}");
            assert!(head.get("set-cookie").unwrap().contains(&format!("={id};")));
            assert_eq!(raw.ask(&initialize("init")).await["result"]["mcpSessionId"], *id);
        }
        let mut raw = upgrade(address, RESUMES).await;
        let session = open(&mut raw, &json!({})).await;
        assert!(session["session"].as_str().unwrap().starts_with("mcp-0."), "{session}");
        server.shutdown().await;
    })
    .await;
}

/// The header leads to a session, and never names a new one: that would be looked for elsewhere.
#[tokio::test]
async fn a_session_of_another_instance_is_not_known_and_the_next_is_this_ones_own() {
    limit(async {
        let (server, address) = instance("b").await;
        let asked = json!({ "session": "a.gone", "secret": "x", "received": 3 });
        for asked in [asked, json!({})] {
            let mut raw = upgrade(address, &format!("{RESUMES}Mcp-Session-Id: a.gone\r\n")).await;
            let session = open(&mut raw, &asked).await;
            assert!(session["session"].as_str().unwrap().starts_with("b."), "{session}");
            assert_eq!((&session["resumed"], &session["received"]), (&json!(false), &json!(0)));
            let unknown = asked.get("session").map(|_| json!("unknown"));
            assert_eq!(session.get("why"), unknown.as_ref());
        }
        server.shutdown().await;
    })
    .await;
}

/// Else it would be asked for at the other instance when its client comes back.
#[tokio::test]
async fn a_session_that_is_resumed_by_secret_has_no_id_of_another_instance() {
    limit(async {
        let (server, address) = instance("b").await;
        for (id, is_kept) in [("a.x", false), ("b.x", true), ("x", true), ("~.x", true)] {
            let lines =
                format!("Sec-WebSocket-Protocol: mcp, mcp.resume.v1, mcp.session-id.{id}\r\n");
            for asked in [json!({}), json!({ "session": "a.x", "secret": "x", "received": 3 })] {
                let (_, mut raw) = try_upgrade(address, &lines).await;
                let session = open(&mut raw, &asked).await["session"].as_str().unwrap().to_owned();
                assert_eq!(session == id, is_kept, "{session}");
                assert!(is_kept || session.starts_with("b."), "{session}");
            }
        }
        // Who cannot be told of another id has the one that it brings.
        let lines = "Sec-WebSocket-Protocol: mcp, mcp.session-id.a.y\r\n";
        let (head, _) = try_upgrade(address, lines).await;
        assert_eq!((head.status(), head.get("mcp-session-id")), (101, None));
        server.shutdown().await;
    })
    .await;
}

/// With the header of a session, as with any other, `@open` says what the client wants.
#[tokio::test]
async fn what_opens_a_session_by_secret_is_the_first_message_whatever_the_header_says() {
    limit(async {
        let (server, address) = instance("a").await;
        let mut first = upgrade(address, RESUMES).await;
        let session = open(&mut first, &json!({})).await;
        first.initialize().await;
        let id = session["session"].as_str().unwrap();
        let named = format!("{RESUMES}Mcp-Session-Id: {id}\r\n");

        let guess = json!({ "session": id, "secret": "guess", "received": 2 });
        for asked in [json!({}), guess] {
            let mut raw = upgrade(address, &named).await;
            let other = open(&mut raw, &asked).await;
            assert_eq!(other["resumed"], false);
            assert_ne!(other["session"], *id);
        }
        let answer = first.ask(&call(1, "echo", json!({ "text": "mine" }))).await;
        assert_eq!(text_of(&answer), "mine");

        for lead in [id, "b.other", "not an id"] {
            let lines = format!("{RESUMES}Mcp-Session-Id: {lead}\r\n");
            let mut raw = upgrade(address, &lines).await;
            let secret = &session["secret"];
            let asked = json!({ "session": id, "secret": secret, "received": 0 });
            assert_eq!(open(&mut raw, &asked).await["resumed"], true, "{lead}");
        }
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn a_header_is_no_name_of_ones_own() {
    limit(async {
        let sessions = SessionConfig::default().ids(SessionIdPolicy::Required);
        let config = Config::default().instance("a").sessions(sessions);
        let (server, address) = serve_tools(&Tools::default(), config).await;
        let (head, _) = try_upgrade(address, &format!("{RESUMES}Mcp-Session-Id: a.x\r\n")).await;
        assert_eq!(head.status(), 400);
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn a_tag_that_cannot_stand_in_an_id_is_an_error_at_the_start() {
    limit(async {
        for tag in ["", "a.b", "a b", "ü", &"x".repeat(65)] {
            let config = || Config::default().instance(tag);
            let errors = [
                serve("127.0.0.1:0", Tools::default).config(config()).await.unwrap_err(),
                WebSocketService::new(|| Ok(Tools::default()), config()).err().unwrap(),
                config().guard().err().unwrap(),
            ];
            for error in errors {
                assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
                let what = "is not 1 to 64 of the characters A-Z a-z 0-9 - _";
                assert_eq!(error.to_string(), format!("the instance {tag:?} {what}"));
            }
        }
    })
    .await;
}
