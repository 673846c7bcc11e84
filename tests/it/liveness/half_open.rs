//! Peers that vanish are found in time, those that are only slow are never taken for gone, and a
//! peer that reads nothing holds nobody up: all on virtual time, with a network made of memory.

use std::time::Duration;

use bytes::Bytes;
use mcp_ws_transport::{
    Error, State, WebSocketTransport, layer::socket::Side, transport::Config as Layers,
};
use rmcp::{
    Peer, RoleClient, RoleServer, ServiceExt,
    model::CallToolResult,
    service::{RunningService, ServiceError},
    transport::Transport,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::common::{Tools, call, scale, tool_call};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PONG_TIMEOUT: Duration = Duration::from_secs(10);

/// Numbers from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn time(&mut self, bound: Duration) -> Duration {
        MILLI * self.below(bound.as_millis() as u64) as u32
    }
}

/// Delivery of the bytes that go in one direction.
#[derive(Debug, Clone, Copy)]
struct Conditions {
    delay: Duration,
    bytes_per_second: Option<u32>,
    /// Time before which nothing is taken out.
    stalled_until: Instant,
    delivery: Delivery,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Delivery {
    Arrives,
    /// All is taken, and nothing arrives.
    Dropped,
    /// Takes nothing any more, and delivers nothing.
    Blocked,
}

impl Conditions {
    fn new(delay: Duration, bytes_per_second: Option<u32>) -> Self {
        Self { delay, bytes_per_second, stalled_until: Instant::now(), delivery: Delivery::Arrives }
    }
}

/// Carries what is read from `from` to `to`, with up to 1 MiB on the way. Where it does not arrive,
/// there is no end either.
async fn carry(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    conditions: watch::Receiver<Conditions>,
) {
    let (depart, mut arrive) = mpsc::channel::<(Instant, Vec<u8>)>(64);
    let at_departure = conditions.clone();
    let departures = async move {
        let mut piece = vec![0; 16 << 10];
        loop {
            let count = from.read(&mut piece).await.unwrap_or(0);
            let now = *at_departure.borrow();
            match now.delivery {
                Delivery::Dropped if count > 0 => continue,
                Delivery::Dropped | Delivery::Blocked => std::future::pending().await,
                Delivery::Arrives if count == 0 => return,
                Delivery::Arrives => {}
            }
            if let Some(rate) = now.bytes_per_second {
                sleep(SECOND * count as u32 / rate).await;
            }
            // Where it is stuck meanwhile, nothing is read any more.
            let _ = depart.send((Instant::now() + now.delay, piece[..count].to_vec())).await;
        }
    };
    let arrivals = async move {
        while let Some((at, piece)) = arrive.recv().await {
            loop {
                let due = at.max(conditions.borrow().stalled_until);
                sleep_until(due).await;
                if conditions.borrow().stalled_until <= due {
                    break;
                }
            }
            let delivery = conditions.borrow().delivery;
            match delivery {
                Delivery::Arrives => {}
                Delivery::Dropped => continue,
                Delivery::Blocked => std::future::pending().await,
            }
            let _ = to.write_all(&piece).await;
        }
        if conditions.borrow().delivery != Delivery::Arrives {
            std::future::pending().await
        }
    };
    tokio::join!(departures, arrivals);
}

/// Two ends of a connection, and the network between them.
struct SimulatedConnection {
    client: RunningService<RoleClient, ()>,
    states: [watch::Receiver<State>; 2],
    /// Conditions from the client to the server, and back.
    conditions: [watch::Sender<Conditions>; 2],
    tasks: JoinSet<()>,
}

impl SimulatedConnection {
    /// The server, whose timers begin `later` than the client's, is the side that accepted.
    async fn new(layers: &Layers, conditions: [Conditions; 2], later: Duration) -> Self {
        let conditions = conditions.map(watch::Sender::new);
        let (near, left) = tokio::io::duplex(64 << 10);
        let (right, far) = tokio::io::duplex(64 << 10);
        let (left_read, left_write) = tokio::io::split(left);
        let (right_read, right_write) = tokio::io::split(right);
        let mut tasks = JoinSet::new();
        tasks.spawn(carry(left_read, right_write, conditions[0].subscribe()));
        tasks.spawn(carry(right_read, left_write, conditions[1].subscribe()));
        let dialled = WebSocketTransport::<RoleClient>::builder()
            .transport(layers.clone())
            .over_stream(near, Bytes::new(), Side::Client);
        let dialled_state = dialled.state();
        let client = tokio::spawn(().serve(dialled));
        sleep(later).await;
        let accepted = WebSocketTransport::<RoleServer>::builder()
            .transport(layers.clone())
            .over_stream(far, Bytes::new(), Side::Server);
        let states = [dialled_state, accepted.state()];
        tasks.spawn(async move {
            if let Ok(running) = Tools::default().serve(accepted).await {
                let _ = running.waiting().await;
            }
        });
        let client = client.await.unwrap().unwrap();
        Self { client, states, conditions, tasks }
    }

    fn assert_connected(&self) {
        for state in &self.states {
            assert_eq!(*state.borrow(), State::Connected);
        }
    }
}

async fn ask(
    peer: Peer<RoleClient>,
    tool: &'static str,
    arguments: Value,
) -> Result<CallToolResult, ServiceError> {
    peer.call_tool(tool_call(tool, arguments)).await
}

/// Returns the time at which the connection ended.
async fn ended(mut state: watch::Receiver<State>) -> Instant {
    state.wait_for(|state| matches!(state, State::Closed(_))).await.unwrap();
    Instant::now()
}

/// Calls at random for ever, of which nobody awaits the answers.
async fn chatter(peer: Peer<RoleClient>, mut random: Random) {
    let mut calls = JoinSet::new();
    // Some connections are busy, some are nearly idle.
    let pause = [SECOND / 2, SECOND * 5, SECOND * 40][random.below(3) as usize];
    loop {
        sleep(random.time(pause)).await;
        let size = 1 << random.below(14);
        calls.spawn(ask(peer.clone(), "echo", json!({ "text": "x".repeat(size) })));
        while calls.try_join_next().is_some() {}
    }
}

#[tokio::test(start_paused = true)]
async fn both_ends_find_out_that_the_other_has_vanished() {
    let bound = PING_INTERVAL + PONG_TIMEOUT + SECOND;
    let (mut first, mut last) = (Duration::MAX, Duration::ZERO);
    for seed in 0..200 {
        let mut random = Random(seed);
        let conditions = [0, 1]
            .map(|_| Conditions::new(random.time(SECOND / 2), (seed % 3 == 0).then_some(1 << 20)));
        let later = random.time(PING_INTERVAL);
        let mut connection = SimulatedConnection::new(&Layers::default(), conditions, later).await;
        for _ in 0..random.below(3) {
            let words = chatter(connection.client.peer().clone(), Random(random.next()));
            connection.tasks.spawn(words);
        }
        sleep(random.time(SECOND * 90)).await;
        connection.assert_connected();
        let delivery = if random.below(2) == 0 { Delivery::Dropped } else { Delivery::Blocked };
        for conditions in &connection.conditions {
            conditions.send_modify(|conditions| conditions.delivery = delivery);
        }
        let cut = Instant::now();
        let [client, server] =
            connection.states.clone().map(|state| timeout(SECOND * 120, ended(state)));
        let (client, server) = tokio::join!(client, server);
        for (end, at) in [("client", client), ("server", server)] {
            let took = at.unwrap_or_else(|_| panic!("seed {seed}: the {end} never knows")) - cut;
            assert!(took <= bound, "seed {seed}: the {end} took {took:?}, {delivery:?}");
            (first, last) = (first.min(took), last.max(took));
        }
    }
    println!("figure: 200 seeds, found after {first:.1?} to {last:.1?}");
}

/// Asserts that neither end gives up within hours of a bad connection: `delay` each way at 1 MiB a
/// second, on which the reading now and then rests for up to `stall`, on either side or on both, a
/// message of 4 MiB goes there and back now and then, and there is always a call that takes an hour.
async fn assert_no_false_alarm(hours: usize, delay: Duration, stall: Duration, seed: u64) {
    let mut random = Random(seed);
    let conditions = [0, 1].map(|_| Conditions::new(delay, Some(1 << 20)));
    let connection =
        SimulatedConnection::new(&Layers::default(), conditions, random.time(PING_INTERVAL)).await;
    let start = Instant::now();
    let end = start + SECOND * 3600 * hours as u32;
    let peer = connection.client.peer().clone();
    let long = tokio::spawn(async move {
        let mut answered = 0;
        while Instant::now() < end {
            ask(peer.clone(), "sleep", json!({ "ms": 3_600_000 })).await.unwrap();
            answered += 1;
        }
        answered
    });
    let (mut stalls, mut large, mut small) = (0, 0, 0);
    let mut next_large = start;
    while Instant::now() < end {
        sleep(SECOND * 12 + random.time(SECOND * 300)).await;
        connection.assert_connected();
        if next_large <= Instant::now() {
            next_large = Instant::now() + random.time(SECOND * 3600);
            let text = "x".repeat((4 << 20) - 1024);
            let sent = Instant::now();
            ask(connection.client.peer().clone(), "echo", json!({ "text": text })).await.unwrap();
            assert!(sent.elapsed() >= SECOND * 7, "{:?}", sent.elapsed());
            large += 1;
            continue;
        }
        // Most of them as long as they may be.
        let rest = if random.below(4) == 0 { random.time(stall) } else { stall };
        let until = Instant::now() + rest;
        let which = random.below(3);
        for (number, conditions) in connection.conditions.iter().enumerate() {
            if which != number as u64 {
                conditions.send_modify(|conditions| conditions.stalled_until = until);
            }
        }
        stalls += 1;
        if random.below(2) == 0 {
            sleep(random.time(stall)).await;
            let text = "x".repeat(1 << random.below(18));
            ask(connection.client.peer().clone(), "echo", json!({ "text": text })).await.unwrap();
            small += 1;
        }
        sleep_until(until).await;
    }
    let long = long.await.unwrap();
    connection.assert_connected();
    assert!(long >= hours - 1, "{long} in {hours} h");
    println!(
        "figure: {hours} h, 0 disconnects: {stalls} stalls of up to {stall:?}, {large} messages of 4 MiB, {small} \
         small ones, {long} calls of an hour"
    );
}

/// The wait of a ping, for the round trip and the rest of the reader, is just less than the pong
/// timeout.
#[tokio::test(start_paused = true)]
async fn a_far_peer_that_rests_is_never_taken_for_gone() {
    let rest = PONG_TIMEOUT - SECOND * 2 - SECOND / 10;
    assert_no_false_alarm(scale(2, 500), SECOND, rest, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_rests_for_nine_seconds_is_never_taken_for_gone() {
    assert_no_false_alarm(scale(2, 500), SECOND * 9 / 20, SECOND * 9, 2).await;
}

type Sends = JoinSet<Result<(), Error>>;

/// A transport whose peer never reads, with more to write than goes out, for up to 12 s: some have
/// met the write timeout.
async fn stuck(random: &mut Random) -> (WebSocketTransport<RoleClient>, Sends, DuplexStream) {
    let (near, far) = tokio::io::duplex(1 << random.below(16));
    let mut transport =
        WebSocketTransport::<RoleClient>::builder().over_stream(near, Bytes::new(), Side::Client);
    let mut sends = JoinSet::new();
    for id in 0..1 + random.below(16) {
        sends.spawn(transport.send(message(id, 1 << 17)));
    }
    sleep(random.time(SECOND * 12)).await;
    (transport, sends, far)
}

fn message(id: u64, size: usize) -> rmcp::service::TxJsonRpcMessage<RoleClient> {
    serde_json::from_value(call(id, "echo", json!({ "text": "x".repeat(size) }))).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_holds_nobody_up() {
    let (mut longest, mut at_once) = (Duration::ZERO, 0);
    for seed in 0..scale(100, 1000) as u64 {
        let mut random = Random(seed);
        let (mut transport, mut sends, _far) = stuck(&mut random).await;
        let start = Instant::now();
        let _ = timeout(SECOND * 60, transport.close()).await.unwrap();
        let took = start.elapsed();
        assert!(took <= SECOND * 2 + MILLI * 10, "seed {seed}: closing took {took:?}");
        longest = longest.max(took);
        at_once += u32::from(took < MILLI * 10);
        for id in 100..103 {
            let start = Instant::now();
            let sent = timeout(SECOND * 60, transport.send(message(id, 1 << (id - 95)))).await;
            sent.unwrap().unwrap_err();
            assert_eq!(start.elapsed(), Duration::ZERO, "seed {seed}: a send after close");
        }
        all_end(seed, &mut sends).await;

        let (transport, mut sends, _far) = stuck(&mut random).await;
        let (start, real) = (Instant::now(), std::time::Instant::now());
        drop(transport);
        assert_eq!(start.elapsed(), Duration::ZERO, "seed {seed}: dropping");
        assert!(real.elapsed() < SECOND / 2, "seed {seed}: dropping took {:?}", real.elapsed());
        all_end(seed, &mut sends).await;
    }
    println!("figure: closing took {longest:.1?} at most, {at_once} times none, dropping none");
}

/// No send outlives the transport.
async fn all_end(seed: u64, sends: &mut Sends) {
    let all = async { while sends.join_next().await.is_some() {} };
    timeout(MILLI * 10, all).await.unwrap_or_else(|_| panic!("seed {seed}: a send pends"));
}
