//! Answers of a server besides the upgrade. It finishes them, whoever else comes and when it stops,
//! and nobody can hold on to it without end.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{Router, routing::get};
use futures::future::join_all;
use mcp_ws_transport::{
    serve,
    server::{Config, Drain, Limits, Server, serve_on},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::common::{
    Tools, assert_tasks_left, call,
    handshake::ask,
    limit, ms,
    pipes::Pipes,
    raw::{Raw, upgrade_request},
    text_of,
};

const LARGE: usize = 8 << 20;

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(3600);

/// Pages that are there at once, take their time, never come, or are large.
fn pages() -> Router {
    let slow = async || {
        sleep(ms(800)).await;
        "done"
    };
    Router::new()
        .route("/now", get(async || "here"))
        .route("/slow", get(slow))
        .route("/never", get(std::future::pending::<&str>))
        .route("/large", get(async || "x".repeat(LARGE)))
}

async fn host(config: Config) -> (Server, SocketAddr) {
    let server = serve("127.0.0.1:0", Tools::default).config(config).fallback(pages());
    let server = server.await.unwrap();
    let address = server.local_addr();
    (server, address)
}

fn page(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// A client that has asked for the page at `path`.
async fn asking(address: SocketAddr, path: &str) -> Raw {
    let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
    raw.write(page(path)).await;
    raw
}

async fn assert_answered(raw: &mut Raw, body: &str) {
    let head = raw.head().await.expect("an answer");
    assert_eq!(head.status(), 200, "{head:?}");
    assert_eq!(raw.body(body.len()).await, body);
}

/// A client with a request to the fallback takes up no slot, so that the slots are for the others.
#[tokio::test]
async fn answers_are_finished_however_many_there_are() {
    limit(async {
        let (server, address) =
            host(Config::default().limits(Limits::default().handshakes(2))).await;
        let clients = (0..6).map(async |client| {
            sleep(ms(20 * client)).await;
            assert_answered(&mut asking(address, "/slow").await, "done").await;
        });
        join_all(clients).await;
        assert_eq!(server.registry().health().rejected, 0);
    })
    .await;
}

#[tokio::test]
async fn a_server_that_stops_finishes_its_answers() {
    limit(async {
        let (server, address) = host(Config::default()).await;
        let mut slow = asking(address, "/slow").await;
        let mut large = asking(address, "/large").await;
        let mut idle = asking(address, "/now").await;
        assert_answered(&mut idle, "here").await;
        let mut silent = TcpStream::connect(address).await.unwrap();
        sleep(ms(100)).await;
        let clients = async {
            // Whoever is not being answered does not hold it up.
            idle.end().await;
            assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
            sleep(ms(200)).await;
            assert_answered(&mut slow, "done").await;
            slow.end().await;
            assert_answered(&mut large, &"x".repeat(LARGE)).await;
            large.end().await;
        };
        tokio::join!(server.shutdown(), clients);
        TcpStream::connect(address).await.unwrap_err();
        assert_tasks_left(0).await;
    })
    .await;
}

#[tokio::test]
async fn a_server_that_stops_waits_for_an_answer_until_its_deadline() {
    limit(async {
        let (server, address) =
            host(Config::default().drain(Drain::default().deadline(ms(400)))).await;
        let mut never = asking(address, "/never").await;
        sleep(ms(100)).await;
        let start = Instant::now();
        server.shutdown().await;
        let took = start.elapsed();
        assert!(took >= ms(400) && took < ms(3000), "{took:?}");
        never.end().await;
        assert_tasks_left(0).await;
    })
    .await;
}

/// A server that is kept listens, until its token is cancelled; any number of tasks may wait for
/// that.
#[tokio::test]
async fn a_server_is_waited_for_until_it_has_ended() {
    limit(async {
        let stop = CancellationToken::new();
        let (server, address) = host(Config::default().cancellation_token(stop.clone())).await;
        let mut raw = Raw::dial(address).await;
        raw.initialize().await;
        timeout(ms(200), server.wait()).await.unwrap_err();
        raw.ping().await;
        let stopped = async {
            stop.cancel();
            assert_eq!(raw.closed().await.0, 1012);
            drop(raw);
        };
        tokio::join!(server.wait(), server.wait(), stopped);
        TcpStream::connect(address).await.unwrap_err();
        server.wait().await;
        server.shutdown().await;
        assert_tasks_left(0).await;
    })
    .await;
}

/// One client asks for page after page, and reads none of them.
#[tokio::test]
async fn who_reads_nothing_is_cut() {
    limit(async {
        let (server, address) = host(Config::default().handshake_timeout(ms(500))).await;
        let mut raw = asking(address, "/large").await;
        let pages = page("/now").repeat(1000);
        while raw.try_write(&pages).await.is_ok() {}
        assert_eq!(server.registry().health().rejected, 0);
    })
    .await;
}

#[tokio::test]
async fn who_reads_slowly_is_not() {
    limit(async {
        let (_server, address) = host(Config::default().handshake_timeout(ms(500))).await;
        let mut raw = asking(address, "/large").await;
        let start = Instant::now();
        raw.head().await.unwrap();
        for _ in 0..16 {
            sleep(ms(100)).await;
            raw.body(LARGE / 16).await;
        }
        assert!(start.elapsed() > ms(1500));
    })
    .await;
}

async fn assert_next_answered(raw: &mut Raw) {
    raw.write(page("/now")).await;
    assert_answered(raw, "here").await;
}

/// Between two requests it is closed without a word, which a client takes for a sign to connect
/// again, and not for an answer to what it asks next.
#[tokio::test]
async fn who_was_served_and_asks_no_more_is_not_refused() {
    limit(async {
        let config = Config::default().handshake_timeout(ms(300));
        let (server, address) = host(config.clone()).await;
        let mut raw = asking(address, "/now").await;
        assert_answered(&mut raw, "here").await;
        raw.end().await;
        let mut half = asking(address, "/now").await;
        assert_answered(&mut half, "here").await;
        half.write("GET /mcp HTTP/1.1\r\n").await;
        half.end().await;
        assert_eq!(server.registry().health().rejected, 0);

        // Nor without a fallback.
        let (server, address) = crate::common::serve_tools(&Tools::default(), config).await;
        let (head, mut raw) = ask(address, page("/none")).await;
        assert_eq!(head.status(), 404, "{head:?}");
        raw.body(head.get("content-length").unwrap().parse().unwrap()).await;
        raw.end().await;
        assert_eq!(server.registry().health().rejected, 0);
    })
    .await;
}

/// Between two requests it has the slot that it came with, and is evicted before a later client.
#[tokio::test]
async fn who_stays_for_more_makes_room_for_who_comes() {
    limit(async {
        let (server, address) =
            host(Config::default().limits(Limits::default().handshakes(2))).await;
        let mut stays = asking(address, "/now").await;
        assert_answered(&mut stays, "here").await;
        let mut later = TcpStream::connect(address).await.unwrap();
        assert_next_answered(&mut stays).await;
        let _last = TcpStream::connect(address).await.unwrap();
        stays.end().await;
        timeout(ms(100), later.read(&mut [0])).await.unwrap_err();
        assert_eq!(server.registry().health().rejected, 0);
    })
    .await;
}

/// The deadlines of the requests are not those of what comes after the upgrade, on any kind of
/// stream.
#[tokio::test]
async fn an_upgraded_connection_may_wait() {
    limit(async {
        let (near, far) = tokio::io::duplex(4096);
        let (dial, pipes) = mpsc::unbounded_channel();
        dial.send(far).unwrap();
        let config =
            Config::default().handshake_timeout(ms(300)).limits(Limits::default().handshakes(1));
        let server = serve_on(Pipes(pipes), Tools::default).config(config).fallback(pages());
        let server = server.await.unwrap();
        let mut raw = Raw::over(near, true);
        raw.write(page("/now")).await;
        let head = raw.head().await.unwrap();
        raw.body(head.get("content-length").unwrap().parse().unwrap()).await;
        raw.write(upgrade_request("127.0.0.1:1".parse().unwrap(), "")).await;
        assert_eq!(raw.head().await.unwrap().status(), 101);
        raw.initialize().await;
        raw.json(&call(1, "big", json!({ "size": 100_000 }))).await;
        let (another, far) = tokio::io::duplex(4096);
        dial.send(far).unwrap();
        sleep(ms(1200)).await;
        assert_eq!(text_of(&raw.receive().await).len(), 100_000);
        raw.ping().await;
        drop((server, another));
    })
    .await;
}

/// The deadlines of the requests are those of the 101 too.
#[tokio::test]
async fn an_upgrade_that_is_not_read_ends_and_is_evicted() {
    limit(async {
        for handshakes in [8, 1] {
            let (mut near, far) = tokio::io::duplex(64);
            let (dial, pipes) = mpsc::unbounded_channel();
            dial.send(far).unwrap();
            let time = if handshakes == 1 { LONG } else { ms(300) };
            let limits = Limits::default().handshakes(handshakes);
            let config = Config::default().handshake_timeout(time).limits(limits);
            let server = serve_on(Pipes(pipes), Tools::default).config(config).fallback(pages());
            let server = server.await.unwrap();
            let request = upgrade_request("127.0.0.1:1".parse().unwrap(), "");
            near.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(near.read_u8().await.unwrap(), b'H');
            // It says nothing, and takes the only place of a handshake.
            let (_another, far) = tokio::io::duplex(64);
            dial.send(far).unwrap();
            // Reading nothing, it learns of the end by what it writes.
            while near.write_all(&[0]).await.is_ok() {
                sleep(ms(10)).await;
            }
            let mut head = String::new();
            near.read_to_string(&mut head).await.unwrap();
            assert!(head.starts_with("TTP/1.1 101") && !head.contains("\r\n\r\n"), "{head}");
            drop(server);
        }
    })
    .await;
}

/// Heads that come at once are measured one by one.
#[tokio::test]
async fn many_requests_at_once_are_not_one_that_is_too_large() {
    limit(async {
        let (_server, address) = host(Config::default()).await;
        let mut raw = asking(address, "/now").await;
        let count = 1 + (100 << 10) / page("/now").len();
        raw.write(page("/now").repeat(count - 1)).await;
        for number in 0..count {
            let head = raw.head().await.unwrap();
            assert_eq!(head.status(), 200, "{number} of {count}");
            raw.body(head.get("content-length").unwrap().parse().unwrap()).await;
        }
    })
    .await;
}
