//! A client that returns by the name of its session and says only what shows nobody who it is: what
//! it is answered waits, within bounds, and it is let go.

use std::net::SocketAddr;

use mcp_ws_transport::{framing::Envelope, server::Config};
use serde_json::json;
use tokio::net::TcpStream;

use crate::{
    common::{
        Tools, limit,
        raw::{Frame, Raw, upgrade_request},
        serve_tools,
    },
    process::resident_kib,
};

async fn come_by_name(address: SocketAddr) -> Raw {
    let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
    let request = upgrade_request(address, "").replace("/mcp ", "/mcp?mcp_session_id=n ");
    raw.write(request).await;
    assert_eq!(raw.head().await.unwrap().status(), 101);
    raw
}

/// Measures the memory that a million of such messages take, in MiB. They stop when the client is
/// closed.
async fn grown_by(message: impl Fn(usize) -> String) -> usize {
    let tools = Tools::default();
    let (_server, address) =
        serve_tools(&tools, Config::default().framing(Envelope::default())).await;
    let mut first = come_by_name(address).await;
    let request = json!({"method": "echo", "params": {"text": "x"}});
    first.json(&json!({"type": "mcp_request", "request": request, "requestId": "1"})).await;
    assert_eq!(first.receive().await["requestId"], "1");
    first.reset();
    let mut second = come_by_name(address).await;
    let before = resident_kib();
    for batch in 0..200 {
        let frames = (0..5000).flat_map(|at| Frame::text(message(batch * 5000 + at)).bytes(true));
        if second.try_write(frames.collect::<Vec<u8>>()).await.is_err() {
            break;
        }
    }
    resident_kib().saturating_sub(before) >> 10
}

#[tokio::test]
async fn what_cannot_be_answered_takes_no_memory_without_bound() {
    alone!();
    limit(async {
        let ping = grown_by(|_| r#"{"type":"ping"}"#.into()).await;
        assert!(ping < 40, "pings: {ping} MiB");
        let unknown = |number| format!(r#"{{"type":"x","requestId":"{number}-{:060}"}}"#, 0);
        let refused = grown_by(unknown).await;
        assert!(refused < 40, "refusals: {refused} MiB");
    })
    .await;
}
