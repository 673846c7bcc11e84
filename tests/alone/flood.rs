//! Peers that send without end and read nothing cost a bounded amount of memory.

use std::time::Duration;

use mcp_ws_transport::{State, transport::Config};
use serde_json::json;

use crate::{
    common::{
        Tools, call, host, limit,
        raw::{CONTINUATION, Frame, PING, Raw, TEXT, head},
    },
    process::resident_kib,
};

/// Returns the resident memory of this process, in MiB.
fn resident() -> usize {
    resident_kib() >> 10
}

/// Writes `chunk` over and over, up to 16 MiB, until the peer takes no more for a second.
async fn write_until_full(raw: &mut Raw, chunk: &[u8]) {
    let mut written = 0;
    while written < 16 << 20 {
        match tokio::time::timeout(Duration::from_secs(1), raw.try_write(chunk)).await {
            Ok(Ok(())) => written += chunk.len(),
            _ => break,
        }
    }
}

/// Writes `chunk` over and over. Returns by how many MiB the process has grown meanwhile, at most.
async fn growth(chunk: &[u8]) -> usize {
    let (address, _connections) = host(Tools::default(), Config::default()).await;
    let mut raw = Raw::initialized(address).await;
    let before = resident();
    let mut most = 0;
    let watch = async {
        while most <= 60 {
            most = most.max(resident().saturating_sub(before));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = watch => {}
        () = write_until_full(&mut raw, chunk) => {}
    }
    most.max(resident().saturating_sub(before))
}

async fn assert_frames_bounded(frame: Frame) {
    let frame = frame.bytes(true);
    assert_bounded(frame.repeat((64 << 10) / frame.len() + 1)).await;
}

async fn assert_bounded(chunk: Vec<u8>) {
    limit(async {
        let growth = growth(&chunk).await;
        assert!(growth < 30, "grew by {growth} MiB");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings() {
    alone!();
    assert_frames_bounded(Frame::new(PING, [b'x'; 125])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish() {
    alone!();
    assert_frames_bounded(Frame::text("rubbish")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches() {
    alone!();
    assert_frames_bounded(Frame::text("[]")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests() {
    alone!();
    let request =
        |id| Frame::text(call(id, "big", json!({ "size": 2000 })).to_string()).bytes(true);
    assert_bounded((0..1000).flat_map(request).collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications() {
    alone!();
    assert_frames_bounded(Frame::text(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_that_nobody_knows() {
    alone!();
    assert_frames_bounded(Frame::text(r#"{"jsonrpc":"2.0","method":"notifications/acme"}"#)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancellations_of_nothing() {
    alone!();
    assert_frames_bounded(Frame::text(
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#,
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_taken_back() {
    alone!();
    let cancelled = |id| json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id } });
    let pair = |id| {
        let request = Frame::text(call(id, "echo", json!({ "text": "" })).to_string()).bytes(true);
        [request, Frame::text(cancelled(id).to_string()).bytes(true)].concat()
    };
    assert_bounded((0..1000).flat_map(pair).collect()).await;
}

/// Large ones, which take many times their size once they are read, and whose handlers do not end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_grow() {
    alone!();
    limit(async {
        let tools = Tools::default();
        let (address, _connections) = host(tools.clone(), Config::default()).await;
        let mut raw = Raw::initialized(address).await;
        let maps = vec![json!({ "a": 0 }); 15_000];
        let before = resident();
        for id in 0..100 {
            raw.json(&call(id, "wait", json!({ "maps": maps }))).await;
        }
        let mut refused = 0;
        while refused < 90 {
            let answer = raw.receive().await;
            assert_eq!(answer["error"]["data"]["reason"], "too_many_requests");
            refused += 1;
        }
        let growth = resident().saturating_sub(before);
        assert!(growth < 120, "grew by {growth} MiB");
        assert!(*tools.started.borrow() >= 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_refused() {
    alone!();
    assert_frames_bounded(Frame::text(r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_to_nothing() {
    alone!();
    assert_frames_bounded(Frame::text(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_with_an_id_in_flight() {
    alone!();
    limit(async {
        let tools = Tools::default();
        let (address, _connections) = host(tools.clone(), Config::default()).await;
        let mut raw = Raw::initialized(address).await;
        let frame = Frame::text(call(1, "wait", json!({})).to_string()).bytes(true);
        let before = resident();
        write_until_full(&mut raw, &frame.repeat(500)).await;
        let growth = resident().saturating_sub(before);
        assert!(growth < 30, "grew by {growth} MiB");
        assert_eq!(*tools.started.borrow(), 1);
    })
    .await;
}

/// Small requests with large answers: what a peer that reads nothing may have computed for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers() {
    alone!();
    limit(async {
        let (address, _connections) = host(Tools::default(), Config::default()).await;
        let mut raw = Raw::initialized(address).await;
        let before = resident();
        for id in 0..200 {
            raw.json(&call(id, "big", json!({ "size": 1 << 20 }))).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let growth = resident().saturating_sub(before);
            assert!(growth < 60, "grew by {growth} MiB");
        }
    })
    .await;
}

/// A message that never ends: no more than the limit is kept of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fragments_without_end() {
    alone!();
    limit(async {
        let (address, mut connections) = host(Tools::default(), Config::default()).await;
        let mut raw = Raw::initialized(address).await;
        let mut observer = connections.recv().await.unwrap();
        raw.send(Frame::text("[").more()).await;
        let before = resident();
        write_until_full(&mut raw, &Frame::new(CONTINUATION, "x".repeat(60_000)).more().bytes(true)).await;
        assert!(
            matches!(observer.ended().await, State::Closed(reason) if u16::from(reason.code) == 1009)
        );
        assert!(resident().saturating_sub(before) < 40);

        // Empty ones cost nothing, but are no message either: the link lives.
        let mut raw = Raw::initialized(address).await;
        raw.send(Frame::new(TEXT, "").more()).await;
        let empty = Frame::new(CONTINUATION, "").more().bytes(true).repeat(100_000);
        raw.write(&empty).await;
        let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
        raw.send(Frame::new(CONTINUATION, ping)).await;
        assert_eq!(raw.receive().await["id"], 1);
    })
    .await;
}

/// Many connections that only promise large frames.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promises() {
    alone!();
    limit(async {
        let (address, _connections) = host(Tools::default(), Config::default()).await;
        let before = resident();
        let mut raws = Vec::new();
        for _ in 0..50 {
            let mut raw = Raw::dial(address).await;
            raw.write(head(&Frame::text(""), 4 << 20, true)).await;
            raw.write("x").await;
            raws.push(raw);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let growth = resident().saturating_sub(before);
        assert!(growth < 30, "grew by {growth} MiB");
    })
    .await;
}
