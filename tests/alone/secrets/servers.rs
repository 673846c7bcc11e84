//! What a server shows of the tokens of its clients.

use futures::StreamExt;
use mcp_ws_transport::server::{Config, Credentials, Identity};
use serde_json::json;

use super::{CANARY, RIGHT, WRONG, assert_clean, assert_debug_clean, config, traced::Traced, ways};
use crate::common::{
    handshake::{Recorder, ask, try_upgrade, upgrade},
    limit,
    raw::{Frame, upgrade_request},
};

#[tokio::test]
async fn those_of_requests_show_nowhere() {
    alone!();
    let traced = Traced::all();
    limit(async {
        let recorder = Recorder::default();
        let (server, address) = recorder.start_server(config()).await;
        let mut events = server.registry().events();
        for line in ways(RIGHT).into_iter().chain(ways(WRONG)) {
            let request = upgrade_request(address, &line).replace("/mcp", "/mcp?token=canary");
            let (head, mut raw) = ask(address, request).await;
            assert_clean(&line, &head.0);
            if head.status() == 101 {
                raw.initialize().await;
                raw.ping().await;
                assert_debug_clean("the registry", server.registry());
                assert_debug_clean("the server", &server);
                for connection in server.registry().list() {
                    assert_debug_clean("a connection", &connection);
                    assert_debug_clean("what is known of it", &connection.info());
                    assert_clean("the same", &serde_json::to_string(&connection.info()).unwrap());
                }
                raw.send(Frame::close(1000)).await;
                assert_clean("a close reason", &raw.closed().await.1);
            } else {
                let length = head.get("content-length").map_or(0, |length| length.parse().unwrap());
                assert_clean("a body", &raw.body(length).await);
            }
        }
        let health = server.registry().health();
        assert_eq!((health.total, health.rejected), (4, 10), "{health:?}");
        assert_clean("the health", &serde_json::to_string(&health).unwrap());
        for _ in 0..14 {
            assert_debug_clean("an event", &events.next().await.unwrap());
        }
        // Handlers get the request, with what was secret in it marked as such; the query is as it came.
        for seen in recorder.seen() {
            let mut parts = seen.parts.unwrap();
            assert_eq!(parts.uri.query(), Some("token=canary"));
            parts.uri = "/".parse().unwrap();
            assert_debug_clean("a request's parts", &parts);
        }
        server.shutdown().await;
    })
    .await;
    traced.assert_clean();
    // What is recorded in a span after its beginning is searched too.
    for field in ["url.path=\"/mcp\"", "enduser.id=\"alice\""] {
        assert!(!traced.showing(field).0.is_empty(), "{field}");
    }
}

#[tokio::test]
async fn those_within_a_connection_show_nowhere() {
    alone!();
    let traced = Traced::all();
    limit(async {
        let (server, address) = Recorder::default().start_server(config().in_band_authentication()).await;
        let (open, open_address) = Recorder::default().start_server(Config::default()).await;
        let authenticate = |token: &str| {
            json!({
                "jsonrpc": "2.0", "id": 1, "method": "authenticate", "params": { "token": token },
            })
        };
        let mut notification = authenticate(RIGHT);
        notification.as_object_mut().unwrap().remove("id");
        let mut array = authenticate(RIGHT);
        array["params"] = json!([RIGHT]);
        let mut version = authenticate(RIGHT);
        version["jsonrpc"] = json!(RIGHT);
        let mut twice = authenticate(RIGHT).to_string();
        twice.insert_str(1, "\"id\":2,");
        let mut messages =
            [authenticate(RIGHT), authenticate(WRONG), notification, array, version].map(|m| m.to_string()).to_vec();
        messages.extend([
            twice,
            RIGHT.to_owned(),
            format!("\"{RIGHT}\""),
            format!("[\"{RIGHT}\"]"),
            json!({ "jsonrpc": "2.0", "id": 1, "result": { "token": RIGHT } }).to_string(),
            json!({ "jsonrpc": "2.0", "id": 1, "error": RIGHT }).to_string(),
            json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": { "token": RIGHT } }).to_string(),
            json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": [RIGHT] } }).to_string(),
        ]);
        // Where it is asked for, and where it is not, which clients cannot know.
        for address in [address, open_address] {
            for message in &messages {
                let mut raw = upgrade(address, "").await;
                raw.text(message).await;
                raw.send(Frame::close(1000)).await;
                while let Some(frame) = raw.next().await {
                    assert_clean(message, &String::from_utf8_lossy(&frame.payload));
                }
                // And when all is well.
                let mut raw = upgrade(address, "Authorization: Bearer right-canary-4711\r\n").await;
                raw.initialize().await;
                raw.text(message).await;
                raw.send(Frame::close(1000)).await;
                while let Some(frame) = raw.next().await {
                    assert_clean(message, &String::from_utf8_lossy(&frame.payload));
                }
            }
        }
        assert_debug_clean("the registry", server.registry());
        server.shutdown().await;
        open.shutdown().await;
    })
    .await;
    let (own, foreign) = traced.showing(CANARY);
    assert!(own.is_empty(), "{own:#?}");
    // What the documentation of `secrets` says of others; hyper traces nothing in a build like this.
    let targets = foreign.iter().filter_map(|line| line.split_once(": ")).map(|(target, _)| target);
    let mut targets: Vec<_> = targets.collect();
    targets.dedup();
    println!("also in what these trace: {targets:?}");
    assert!(targets.iter().all(|target| target.starts_with("rmcp") || target == &"log"));
}

/// An authenticator is given the token. What it panics with is its own affair, but the client is
/// not told.
#[tokio::test]
async fn a_panic_does_not_reach_the_client() {
    alone!();
    limit(async {
        let config = Config::default().authenticator(|credentials: Credentials| async move {
            let token = credentials.token.unwrap();
            if token.as_str().len() > 1 {
                panic!("no {}", token.as_str())
            }
            Ok(Identity::new("short"))
        });
        let (_server, address) = Recorder::default().start_server(config).await;
        let (head, mut raw) = try_upgrade(address, &ways(RIGHT)[0]).await;
        assert_eq!(head.status(), 503);
        assert_clean("the head", &head.0);
        let length = head.get("content-length").unwrap().parse().unwrap();
        assert_clean("the body", &raw.body(length).await);
    })
    .await;
    Traced::all().assert_clean();
}
