//! Whoever waits is woken, however many wait and for whatever.

use std::{
    future::{Future, poll_fn},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use mcp_ws_transport::{
    Message, WebSocketTransport,
    layer::{
        Reconnect, SharedLink, Socket, shared_link,
        socket::{self, Side},
    },
    transport::Config,
};
use rmcp::{RoleClient, RoleServer, transport::Transport};
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::common::{
    limit, pair,
    raw::{Frame, Raw},
    within,
};

/// Two that wait for the same message are both told.
#[tokio::test]
async fn all_who_wait_for_the_same_flush_are_woken() {
    limit(async {
        let (near, mut far) = tokio::io::duplex(64);
        let socket = Socket::new(near, Side::Client, socket::Config::default());
        let mut shared = SharedLink::new(Reconnect::single(socket), shared_link::Config::default());
        shared.feed(Message::text("x".repeat(10_000))).await.unwrap();
        let waiting: Vec<_> = (0..3).map(|_| tokio::spawn(shared.flushed())).collect();
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        tokio::spawn(
            async move { while far.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {} },
        );
        for flushed in waiting {
            within(Duration::from_secs(2), flushed).await.unwrap().unwrap();
        }
    })
    .await;
}

/// The halves of a split sink and stream, in two tasks: answers that the reader writes by itself do
/// not take the writer's place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_sink_is_woken_while_the_reader_answers_rubbish() {
    for _ in 0..5 {
        limit(async {
            let (near, far) = tokio::io::duplex(512);
            let config =
                Config::default().shared_link(shared_link::Config::default().queue_bytes(2000));
            let transport = WebSocketTransport::<RoleServer>::builder()
                .transport(config)
                .over_stream(near, Bytes::new(), Side::Server);
            let (mut sink, mut stream) = transport.into_sink_stream().split();
            tokio::spawn(async move { while stream.next().await.is_some() {} });
            let writer = tokio::spawn(async move {
                for id in 0..300 {
                    let message = json!({
                        "jsonrpc": "2.0", "id": id, "result": { "text": "x".repeat(700) },
                    });
                    sink.send(serde_json::from_value(message).unwrap()).await.unwrap();
                }
                sink
            });
            let (read, mut write) = tokio::io::split(far);
            tokio::spawn(async move {
                use tokio::io::AsyncWriteExt;
                let rubbish = Frame::text("rubbish").bytes(true);
                while write.write_all(&rubbish).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
            let peer = tokio::spawn(async move {
                let mut raw = Raw::over(tokio::io::join(read, tokio::io::sink()), true);
                let mut results = 0;
                while results < 300 {
                    if raw.receive().await.get("result").is_some() {
                        results += 1;
                    }
                }
                // Whoever still waits must not depend on anything further from here.
                loop {
                    if raw.try_next().await.is_err() {
                        return;
                    }
                }
            });
            let _sink = within(Duration::from_secs(10), writer).await.unwrap();
            peer.abort();
        })
        .await;
    }
}

/// Sends that nobody waits for go out while only the reader is polled, and the other way round.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_senders_and_a_reader_share_one_slow_connection() {
    limit(async {
        let (near, far) = pair().await;
        let mut transport = WebSocketTransport::<RoleClient>::builder().over_stream(
            near,
            Bytes::new(),
            Side::Client,
        );
        let peer = tokio::spawn(async move {
            let mut raw = Raw::over(far, false);
            for id in 0..500 {
                let request = raw.receive().await;
                assert_eq!(request["id"], id);
                raw.json(&json!({ "jsonrpc": "2.0", "id": id, "result": {} })).await;
            }
            raw
        });
        let text = "x".repeat(20_000);
        let sends: Vec<_> = (0..500)
            .map(|id| {
                let message = crate::common::call(id, "echo", json!({ "text": text }));
                tokio::spawn(transport.send(serde_json::from_value(message).unwrap()))
            })
            .collect();
        for _ in 0..500 {
            assert!(transport.receive().await.is_some());
        }
        for send in sends {
            send.await.unwrap().unwrap();
        }
        drop(peer.await.unwrap());
    })
    .await;
}

/// The more that wait, the more each wake-up costs: with 4,000 this takes minutes, not the peer.
#[tokio::test]
async fn senders_that_cannot_go_on_are_not_woken_each_time() {
    limit(async {
        let (near, mut far) = tokio::io::duplex(4096);
        let mut transport = WebSocketTransport::<RoleClient>::builder().over_stream(
            near,
            Bytes::new(),
            Side::Client,
        );
        let polls = Arc::new(AtomicUsize::new(0));
        let text = "x".repeat(1000);
        let sends: Vec<_> = (0..500)
            .map(|id| {
                let message = crate::common::call(id, "echo", json!({ "text": text }));
                let mut send = Box::pin(transport.send(serde_json::from_value(message).unwrap()));
                let polls = polls.clone();
                tokio::spawn(poll_fn(move |cx| {
                    polls.fetch_add(1, Ordering::Relaxed);
                    send.as_mut().poll(cx)
                }))
            })
            .collect();
        tokio::spawn(
            async move { while far.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {} },
        );
        for send in sends {
            send.await.unwrap().unwrap();
        }
        let polls = polls.load(Ordering::Relaxed);
        assert!(polls < 5000, "{polls} polls of 500 sends");
    })
    .await;
}
