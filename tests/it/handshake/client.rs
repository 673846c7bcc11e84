//! The client's opening handshake, against servers that answer anything at all.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use mcp_ws_transport::{Error, client::Connect, connect, connect_over, error::HandshakeError};
use rmcp::{RoleClient, ServiceExt, transport::Transport};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{Dialled, PingingByMessages, failure, refusal};
use crate::common::{
    limit, listen,
    logs::Log,
    raw::{Frame, Head, PONG, Raw, accept_key, accepted},
    within,
};

/// Subprotocols that are offered unless something else is asked for.
const DEFAULT: &str = "mcp, mcp.resume.v1";

type Answer = Box<dyn Fn(&Head) -> Vec<u8> + Send>;

/// The requests that arrived.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Head>>>);

impl Seen {
    fn heads(&self) -> Vec<Head> {
        self.0.lock().unwrap().clone()
    }

    /// The subprotocols offered, request by request.
    fn offers(&self) -> Vec<String> {
        let heads = self.heads();
        heads.iter().map(|head| head.all("sec-websocket-protocol").join(" | ")).collect()
    }
}

/// Answers every connection's request with what `answer` makes of it, then ends the stream.
fn answering(listener: TcpListener, answer: impl Fn(&Head) -> Vec<u8> + Send + 'static) -> Seen {
    let seen = Seen::default();
    let record = seen.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut raw = Raw::over(stream, false);
            let Some(head) = raw.head().await else { continue };
            record.0.lock().unwrap().push(head.clone());
            let _ = raw.try_write(answer(&head)).await;
            tokio::spawn(async move {
                let _ = raw.stream.shutdown().await;
                let _ = raw.stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    seen
}

async fn dial(
    answer: impl Fn(&Head) -> Vec<u8> + Send + 'static,
    options: impl FnOnce(Connect<RoleClient>) -> Connect<RoleClient>,
) -> (Dialled, Seen) {
    let (listener, url) = listen().await;
    let seen = answering(listener, answer);
    (within(Duration::from_secs(5), options(connect(url)).into_future()).await, seen)
}

fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

#[tokio::test]
async fn a_refusal_says_what_the_server_said() {
    limit(async {
        for (status, headers, body, retryable) in [
            ("200 OK", "", "<html>hello", false),
            ("401 Unauthorized", "WWW-Authenticate: Bearer realm=\"mcp\"\r\n", "who?", false),
            ("403 Forbidden", "", "no", false),
            ("404 Not Found", "", "", false),
            ("407 Proxy Authentication Required", "", "", false),
            ("429 Too Many Requests", "Retry-After: 17\r\n", "slow down", true),
            ("500 Internal Server Error", "", "boom", true),
            ("503 Service Unavailable", "Retry-After: 3\r\n", "later", true),
        ] {
            let answer = http(status, headers, body);
            let (dialled, seen) = dial(move |_| answer.clone(), |connect| connect).await;
            let refusal = refusal(dialled);
            assert_eq!(refusal.status.as_str(), &status[..3]);
            assert_eq!(refusal.body, body, "{status}");
            let retry = headers.contains("Retry-After").then(|| {
                Duration::from_secs(headers.trim().rsplit(' ').next().unwrap().parse().unwrap())
            });
            assert_eq!(refusal.retry_after, retry, "{status}");
            let challenge = headers.contains("WWW").then_some("Bearer realm=\"mcp\"");
            assert_eq!(refusal.www_authenticate.as_deref(), challenge, "{status}");
            assert_eq!(
                Error::from(HandshakeError::Refused(Box::new(refusal))).is_retryable(),
                retryable,
                "{status}"
            );
            // Each of these has a meaning of its own, so no other offer is tried.
            assert_eq!(seen.offers(), [DEFAULT], "{status}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_long_body_is_cut_and_a_stalled_one_not_waited_for() {
    limit(async {
        let answer = http("403 Forbidden", "", &"b".repeat(100_000));
        let refused = refusal(dial(move |_| answer.clone(), |connect| connect).await.0);
        assert!((1..=4096).contains(&refused.body.len()), "{} bytes", refused.body.len());

        let (listener, url) = listen().await;
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut raw = Raw::over(stream, false);
            raw.head().await.unwrap();
            raw.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\nhalf").await;
            std::future::pending::<()>().await;
        });
        let start = Instant::now();
        let refused = refusal(connect(url).await);
        assert_eq!(refused.body, "half");
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());

        let (listener, url) = listen().await;
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut raw = Raw::over(stream, false);
            raw.head().await.unwrap();
            raw.write("HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            while raw.try_write("5\r\nabcde\r\n").await.is_ok() {}
        });
        let start = Instant::now();
        assert_eq!(refusal(connect(url).await).status, 500);
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    })
    .await;
}

#[tokio::test]
async fn redirects_within_the_origin_are_followed_until_they_loop() {
    limit(async {
        for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
        {
            let (listener, url) = listen().await;
            let origin = listener.local_addr().unwrap();
            let seen = answering(listener, move |head| {
                let location = match head.0.split(' ').nth(1).unwrap() {
                    "/mcp" => "/second?a=b".to_owned(),
                    "/second?a=b" => format!("http://{origin}/third"),
                    "/third" => format!("ws://{origin}/last#fragment"),
                    "/last" => return accepted(head, "").into(),
                    other => panic!("{other}"),
                };
                http(status, &format!("Location: {location}\r\n"), "")
            });
            let _ = connect::<RoleClient>(url).bearer("canary").await.unwrap();
            assert_eq!(seen.heads().len(), 4, "{status}");
            for head in seen.heads() {
                assert_eq!(head.get("authorization"), Some("Bearer canary"), "{status}");
            }
        }
        let loop_back = http("302 Found", "Location: /mcp\r\n", "");
        let (dialled, seen) = dial(move |_| loop_back.clone(), |connect| connect).await;
        let refused = refusal(dialled);
        assert_eq!((refused.status.as_u16(), refused.location.unwrap().path()), (302, "/mcp"));
        assert!(seen.heads().len() <= 11, "{}", seen.heads().len());
    })
    .await;
}

#[tokio::test]
async fn a_relative_redirect_is_relative_to_the_request() {
    limit(async {
        let (listener, url) = listen().await;
        let seen = answering(listener, |head| match head.0.split(' ').nth(1).unwrap() {
            "/mcp" => http("302 Found", "Location: other/ws\r\n", ""),
            "/other/ws" => http("302 Found", "Location: ?query\r\n", ""),
            "/other/ws?query" => http("302 Found", "Location: ../up\r\n", ""),
            _ => accepted(head, "").into(),
        });
        let _ = connect::<RoleClient>(url).await.unwrap();
        assert!(seen.heads().last().unwrap().0.starts_with("GET /up "), "{:?}", seen.heads());
    })
    .await;
}

#[tokio::test]
async fn redirects_out_of_the_origin_are_refused_with_the_place() {
    limit(async {
        let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = elsewhere.local_addr().unwrap().port();
        for location in [
            format!("http://127.0.0.1:{port}/mcp"),
            format!("ws://127.0.0.1:{port}/mcp"),
            format!("//127.0.0.1:{port}/mcp"),
            format!("http://localhost:{port}/mcp"),
            "https://example.com/".to_owned(),
            "wss://example.com/".to_owned(),
            "ftp://example.com/".to_owned(),
        ] {
            let answer = http("302 Found", &format!("Location: {location}\r\n"), "");
            let (dialled, seen) = dial(move |_| answer.clone(), |connect| connect).await;
            let refused = refusal(dialled);
            assert!(refused.location.is_some(), "{location}");
            assert_eq!(seen.heads().len(), 1, "{location}");
        }
        // Nor one to TLS at the same port, or without a place.
        let (listener, url) = listen().await;
        let secure = format!("Location: wss://{}/\r\n", listener.local_addr().unwrap());
        let seen = answering(listener, move |_| http("302 Found", &secure, ""));
        refusal(connect(url).await);
        assert_eq!(seen.heads().len(), 1);
        for headers in ["", "Location: \r\n", "Location: http://\r\n", "Location: \u{e9}\r\n"] {
            let answer = http("302 Found", headers, "");
            assert_eq!(refusal(dial(move |_| answer.clone(), |c| c).await.0).status, 302);
        }
        let dialled = tokio::time::timeout(Duration::from_millis(50), elsewhere.accept()).await;
        assert!(dialled.is_err(), "dialled elsewhere");
    })
    .await;
}

#[tokio::test]
async fn what_is_no_websocket_handshake_is_an_error() {
    let rows: Vec<(&str, Answer)> = vec![
        ("garbage", Box::new(|_| vec![0, 1, 2, 255, b'\r', b'\n', b'\r', b'\n'])),
        ("another protocol", Box::new(|_| b"SSH-2.0-OpenSSH_9.6\r\n".to_vec())),
        (
            "a wrong accept",
            Box::new(|head| accepted(head, "").replace("Accept: ", "Accept: x").into()),
        ),
        (
            "an accept of another key",
            Box::new(|head| {
                let key = accept_key(head.get("sec-websocket-key").unwrap());
                accepted(head, "").replace(&key, &accept_key("other")).into()
            }),
        ),
        (
            "no accept",
            Box::new(|head| accepted(head, "").replace("Sec-WebSocket-Accept", "X-Accept").into()),
        ),
        (
            "no Upgrade",
            Box::new(|head| accepted(head, "").replace("Upgrade: websocket\r\n", "").into()),
        ),
        (
            "another Upgrade",
            Box::new(|head| {
                accepted(head, "").replace("Upgrade: websocket", "Upgrade: h2c").into()
            }),
        ),
        (
            "no Connection",
            Box::new(|head| accepted(head, "").replace("Connection: Upgrade\r\n", "").into()),
        ),
        (
            "an extension",
            Box::new(|head| {
                accepted(head, "Sec-WebSocket-Extensions: permessage-deflate\r\n").into()
            }),
        ),
        (
            "a foreign subprotocol",
            Box::new(|head| accepted(head, "Sec-WebSocket-Protocol: graphql-ws\r\n").into()),
        ),
        (
            "a list of foreign ones",
            Box::new(|head| accepted(head, "Sec-WebSocket-Protocol: mcp, graphql-ws\r\n").into()),
        ),
    ];
    limit(async {
        for (what, answer) in rows {
            let (dialled, seen) = dial(answer, |connect| connect.resume(false)).await;
            let error = failure(dialled);
            assert!(
                matches!(error, HandshakeError::NotWebSocket(_) | HandshakeError::Subprotocol(_)),
                "{what}: {error:?}"
            );
            assert!(!error.is_retryable(), "{what}");
            assert_eq!(seen.heads().len(), 1, "{what}");
        }
    })
    .await;
}

#[tokio::test]
async fn servers_may_choose_a_subprotocol_as_they_do_in_the_field() {
    limit(async {
        for (offered, answered, agreed) in [
            (&[][..], "", None),
            (&[], "Sec-WebSocket-Protocol: mcp\r\n", Some("mcp")),
            (&["mcp.version.1"], "Sec-WebSocket-Protocol: mcp\r\n", Some("mcp")),
            (
                &["mcp.version.1"],
                "Sec-WebSocket-Protocol: mcp.version.1\r\n",
                Some("mcp.version.1"),
            ),
            (&["a", "b"], "Sec-WebSocket-Protocol: mcp, a, b\r\n", Some("mcp")),
            (&["a", "b"], "sec-websocket-protocol:mcp\r\n", Some("mcp")),
        ] {
            let (dialled, seen) = dial(
                move |head| accepted(head, answered).into(),
                |connect| connect.resume(false).subprotocols(offered.iter().copied()),
            )
            .await;
            assert_eq!(dialled.unwrap().subprotocol(), agreed, "{offered:?} {answered}");
            let offer = [&["mcp"], offered].concat().join(", ");
            assert_eq!(seen.offers(), [offer]);
        }
        // Unasked: by a server that refused what was asked.
        let (dialled, seen) = dial(
            |head| match head.get("sec-websocket-protocol") {
                Some(_) => http("400 Bad Request", "", ""),
                None => accepted(head, "Sec-WebSocket-Protocol: mcp\r\n").into(),
            },
            |connect| connect,
        )
        .await;
        assert_eq!(dialled.unwrap().subprotocol(), Some("mcp"));
        assert_eq!(seen.offers(), [DEFAULT, "mcp", ""]);
    })
    .await;
}

#[tokio::test]
async fn no_session_is_resumed_where_messages_are_the_pings() {
    limit(async {
        let (dialled, seen) = dial(
            |head| accepted(head, "Sec-WebSocket-Protocol: mcp\r\n").into(),
            |connect| connect.framing(PingingByMessages::default()),
        )
        .await;
        assert!(dialled.is_ok());
        assert_eq!(seen.offers(), ["mcp"]);
    })
    .await;
}

#[tokio::test]
async fn a_server_that_dislikes_the_offer_is_offered_less() {
    fn offer(head: &Head) -> Option<&str> {
        head.get("sec-websocket-protocol")
    }
    const ALL: &str = "mcp, mcp.resume.v1, mcp.version.1";
    let refuse = || http("400 Bad Request", "", "bad subprotocol");
    limit(async {
        let (dialled, seen) = dial(
            move |head| match offer(head) {
                Some("mcp") => accepted(head, "Sec-WebSocket-Protocol: mcp\r\n").into(),
                _ => refuse(),
            },
            |connect| connect.subprotocols(["mcp.version.1"]),
        )
        .await;
        assert_eq!(dialled.unwrap().subprotocol(), Some("mcp"));
        assert_eq!(seen.offers(), [ALL, "mcp, mcp.version.1", "mcp"]);

        let (dialled, seen) = dial(
            move |head| if offer(head).is_none() { accepted(head, "").into() } else { refuse() },
            |connect| connect.subprotocols(["mcp.version.1"]),
        )
        .await;
        assert_eq!(dialled.unwrap().subprotocol(), None);
        assert_eq!(seen.offers(), [ALL, "mcp, mcp.version.1", "mcp", ""]);

        // Dropped in place of an answer.
        let (dialled, seen) = dial(
            move |head| {
                if offer(head).is_none() { accepted(head, "").into() } else { Vec::new() }
            },
            |connect| connect,
        )
        .await;
        let _ = dialled.unwrap();
        assert_eq!(seen.offers(), [DEFAULT, DEFAULT, "mcp", ""]);

        // Whatever is offered: the first refusal is told.
        let answers = std::sync::atomic::AtomicUsize::new(0);
        let (dialled, seen) = dial(
            move |_| {
                let count = answers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                http("400 Bad Request", "", &format!("number {count}"))
            },
            |connect| connect.subprotocols(["mcp.version.1"]),
        )
        .await;
        assert_eq!(refusal(dialled).body, "number 0");
        assert_eq!(seen.offers(), [ALL, "mcp, mcp.version.1", "mcp", ""]);
    })
    .await;
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_in_time() {
    limit(async {
        let timeout = Duration::from_millis(300);
        for half in ["", "HTTP/1.1 101 Switching", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: "]
        {
            let (listener, url) = listen().await;
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(half.as_bytes()).await.unwrap();
                std::future::pending::<()>().await;
            });
            let start = Instant::now();
            let error = failure(connect(url).handshake_timeout(timeout).await);
            assert!(
                matches!(error, HandshakeError::TimedOut(after) if after == timeout),
                "{error:?}"
            );
            assert!((300..5000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
            assert!(error.is_retryable());
        }
        // A listener whose backlog takes the connection, but which never accepts.
        let (_listener, url) = listen().await;
        let error = failure(connect(url).handshake_timeout(timeout).await);
        assert!(matches!(error, HandshakeError::TimedOut(_)), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn a_server_that_hangs_up_is_an_error_of_the_connection() {
    limit(async {
        for read_first in [false, true] {
            for reset in [false, true] {
                let (listener, url) = listen().await;
                tokio::spawn(async move {
                    while let Ok((stream, _)) = listener.accept().await {
                        let mut raw = Raw::over(stream, false);
                        if read_first {
                            raw.head().await;
                        }
                        if reset {
                            raw.reset();
                        }
                    }
                });
                let error =
                    failure(within(Duration::from_secs(2), connect(url).into_future()).await);
                assert!(matches!(error, HandshakeError::Connect(_)), "{error:?}");
                assert!(error.is_retryable());
            }
        }
        let (dialled, seen) = dial(|_| b"HTTP/1.1 101 Swit".to_vec(), |connect| connect).await;
        assert!(matches!(failure(dialled), HandshakeError::Connect(_)));
        assert_eq!(seen.offers(), [DEFAULT, DEFAULT, "mcp", ""]);
    })
    .await;
}

#[tokio::test]
async fn an_endless_head_is_given_up() {
    limit(async {
        let (listener, url) = listen().await;
        let writer = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut raw = Raw::over(stream, false);
            raw.head().await.unwrap();
            raw.write("HTTP/1.1 200 OK\r\n").await;
            let mut written = 0;
            let line = format!("X: {}\r\n", "x".repeat(1000));
            while raw.try_write(&line).await.is_ok() {
                written += line.len();
            }
            written
        });
        let error = failure(within(Duration::from_secs(5), connect(url).into_future()).await);
        assert!(matches!(error, HandshakeError::NotWebSocket(_)), "{error:?}");
        assert!(writer.await.unwrap() < 8 << 20);
    })
    .await;
}

/// The first frames in the segment of the 101 are not lost, nor in the middle of a frame.
#[tokio::test]
async fn frames_behind_the_101_are_received() {
    limit(async {
        let (listener, url) = listen().await;
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut raw = Raw::over(stream, false);
            let head = raw.head().await.unwrap();
            let mut bytes = accepted(&head, "").into_bytes();
            for id in 0..100 {
                let request = json!({ "jsonrpc": "2.0", "id": id, "method": "ping" });
                bytes.extend(Frame::text(request.to_string()).bytes(false));
            }
            let half = bytes.len() - 10;
            raw.write(&bytes[..half]).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            raw.write(&bytes[half..]).await;
            raw
        });
        let mut transport = connect::<RoleClient>(url).await.unwrap();
        for id in 0..100 {
            let message = serde_json::to_value(transport.receive().await.unwrap()).unwrap();
            assert_eq!(message["id"], id);
        }
        drop(server.await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn headers_are_sent_as_they_were_given() {
    limit(async {
        let (dialled, seen) = dial(
            |head| accepted(head, "").into(),
            |connect| {
                connect
                    .bearer("token-1")
                    .header("X-One", "a")
                    .header("x-one", "b")
                    .header("user-agent", "test")
                    .header("Origin", "http://example.com")
            },
        )
        .await;
        let _ = dialled.unwrap();
        let [head] = &seen.heads()[..] else { panic!() };
        assert_eq!(head.all("authorization"), ["Bearer token-1"]);
        assert_eq!(head.all("x-one"), ["a", "b"]);
        assert_eq!(head.all("user-agent"), ["test"]);
        assert_eq!(head.all("origin"), ["http://example.com"]);
        assert_eq!(head.all("host").len(), 1);
        assert_eq!(head.all("sec-websocket-version"), ["13"]);
        assert_eq!(head.all("upgrade"), ["websocket"]);
        assert_eq!(head.all("connection"), ["Upgrade"]);
        assert!(head.get("sec-websocket-extensions").is_none());
        assert!(head.0.starts_with("GET /mcp HTTP/1.1\r\n"));
    })
    .await;
}

/// Small devices compare bytes.
#[tokio::test]
async fn the_names_of_headers_are_written_as_rfc_6455_has_them() {
    limit(async {
        let (dialled, seen) = dial(
            |head| accepted(head, "").into(),
            |connect| {
                let connect = connect.bearer("token-1").header("origin", "http://example.com");
                connect.header("user-agent", "sec-websocket-key: host: x")
            },
        )
        .await;
        let _ = dialled.unwrap();
        let [head] = &seen.heads()[..] else { panic!() };
        for line in [
            "\r\nHost: ",
            "\r\nUpgrade: websocket\r\n",
            "\r\nConnection: Upgrade\r\n",
            "\r\nSec-WebSocket-Key: ",
            "\r\nSec-WebSocket-Version: 13\r\n",
            "\r\nSec-WebSocket-Protocol: mcp",
            "\r\nAuthorization: Bearer token-1\r\n",
            "\r\nUser-Agent: sec-websocket-key: host: x\r\n",
            "\r\nOrigin: http://example.com\r\n",
        ] {
            assert!(head.0.contains(line), "{line:?} in {head:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_dialled_is_reported_and_not_dialled() {
    let (listener, url) = listen().await;
    let dial = |options: fn(Connect<RoleClient>) -> Connect<RoleClient>| {
        within(Duration::from_secs(1), options(connect(&*url)).into_future())
    };
    for options in [
        (|connect| connect.header("in valid", "x")) as fn(Connect<_>) -> Connect<_>,
        |connect| connect.header("", "x"),
        |connect| connect.header("x", "line\nbreak"),
        |connect| connect.header("x: y\r\nz", "x"),
        |connect| connect.header("Sec-WebSocket-Key", "x"),
        |connect| connect.header("upgrade", "x"),
        |connect| connect.header("Sec-WebSocket-Protocol", "x"),
        |connect| connect.header("content-length", "5"),
        |connect| connect.bearer("line\nbreak"),
        |connect| connect.subprotocols(["two words"]),
        |connect| connect.subprotocols(["a,b"]),
        |connect| connect.subprotocols([""]),
    ] {
        let error = failure(dial(options).await);
        assert!(matches!(error, HandshakeError::Invalid(_)), "{error:?}");
        assert!(!error.is_retryable());
    }
    for url in [
        "",
        "nonsense",
        "http://localhost/",
        "ws://",
        "ws:",
        "//host/",
        "ws://[::1/",
        "ws://host:99999/",
        "wss://",
        "file:///etc",
        "mailto:a@b",
    ] {
        let error = failure(within(Duration::from_secs(1), connect(url).into_future()).await);
        assert!(matches!(error, HandshakeError::Invalid(_)), "{url}: {error:?}");
    }
    let dialled = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(dialled.is_err());
}

#[tokio::test]
async fn nobody_at_the_address_is_an_error_of_the_connection() {
    limit(async {
        let (listener, url) = listen().await;
        drop(listener);
        for url in [&*url, "ws://no-such-host.invalid/"] {
            let error = failure(connect(url).await);
            assert!(matches!(error, HandshakeError::Connect(_)), "{error:?}");
            assert!(error.is_retryable());
        }
    })
    .await;
}

#[tokio::test]
async fn ipv6_and_what_else_a_url_holds() {
    limit(async {
        let listener = TcpListener::bind("[::1]:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = answering(listener, |head| accepted(head, "").into());
        let url = format!("ws://us%20er:pa%3Ass@{address}/a%20b/?q=1&r=%C3%A9#fragment");
        let _ = connect::<RoleClient>(url).await.unwrap();
        let [head] = &seen.heads()[..] else { panic!() };
        assert!(head.0.starts_with("GET /a%20b/?q=1&r=%C3%A9 HTTP/1.1\r\n"), "{head:?}");
        assert_eq!(head.get("host"), Some(&*address.to_string()));
        use base64::Engine as _;
        let pair = base64::engine::general_purpose::STANDARD.encode("us er:pa:ss");
        assert_eq!(head.get("authorization"), Some(&*format!("Basic {pair}")));

        let (listener, url) = listen().await;
        let seen = answering(listener, |head| accepted(head, "").into());
        let (_, authority) = url.trim_end_matches("/mcp").split_once("//").unwrap();
        let _ = connect::<RoleClient>(format!("WS://{authority}")).await.unwrap();
        assert!(seen.heads()[0].0.starts_with("GET / HTTP/1.1\r\n"));
        assert_eq!(seen.heads()[0].get("host"), Some(authority));
    })
    .await;
}

/// Secrets are shown by nothing.
#[tokio::test]
async fn no_token_is_shown_by_debug_display_or_an_error() {
    const CANARY: &str = "c4n4ry";
    fn clean(what: &str, text: &str) {
        assert!(!text.contains(CANARY), "{what} shows the token: {text}");
    }
    let (log, _capture) = Log::capture();
    limit(async {
        let secret = |url: String| {
            let url = url.replace("ws://", &format!("ws://{CANARY}:{CANARY}@"));
            connect::<RoleClient>(format!("{url}?token={CANARY}"))
                .bearer(CANARY)
                .header("x-api-key", CANARY)
                .subprotocols([format!("mcp.auth.{CANARY}")])
        };
        clean("Connect", &format!("{:#?}", secret("ws://127.0.0.1:1/".into())));
        clean("Connect", &format!("{:?}", connect::<RoleClient>(format!("nonsense {CANARY}"))));
        for connect in [
            secret("ws://127.0.0.1:1/".into()),
            connect(format!("http://{CANARY}@host/")),
            connect(format!("ws://{CANARY}@/")),
            connect("ws://127.0.0.1:1/").bearer(format!("{CANARY}\n")),
            connect("ws://127.0.0.1:1/").header("x-api-key", format!("{CANARY}\n")),
            connect("ws://127.0.0.1:1/").subprotocols([format!("mcp.auth.{CANARY} ")]),
        ] {
            let state = connect.state();
            let error = connect.await.unwrap_err();
            clean("an error", &format!("{error} {error:?}"));
            clean("the state", &format!("{:?}", state.borrow()));
        }

        // A server that echoes the token as the subprotocol.
        for echo in [
            format!("mcp.auth.{CANARY}"),
            format!("mcp, mcp.auth.{CANARY}"),
            format!("mcp,mcp.auth.{CANARY}"),
            format!("mcp.auth.{CANARY}, mcp"),
        ] {
            let (listener, url) = listen().await;
            let header = format!("Sec-WebSocket-Protocol: {echo}\r\n");
            answering(listener, move |head| accepted(head, &header).into());
            match secret(url).await {
                Ok(transport) => clean("the transport", &format!("{transport:?}")),
                Err(error) => clean("an error", &format!("{error} {error:?}")),
            }
        }

        // One that redirects elsewhere with the query.
        let (listener, url) = listen().await;
        answering(listener, move |_| {
            http("302 Found", &format!("Location: ws://127.0.0.1:1/?token={CANARY}\r\n"), "")
        });
        let error = secret(url).await.unwrap_err();
        clean("an error", &error.to_string());
    })
    .await;
    let log = log.text();
    assert!(log.contains("connected"), "{log}");
    clean("the log", &log);
}

#[tokio::test]
async fn a_stream_of_ones_own_is_upgraded_too() {
    limit(async {
        let (near, far) = tokio::io::duplex(1024);
        let server = tokio::spawn(async move {
            let mut raw = Raw::upgraded(far).await;
            raw.answer_initialize().await;
            raw
        });
        let transport = connect_over::<RoleClient, _>(near, "wss://example.com/mcp").await.unwrap();
        assert_eq!(transport.subprotocol(), Some("mcp"));
        let client = ().serve(transport).await.unwrap();
        let mut raw = server.await.unwrap();
        raw.send(Frame::new(crate::common::raw::PING, "x")).await;
        assert_eq!(raw.next().await.unwrap(), Frame::new(PONG, "x"));
        drop(client);

        let (near, far) = tokio::io::duplex(1024);
        let refuse = tokio::spawn(async move {
            let mut raw = Raw::over(far, false);
            raw.head().await.unwrap();
            raw.write(http("302 Found", "Location: /other\r\n", "")).await;
            raw
        });
        assert_eq!(refusal(connect_over(near, "ws://example.com/mcp").await).status, 302);
        drop(refuse);
        let (near, _far) = tokio::io::duplex(1024);
        let timeout = Duration::from_millis(100);
        let connecting = connect::<RoleClient>("ws://example.com/").handshake_timeout(timeout);
        assert!(matches!(failure(connecting.over(near).await), HandshakeError::TimedOut(_)));
    })
    .await;
}
