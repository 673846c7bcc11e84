//! Floods of upgrade requests: whatever many clients do before their upgrade, or instead of it, a good one is
//! served as always, and what a request carries besides an upgrade confuses no one.
//!
//! The floods take as many clients as `MCP_WS_CLIENTS` says, 300 by default; the full count is
//! 1,000, for which the process needs as many file descriptors twice over.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use mcp_ws_transport::server::{Config, Credentials, Identity, Limits};
use serde_json::json;
use tokio::{io::AsyncReadExt, net::TcpStream, task::JoinSet};

use crate::common::{
    handshake::{ask, tools, try_upgrade, upgrade},
    limit,
    raw::{Frame, PING, PONG, Raw, initialize, upgrade_request},
};

fn clients() -> usize {
    std::env::var("MCP_WS_CLIENTS").map_or(300, |count| count.parse().unwrap())
}

/// Asserts that a good client connects, initializes and is answered, several times over: long before
/// anybody's deadline, and where the full count is asked for, on a machine that has nothing else to
/// do, within 200 ms.
async fn assert_served(address: SocketAddr) {
    let is_measured = std::env::var_os("MCP_WS_CLIENTS").is_some();
    let most = Duration::from_millis(if is_measured { 200 } else { 2000 });
    for _ in 0..5 {
        let start = Instant::now();
        let mut raw = Raw::initialized(address).await;
        raw.ping().await;
        let took = start.elapsed();
        assert!(took < most, "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_handshakes() {
    alone!();
    limit(async {
        let limits = Limits::default().connections(8192);
        let (_server, address) = tools(Config::default().limits(limits)).await;
        let mut dials = JoinSet::new();
        for _ in 0..clients() {
            dials.spawn(async move { upgrade(address, "").await });
        }
        assert_served(address).await;
        let connected = dials.join_all().await;
        assert_served(address).await;
        drop(connected);
        assert_served(address).await;
    })
    .await;
}

/// Half a head each, as many as there are slots: the one that comes last is served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_halves() {
    alone!();
    limit(async {
        let limits = Limits::default().handshakes(32);
        let (server, address) = tools(Config::default().limits(limits)).await;
        let mut halves = Vec::new();
        for _ in 0..100 {
            let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
            raw.write("GET /mcp HTTP/1.1\r\nHost: local").await;
            halves.push(raw);
        }
        assert_served(address).await;
        let evicted = server.registry().health().rejected_by["evicted"];
        assert!(evicted >= 68, "{evicted}");
    })
    .await;
}

/// All of them are accepted at once, so that the task of the last one begins first.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn of_halves_that_are_accepted_together() {
    alone!();
    limit(async {
        let limits = Limits::default().handshakes(32);
        let (_server, address) = tools(Config::default().limits(limits)).await;
        let (busy, is_busy) = std::sync::mpsc::channel();
        let (go_on, goes_on) = std::sync::mpsc::channel();
        let blocked = tokio::spawn(async move {
            busy.send(()).unwrap();
            goes_on.recv().unwrap();
        });
        is_busy.recv().unwrap();
        let connect = |request: &str| {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
            stream.set_nonblocking(true).unwrap();
            stream
        };
        let _halves: Vec<_> =
            (0..60).map(|_| connect("GET /mcp HTTP/1.1\r\nHost: local")).collect();
        let good = connect("");
        go_on.send(()).unwrap();
        blocked.await.unwrap();
        let mut good = Raw::over(TcpStream::from_std(good).unwrap(), true);
        tokio::task::yield_now().await;
        good.write(upgrade_request(address, "")).await;
        assert_eq!(good.head().await.map(|head| head.status()), Some(101));
        good.initialize().await;
    })
    .await;
}

/// One client that never stops opening connections cannot drive out another that waits for its
/// verdict.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_connections_from_one_address() {
    alone!();
    limit(async {
        let config = Config::default().limits(Limits::default().handshakes(16)).authenticator(
            |_: Credentials| async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                Ok(Identity::new("anyone"))
            },
        );
        let (_server, address) = tools(config).await;
        let flood = async {
            let mut kept = Vec::new();
            loop {
                let socket = tokio::net::TcpSocket::new_v4().unwrap();
                socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
                if let Ok(stream) = socket.connect(address).await {
                    kept.push(stream);
                }
                if kept.len() > 200 {
                    kept.drain(..100);
                }
            }
        };
        tokio::select! {
            () = flood => {}
            () = async { for _ in 0..5 { Raw::initialized(address).await; } } => {}
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_pings() {
    alone!();
    limit(async {
        let (_server, address) = tools(Config::default()).await;
        let mut flood = JoinSet::new();
        for _ in 0..4 {
            let mut raw = Raw::initialized(address).await;
            let chunk = Frame::new(PING, [b'x'; 125]).bytes(true).repeat(100);
            flood.spawn(async move {
                let mut sink = vec![0; 64 << 10];
                // One that reads its pongs, so that nothing slows it down.
                while raw.try_write(&chunk).await.is_ok() {
                    let _ = raw.stream.try_read(&mut sink);
                    tokio::task::yield_now().await;
                }
            });
        }
        assert_served(address).await;
        flood.abort_all();
    })
    .await;
}

/// Requests for what is not there, over one connection, and on end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_requests_that_are_no_upgrades() {
    alone!();
    limit(async {
        let config = Config::default().handshake_timeout(Duration::from_secs(2));
        let (_server, address) = tools(config).await;
        let request = "GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let start = Instant::now();
        let mut flood = JoinSet::new();
        for _ in 0..4 {
            let (_, mut raw) = ask(address, request).await;
            flood.spawn(async move {
                let mut sink = vec![0; 64 << 10];
                while raw.try_write(request.repeat(100)).await.is_ok() {
                    let _ = raw.stream.try_read(&mut sink);
                }
            });
        }
        assert_served(address).await;
        flood.join_all().await;
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    })
    .await;
}

/// Several requests at once: each is answered, and the upgrade is what comes after them.
#[tokio::test]
async fn requests_before_an_upgrade_are_answered_first() {
    alone!();
    limit(async {
        let (_server, address) = tools(Config::default()).await;
        let mut bytes = "GET /other HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(50).into_bytes();
        bytes.extend(upgrade_request(address, "Origin: http://evil.example\r\n").bytes());
        bytes.extend(upgrade_request(address, "").bytes());
        bytes.extend(Frame::text(initialize("init").to_string()).bytes(true));
        bytes.extend(Frame::new(PING, "x").bytes(true));
        let (mut head, mut raw) = ask(address, bytes).await;
        let mut statuses = Vec::new();
        while head.status() != 101 {
            statuses.push(head.status());
            raw.body(head.get("content-length").unwrap().parse().unwrap()).await;
            head = raw.head().await.unwrap();
        }
        assert_eq!(statuses, [[404; 50].as_slice(), &[403]].concat());
        let first = raw.next().await.unwrap();
        let second = raw.next().await.unwrap();
        assert!([&first, &second].contains(&&Frame::new(PONG, "x")), "{first:?} {second:?}");
    })
    .await;
}

/// An upgrade with a body is refused: a proxy in between could take for a body what are frames
/// here.
#[tokio::test]
async fn an_upgrade_has_no_body() {
    alone!();
    limit(async {
        let (_server, address) = tools(Config::default()).await;
        let ping = json!({ "jsonrpc": "2.0", "id": "smuggled", "method": "ping" }).to_string();
        let frame = Frame::text(ping).bytes(true);
        for (lines, body) in [
            (format!("Content-Length: {}\r\n", frame.len()), frame.clone()),
            ("Content-Length: 1000\r\n".into(), frame.clone()),
            ("Content-Length: -1\r\n".into(), frame.clone()),
            ("Content-Length: 4\r\nContent-Length: 5\r\n".into(), frame.clone()),
            ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n".into(), b"0\r\n\r\n".to_vec()),
            ("Transfer-Encoding: chunked\r\n".into(), b"0\r\n\r\n".to_vec()),
            ("Transfer-Encoding: chunked\r\n".into(), b"4\r\nbody\r\n0\r\n\r\n".to_vec()),
            ("Transfer-Encoding: chunked\r\n".into(), frame.clone()),
            ("Transfer-Encoding: identity\r\n".into(), frame.clone()),
            ("Transfer-Encoding: gzip\r\n".into(), frame.clone()),
        ] {
            let mut bytes = upgrade_request(address, &lines).into_bytes();
            bytes.extend(body);
            let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
            raw.write(bytes).await;
            let mut answer = [0; 12];
            let _ = raw.stream.read_exact(&mut answer).await;
            assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 400", "{lines}");
        }
        // None at all is none.
        upgrade(address, "Content-Length: 0\r\n").await.initialize().await;
    })
    .await;
}

/// A body without end is not read for a request that is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_body() {
    alone!();
    limit(async {
        let config = Config::default().handshake_timeout(Duration::from_secs(1));
        let (_server, address) = tools(config).await;
        let request = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (head, mut raw) = ask(address, request).await;
        assert_eq!(head.status(), 405);
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        let start = Instant::now();
        while raw.try_write(&chunk).await.is_ok() {
            assert!(start.elapsed() < Duration::from_secs(5), "still read");
        }
        assert_served(address).await;
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_cannot_be_told_harms_nobody() {
    alone!();
    limit(async {
        let config = Config::default().peer_addr(|parts| {
            assert!(!parts.headers.contains_key("x-bug"), "a bug");
            None
        });
        let (server, address) = tools(config).await;
        let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
        raw.write(upgrade_request(address, "X-Bug: 1\r\n")).await;
        let head = raw.head().await.expect("an answer");
        assert_eq!(head.status(), 500, "{head:?}");
        assert_eq!(server.registry().health().rejected_by["unavailable"], 1);
        // Neither the connection nor the server has ended with it.
        raw.body(head.get("content-length").unwrap().parse().unwrap()).await;
        raw.write(upgrade_request(address, "")).await;
        assert_eq!(raw.head().await.map(|head| head.status()), Some(101));
        assert_eq!(try_upgrade(address, "").await.0.status(), 101);
    })
    .await;
}
