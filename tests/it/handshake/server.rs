//! The server's opening handshake, against requests of every kind.

use std::{
    future::IntoFuture,
    net::SocketAddr,
    time::{Duration, Instant},
};

use mcp_ws_transport::{
    Error, accept,
    error::HandshakeError,
    serve,
    server::{Config, Server},
};
use rmcp::{RoleServer, ServiceExt, transport::Transport};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::PingingByMessages;
use crate::common::{
    Tools,
    handshake::{ask, tools},
    limit,
    raw::{Frame, Head, KEY, Raw, initialize, upgrade_request},
    within,
};

async fn server() -> (Server, SocketAddr) {
    let server = serve("127.0.0.1:0", Tools::default)
        .config(Config::default().handshake_timeout(Duration::from_millis(500)))
        .await
        .unwrap();
    let address = server.local_addr();
    (server, address)
}

#[tokio::test]
async fn no_session_is_resumed_where_messages_are_the_pings() {
    limit(async {
        let config = Config::default().framing(PingingByMessages::default());
        let (_server, address) = tools(config).await;
        let offers = "Sec-WebSocket-Protocol: mcp, mcp.resume.v1\r\n";
        let (head, _) = ask(address, upgrade_request(address, offers)).await;
        assert_eq!((head.status(), head.get("sec-websocket-protocol")), (101, Some("mcp")));
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_no_upgrade_is_refused_with_what_is_missing() {
    limit(async {
        let (_server, address) = server().await;
        let good = upgrade_request(address, "");
        let without = |line: &str| {
            assert!(good.contains(line), "{line}");
            good.replace(line, "")
        };
        let version = "Sec-WebSocket-Version: 13\r\n";
        let key = &*format!("Sec-WebSocket-Key: {KEY}\r\n");
        let rows = [
            ("no upgrade", without("Upgrade: websocket\r\n"), 426),
            ("nothing", "GET /mcp HTTP/1.1\r\nHost: a\r\n\r\n".into(), 426),
            ("no Connection", without("Connection: Upgrade\r\n"), 426),
            ("keep-alive", good.replace("Connection: Upgrade", "Connection: keep-alive"), 426),
            ("h2c", good.replace("Upgrade: websocket", "Upgrade: h2c"), 426),
            ("no version", without(version), 426),
            ("version 8", good.replace("Version: 13", "Version: 8"), 426),
            ("version 14", good.replace("Version: 13", "Version: 14"), 426),
            ("two versions", good.replace(version, &version.repeat(2)), 426),
            ("no key", without(key), 400),
            ("an empty key", good.replace(KEY, ""), 400),
            ("a short key", good.replace(KEY, "c2hvcnQ="), 400),
            ("a long key", good.replace(KEY, "dGhlIHNhbXBsZSBub25jZSBhbmQgbW9yZQ=="), 400),
            ("no base64", good.replace(KEY, "dGhlIHNhbXBsZSBub25jZ!=="), 400),
            ("two keys", good.replace(key, &key.repeat(2)), 400),
            ("POST", good.replace("GET ", "POST "), 405),
            ("HEAD", good.replace("GET ", "HEAD "), 405),
            ("another path", good.replace("/mcp", "/other"), 404),
            ("the root", good.replace("/mcp", "/"), 404),
            ("a path below", good.replace("/mcp", "/mcp/x"), 404),
            ("another case", good.replace("/mcp", "/MCP"), 404),
        ];
        for (what, request, status) in rows {
            let (head, _) = ask(address, &request).await;
            assert_eq!(head.status(), status, "{what}: {head:?}");
            assert!(head.get("sec-websocket-accept").is_none(), "{what}");
            match status {
                426 if what.contains("version") => {
                    assert_eq!(head.get("sec-websocket-version"), Some("13"), "{what}");
                }
                426 => assert_eq!(head.get("upgrade"), Some("websocket"), "{what}"),
                405 => assert_eq!(head.get("allow"), Some("GET"), "{what}"),
                _ => {}
            }
        }
        // RFC 9110, section 15.5.22: a 426 MUST have an Upgrade header.
        let (head, _) = ask(address, &good.replace("Version: 13", "Version: 8")).await;
        assert_eq!(head.get("upgrade"), Some("websocket"), "{head:?}");
    })
    .await;
}

#[tokio::test]
async fn an_upgrade_is_granted_however_it_is_written() {
    limit(async {
        let (_server, address) = server().await;
        let good = upgrade_request(address, "");
        for request in [
            good.clone(),
            good.to_lowercase()
                .replace("get /mcp http", "GET /mcp HTTP")
                .replace(&KEY.to_lowercase(), KEY),
            good.replace("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
            good.replace("Connection: Upgrade", "Connection: keep-alive\r\nConnection: upgrade"),
            good.replace("Upgrade: websocket", "Upgrade: h2c, WebSocket"),
            good.replace("/mcp", "/mcp?token=x&y=z"),
            good.replace("GET /mcp", &format!("GET http://{address}/mcp")),
            upgrade_request(address, "Sec-WebSocket-Extensions: permessage-deflate\r\n"),
            upgrade_request(address, &format!("X-Large: {}\r\n", "x".repeat(16_000))),
        ] {
            let (head, mut raw) = ask(address, &request).await;
            assert_eq!(head.status(), 101, "{request}: {head:?}");
            assert_eq!(head.get("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
            assert!(head.get("sec-websocket-extensions").is_none());
            raw.initialize().await;
        }
    })
    .await;
}

#[tokio::test]
async fn only_the_own_pages_may_connect() {
    limit(async {
        let (_server, address) = server().await;
        for (origin, status) in [
            (format!("http://{address}"), 101),
            ("http://evil.example".into(), 403),
            (format!("http://{address}.evil.example"), 403),
            (format!("http://evil.example/{address}"), 403),
            (format!("http://127.0.0.1:{}", address.port() ^ 1), 403),
            (format!("http://127.0.0.1:{}", 80), 403),
            (format!("http://localhost:{}", address.port()), 403),
            ("null".into(), 403),
            (String::new(), 403),
            ("file://".into(), 403),
            (format!("http://{address}\r\nOrigin: http://evil.example"), 403),
        ] {
            let request = upgrade_request(address, &format!("Origin: {origin}\r\n"));
            let (head, _) = ask(address, &request).await;
            assert_eq!(head.status(), status, "{origin}");
        }
    })
    .await;
}

/// A page whose name an attacker points to this machine (DNS rebinding) sends its own name as both
/// `Host` and `Origin`.
#[tokio::test]
async fn a_foreign_host_may_not_connect_to_a_loopback_server() {
    limit(async {
        let (_server, address) = server().await;
        let origin = format!("Origin: http://evil.example:{}\r\n", address.port());
        let request = upgrade_request(address, &origin);
        let request = request.replace(
            &format!("Host: {address}"),
            &format!("Host: evil.example:{}", address.port()),
        );
        let (head, _) = ask(address, &request).await;
        assert_eq!(head.status(), 403);
    })
    .await;
}

#[tokio::test]
async fn the_subprotocol_is_chosen_and_no_token_echoed() {
    limit(async {
        let (_server, address) = server().await;
        for (offer, answer) in [
            ("", None),
            ("Sec-WebSocket-Protocol: mcp\r\n", Some("mcp")),
            ("Sec-WebSocket-Protocol: mcp, mcp.auth.secret\r\n", Some("mcp")),
            ("Sec-WebSocket-Protocol: mcp.auth.secret, mcp\r\n", Some("mcp")),
            (
                "Sec-WebSocket-Protocol: mcp.auth.secret\r\nSec-WebSocket-Protocol: mcp\r\n",
                Some("mcp"),
            ),
            ("Sec-WebSocket-Protocol: mcp.version.1,mcp\r\n", Some("mcp")),
            ("Sec-WebSocket-Protocol: mcp.version.2025-11-25\r\n", Some("mcp.version.2025-11-25")),
            ("Sec-WebSocket-Protocol: mcp.auth.secret, mcp.version.1\r\n", Some("mcp.version.1")),
            ("Sec-WebSocket-Protocol: mcp.auth.secret\r\n", None),
            ("Sec-WebSocket-Protocol: mcp.session-id.secret\r\n", None),
            ("Sec-WebSocket-Protocol: graphql-ws\r\n", None),
            ("Sec-WebSocket-Protocol: MCP\r\n", None),
            ("Sec-WebSocket-Protocol: mcpx\r\n", None),
            ("Sec-WebSocket-Protocol: ,,\r\n", None),
            ("Sec-WebSocket-Protocol: mcp.version.\u{e9}\r\n", None),
        ] {
            let (head, mut raw) = ask(address, &upgrade_request(address, offer)).await;
            assert_eq!(head.status(), 101, "{offer}");
            assert_eq!(head.get("sec-websocket-protocol"), answer, "{offer}");
            assert!(head.all("sec-websocket-protocol").len() <= 1);
            raw.initialize().await;
        }
    })
    .await;
}

/// HTTP/1.0 has no upgrades (RFC 9110, section 7.8).
#[tokio::test]
async fn http_1_0_is_not_upgraded() {
    limit(async {
        let (_server, address) = server().await;
        let request = upgrade_request(address, "").replace("HTTP/1.1", "HTTP/1.0");
        let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
        raw.write(request).await;
        let mut answer = String::new();
        raw.stream.read_to_string(&mut answer).await.unwrap();
        assert!(!answer.contains(" 101 "), "{answer}");
        assert!(answer.starts_with("HTTP/1"), "{answer:?}");
        assert!(!answer.contains(" 500 "), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn what_is_no_http_is_cut_off() {
    limit(async {
        let (_server, address) = server().await;
        for bytes in [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
            b"\0\0\0\0\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET /mcp\r\n\r\n",
        ] {
            let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
            raw.write(bytes).await;
            let mut answer = Vec::new();
            // 400, or nothing; in any case the end.
            let _ = raw.stream.read_to_end(&mut answer).await;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(
                answer.is_empty() || answer.contains(" 400 ") || answer.contains(" 505 "),
                "{answer}"
            );
        }
        // And a head without end.
        let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
        raw.write("GET /mcp HTTP/1.1\r\n").await;
        let line = format!("X: {}\r\n", "x".repeat(1000));
        let mut written = 0;
        while raw.try_write(&line).await.is_ok() {
            written += line.len();
            assert!(written < 64 << 20, "still reading");
        }
    })
    .await;
}

/// An upgrade request whose head has `size` bytes.
fn request_of(address: SocketAddr, size: usize) -> String {
    let bare = upgrade_request(address, "X-Padding: \r\n").len();
    upgrade_request(address, &format!("X-Padding: {}\r\n", "x".repeat(size - bare)))
}

#[tokio::test]
async fn a_head_has_64_kib_and_one_larger_is_told_so() {
    limit(async {
        const LIMIT: usize = 64 << 10;
        let (_server, address) = server().await;
        // However its bytes come.
        for step in [LIMIT * 2, 1000] {
            for (size, status) in [(LIMIT, 101), (LIMIT + 1, 431), (100 << 10, 431)] {
                let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
                for part in request_of(address, size).as_bytes().chunks(step) {
                    if raw.try_write(part).await.is_err() {
                        break;
                    }
                }
                let head = raw.head().await.unwrap();
                assert_eq!(head.status(), status, "{size} in steps of {step}: {head:?}");
                if status == 431 {
                    let length = head.get("content-length").unwrap().parse().unwrap();
                    let body = raw.body(length).await;
                    assert_eq!(body, "the head of the request has more than 65536 bytes");
                    raw.stream.shutdown().await.unwrap();
                    raw.end().await;
                } else {
                    raw.initialize().await;
                }
            }
        }
        // The next request's head begins anew, and a body is none.
        let (head, mut raw) = ask(address, "GET /other HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!((head.status(), &*raw.body(9).await), (404, "Not Found"));
        raw.write(request_of(address, LIMIT)).await;
        assert_eq!(raw.head().await.unwrap().status(), 101);

        for (size, status) in [(LIMIT, 101), (LIMIT + 1, 431)] {
            let (near, far) = crate::common::pair().await;
            let accepting = tokio::spawn(accept::<RoleServer, _>(far).into_future());
            let mut raw = Raw::over(near, true);
            let address = raw.stream.peer_addr().unwrap();
            raw.write(request_of(address, size)).await;
            assert_eq!(raw.head().await.unwrap().status(), status);
            drop(raw);
            assert_eq!(accepting.await.unwrap().is_ok(), status == 101);
        }
    })
    .await;
}

/// The kernel answers unread bytes with a reset, which may overtake the response.
#[tokio::test]
async fn what_follows_a_head_that_is_too_large_is_read_and_discarded() {
    limit(async {
        let sends_on = async |mut raw: Raw, address| {
            raw.write(request_of(address, (64 << 10) + 1)).await;
            assert_eq!(raw.head().await.unwrap().status(), 431);
            for _ in 0..64 {
                raw.try_write([b'x'; 16 << 10]).await.expect("it reads no more");
            }
        };
        let (_server, address) = server().await;
        let raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
        sends_on(raw, address).await;

        let (near, far) = crate::common::pair().await;
        let address = near.peer_addr().unwrap();
        let accepting = tokio::spawn(accept::<RoleServer, _>(far).into_future());
        sends_on(Raw::over(near, true), address).await;
        assert!(accepting.await.unwrap().is_err());
    })
    .await;
}

/// Small devices compare bytes.
#[tokio::test]
async fn the_names_of_headers_are_written_as_rfc_6455_has_them() {
    limit(async {
        let offers = "Sec-WebSocket-Protocol: mcp\r\nX-Sec: sec-websocket-accept\r\n";
        let check = |head: &Head| {
            for line in [
                "\r\nUpgrade: websocket\r\n",
                "\r\nConnection: Upgrade\r\n",
                "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
                "\r\nSec-WebSocket-Protocol: mcp\r\n",
            ] {
                assert!(head.0.contains(line), "{line:?} in {head:?}");
            }
        };
        let (_server, address) = server().await;
        let (head, mut raw) = ask(address, &upgrade_request(address, offers)).await;
        check(&head);
        raw.initialize().await;
        // Behind another answer too.
        let (_, mut raw) = ask(address, "GET /mcp HTTP/1.1\r\nHost: a\r\n\r\n").await;
        raw.body(16).await;
        raw.write(upgrade_request(address, offers)).await;
        check(&raw.head().await.unwrap());
        raw.initialize().await;

        let (near, far) = crate::common::pair().await;
        let accepting = tokio::spawn(accept::<RoleServer, _>(far).into_future());
        let mut raw = Raw::over(near, true);
        let address = raw.stream.peer_addr().unwrap();
        raw.write(upgrade_request(address, offers)).await;
        check(&raw.head().await.unwrap());
        drop(accepting.await.unwrap().unwrap());
    })
    .await;
}

/// A slash before the query, too, which may name the session.
#[tokio::test]
async fn a_slash_at_the_end_of_the_path_changes_nothing() {
    limit(async {
        let (_server, address) = server().await;
        for (path, status) in [
            ("/mcp/", 101),
            ("/mcp/?mcp_session_id=0123456789abcdef0123456789abcdef", 101),
            ("/mcp//", 404),
            ("/mcp/x", 404),
            ("/", 404),
        ] {
            let request = upgrade_request(address, "").replace("/mcp", path);
            let (head, _raw) = ask(address, &request).await;
            assert_eq!(head.status(), status, "{path}");
            if path == "/mcp/" {
                let cookie = head.get("set-cookie").unwrap();
                assert!(cookie.contains("Path=/mcp;"), "{cookie}");
            }
        }
        let server = serve("127.0.0.1:0", Tools::default).path("/agent/").await.unwrap();
        let address = server.local_addr();
        for path in ["/agent", "/agent/"] {
            let url = format!("ws://{address}{path}");
            let client = ().serve(mcp_ws_transport::connect(url).await.unwrap()).await.unwrap();
            client.cancel().await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_dawdles_over_its_head_is_cut_off_at_the_deadline() {
    limit(async {
        let (_server, address) = server().await;
        for half in ["", "GET /mcp HTTP/1.1\r\nHost: a\r\nConn"] {
            let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
            let start = Instant::now();
            raw.write(half).await;
            let mut answer = Vec::new();
            let _ = raw.stream.read_to_end(&mut answer).await;
            let elapsed = start.elapsed().as_millis();
            assert!((400..5000).contains(&elapsed), "{half:?}: {elapsed} ms");
        }
        // A byte now and then does not help.
        let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
        let start = Instant::now();
        for byte in upgrade_request(address, "").bytes().cycle() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if raw.try_write([byte]).await.is_err() {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(8));
        }
    })
    .await;
}

/// Neither does a body that never comes, nor one request after the other.
#[tokio::test]
async fn a_client_that_never_upgrades_does_not_stay() {
    limit(async {
        let (_server, address) = server().await;
        let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
        raw.write("POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf").await;
        let mut answer = Vec::new();
        let start = Instant::now();
        let _ = within(Duration::from_secs(8), raw.stream.read_to_end(&mut answer)).await;
        assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 405"), "{answer:?}");
        assert!(start.elapsed() < Duration::from_secs(8));

        // One that asks properly is served on, as HTTP has it, and may upgrade in the end.
        let (head, mut raw) = ask(address, "GET /other HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(head.status(), 404);
        assert_eq!(raw.body(9).await, "Not Found");
        raw.write(upgrade_request(address, "")).await;
        assert_eq!(raw.head().await.unwrap().status(), 101);
        raw.initialize().await;
    })
    .await;
}

/// Frames in the segment of the request are not lost, nor in the middle of a frame.
#[tokio::test]
async fn frames_behind_the_request_are_received() {
    limit(async {
        let (_server, address) = server().await;
        let mut bytes = upgrade_request(address, "").into_bytes();
        bytes.extend(Frame::text(initialize("init").to_string()).bytes(true));
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        bytes.extend(Frame::text(initialized.to_string()).bytes(true));
        for id in 0..100 {
            let ping = json!({ "jsonrpc": "2.0", "id": id, "method": "ping" });
            bytes.extend(Frame::text(ping.to_string()).bytes(true));
        }
        for cut in [bytes.len(), bytes.len() - 10, 300] {
            let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
            raw.write(&bytes[..cut]).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            raw.write(&bytes[cut..]).await;
            assert_eq!(raw.head().await.unwrap().status(), 101);
            assert_eq!(raw.receive().await["id"], "init");
            let mut ids: Vec<_> = Vec::new();
            while ids.len() < 100 {
                ids.push(raw.receive().await["id"].as_i64().unwrap());
            }
            ids.sort_unstable();
            assert_eq!(ids, (0..100).collect::<Vec<_>>());
        }
    })
    .await;
}

#[tokio::test]
async fn accept_reports_who_does_not_upgrade() {
    limit(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let timeout = Duration::from_millis(300);
        let accepting = async |bytes: &[u8], keep: bool| {
            let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
            raw.write(bytes).await;
            let raw = keep.then_some(raw);
            let (stream, _) = listener.accept().await.unwrap();
            let accepting = accept::<RoleServer, _>(stream)
                .config(Config::default().handshake_timeout(timeout));
            let accepted = within(Duration::from_secs(10), accepting.into_future()).await;
            drop(raw);
            match accepted {
                Err(Error::Handshake(error)) => error,
                other => panic!("{other:?}"),
            }
        };
        let silent = accepting(b"", true).await;
        // The time for the head and that for all of it end together.
        assert!(
            matches!(silent, HandshakeError::TimedOut(_) | HandshakeError::NotWebSocket(_)),
            "{silent:?}"
        );
        let gone = accepting(b"", false).await;
        assert!(matches!(gone, HandshakeError::Connect(_)), "{gone:?}");
        let rubbish = accepting(b"\0\0\0\0\r\n\r\n", true).await;
        assert!(matches!(rubbish, HandshakeError::NotWebSocket(_)), "{rubbish:?}");
        let refused = accepting(b"GET /mcp HTTP/1.1\r\nHost: a\r\n\r\n", false).await;
        assert!(matches!(refused, HandshakeError::Connect(_)), "{refused:?}");
        let half = accepting(b"GET /mcp HT", false).await;
        assert!(
            matches!(half, HandshakeError::Connect(_) | HandshakeError::NotWebSocket(_)),
            "{half:?}"
        );
    })
    .await;
}

/// The time is for the handshake as a whole, not for each of many requests.
#[tokio::test]
async fn accept_does_not_let_a_client_ask_for_ever() {
    limit(async {
        let (near, far) = crate::common::pair().await;
        let timeout = Duration::from_millis(500);
        let accepting =
            accept::<RoleServer, _>(far).config(Config::default().handshake_timeout(timeout));
        let accepting = tokio::spawn(accepting.into_future());
        let mut raw = Raw::over(near, true);
        let start = Instant::now();
        while raw.try_write("GET /mcp HTTP/1.1\r\nHost: a\r\n\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(start.elapsed() < Duration::from_secs(8), "still served");
        }
        accepting.await.unwrap().unwrap_err();
    })
    .await;
}

/// … and so it is for `serve`.
#[tokio::test]
async fn serve_does_not_let_a_client_ask_for_ever() {
    limit(async {
        let (_server, address) = server().await;
        let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
        let start = Instant::now();
        while raw.try_write("GET /mcp HTTP/1.1\r\nHost: a\r\n\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert!(start.elapsed() < Duration::from_secs(8), "still served");
        }
    })
    .await;
}

/// An upgraded client that answers pings but never begins is a place taken for nothing.
#[tokio::test]
async fn a_client_that_upgrades_and_says_nothing_does_not_stay() {
    limit(async {
        let (_server, address) = server().await;
        let mut raw = Raw::dial(address).await;
        within(Duration::from_secs(5), async { while raw.next().await.is_some() {} }).await;
    })
    .await;
}

/// Any path will do for a stream of one's own, and its first messages are those of the client.
#[tokio::test]
async fn accept_takes_any_path() {
    limit(async {
        let (near, far) = crate::common::pair().await;
        let request = upgrade_request(near.local_addr().unwrap(), "").replace("/mcp", "/any/where");
        let mut raw = Raw::over(near, true);
        raw.write(request).await;
        let mut transport = accept::<RoleServer, _>(far).await.unwrap();
        assert_eq!(raw.head().await.unwrap().status(), 101);
        assert_eq!(transport.subprotocol(), None);
        raw.json(&initialize("first")).await;
        assert!(transport.receive().await.is_some());
    })
    .await;
}

/// A request with a body asks for no upgrade that this crate understands, but must not confuse it.
#[tokio::test]
async fn an_upgrade_with_a_body_does_not_hang() {
    limit(async {
        let (_server, address) = server().await;
        let request = upgrade_request(address, "Content-Length: 4\r\n") + "body";
        let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
        raw.write(request).await;
        let mut answer = [0; 12];
        within(Duration::from_secs(3), raw.stream.read(&mut answer)).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 ") || answer == [0; 12], "{answer:?}");
    })
    .await;
}
