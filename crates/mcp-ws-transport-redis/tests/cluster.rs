//! Servers whose instances are joined by Redis.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../tests/bus/brokers.rs"]
mod brokers;

use std::{ffi::OsString, time::Duration};

use brokers::{
    chaos,
    instances::{self, Broker},
    relay,
};
use mcp_ws_transport_redis::Redis;

struct RedisServer;

impl Broker for RedisServer {
    type Bus = Redis;
    const PROGRAM: &str = "redis-server";

    fn arguments(port: u16) -> Vec<OsString> {
        let port = port.to_string();
        ["--bind", "127.0.0.1", "--port", &port, "--save", ""].map(Into::into).into()
    }

    async fn connect(address: &str) -> Redis {
        let interval = Duration::from_millis(500);
        Redis::connect(format!("redis://{address}")).ping_interval(interval).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is an instance of the test below, and does nothing by itself"]
async fn an_instance() {
    instances::run_instance::<RedisServer>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn each_call_ends_once_whatever_happens_to_three_instances() {
    let folder = tempfile::tempdir().unwrap();
    chaos::each_call_ends_once::<RedisServer>("an_instance", folder.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis-server"]
async fn sessions_are_resumed_by_other_instances() {
    relay::sessions_are_resumed_by_other_instances::<RedisServer>().await;
}
