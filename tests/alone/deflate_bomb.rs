//! Cost of a message that grows when it is inflated.

use std::{net::SocketAddr, time::Duration};

use flate2::{Compress, Compression, FlushCompress};
use mcp_ws_transport::{
    layer::socket::{self, deflate},
    server::Config,
    transport,
};
use serde_json::json;
use tokio::net::TcpStream;

use crate::{
    HEAP,
    common::{
        Tools,
        raw::{Frame, Raw, TEXT, upgrade_request},
        serve_tools, within,
    },
};

/// Default limit of a server.
const LIMIT: usize = 4 << 20;

#[tokio::test]
async fn what_grows_is_refused_before_it_takes_more_than_the_limit() {
    alone!();
    within(Duration::from_secs(60), async {
        let layers = transport::Config::default()
            .socket(socket::Config::default().deflate(deflate::Config::default()));
        let (_server, address) =
            serve_tools(&Tools::default(), Config::default().transport(layers)).await;

        worst_json(address).await;
        a_gibibyte(address).await;
    })
    .await;
}

/// A client that compresses.
async fn dial(address: SocketAddr) -> Raw {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut raw = Raw::over(stream, true);
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    raw.write(upgrade_request(address, offer)).await;
    let head = raw.head().await.unwrap();
    assert!(head.get("sec-websocket-extensions").is_some());
    raw.initialize().await;
    raw
}

/// A few KiB become a request of 4 MiB, which would become half a GiB: it is not decoded.
async fn worst_json(address: SocketAddr) {
    let start = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"a":["#;
    for value in [r#"{"":0}"#, "{}", "0", "[]", r#"{"a":{"b":{}}}"#] {
        let mut raw = dial(address).await;
        let before = HEAP.allocated();
        // In pieces: what is compressed is not to be counted.
        let piece = format!("{value},").repeat(1000);
        let pieces = (LIMIT - 1000) / piece.len();
        let mut compress = Compress::new(Compression::best(), false);
        let mut small = Vec::with_capacity(64 << 10);
        let (none, sync) = (FlushCompress::None, FlushCompress::Sync);
        compress.compress_vec(start.as_bytes(), &mut small, none).unwrap();
        for _ in 0..pieces {
            compress.compress_vec(piece.as_bytes(), &mut small, none).unwrap();
        }
        let end = format!("{value}]}}}}}}");
        compress.compress_vec(end.as_bytes(), &mut small, sync).unwrap();
        small.truncate(small.len() - 4);
        let size = (compress.total_in(), small.len());
        assert!(size.0 > (LIMIT - (64 << 10)) as u64 && size.1 < 24 << 10, "{size:?}");
        raw.send(Frame { reserved: 4, ..Frame::new(TEXT, small) }).await;
        let answer = raw.receive().await;
        let error = &answer["error"];
        assert_eq!((&answer["id"], &error["code"]), (&json!(7), &json!(-32600)), "{answer}");
        assert_eq!(error["data"]["limit_bytes"], 32 << 20, "{answer}");
        raw.ping().await;
        let peak = HEAP.max_allocated().saturating_sub(before);
        println!("{value}: {size:?} bytes, peak: {} KiB", peak >> 10);
        assert!(peak <= LIMIT * 9 / 4, "{peak}");
    }
}

/// 1 GiB in 1 MiB is refused when it has grown to the limit.
async fn a_gibibyte(address: SocketAddr) {
    let mut mebibyte = Vec::with_capacity(64 << 10);
    Compress::new(Compression::best(), false)
        .compress_vec(&vec![0; 1 << 20], &mut mebibyte, FlushCompress::Full)
        .unwrap();
    let bomb = Frame { reserved: 4, ..Frame::new(TEXT, mebibyte.repeat(1 << 10)) };
    drop(mebibyte);
    println!("1 GiB in {} KiB", bomb.payload.len() >> 10);
    let bytes = bomb.bytes(true);
    assert!(bytes.len() < 3 << 19, "{}", bytes.len());

    let mut raw = dial(address).await;
    let before = HEAP.allocated();
    // The server closes before it has read all of this.
    let _ = raw.try_write(&bytes).await;
    assert_eq!(raw.closed().await.0, 1009);
    let peak = HEAP.max_allocated().saturating_sub(before);
    println!("peak: {} KiB", peak >> 10);
    assert!(peak <= LIMIT * 9 / 4, "{peak}");
}
