//! Servers whose instances are joined by NATS.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../tests/bus/brokers.rs"]
mod brokers;

use std::{ffi::OsString, time::Duration};

use brokers::{
    chaos,
    instances::{self, Broker},
    relay,
};
use mcp_ws_transport_nats::Nats;

struct NatsServer;

impl Broker for NatsServer {
    type Bus = Nats;
    const PROGRAM: &str = "nats-server";

    fn arguments(port: u16) -> Vec<OsString> {
        ["-a", "127.0.0.1", "-p", &port.to_string()].map(Into::into).into()
    }

    async fn connect(address: &str) -> Nats {
        let interval = Duration::from_millis(500);
        Nats::connect(format!("nats://{address}")).ping_interval(interval).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "is an instance of the test below, and does nothing by itself"]
async fn an_instance() {
    instances::run_instance::<NatsServer>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server"]
async fn each_call_ends_once_whatever_happens_to_three_instances() {
    let folder = tempfile::tempdir().unwrap();
    chaos::each_call_ends_once::<NatsServer>("an_instance", folder.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server"]
async fn sessions_are_resumed_by_other_instances() {
    relay::sessions_are_resumed_by_other_instances::<NatsServer>().await;
}
