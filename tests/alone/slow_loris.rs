//! Clients that take all the time in the world for what should take none: each is cut at its
//! deadline, and a good client gets in meanwhile.
//!
//! With `MCP_WS_FULL` set, a thousand of them and the default deadline (`--release`). TLS:
//! `slow_loris_tls.rs`.

use std::{
    cell::Cell,
    convert::Infallible,
    net::SocketAddr,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::future::{BoxFuture, join_all};
use http::{Request, Response};
use mcp_ws_transport::{
    layer::{heartbeat, socket},
    serve,
    server::{AuthError, Authenticator, Body, Config, Credentials, Identity, Limits, serve_on},
    transport,
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Semaphore,
    time::sleep,
};

use crate::common::{
    Tools, assert_tasks_left, limit,
    raw::{CLOSE, CONTINUATION, Frame, PING, PONG, Raw, head, upgrade_request},
    scale, serve_tools, within,
};

/// Returns the deadline: a second, or with `MCP_WS_FULL` the ten that are the default.
pub fn deadline() -> Duration {
    Duration::from_millis(scale(1000, 10_000) as u64)
}

/// Ends `raw` with 408 at the deadline. Returns when that was.
async fn late_head<S: AsyncRead + AsyncWrite + Unpin>(mut raw: Raw<S>, request: &str) -> Duration {
    let start = Instant::now();
    let mut written = 0;
    let head = loop {
        let byte = request.as_bytes().get(written..=written).unwrap_or_default();
        if !byte.is_empty() {
            raw.try_write(byte).await.unwrap();
            written += 1;
        }
        if let Ok(head) = tokio::time::timeout(deadline() / 8, raw.head()).await {
            break head;
        }
    };
    let took = on_time(start.elapsed());
    let head = head.unwrap_or_else(|| panic!("cut without a word after {request:?}"));
    assert_eq!(head.status(), 408, "{head:?}");
    assert_end(raw).await;
    took
}

/// Asserts that the stream ends, by a reset where something came too late to be read.
async fn assert_end<S: AsyncRead + AsyncWrite + Unpin>(mut raw: Raw<S>) {
    let end = raw.try_next().await;
    assert!(!matches!(end, Ok(Some(_))), "{end:?}");
}

fn on_time(took: Duration) -> Duration {
    let most = deadline() * 11 / 10 + Duration::from_millis(1000);
    assert!(took >= deadline() * 9 / 10 && took < most, "{took:?}");
    took
}

/// Sends `bytes` now and then until it is told 1008 at the deadline, and the end follows. Returns
/// when it was told.
async fn late_message<S: AsyncRead + AsyncWrite + Unpin>(
    mut raw: Raw<S>,
    bytes: Vec<u8>,
) -> Duration {
    let start = Instant::now();
    let closed = loop {
        let _ = raw.try_write(&bytes).await;
        match tokio::time::timeout(deadline() / 8, raw.next()).await {
            Ok(frame) => {
                let frame = frame.expect("cut without a Close");
                if frame.opcode == crate::common::raw::CLOSE {
                    break frame;
                }
            }
            Err(_) => continue,
        }
    };
    let took = on_time(start.elapsed());
    assert_eq!(closed.payload[..2], 1008u16.to_be_bytes(), "{closed:?}");
    let _ = raw.try_write(Frame::close(1008).bytes(true)).await;
    assert_end(raw).await;
    took
}

/// Asserts, again and again, that good clients get in at once. Notes how long it took at most.
async fn good_clients(address: SocketAddr, slowest: &Cell<Duration>) {
    loop {
        let start = Instant::now();
        Raw::initialized(address).await.ping().await;
        let took = start.elapsed();
        assert!(took < deadline() / 2, "{took:?}");
        slowest.set(slowest.get().max(took));
        sleep(deadline() / 20).await;
    }
}

async fn connect(address: SocketAddr) -> Raw {
    Raw::over(TcpStream::connect(address).await.unwrap(), true)
}

fn config() -> Config {
    Config::default().handshake_timeout(deadline())
}

const HEAD: &str = "GET /mcp HTTP/1.1\r\nHost: localhost\r\nX: ";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_stage_has_its_deadline() {
    alone!();
    let each = scale(12, 150);
    limit(async {
        let tools = Tools::default();
        let limits = Limits::default().connections(10_000).handshakes(10_000);
        let (server, address) = serve_tools(&tools, config().limits(limits)).await;
        let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
        let ping = Frame::text(ping).bytes(true);
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": { "name": "raw", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let discover = json!({
            "jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": { "_meta": meta },
        });
        let discover = Frame::text(discover.to_string()).bytes(true);
        // As many as wait to be accepted at once, and no more.
        let connecting = Semaphore::new(256);
        let connect = async || {
            let _permit = connecting.acquire().await.unwrap();
            connect(address).await
        };
        let dial = async || {
            let _permit = connecting.acquire().await.unwrap();
            Raw::dial(address).await
        };
        let stage = async |stage| match stage {
            0 => late_head(connect().await, "").await,
            1 => late_head(connect().await, HEAD).await,
            2 => late_head(connect().await, "\r\n\r\n\r\n\r\n\r\n").await,
            3 => late_message(dial().await, Vec::new()).await,
            4 => {
                let mut raw = dial().await;
                raw.write(head(&Frame::text(""), 100, true)).await;
                late_message(raw, b"x".to_vec()).await
            }
            5 => late_message(dial().await, Frame::new(PING, "").bytes(true)).await,
            6 => late_message(dial().await, ping.clone()).await,
            _ => late_message(dial().await, discover.clone()).await,
        };
        let slow = (0..8 * each).map(async |number| {
            // Half a frame swallows the answer to its Close.
            let patience =
                tokio::time::timeout(deadline() + Duration::from_secs(5), stage(number % 8)).await;
            patience.unwrap_or_else(|_| panic!("stage {} takes too long", number % 8))
        });
        let slowest = Cell::default();
        tokio::select! {
            cut = join_all(slow) => println!(
                "figure: plain: {} sockets, cut after {:.1?} to {:.1?}; a good client took {:.0?} at most",
                cut.len(),
                cut.iter().min().unwrap(),
                cut.iter().max().unwrap(),
                slowest.get()
            ),
            () = good_clients(address, &slowest) => {}
        }
        let health = server.registry().health();
        assert_eq!(health.rejected_by.get("timed_out"), Some(&(3 * each as u64)), "{health:?}");
        server.shutdown().await;
        assert_tasks_left(0).await;
    })
    .await;
}

/// More clients than there are slots: the one that has had its slot the longest is evicted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_keeps_nobody_out() {
    alone!();
    limit(async {
        let limits = Limits::default().handshakes(20);
        let config = Config::default().limits(limits);
        let (server, address) = serve_tools(&Tools::default(), config).await;
        let mut hanging = Vec::new();
        for _ in 0..200 {
            let mut raw = connect(address).await;
            let _ = raw.try_write(HEAD).await;
            hanging.push(raw);
            if hanging.len() % 20 == 0 {
                let start = Instant::now();
                Raw::initialized(address).await.ping().await;
                assert!(start.elapsed() < deadline() / 2, "{:?}", start.elapsed());
            }
        }
        let refused = || server.registry().health().rejected_by.get("evicted").copied();
        within(Duration::from_secs(2), async {
            while refused() < Some(180) {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    })
    .await;
}

/// Each head has its own deadline where a connection may carry more than an upgrade.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_fallback_each_head_has_its_deadline() {
    alone!();
    limit(async {
        let server = serve("127.0.0.1:0", Tools::default);
        let server = server.config(config()).fallback(Page).await.unwrap();
        let address = server.local_addr();
        let get = "GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let after_a_page = async |request: &str| {
            let mut raw = connect(address).await;
            raw.write(get).await;
            let head = raw.head().await.unwrap();
            assert_eq!(head.status(), 200, "{head:?}");
            assert_eq!(raw.body(6).await, "a page");
            // A 408 would be taken for the answer to what is asked next.
            raw.write(request).await;
            let start = Instant::now();
            raw.end().await;
            on_time(start.elapsed());
        };
        let slow = async {
            tokio::join!(
                async { late_head(connect(address).await, "").await },
                async { late_head(connect(address).await, HEAD).await },
                after_a_page(""),
                after_a_page(HEAD),
                async { late_message(Raw::dial(address).await, Vec::new()).await },
            )
        };
        let slowest = Cell::default();
        tokio::select! {
            _ = slow => {}
            () = good_clients(address, &slowest) => {}
        }
        server.shutdown().await;
        assert_tasks_left(0).await;
    })
    .await;
}

/// A service whose pages take longer than a head may.
#[derive(Clone)]
struct Page;

impl tower_service::Service<Request<Body>> for Page {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        Box::pin(async {
            sleep(deadline() * 3 / 2).await;
            Ok(Response::new("a page".to_owned()))
        })
    }
}

/// Authenticator that never answers.
struct HangingAuthenticator;

impl Authenticator for HangingAuthenticator {
    async fn authenticate(&self, _: Credentials) -> Result<Identity, AuthError> {
        std::future::pending().await
    }
}

/// A late authenticator is not the client's fault: 503.
#[tokio::test]
async fn an_authenticator_without_an_answer_is_told() {
    alone!();
    limit(async {
        let (server, address) =
            serve_tools(&Tools::default(), config().authenticator(HangingAuthenticator)).await;
        let mut raw = connect(address).await;
        sleep(deadline() / 4).await;
        let start = Instant::now();
        raw.write(upgrade_request(address, "Authorization: Bearer x\r\n")).await;
        let head = raw.head().await.expect("cut without a word");
        assert_eq!(head.status(), 503, "{head:?}");
        on_time(start.elapsed());
        drop(server);
    })
    .await;
}

#[cfg(unix)]
#[tokio::test]
async fn unix_sockets_have_the_same_deadlines() {
    alone!();
    use tokio::net::{UnixListener, UnixStream};

    limit(async {
        let path = std::env::temp_dir().join(format!("mcp-loris-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let server = serve_on(listener, Tools::default).config(config()).await.unwrap();
        let connect = async || Raw::over(UnixStream::connect(&path).await.unwrap(), true);
        let nowhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let upgraded = async || {
            let mut raw = connect().await;
            raw.write(upgrade_request(nowhere, "")).await;
            assert_eq!(raw.head().await.unwrap().status(), 101);
            raw
        };
        let slow = async {
            tokio::join!(
                async { late_head(connect().await, "").await },
                async { late_head(connect().await, HEAD).await },
                async { late_message(upgraded().await, Vec::new()).await },
            )
        };
        let mut good = upgraded().await;
        good.initialize().await;
        slow.await;
        good.ping().await;
        let (shutdown, told) = (server.shutdown(), good.closed());
        let mut shutdown = Box::pin(shutdown);
        tokio::select! {
            (code, _) = told => assert_eq!(code, 1012),
            () = &mut shutdown => panic!("stopped without a word"),
        }
        good.send(Frame::close(1012)).await;
        shutdown.await;
        let _ = std::fs::remove_file(&path);
    })
    .await;
}

/// A message in parts must go on coming, also from clients that answer every ping.
#[tokio::test]
async fn a_message_that_has_begun_does_not_take_for_ever() {
    alone!();
    limit(async {
        let layers = transport::Config::default()
            .socket(socket::Config::default().receive_window(deadline()))
            .heartbeat(heartbeat::Config::default().ping_interval(deadline() / 10));
        let (_server, address) = serve_tools(&Tools::default(), config().transport(layers)).await;
        let cut = join_all((0..4).map(|number| async move {
            let mut raw = Raw::initialized(address).await;
            let start = Instant::now();
            // Parts of a message, or one that was announced to be large.
            raw.write(match number % 2 {
                0 => Frame::text("x".repeat(100)).more().bytes(true),
                _ => head(&Frame::text(""), 4 << 20, true),
            })
            .await;
            let next = match number % 2 {
                0 => [
                    Frame::new(PING, "").bytes(true),
                    Frame::new(CONTINUATION, "x").more().bytes(true),
                ]
                .concat(),
                _ => b"x".to_vec(),
            };
            'dripping: loop {
                let _ = raw.try_write(&next).await;
                let until = tokio::time::Instant::now() + deadline() / 20;
                while let Ok(frame) = tokio::time::timeout_at(until, raw.next()).await {
                    let frame = frame.expect("cut without a Close");
                    match frame.opcode {
                        PING if number % 2 == 0 => {
                            let pong = Frame::new(PONG, frame.payload).bytes(true);
                            raw.try_write(pong).await.unwrap();
                        }
                        CLOSE => {
                            on_time(start.elapsed());
                            let (code, reason) = frame.payload.split_at(2);
                            let reason = String::from_utf8_lossy(reason);
                            assert_eq!(code, 1008_u16.to_be_bytes());
                            assert!(reason.contains("than 1024 bytes per second"), "{reason}");
                            break 'dripping;
                        }
                        _ => {}
                    }
                }
            }
        }));
        let slowest = Cell::default();
        tokio::select! {
            _ = cut => {}
            () = good_clients(address, &slowest) => {}
        }
    })
    .await;
}
