//! A `receive()` that is dropped at any point loses nothing, and a `send()` that is dropped sends.
//!
//! With `MCP_WS_FULL` set, 10,000 messages of up to 1 MiB.

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use mcp_ws_transport::{WebSocketTransport, layer::socket::Side};
use rmcp::{RoleClient, transport::Transport};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::common::{
    limit,
    raw::{CONTINUATION, Frame, PING, Raw, TEXT},
    scale, within,
};

/// Numbers that look random and are the same at every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % bound
    }
}

/// The bytes of `count` pings of MCP, cut into fragments at random, with rubbish and pings of
/// WebSocket in between. Most are small, some have as many as `most` bytes.
fn messages(count: usize, most: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::new();
    for id in 0..count {
        let most = most >> random.below(most.ilog2() as usize);
        let padding = " ".repeat(random.below(most + 1));
        let text = json!({ "jsonrpc": "2.0", "id": id, "method": "ping" }).to_string() + &padding;
        let mut rest = text.as_bytes();
        let mut opcode = TEXT;
        while random.below(3) > 0 {
            let (left, right) = rest.split_at(random.below(rest.len() + 1));
            bytes.extend(Frame::new(opcode, left).more().bytes(false));
            bytes.extend(Frame::new(PING, "between").bytes(false));
            (rest, opcode) = (right, CONTINUATION);
        }
        bytes.extend(Frame::new(opcode, rest).bytes(false));
        if random.below(4) == 0 {
            bytes.extend(Frame::text("rubbish").bytes(false));
        }
    }
    bytes
}

#[tokio::test]
async fn dropped_receives_lose_nothing() {
    let (count, most) = (scale(100, 500), scale(512, 1 << 20));
    let mut dropped = 0;
    for seed in 0..20 {
        within(Duration::from_secs(scale(60, 120) as u64), async {
            let pipe = if seed % 2 == 0 { 97 } else { most };
            let (near, far) = tokio::io::duplex(pipe);
            let mut transport = WebSocketTransport::<RoleClient>::builder().over_stream(
                near,
                Bytes::new(),
                Side::Client,
            );
            let mut random = Random(seed);
            let bytes = messages(count, most, &mut random);
            let (mut read, mut write) = tokio::io::split(far);
            tokio::spawn(async move {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let most = rest.len().min(2 * pipe);
                    let (piece, after) = rest.split_at(random.below(most) + 1);
                    if write.write_all(piece).await.is_err() {
                        // All messages were read.
                        return;
                    }
                    tokio::task::yield_now().await;
                    rest = after;
                }
                std::future::pending::<()>().await;
            });
            tokio::spawn(async move { while read.read(&mut [0; 64]).await.is_ok() {} });
            let mut random = Random(seed + 1000);
            for id in 0..count {
                let message = loop {
                    // Polled once and dropped, or with company that wins now and then.
                    if random.below(2) == 0 {
                        if let Some(message) = transport.receive().now_or_never() {
                            break message;
                        }
                        tokio::task::yield_now().await;
                    } else {
                        tokio::select! {
                            message = transport.receive() => break message,
                            () = tokio::task::yield_now() => {}
                        }
                    }
                    dropped += 1;
                };
                let message = serde_json::to_value(message.unwrap()).unwrap();
                assert_eq!(message["id"], id, "seed {seed}");
            }
        })
        .await;
    }
    println!(
        "figure: {} messages of up to {most} bytes delivered, {dropped} receives dropped",
        20 * count
    );
    assert!(dropped > 10 * count, "{dropped}");
}

#[tokio::test]
async fn dropped_sends_are_sent() {
    limit(async {
        let (near, far) = tokio::io::duplex(97);
        let mut transport = WebSocketTransport::<RoleClient>::builder().over_stream(
            near,
            Bytes::new(),
            Side::Client,
        );
        let mut raw = Raw::over(far, false);
        for id in 0..50 {
            let message = json!({ "jsonrpc": "2.0", "id": id, "method": "ping" });
            let mut send = Box::pin(transport.send(serde_json::from_value(message).unwrap()));
            if id % 2 == 0 {
                let _ = (&mut send).now_or_never();
            }
        }
        let peer = async {
            for id in 0..50 {
                assert_eq!(raw.receive().await["id"], id);
            }
        };
        tokio::select! {
            () = peer => {}
            received = transport.receive() => panic!("{received:?}"),
        }
    })
    .await;
}

/// A send that is kept, but not polled again, holds nothing up: whoever is polled does the writing.
#[tokio::test]
async fn kept_sends_are_sent_by_the_reader() {
    limit(async {
        let (near, far) = tokio::io::duplex(97);
        let mut transport = WebSocketTransport::<RoleClient>::builder().over_stream(
            near,
            Bytes::new(),
            Side::Client,
        );
        let mut raw = Raw::over(far, false);
        let mut kept = Vec::new();
        for id in 0..50 {
            let message = json!({ "jsonrpc": "2.0", "id": id, "method": "ping" });
            let mut send = Box::pin(transport.send(serde_json::from_value(message).unwrap()));
            if id % 2 == 0 {
                let _ = (&mut send).now_or_never();
            }
            kept.push(send);
        }
        let peer = async {
            for id in 0..50 {
                assert_eq!(raw.receive().await["id"], id);
            }
        };
        tokio::select! {
            () = peer => {}
            received = transport.receive() => panic!("{received:?}"),
        }
        for send in kept {
            send.await.unwrap();
        }
    })
    .await;
}

/// A `close()` that is dropped half-way can be called again.
#[tokio::test]
async fn a_dropped_close_can_be_repeated() {
    limit(async {
        let (near, far) = crate::common::pair().await;
        let mut transport = WebSocketTransport::<RoleClient>::builder().over_stream(
            near,
            Bytes::new(),
            Side::Client,
        );
        assert!(transport.close().now_or_never().is_none());
        let mut raw = Raw::over(far, false);
        let peer = async {
            assert_eq!(raw.closed().await.0, 1000);
            raw.assert_silent(Duration::from_millis(50)).await;
            raw.send(Frame::close(1000)).await;
            drop(raw);
        };
        let (closed, ()) = tokio::join!(transport.close(), peer);
        closed.unwrap();
    })
    .await;
}
