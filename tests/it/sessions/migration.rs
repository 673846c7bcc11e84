//! Promises of the migration notes for clients that know nothing of sessions.

use std::net::SocketAddr;

use mcp_ws_transport::server::Config;
use serde_json::json;
use tokio::net::TcpStream;

use crate::common::{
    Tools, call, limit,
    raw::{Frame, Raw, upgrade_request},
    serve_tools, text_of,
};

/// Opens a connection as PartySocket does: its own id is in the query too.
async fn open(address: SocketAddr, id: &str) -> Raw {
    let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
    let query = format!("/mcp?_pk={id}&mcp_session_id={id} ");
    raw.write(upgrade_request(address, "").replacen("/mcp ", &query, 1)).await;
    assert_eq!(raw.head().await.unwrap().status(), 101);
    raw
}

#[tokio::test]
async fn a_queue_that_is_flushed_without_initialize_reaches_the_session_as_it_was() {
    limit(async {
        let (server, address) = serve_tools(&Tools::default(), Config::default()).await;
        let mut raw = open(address, "id").await;
        raw.initialize().await;
        raw.reset();
        let mut raw = open(address, "id").await;
        for id in 1..=3 {
            raw.json(&call(id, "echo", json!({ "text": "queued" }))).await;
        }
        for _ in 1..=3 {
            assert_eq!(text_of(&raw.receive().await), "queued");
        }
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn where_the_session_is_gone_the_queue_is_refused_and_initialize_helps() {
    limit(async {
        let tools = Tools::default();
        let (server, address) = serve_tools(&tools, Config::default()).await;
        let mut raw = open(address, "id").await;
        for id in 1..=3 {
            let answer = raw.ask(&call(id, "sleep", json!({ "ms": 0 }))).await;
            assert_eq!(answer["id"], id);
            assert_eq!(answer["error"]["code"], -32602, "{answer}");
            let message = answer["error"]["message"].as_str().unwrap();
            assert!(message.starts_with("request _meta is missing"), "{message}");
        }
        assert_eq!(*tools.started.borrow(), 0);
        raw.initialize().await;
        let answer = raw.ask(&call(4, "sleep", json!({ "ms": 0 }))).await;
        assert_eq!(text_of(&answer), "slept");
        raw.send(Frame::close(1000)).await;
        assert_eq!(raw.closed().await.0, 1000);
        server.shutdown().await;
    })
    .await;
}
