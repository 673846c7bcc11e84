//! No state of a peer makes a connection deaf: every call ends, and whoever has gone is let go.
//!
//! With `MCP_WS_FULL` set, as many calls and as large floods as once filled every buffer between two ends.
#![cfg(all(feature = "client", feature = "server"))]
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::{net::SocketAddr, time::Duration};

use common::{
    Frame, Raw, Tools, call,
    proxy::{Fate, Proxy},
    raw::{CLOSE, PING, PONG, TEXT, upgrade_request},
    scale,
    scripted::Scene,
    serve_tools, text_of, within,
};
use mcp_ws_transport::{
    connect,
    layer::{heartbeat, resume, socket},
    server::{Config, Limits, Server},
    transport,
};
use proptest::{
    prelude::RngExt as _,
    test_runner::{RngAlgorithm, TestRng},
};
use rmcp::{ServiceError, ServiceExt, model::CallToolRequestParams};
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

const LIMIT: Duration = Duration::from_secs(120);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// How many of so many calls at once were answered and refused, over a network that takes whatever it is
/// given and delivers it later. Their sizes come from the seed.
async fn calls_at_once(calls: usize, latency: Duration, resumes: bool, seed: u64) -> [usize; 2] {
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed as u8; 32]);
    let (server, address) = serve_tools(&Tools::default(), Config::default()).await;
    let proxy = Proxy::new(address).await;
    proxy.fate(Fate { latency, ..Fate::default() });
    let connect = connect(proxy.url()).resume(resumes);
    let client = ().serve(connect.await.unwrap()).await.unwrap();
    let mut running = JoinSet::new();
    for id in 0..calls {
        let peer = client.peer().clone();
        let mut text = format!("as long as a small call: {id}");
        if seed > 0 {
            text += &"x".repeat(1 << random.random_range(0..8));
        }
        running.spawn(async move {
            let Value::Object(arguments) = json!({ "text": text }) else { unreachable!() };
            let echo = CallToolRequestParams::new("echo").with_arguments(arguments);
            match peer.call_tool(echo).await {
                Ok(result) => {
                    assert_eq!(result.content[0].as_text().unwrap().text, text);
                    true
                }
                Err(ServiceError::McpError(error)) => {
                    assert_eq!(error.data.unwrap()["reason"], "too_many_requests");
                    false
                }
                Err(error) => panic!("{error}"),
            }
        });
    }
    let mut ended = [0, 0];
    while let Some(answered) = running.join_next().await {
        ended[usize::from(!answered.unwrap())] += 1;
    }
    client.cancel().await.unwrap();
    server.shutdown().await;
    ended
}

/// Both ends are honest, and have as much to say as they may.
async fn every_call_ends(resumes: bool) {
    let near = (scale(2_000, 40_000), 50, 0);
    let far = (scale(2_000, 100_000), 150, 0);
    let calls = scale(if resumes { 20_000 } else { 2_000 }, 60_000);
    let seeds = (0..scale(1, 10) as u64).map(|seed| (calls, 100, seed));
    for (calls, latency, seed) in [near, far].into_iter().chain(seeds) {
        let start = Instant::now();
        let ended = within(LIMIT, calls_at_once(calls, ms(latency), resumes, seed)).await;
        let ([answered, refused], time) = (ended, start.elapsed());
        println!(
            "resume {resumes}, seed {seed}: {calls} calls, {latency} ms: {answered} answered, {refused} \
             refused, {time:?}"
        );
        assert_eq!(answered + refused, calls);
        assert!(answered > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_of_a_session_ends_however_many_and_however_far() {
    every_call_ends(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_without_resume_ends_however_many_and_however_far() {
    every_call_ends(false).await;
}

/// What a peer floods with.
#[derive(Debug, Clone, Copy)]
enum Flood {
    Ping,
    Call,
    Unknown,
    Rubbish,
}

const FLOODS: [Flood; 4] = [Flood::Ping, Flood::Call, Flood::Unknown, Flood::Rubbish];

impl Flood {
    fn bytes(self, messages: usize, masked: bool) -> Vec<u8> {
        let message = |id| match self {
            Self::Ping => json!({ "jsonrpc": "2.0", "id": id, "method": "ping" }),
            Self::Call => call(id, "echo", json!({ "text": "hi" })),
            Self::Unknown => json!({ "jsonrpc": "2.0", "id": id, "method": "acme/unknown" }),
            Self::Rubbish => json!({}),
        };
        (0..messages).flat_map(|id| Frame::text(message(id).to_string()).bytes(masked)).collect()
    }
}

/// How a peer goes.
#[derive(Debug, Clone, Copy)]
enum End {
    Reset,
    Fin,
    Silence,
}

/// How many clients flood a server.
fn clients() -> usize {
    scale(FLOODS.len(), 2 * FLOODS.len())
}

/// A server that has places for so many clients and no more, and soon notices that one is silent.
async fn serve_few(clients: usize) -> (Server, SocketAddr) {
    let heartbeat = heartbeat::Config::default().ping_interval(ms(2000)).pong_timeout(ms(2000));
    let mut layers = transport::Config::default();
    layers.heartbeat = heartbeat;
    layers.socket = socket::Config::default().write_timeout(ms(3000));
    let config = Config::default().limits(Limits::default().connections(clients)).layers(layers);
    serve_tools(&Tools::default(), config).await
}

/// A raw client that speaks the extension, and the `@session` that it was given.
async fn dial_and_open(address: SocketAddr, open: &Value) -> (Raw, Value) {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut raw = Raw::over(stream, true);
    let offer = "Sec-WebSocket-Protocol: mcp, mcp.resume.v1\r\n";
    raw.write(upgrade_request(address, offer)).await;
    assert_eq!(raw.head().await.unwrap().status(), 101);
    raw.text(format!("@open {open}")).await;
    let frame = raw.next().await.expect("an answer");
    let text = String::from_utf8(frame.payload).unwrap();
    let session = serde_json::from_str(text.strip_prefix("@session ").expect(&text)).unwrap();
    (raw, session)
}

/// Floods, and does not mind if the server does not read all of it.
async fn flood(mut raw: Raw, bytes: &[u8]) -> Raw {
    let _ = timeout(ms(2000), raw.try_write(bytes)).await;
    raw
}

/// Until the server has read what it reads: what it has not is lost with the connection.
async fn has_read(server: &Server) {
    let mut before = 0;
    loop {
        let now = server.registry().health().bytes_received;
        if now == before {
            return;
        }
        before = now;
        sleep(ms(500)).await;
    }
}

impl End {
    /// Goes. A connection is returned where its end is not its peer's own doing.
    async fn of(self, mut raw: Raw) -> Option<Raw> {
        match self {
            Self::Reset => {
                raw.reset();
                return None;
            }
            Self::Fin => _ = raw.stream.shutdown().await,
            Self::Silence => {}
        }
        Some(raw)
    }
}

/// These clients flood at once, then go. What is left of them.
async fn flood_and_go(
    server: &Server,
    raws: Vec<Raw>,
    messages: usize,
    end: End,
) -> Vec<Option<Raw>> {
    let mut flooding = JoinSet::new();
    for (raw, kind) in raws.into_iter().zip(FLOODS.into_iter().cycle()) {
        flooding.spawn(async move { flood(raw, &kind.bytes(messages, true)).await });
    }
    let raws = flooding.join_all().await;
    has_read(server).await;
    futures::future::join_all(raws.into_iter().map(|raw| end.of(raw))).await
}

/// Until no connection is left.
async fn all_have_gone(server: &Server) -> Duration {
    let start = Instant::now();
    let left = || {
        let health = server.registry().health();
        health.active - health.away
    };
    while left() > 0 {
        assert!(start.elapsed() < Duration::from_secs(40), "{} are still here", left());
        sleep(ms(20)).await;
    }
    start.elapsed()
}

/// There is a place for a good client, who is served.
async fn assert_serves(address: SocketAddr) {
    let (mut raw, _) = within(ms(10_000), dial_and_open(address, &json!({}))).await;
    within(ms(10_000), raw.initialize()).await;
    let answer = within(ms(10_000), raw.ask(&call(1, "echo", json!({ "text": "hi" })))).await;
    assert_eq!(text_of(&answer), "hi");
    raw.reset();
}

async fn zombies_of_sessions(end: End) {
    let (server, address) = serve_few(clients()).await;
    let (mut raws, mut sessions) = (Vec::new(), Vec::new());
    for _ in 0..clients() {
        let (mut raw, session) = dial_and_open(address, &json!({})).await;
        raw.initialize().await;
        raws.push(raw);
        sessions.push(session);
    }
    let left = flood_and_go(&server, raws, scale(30_000, 40_000), end).await;
    let gone = all_have_gone(&server).await;
    println!("{end:?}: all are gone {gone:?} after their floods");
    assert_serves(address).await;
    for session in &sessions {
        // Each owner returns, and is answered, whether its session goes on or is over.
        let (id, secret) = (&session["session"], &session["secret"]);
        let open = json!({ "session": id, "secret": secret, "received": 1 });
        let (raw, session) = within(ms(10_000), dial_and_open(address, &open)).await;
        assert!(session["resumed"].is_boolean(), "{session}");
        raw.reset();
    }
    drop(left);
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumable_peer_that_floods_and_resets_gives_its_place_back() {
    within(LIMIT, zombies_of_sessions(End::Reset)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumable_peer_that_floods_and_ends_its_stream_gives_its_place_back() {
    within(LIMIT, zombies_of_sessions(End::Fin)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumable_peer_that_floods_and_falls_silent_gives_its_place_back() {
    within(LIMIT, zombies_of_sessions(End::Silence)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_peer_that_floods_and_goes_gives_its_place_back() {
    for end in [End::Reset, End::Fin, End::Silence] {
        let flooding = async {
            let (server, address) = serve_few(clients()).await;
            let mut raws = Vec::new();
            for _ in 0..clients() {
                raws.push(Raw::initialized(address).await);
            }
            let left = flood_and_go(&server, raws, scale(10_000, 40_000), end).await;
            let gone = all_have_gone(&server).await;
            println!("{end:?}: all are gone {gone:?} after their floods");
            assert_serves(address).await;
            drop(left);
            server.shutdown().await;
        };
        within(LIMIT, flooding).await;
    }
}

/// It returns by the name of its session, and nothing it says shows whether it is the one that was here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_returns_by_name_and_says_only_rubbish_gives_its_place_back() {
    async fn dial(address: SocketAddr, name: usize) -> Raw {
        let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
        let request = upgrade_request(address, "Sec-WebSocket-Protocol: mcp\r\n");
        raw.write(request.replacen("/mcp", &format!("/mcp?mcp_session_id=n{name}"), 1)).await;
        assert_eq!(raw.head().await.unwrap().status(), 101);
        raw
    }
    within(LIMIT, async {
        let (server, address) = serve_few(4).await;
        for name in 0..4 {
            let mut raw = dial(address, name).await;
            raw.initialize().await;
            raw.reset();
        }
        all_have_gone(&server).await;
        let rubbish = Flood::Rubbish.bytes(40_000, true);
        let mut raws = Vec::new();
        for name in 0..4 {
            raws.push(flood(dial(address, name).await, &rubbish).await);
        }
        has_read(&server).await;
        raws.into_iter().for_each(Raw::reset);
        let gone = all_have_gone(&server).await;
        println!("all are gone {gone:?} after their floods");
        assert_serves(address).await;
        let mut owner = dial(address, 0).await;
        owner.initialize().await;
        owner.ping().await;
        server.shutdown().await;
    })
    .await;
}

/// The client's turn: its server floods it, acknowledges nothing, and closes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_server_floods_it_and_goes_dials_again() {
    for flood in FLOODS {
        within(LIMIT, async {
            let (scene, mut link) = Scene::new().await;
            let large = "x".repeat(1 << 20);
            let mut calls = JoinSet::new();
            for _ in 0..3 {
                let peer = scene.client.peer().clone();
                let Value::Object(arguments) = json!({ "text": large }) else { unreachable!() };
                let echo = CallToolRequestParams::new("echo").with_arguments(arguments);
                calls.spawn(async move { peer.call_tool(echo).await });
            }
            link.receive().await;
            let bytes = flood.bytes(scale(20_000, 40_000), false);
            let _ = timeout(ms(3000), link.raw.try_write(bytes)).await;
            // What it has not read is lost with the connection.
            sleep(ms(1500)).await;
            link.raw.reset();
            // What it has read is more than a window, or it comes back for its session.
            let next = timeout(ms(20_000), common::scripted::Link::new(&scene.listener)).await;
            let mut next = next.expect("it does not come back");
            next.open().await;
            drop(next);
            drop(scene);
            while let Some(ended) = calls.join_next().await {
                assert!(ended.unwrap().is_err());
            }
        })
        .await;
    }
}

/// It reads everything, answers every ping, and acknowledges nothing.
#[tokio::test]
async fn a_peer_that_reads_all_and_acknowledges_nothing_is_closed() {
    within(LIMIT, async {
        let mut layers = transport::Config::default();
        layers.resume = resume::Config::default().ack_timeout(ms(1500));
        let (server, address) =
            serve_tools(&Tools::default(), Config::default().layers(layers)).await;
        let (mut raw, _) = dial_and_open(address, &json!({})).await;
        raw.initialize().await;
        let asked = Instant::now();
        raw.json(&call(1, "big", json!({ "size": 2 << 20 }))).await;
        raw.json(&call(2, "big", json!({ "size": 1 }))).await;
        let (mut answers, mut pings) = (0, 0);
        let (code, reason) = loop {
            let frame = raw.next().await.expect("closed");
            match frame.opcode {
                TEXT if frame.payload.first() != Some(&b'@') => answers += 1,
                TEXT => {}
                PING => {
                    pings += 1;
                    raw.send(Frame::new(PONG, frame.payload)).await;
                }
                CLOSE => {
                    let (code, reason) = frame.payload.split_at(2);
                    let code = u16::from_be_bytes(code.try_into().unwrap());
                    break (code, String::from_utf8(reason.to_vec()).unwrap());
                }
                _ => panic!("{frame:?}"),
            }
        };
        assert_eq!((code, &*reason), (1008, "resume: all was read, and nothing acknowledged"));
        // Either answer may come first, and the other fits no more if it is the large one.
        assert!((1..=2).contains(&answers), "{answers}");
        assert_eq!(pings, 3);
        // The window is not full before it was asked; how soon this side reads is up to the machine.
        let took = asked.elapsed();
        assert!((ms(1500)..ms(15_000)).contains(&took), "{took:?}");
        server.shutdown().await;
    })
    .await;
}

/// A window is the sender's to keep to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_sends_far_beyond_its_window_is_closed() {
    within(LIMIT, async {
        let (server, address) = serve_tools(&Tools::default(), Config::default()).await;
        let (mut raw, _) = dial_and_open(address, &json!({})).await;
        raw.initialize().await;
        // It fills the server's window first.
        raw.json(&call("big", "big", json!({ "size": 2 << 20 }))).await;
        while text_of(&raw.receive().await).len() < 2 << 20 {}
        let Raw { stream, .. } = raw;
        let (mut read, mut write) = stream.into_split();
        let bytes = Flood::Call.bytes(100_000, true);
        let writing = tokio::spawn(async move {
            let _ = write.write_all(&bytes).await;
            write
        });
        let mut seen = Vec::new();
        let reason = b"resume: more was sent than a window holds";
        while !seen.windows(reason.len()).any(|part| part == reason) {
            seen.drain(..seen.len().saturating_sub(reason.len()));
            let read = tokio::io::AsyncReadExt::read_buf(&mut read, &mut seen).await.unwrap();
            assert!(read > 0, "it ended without a reason");
        }
        drop(writing.await);
        server.shutdown().await;
    })
    .await;
}
