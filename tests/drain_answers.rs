//! A server that stops has its answers read, not only written down.
#![cfg(all(feature = "client", feature = "server"))]
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::{Raw, Tools, call, limit, tasks_left};
use mcp_ws_transport::{
    layer::socket,
    server::{Config, serve_on},
    transport,
};
use serde_json::json;
use tokio::{io::AsyncReadExt, net::TcpSocket, time::sleep};

/// A large answer takes its time on a slow line, of which there is enough until the deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_on_a_slow_line_arrives_whole() {
    let size = 3 << 20;
    limit(async {
        let (near, far) = (TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap());
        far.set_send_buffer_size(16 << 10).unwrap();
        near.set_recv_buffer_size(32 << 10).unwrap();
        far.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut layers = transport::Config::default();
        layers.socket = socket::Config::default().close_timeout(Duration::from_millis(200));
        let tools = Tools::default();
        let server = serve_on(far.listen(8).unwrap(), move || tools.clone());
        let server = server.config(Config::default().layers(layers)).await.unwrap();
        let address = server.local_addr();
        let mut raw = Raw::initialized_over(near.connect(address).await.unwrap(), address).await;
        raw.json(&call(1, "big", json!({ "size": size }))).await;
        raw.stream.readable().await.unwrap();
        let client = async {
            let (mut read, mut buffer) = (0, vec![0; 64 << 10]);
            while let Ok(count @ 1..) = raw.stream.read(&mut buffer).await {
                read += count;
                // Some four seconds for all.
                sleep(Duration::from_millis(40)).await;
            }
            read
        };
        let ((), read) = tokio::join!(server.shutdown(), client);
        assert!(read > size, "{read} bytes of {size}");
        tasks_left(0).await;
    })
    .await;
}
