//! No state of a peer stops a connection from receiving: every call ends, and whoever has gone is let go.
//!
//! With `MCP_WS_FULL` set, as many calls and as large floods as once filled every buffer between
//! two ends; with `MCP_WS_SEEDS`, under that number of seeds.

use std::{net::SocketAddr, time::Duration};

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
use rmcp::{ServiceError, ServiceExt};
use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::common::{
    Tools, call,
    flood::{Flood, dial_and_open, flood, wait_until_quiet},
    ms,
    proxy::{Faults, Proxy},
    raw::{CLOSE, Frame, PING, PONG, Raw, TEXT, upgrade_request},
    scale, serve_tools, text_of, tool_call, within,
};

const LIMIT: Duration = Duration::from_secs(120);

/// Returns how many of `calls` calls at once were answered and refused. The network takes whatever
/// it is given and delivers it later. The sizes come from the seed.
async fn calls_at_once(calls: usize, latency: Duration, resumes: bool, seed: u64) -> [usize; 2] {
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed as u8; 32]);
    let (server, address) = serve_tools(&Tools::default(), Config::default()).await;
    let proxy = Proxy::new(address).await;
    proxy.faults(Faults { latency, ..Faults::default() });
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
            let echo = tool_call("echo", json!({ "text": text }));
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

/// Returns the number of seeds to try.
fn seeds() -> u64 {
    std::env::var("MCP_WS_SEEDS").map_or(1, |seeds| seeds.parse().unwrap())
}

/// Both ends are honest, and have as much to say as they may.
async fn every_call_ends(resumes: bool) {
    let near = (scale(2_000, 40_000), 50, 0);
    let far = (scale(2_000, 100_000), 150, 0);
    let calls = scale(if resumes { 20_000 } else { 2_000 }, 60_000);
    let seeds = (0..seeds()).map(|seed| (calls, 100, seed));
    for (calls, latency, seed) in [near, far].into_iter().chain(seeds) {
        let start = Instant::now();
        let ended = within(LIMIT, calls_at_once(calls, ms(latency), resumes, seed)).await;
        let ([answered, refused], time) = (ended, start.elapsed());
        println!(
            "resume {resumes}, seed {seed}: {calls} calls, {latency} ms: {answered} answered, {refused} \
             refused, {time:?}"
        );
        println!("count: {calls} calls ended, over TCP");
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

/// A server that takes this number of clients and no more, and soon notices that one is silent.
async fn serve_few(clients: usize) -> (Server, SocketAddr) {
    let heartbeat = heartbeat::Config::default().ping_interval(ms(2000)).pong_timeout(ms(2000));
    let layers = transport::Config::default()
        .heartbeat(heartbeat)
        .socket(socket::Config::default().write_timeout(ms(3000)));
    let config = Config::default().limits(Limits::default().connections(clients)).transport(layers);
    serve_tools(&Tools::default(), config).await
}

/// Until no connection is left.
async fn all_have_gone(server: &Server) -> Duration {
    let start = Instant::now();
    let left = || {
        let health = server.registry().health();
        health.active - health.detached
    };
    while left() > 0 {
        assert!(start.elapsed() < Duration::from_secs(40), "{} are still here", left());
        sleep(ms(20)).await;
    }
    start.elapsed()
}

/// Asserts that a good client is served.
async fn assert_serves(address: SocketAddr) {
    let (mut raw, _) = within(ms(10_000), dial_and_open(address, &json!({}))).await;
    within(ms(10_000), raw.initialize()).await;
    let answer = within(ms(10_000), raw.ask(&call(1, "echo", json!({ "text": "hi" })))).await;
    assert_eq!(text_of(&answer), "hi");
    raw.reset();
}

/// A peer that returns by the id of its session, and says nothing that shows whether it is the
/// same.
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
        wait_until_quiet(|| server.registry().health().bytes_received).await;
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

/// A peer that reads everything, answers every ping, and acknowledges nothing.
#[tokio::test]
async fn a_peer_that_reads_all_and_acknowledges_nothing_is_closed() {
    within(LIMIT, async {
        let layers =
            transport::Config::default().resume(resume::Config::default().ack_timeout(ms(1500)));
        let (server, address) =
            serve_tools(&Tools::default(), Config::default().transport(layers)).await;
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
        // The window is not full before it was asked; how soon this side reads is up to the
        // machine.
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
        let bytes = Flood::Calls.bytes(100_000, true);
        let (server, address) = serve_tools(&Tools::default(), Config::default()).await;
        let (mut raw, _) = dial_and_open(address, &json!({})).await;
        raw.initialize().await;
        // It fills the server's window first.
        raw.json(&call("big", "big", json!({ "size": 2 << 20 }))).await;
        while text_of(&raw.receive().await).len() < 2 << 20 {}
        let Raw { stream, .. } = raw;
        let (mut read, mut write) = stream.into_split();
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
