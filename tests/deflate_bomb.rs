//! What a message that grows when it is inflated can cost: the heap is counted, so there is one test
//! only.
#![cfg(all(feature = "client", feature = "server", feature = "deflate"))]
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::{alloc::System, time::Duration};

use cap::Cap;
use common::{
    Frame, Raw, Tools,
    raw::{TEXT, upgrade_request},
    serve_tools, within,
};
use flate2::{Compress, Compression, FlushCompress};
use mcp_ws_transport::{layer::socket::deflate, server::Config, transport};
use tokio::net::TcpStream;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// That of a server, by default.
const LIMIT: usize = 4 << 20;

#[tokio::test]
async fn a_gibibyte_in_a_mebibyte_is_refused_when_it_has_grown_to_the_limit() {
    within(Duration::from_secs(60), async {
        let mut layers = transport::Config::default();
        layers.socket.deflate = Some(deflate::Config::default());
        let (_server, address) =
            serve_tools(&Tools::default(), Config::default().layers(layers)).await;

        let mut mebibyte = Vec::with_capacity(64 << 10);
        Compress::new(Compression::best(), false)
            .compress_vec(&vec![0; 1 << 20], &mut mebibyte, FlushCompress::Full)
            .unwrap();
        let bomb = Frame { reserved: 4, ..Frame::new(TEXT, mebibyte.repeat(1 << 10)) };
        drop(mebibyte);
        println!("1 GiB in {} KiB", bomb.payload.len() >> 10);
        let bytes = bomb.bytes(true);
        assert!(bytes.len() < 3 << 19, "{}", bytes.len());

        let stream = TcpStream::connect(address).await.unwrap();
        let mut raw = Raw::over(stream, true);
        let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
        raw.write(upgrade_request(address, offer)).await;
        let head = raw.head().await.unwrap();
        assert!(head.get("sec-websocket-extensions").is_some());
        raw.initialize().await;

        let before = HEAP.allocated();
        // The server closes before it has read all of this.
        let _ = raw.try_write(&bytes).await;
        assert_eq!(raw.closed().await.0, 1009);
        let peak = HEAP.max_allocated().saturating_sub(before);
        println!("peak: {} KiB", peak >> 10);
        assert!(peak <= LIMIT * 9 / 4, "{peak}");
    })
    .await;
}
