//! A peer that reads slowly, but faster than the floor, is served to the end.

use std::time::Duration;

use mcp_ws_transport::{layer::socket, server::Config, transport};
use serde_json::json;
use tokio::{
    io::AsyncReadExt,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::common::{Tools, call, limit, raw::Raw, serve_tools};

/// More than the buffers of the operating system hold.
const SIZE: usize = 12 << 20;

/// The kernel takes more from this side in large steps only, unless it is told otherwise.
#[tokio::test]
async fn whoever_reads_steadily_at_many_times_the_floor_is_not_cut_off() {
    limit(async {
        let layers = transport::Config::default().socket(
            socket::Config::default()
                .write_timeout(Duration::from_secs(1))
                .send_window(Duration::from_secs(1)),
        );
        let config = Config::default().transport(layers);
        let (_server, address) = serve_tools(&Tools::default(), config).await;
        let mut raw = Raw::initialized(address).await;
        raw.json(&call(1, "big", json!({ "size": SIZE }))).await;

        let mut step = vec![0; 12_000];
        let mut ticks = interval(Duration::from_millis(20));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (began, mut read) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(5) {
            ticks.tick().await;
            let some = raw.stream.read(&mut step).await.unwrap();
            assert!(some > 0, "the end after {read} bytes, {:?}", began.elapsed());
            read += some;
        }
        while read < SIZE {
            let some = raw.stream.read(&mut step).await.unwrap();
            assert!(some > 0, "the end after {read} bytes, {:?}", began.elapsed());
            read += some;
        }
    })
    .await;
}
