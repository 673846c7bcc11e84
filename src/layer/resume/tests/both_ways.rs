//! Heavy traffic in both directions over a slow network: every call ends, and no side goes deaf.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use rmcp::{
    RoleClient, RoleServer, model::JsonRpcMessage, service::TxJsonRpcMessage, transport::Transport,
};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split},
    sync::{Notify, mpsc},
    time::{sleep_until, timeout},
};

use super::*;
use crate::{
    WebSocketTransport,
    decode::Role,
    duplex::BoxLink,
    event::Notices,
    extensions::Extensions,
    layer::socket::Side as End,
    transport::{Builder, Config as Settings},
};

/// Source of a single link.
struct Never;

impl LinkSource for Never {
    type Link = BoxLink;

    fn on_lost(self: Pin<&mut Self>, _: &Error) -> bool {
        false
    }

    fn poll_next_link(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Result<(BoxLink, LinkUp), Error>> {
        Poll::Pending
    }
}

/// A network that takes whatever it is given, and delivers it later.
fn far_apart(delay: Duration) -> (DuplexStream, DuplexStream) {
    let ((near, near_wire), (far, far_wire)) = (duplex(64 << 10), duplex(64 << 10));
    let (near_read, near_write) = split(near_wire);
    let (far_read, far_write) = split(far_wire);
    for (mut from, mut to) in [(near_read, far_write), (far_read, near_write)] {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(size @ 1..) = from.read(&mut buffer).await {
                if sender.send((Instant::now() + delay, buffer[..size].to_vec())).is_err() {
                    break;
                }
            }
        });
        tokio::spawn(async move {
            while let Some((due, bytes)) = receiver.recv().await {
                sleep_until(due).await;
                if to.write_all(&bytes).await.is_err() {
                    break;
                }
            }
        });
    }
    (near, far)
}

#[derive(Default)]
struct Done(AtomicUsize, Notify);

/// Sends this many requests and answers those of the other end, until both ends have all their
/// answers.
async fn converse<R: Role>(mut transport: WebSocketTransport<R>, requests: usize, done: &Done)
where
    TxJsonRpcMessage<R>: DeserializeOwned,
{
    let message = |value| serde_json::from_value::<TxJsonRpcMessage<R>>(value).unwrap();
    for id in 0..requests {
        let params = json!({ "text": "as long as a small call" });
        let request =
            json!({ "jsonrpc": "2.0", "id": id, "method": "acme/echo", "params": params });
        tokio::spawn(transport.send(message(request)));
    }
    let mut answered = 0;
    if requests == 0 {
        answered = usize::MAX;
        done.0.fetch_add(1, SeqCst);
    }
    while done.0.load(SeqCst) < 2 {
        let next = tokio::select! {
            next = transport.receive() => next,
            () = done.1.notified() => break,
        };
        let Some(next) = next else {
            assert_eq!(done.0.load(SeqCst), 2, "the link lives");
            break;
        };
        match next {
            JsonRpcMessage::Request(request) => {
                let id = request.id.into_json_value();
                let answer = json!({ "jsonrpc": "2.0", "id": id, "result": { "text": "yes" } });
                tokio::spawn(transport.send(message(answer)));
            }
            JsonRpcMessage::Response(_) => answered += 1,
            JsonRpcMessage::Error(error) => {
                assert_eq!(error.error.data.unwrap()["reason"], "too_many_requests");
                answered += 1;
            }
            other => panic!("{other:?}"),
        }
        if answered == requests {
            answered = usize::MAX;
            if done.0.fetch_add(1, SeqCst) == 1 {
                done.1.notify_waiters();
            }
        }
    }
}

async fn both(near: DuplexStream, far: DuplexStream, requests: [usize; 2]) {
    let none = Bytes::new;
    let client = Builder::<RoleClient>::default().config(Settings::default());
    let link = client.layers().link(near, none(), End::Client, Extensions::default());
    let receive_count = ReceiveCount::default();
    receive_count.begin(SessionStart::Opening);
    let client = client.over_sessions(link, Never, Notices::default(), receive_count);
    let server = Builder::<RoleServer>::default().config(Settings::default());
    let mut link = server.layers().link(far, none(), End::Server, Extensions::default());
    let secrets = Secrets::default();
    let id = serde_json::from_value(json!("s")).unwrap();
    let session = SessionFrame::new(id, secrets.given().clone(), 120, 1 << 20);
    link.feed(Frame::Session(session).encode()).await.unwrap();
    let server = server.over_session(link, Never, ReceiveCount::default());
    let done = Done::default();
    let both = async {
        tokio::join!(converse(client, requests[0], &done), converse(server, requests[1], &done))
    };
    timeout(100 * SECOND, both).await.expect("a call does not end");
}

/// The numbers that filled every buffer when reading waited for writing, or such as take seconds.
fn scale(default: usize, full: usize) -> usize {
    if std::env::var_os("MCP_WS_FULL").is_some() { full } else { default }
}

#[tokio::test(start_paused = true)]
async fn every_call_ends_however_many_and_far_apart() {
    let many = scale(4_000, 15_000);
    for (requests, delay) in [([scale(16_000, 60_000), 0], 100), ([many, many], 100)] {
        let (near, far) = far_apart(Duration::from_millis(delay));
        both(near, far, requests).await;
    }
}

/// The network holds less than both ends have to send.
#[tokio::test(start_paused = true)]
async fn every_call_ends_where_the_network_takes_little() {
    for requests in [[0, scale(4_000, 30_000)], [scale(2_000, 10_000); 2]] {
        let (near, far) = duplex(4096);
        both(near, far, requests).await;
    }
}
