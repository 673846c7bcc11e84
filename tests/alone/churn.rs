//! Connections that come and go in every way leave nothing behind.
//!
//! With `MCP_WS_FULL` set, 10,000 of them.

use std::{fs, net::SocketAddr, time::Duration};

use futures::{StreamExt, stream};
use mcp_ws_transport::{
    CloseCode,
    server::{Config, Limits, Registry},
};
use serde_json::json;
use tokio::{runtime::Handle, time::sleep};

use crate::{
    common::{
        Tools, assert_tasks_left, call,
        raw::{Frame, Raw, initialize},
        scale, serve_tools, within,
    },
    process::resident_kib,
};

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

async fn come_and_go(address: SocketAddr, registry: &Registry, number: usize) {
    let mut raw = Raw::dial(address).await;
    if number.is_multiple_of(8) {
        return raw.json(&initialize("init")).await;
    }
    raw.initialize().await;
    match number % 8 {
        1 => drop(raw),
        2 => raw.reset(),
        3 => {
            // Between the call and its answer.
            raw.json(&call(1, "sleep", json!({ "ms": 5 }))).await;
            raw.reset();
        }
        4 => {
            raw.json(&call(1, "sleep", json!({ "ms": 5 }))).await;
            drop(raw);
        }
        5 => {
            // It ends that call, and nothing else.
            let answer = raw.ask(&call(1, "panic", json!({}))).await;
            assert_eq!(answer["error"]["code"], -32603, "{answer}");
            raw.ping().await;
            close(raw).await;
        }
        6 => {
            let own = raw.stream.local_addr().ok();
            let own = registry.list().into_iter().find(|connection| connection.peer() == own);
            assert!(own.unwrap().disconnect(CloseCode::Policy.into()));
            assert_eq!(raw.closed().await.0, 1008);
        }
        _ => close(raw).await,
    }
}

async fn close(mut raw: Raw) {
    raw.send(Frame::close(1000)).await;
    assert_eq!(raw.closed().await.0, 1000);
    raw.end().await;
}

/// Waits until nobody is connected.
async fn wait_until_empty(registry: &Registry) {
    while !registry.list().is_empty() {
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_those_who_left() {
    alone!();
    let cycles = scale(800, 10_000);
    within(Duration::from_secs(scale(60, 300) as u64), async {
        // Each place is taken many times over.
        let limits = Limits::default().connections(64).connections_per_address(64);
        let (server, address) =
            serve_tools(&Tools::default(), Config::default().limits(limits).sessions(None)).await;
        let registry = server.registry().clone();
        let run = async |numbers: std::ops::Range<usize>| {
            let (numbers, registry) = (stream::iter(numbers), &registry);
            numbers.for_each_concurrent(16, |number| come_and_go(address, registry, number)).await;
            wait_until_empty(registry).await;
        };
        run(0..200).await;
        let metrics = Handle::current().metrics();
        assert_tasks_left(1).await;
        let (open, memory) = (descriptors(), resident_kib());
        run(0..cycles).await;
        assert_tasks_left(1).await;
        assert_eq!((metrics.num_alive_tasks(), descriptors()), (1, open));
        let growth = resident_kib().saturating_sub(memory);
        println!(
            "figure: {cycles} connections, 0 tasks and 0 descriptors left, {growth} KiB grown"
        );
        assert!(growth < 5 << 10, "grew by {growth} KiB");
        let health = registry.health();
        assert_eq!((health.active, health.rejected), (0, 0), "{health:?}");
        // Every place is free again.
        let mut raws = Vec::new();
        for _ in 0..64 {
            raws.push(Raw::initialized(address).await);
        }
        drop(raws);
        server.shutdown().await;
        assert_tasks_left(0).await;
    })
    .await;
}
