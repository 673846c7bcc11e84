//! A client that returns by the name of its session and says only what shows nobody who it is: what
//! it is answered waits, within bounds, and it is let go.
#![cfg(all(feature = "server", target_os = "linux"))]
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::net::SocketAddr;

use common::{Frame, Raw, Tools, limit, raw::upgrade_request, serve_tools};
use mcp_ws_transport::{framing::Envelope, server::Config};
use serde_json::json;
use tokio::net::TcpStream;

/// Memory of this process, in MiB.
fn memory() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    (pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096) >> 20
}

async fn come_by_name(address: SocketAddr) -> Raw {
    let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
    let request = upgrade_request(address, "").replace("/mcp ", "/mcp?mcp_session_id=n ");
    raw.write(request).await;
    assert_eq!(raw.head().await.unwrap().status(), 101);
    raw
}

/// How much memory a million of such messages take, in MiB. They stop when the client is closed.
async fn grown_by(message: impl Fn(usize) -> String) -> usize {
    let tools = Tools::default();
    let (_server, address) = serve_tools(&tools, Config::default().framing(Envelope::default())).await;
    let mut first = come_by_name(address).await;
    let request = json!({"method": "echo", "params": {"text": "x"}});
    first.json(&json!({"type": "mcp_request", "request": request, "requestId": "1"})).await;
    assert_eq!(first.receive().await["requestId"], "1");
    first.reset();
    let mut second = come_by_name(address).await;
    let before = memory();
    for batch in 0..200 {
        let frames = (0..5000).flat_map(|at| Frame::text(message(batch * 5000 + at)).bytes(true));
        if second.try_write(frames.collect::<Vec<u8>>()).await.is_err() {
            break;
        }
    }
    memory().saturating_sub(before)
}

/// One after the other: it is the memory of the process that is looked at.
#[tokio::test]
async fn what_cannot_be_answered_takes_no_memory_without_bound() {
    limit(async {
        let ping = grown_by(|_| r#"{"type":"ping"}"#.into()).await;
        assert!(ping < 40, "pings: {ping} MiB");
        let unknown = |number| format!(r#"{{"type":"x","requestId":"{number}-{:060}"}}"#, 0);
        let refused = grown_by(unknown).await;
        assert!(refused < 40, "refusals: {refused} MiB");
    })
    .await;
}
