//! Heavy traffic in both directions over a slow network, with a session and without. Every call
//! ends, and no side stops receiving.

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
    duplex::BoxLink,
    event::ConnectionEvents,
    handshake::extensions::WsExtensions,
    layer::socket::side::Side as End,
    link::MessageLimits,
    role::McpRole,
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

/// Numbers from a seed (SplitMix64).
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A network that takes whatever it is given, and delivers it later. It keeps the order, in pieces
/// of any size, not all equally late.
fn far_apart(delay: Duration, mut random: Random) -> (DuplexStream, DuplexStream) {
    let mut wire = || duplex(1 << (10 + random.below(7)));
    let ((near, near_wire), (far, far_wire)) = (wire(), wire());
    let (near_read, near_write) = split(near_wire);
    let (far_read, far_write) = split(far_wire);
    for (mut from, mut to) in [(near_read, far_write), (far_read, near_write)] {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let mut random = Random(random.below(u64::MAX));
        tokio::spawn(async move {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(size @ 1..) = from.read(&mut buffer).await {
                let later = delay + Duration::from_millis(random.below(10));
                if sender.send((Instant::now() + later, buffer[..size].to_vec())).is_err() {
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
async fn converse<R: McpRole>(
    mut transport: WebSocketTransport<R>,
    requests: usize,
    mut random: Random,
    done: &Done,
) where
    TxJsonRpcMessage<R>: DeserializeOwned,
{
    let message = |value| serde_json::from_value::<TxJsonRpcMessage<R>>(value).unwrap();
    for id in 0..requests {
        let params = json!({ "text": "x".repeat(random.below(100) as usize) });
        let request =
            json!({ "jsonrpc": "2.0", "id": id, "method": "acme/echo", "params": params });
        tokio::spawn(transport.send(message(request)));
    }
    let answer = json!({ "text": "y".repeat(random.below(100) as usize) });
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
                let answer = json!({ "jsonrpc": "2.0", "id": id, "result": answer });
                tokio::spawn(transport.send(message(answer)));
            }
            JsonRpcMessage::Response(_) => answered += 1,
            JsonRpcMessage::Error(error) => {
                let data = error.error.data.as_ref().unwrap();
                assert_eq!(data["reason"], "too_many_requests", "{:?}", error.error);
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

/// Both ends of a session, which have announced these limits to each other.
async fn session(
    near: DuplexStream,
    far: DuplexStream,
    limits: MessageLimits,
) -> (WebSocketTransport<RoleClient>, WebSocketTransport<RoleServer>) {
    let none = Bytes::new;
    let client = Builder::<RoleClient>::default().transport(Settings::default());
    let link = client.layers().link(near, none(), End::Client, WsExtensions::default());
    let receive_count = ReceiveCount::default();
    receive_count.begin(SessionStart::Opening);
    let client =
        client.over_dialled_session(link, Never, ConnectionEvents::default(), receive_count);
    let server = Builder::<RoleServer>::default().transport(Settings::default());
    let mut link = server.layers().link(far, none(), End::Server, WsExtensions::default());
    let secrets = Secrets::default();
    let id = serde_json::from_value(json!("s")).unwrap();
    let session = SessionFrame::new(id, secrets.given().clone(), 120, 1 << 20).within(limits);
    link.feed(Frame::Session(session).encode()).await.unwrap();
    let receive_count = ReceiveCount::default();
    receive_count.peer().set(limits);
    let server = server.over_accepted_session(link, Never, receive_count);
    (client, server)
}

async fn both(
    (near, far): (DuplexStream, DuplexStream),
    requests: [usize; 2],
    session_limits: Option<MessageLimits>,
    mut random: Random,
) {
    let (client, server) = match session_limits {
        Some(limits) => session(near, far, limits).await,
        None => {
            let none = Bytes::new;
            let client = Builder::<RoleClient>::default().over_stream(near, none(), End::Client);
            (client, Builder::<RoleServer>::default().over_stream(far, none(), End::Server))
        }
    };
    let done = Done::default();
    let randoms = [0, 1].map(|_| Random(random.below(u64::MAX)));
    let [of_client, of_server] = randoms;
    let start = Instant::now();
    let both = async {
        tokio::join!(
            converse(client, requests[0], of_client, &done),
            converse(server, requests[1], of_server, &done)
        )
    };
    timeout(100 * SECOND, both).await.expect("a call does not end");
    println!("{requests:?}, session: {session_limits:?}, all ended after {:?}", start.elapsed());
    println!("count: {} calls ended, in virtual time", requests[0] + requests[1]);
}

/// The numbers that filled every buffer when reading waited for writing, or such as take seconds.
fn scale(default: usize, full: usize) -> usize {
    if std::env::var_os("MCP_WS_FULL").is_some() { full } else { default }
}

/// Returns `MCP_WS_SEEDS` seeds, or one, from `MCP_WS_SEED` on.
fn seeds() -> std::ops::Range<u64> {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let first = number("MCP_WS_SEED", 0);
    first..first + number("MCP_WS_SEEDS", 1)
}

/// Returns the limits that both ends of this crate announce to each other.
fn announced() -> MessageLimits {
    MessageLimits::from_peer(None, Some(1024))
}

async fn every_call_ends(requests: [usize; 2], session_limits: Option<MessageLimits>) {
    for seed in seeds() {
        println!("MCP_WS_SEED={seed}");
        let mut random = Random(seed);
        let network = far_apart(Duration::from_millis(100), Random(random.below(u64::MAX)));
        both(network, requests, session_limits, random).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_call_of_a_session_ends_however_many_and_far_apart() {
    every_call_ends([scale(16_000, 60_000), 0], Some(MessageLimits::default())).await;
}

#[tokio::test(start_paused = true)]
async fn every_call_without_a_session_ends_however_many_and_far_apart() {
    every_call_ends([scale(16_000, 60_000), 0], None).await;
}

#[tokio::test(start_paused = true)]
async fn every_call_of_a_session_ends_where_both_ends_call() {
    every_call_ends([scale(4_000, 60_000); 2], Some(announced())).await;
}

/// As many calls as the side that dialled reads before it waits for its reader: 16 MiB of them.
#[tokio::test(start_paused = true)]
async fn every_call_of_a_session_ends_where_both_ends_call_without_limits() {
    every_call_ends([scale(4_000, 40_000); 2], Some(MessageLimits::default())).await;
}

#[tokio::test(start_paused = true)]
async fn every_call_without_a_session_ends_where_both_ends_call() {
    every_call_ends([scale(4_000, 60_000); 2], None).await;
}

/// The network holds less than both ends have to send.
#[tokio::test(start_paused = true)]
async fn every_call_ends_where_the_network_takes_little() {
    for requests in [[0, scale(4_000, 30_000)], [scale(2_000, 10_000); 2]] {
        both(duplex(4096), requests, Some(MessageLimits::default()), Random(0)).await;
    }
}
