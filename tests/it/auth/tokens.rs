//! Tokens before the 101: where one may stand, what is none, and authenticators that fail in every
//! way.

use std::{
    future::pending,
    time::{Duration, Instant},
};

use mcp_ws_transport::{
    accept,
    server::{AuthError, BearerTokens, Config, Credentials, Identity},
};
use rmcp::{RoleServer, ServiceExt};
use tokio::net::{TcpListener, TcpStream};

use crate::common::{
    Tools,
    handshake::{tools, try_upgrade, upgrade},
    limit,
    raw::{Raw, upgrade_request},
};

fn tokens() -> BearerTokens {
    BearerTokens::default()
        .token("s3cr3t", Identity::new("alice"))
        .token("x".repeat(50 << 10), Identity::new("long"))
        .token("", Identity::new("nobody"))
}

#[tokio::test]
async fn a_token_lets_in_from_where_it_may_stand() {
    limit(async {
        let config = Config::default()
            .authenticator(tokens())
            .token_cookie("session")
            .allowed_origins(["https://app.example"]);
        let (_server, address) = tools(config).await;
        let app = "Origin: https://app.example\r\n";
        for (lines, status) in [
            ("Authorization: Bearer s3cr3t\r\n".into(), 101),
            ("authorization: bEARER s3cr3t\r\n".into(), 101),
            ("Authorization: Bearer   s3cr3t  \r\n".into(), 101),
            (format!("Authorization: Bearer {}\r\n", "x".repeat(50 << 10)), 101),
            ("Sec-WebSocket-Protocol: mcp, mcp.auth.s3cr3t\r\n".into(), 101),
            ("Sec-WebSocket-Protocol: mcp.auth.s3cr3t\r\n".into(), 101),
            ("Sec-WebSocket-Protocol: mcp, mcp.auth-base64url.czNjcjN0\r\n".into(), 101),
            ("Sec-WebSocket-Protocol: mcp, mcp.auth-base64url.czNjcjN0Cg\r\n".into(), 401),
            ("Sec-WebSocket-Protocol: mcp, mcp.auth-base64url.s3cr3t\r\n".into(), 401),
            ("Sec-WebSocket-Protocol: mcp.auth.s3cr3t, mcp.auth-base64url.x\r\n".into(), 101),
            (format!("{app}Cookie: a=b; session=s3cr3t\r\n"), 101),
            (format!("{app}Cookie: session=\"s3cr3t\"\r\n"), 101),
            (format!("{app}Authorization: Bearer s3cr3t\r\nCookie: session=x\r\n"), 101),
            // No token.
            (String::new(), 401),
            (app.into(), 401),
            ("Authorization:\r\n".into(), 401),
            ("Authorization: Bearer\r\n".into(), 401),
            ("Authorization: Bearer \r\n".into(), 401),
            ("Authorization: s3cr3t\r\n".into(), 401),
            ("Authorization: Bearers3cr3t\r\n".into(), 401),
            ("Authorization: Bearer\ts3cr3t\r\n".into(), 401),
            ("Authorization: Basic s3cr3t\r\n".into(), 401),
            ("Authorization: Token s3cr3t\r\n".into(), 401),
            ("Proxy-Authorization: Bearer s3cr3t\r\n".into(), 401),
            ("X-Authorization: Bearer s3cr3t\r\n".into(), 401),
            ("Sec-WebSocket-Protocol: mcp, mcp.auth.\r\n".into(), 401),
            ("Sec-WebSocket-Protocol: mcp, MCP.AUTH.s3cr3t\r\n".into(), 401),
            ("Sec-WebSocket-Protocol: mcp, s3cr3t\r\n".into(), 401),
            // The wrong one.
            ("Authorization: Bearer S3CR3T\r\n".into(), 401),
            ("Authorization: Bearer s3cr3\r\n".into(), 401),
            ("Authorization: Bearer s3cr3tt\r\n".into(), 401),
            ("Authorization: Bearer \"s3cr3t\"\r\n".into(), 401),
            ("Authorization: Bearer s3cr3t s3cr3t\r\n".into(), 401),
            ("Authorization: Bearer s3cr3t, Bearer x\r\n".into(), 401),
            ("Authorization: Bearer s3cr3t\u{e9}\r\n".into(), 401),
            (format!("Authorization: Bearer {}\r\n", "x".repeat((50 << 10) - 1)), 401),
            ("Sec-WebSocket-Protocol: mcp.auth.s3cr3t\u{e9}\r\n".into(), 401),
            // A cookie without a page, or with another's; it is never asked about then.
            ("Cookie: session=s3cr3t\r\n".into(), 401),
            (format!("{app}Cookie: sessions=s3cr3t\r\n"), 401),
            (format!("{app}Cookie: Session=s3cr3t\r\n"), 401),
            (format!("{app}Cookie: session=\r\n"), 401),
            (format!("{app}Cookie: session=\"\"\r\n"), 401),
            (format!("{app}Cookie: session=\"\"\"\r\n"), 401),
            ("Origin: https://evil.example\r\nCookie: session=s3cr3t\r\n".into(), 403),
            ("Origin: null\r\nCookie: session=s3cr3t\r\n".into(), 403),
            // A scheme that is not ours hides no cookie behind it.
            (format!("{app}Authorization: Basic x\r\nCookie: session=s3cr3t\r\n"), 401),
            // Several.
            ("Authorization: Bearer s3cr3t\r\nAuthorization: Bearer s3cr3t\r\n".into(), 400),
            ("Authorization: Bearer s3cr3t\r\nAuthorization: Basic x\r\n".into(), 400),
            ("Authorization: Bearer s3cr3t\r\nSec-WebSocket-Protocol: mcp.auth.x\r\n".into(), 400),
            ("Sec-WebSocket-Protocol: mcp.auth.s3cr3t, mcp.auth.s3cr3t\r\n".into(), 400),
            (
                "Sec-WebSocket-Protocol: mcp.auth.a\r\nSec-WebSocket-Protocol: mcp.auth.s3cr3t\r\n"
                    .into(),
                400,
            ),
            (format!("{app}Cookie: session=s3cr3t; session=x\r\n"), 400),
            (format!("{app}Cookie: session=s3cr3t; session=\"\"\r\n"), 400),
            (format!("{app}Cookie: session=s3cr3t\r\nCookie: session=s3cr3t\r\n"), 400),
            // What HTTP refuses.
            ("Authorization: Bearer s3cr3t\0\r\n".into(), 400),
        ] {
            let shown = &lines[..lines.len().min(80)];
            let (head, _) = try_upgrade(address, &lines).await;
            assert_eq!(head.status(), status, "{shown}");
            assert_eq!(head.get("sec-websocket-accept").is_some(), status == 101, "{shown}");
            assert!(!head.0.contains("s3cr3t"), "{shown}");
            assert_eq!(head.get("www-authenticate").is_some(), status == 401, "{shown}");
        }
        // RFC 6750, section 3.1: only who has shown a token is told that it is not valid.
        let (head, _) = try_upgrade(address, "").await;
        assert_eq!(head.get("www-authenticate"), Some("Bearer"));
        let (head, _) = try_upgrade(address, "Authorization: Bearer x\r\n").await;
        assert_eq!(head.get("www-authenticate"), Some("Bearer error=\"invalid_token\""));
    })
    .await;
}

#[tokio::test]
async fn a_token_in_the_query_is_none_and_a_cookie_only_where_it_is_named() {
    limit(async {
        let (_server, address) = tools(Config::default().authenticator(tokens())).await;
        let request = crate::common::raw::upgrade_request(address, "")
            .replace("/mcp", "/mcp?token=s3cr3t&access_token=s3cr3t&authorization=s3cr3t");
        let (head, _) = crate::common::handshake::ask(address, request).await;
        assert_eq!(head.status(), 401);
        let own = format!("Origin: http://{address}\r\nCookie: session=s3cr3t\r\n");
        assert_eq!(try_upgrade(address, &own).await.0.status(), 401);
    })
    .await;
}

/// Cheap checks come first: the authenticator is not asked about a page that may not connect.
#[tokio::test]
async fn nobody_is_asked_about_a_request_that_is_refused_anyway() {
    limit(async {
        let (asked, was_asked) = std::sync::mpsc::channel();
        let config = Config::default().authenticator(move |_: Credentials| {
            asked.send(()).unwrap();
            async { Ok(Identity::new("anyone")) }
        });
        let (_server, address) = tools(config).await;
        for (lines, status) in [
            ("Origin: https://evil.example\r\n", 403),
            ("Host: evil.example\r\n", 403),
            ("Authorization: Bearer a\r\nAuthorization: Bearer b\r\n", 400),
            ("Sec-WebSocket-Key: again\r\n", 400),
        ] {
            assert_eq!(try_upgrade(address, lines).await.0.status(), status, "{lines}");
        }
        assert!(was_asked.try_recv().is_err());
        upgrade(address, "").await;
        assert!(was_asked.try_recv().is_ok());
    })
    .await;
}

/// The client is told the verdict of an authenticator, however that comes.
#[tokio::test]
async fn every_verdict_has_its_answer() {
    limit(async {
        let time = Duration::from_millis(300);
        let config = Config::default().handshake_timeout(time).authenticator(verdict);
        let (server, address) = tools(config).await;
        for (token, status, header) in [
            ("fine", 101, None),
            ("slow", 101, None),
            ("unauthorized", 401, Some(("www-authenticate", "Bearer error=\"invalid_token\""))),
            ("challenge", 401, Some(("www-authenticate", "Basic realm=\"x\""))),
            ("split", 401, None),
            ("forbidden", 403, None),
            ("unavailable", 503, Some(("retry-after", "7"))),
            ("panic", 503, Some(("retry-after", "5"))),
            ("panic-later", 503, Some(("retry-after", "5"))),
        ] {
            let (head, _) =
                try_upgrade(address, &format!("Authorization: Bearer {token}\r\n")).await;
            assert_eq!(head.status(), status, "{token}");
            if let Some((name, value)) = header {
                assert_eq!(head.get(name), Some(value), "{token}");
            }
            assert!(head.get("x-split").is_none(), "{head:?}");
        }
        let refused = server.registry().health().rejected_by;
        assert_eq!((refused["unauthorized"], refused["unavailable"]), (3, 3));
    })
    .await;
}

async fn verdict(credentials: Credentials) -> Result<Identity, AuthError> {
    let token = credentials.token.ok_or(AuthError::Unauthorized)?;
    match token.as_str() {
        "fine" => Ok(Identity::new("fine")),
        "slow" => {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(Identity::new("slow"))
        }
        "challenge" => Err(AuthError::Challenge("Basic realm=\"x\"".into())),
        "split" => Err(AuthError::Challenge("Bearer\r\nX-Split: 1".into())),
        "forbidden" => Err(AuthError::Forbidden),
        "unavailable" => Err(AuthError::Unavailable(Duration::from_secs(7))),
        "panic" => panic!("a bug"),
        "panic-later" => {
            tokio::task::yield_now().await;
            panic!("a bug")
        }
        "never" => pending().await,
        _ => Err(AuthError::Unauthorized),
    }
}

/// One that never answers is given up in time, and told 503 rather than cut; meanwhile the others
/// come and go as always.
#[tokio::test]
async fn who_waits_for_a_verdict_keeps_nobody_out() {
    limit(async {
        let time = Duration::from_secs(3);
        let config = Config::default().handshake_timeout(time).authenticator(verdict);
        let (_server, address) = tools(config).await;
        let start = Instant::now();
        let waiting: Vec<_> =
            (0..50).map(|_| tokio::spawn(upgrade_with_token(address, "never"))).collect();
        for _ in 0..20 {
            let dialled = Instant::now();
            upgrade(address, "Authorization: Bearer fine\r\n").await;
            assert!(dialled.elapsed() < time / 3, "{:?}", dialled.elapsed());
        }
        assert!(start.elapsed() < time, "too slow for this test to tell");
        for answer in waiting {
            let head = answer.await.unwrap();
            assert_eq!(head.status(), 503, "{head:?}");
            assert_eq!(head.get("retry-after"), Some("5"));
        }
        assert!(start.elapsed() < time * 3, "{:?}", start.elapsed());
    })
    .await;
}

/// A verdict that comes after the deadline of the handshake, but in its own time, counts.
#[tokio::test]
async fn a_verdict_may_come_when_the_handshake_has_taken_its_time() {
    limit(async {
        let time = Duration::from_millis(600);
        let config = Config::default().handshake_timeout(time).authenticator(
            |credentials: Credentials| async move {
                tokio::time::sleep(Duration::from_millis(400)).await;
                verdict(credentials).await
            },
        );
        let (_server, served) = tools(config.clone()).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let accepting = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let accept = accept::<RoleServer, _>(stream).config(config.clone());
                tokio::spawn(async move {
                    let Ok(transport) = accept.await else { return };
                    let running = Tools::default().serve(transport).await.unwrap();
                    drop(running.waiting().await);
                });
            }
        });
        for address in [served, accepting] {
            for (token, status) in [("fine", 101), ("forbidden", 403), ("never", 503)] {
                let stream = TcpStream::connect(address).await.unwrap();
                let mut raw = Raw::over(stream, true);
                raw.write("GET /mcp HTTP/1.1\r\n").await;
                tokio::time::sleep(Duration::from_millis(400)).await;
                let lines = format!("Authorization: Bearer {token}\r\n");
                let request = upgrade_request(address, &lines);
                raw.write(request.split_once("\r\n").unwrap().1).await;
                let head = raw.head().await.unwrap();
                assert_eq!(head.status(), status, "{token}: {head:?}");
                if status == 101 {
                    raw.initialize().await;
                    raw.ping().await;
                } else {
                    assert_eq!(head.get("connection"), Some("close"), "{token}");
                }
            }
        }
    })
    .await;
}

async fn upgrade_with_token(
    address: std::net::SocketAddr,
    token: &str,
) -> crate::common::raw::Head {
    try_upgrade(address, &format!("Authorization: Bearer {token}\r\n")).await.0
}

#[tokio::test]
async fn a_server_that_stops_while_somebody_is_asked_lets_nobody_in() {
    limit(async {
        let (asked, mut was_asked) = tokio::sync::mpsc::unbounded_channel();
        let gate = std::sync::Arc::new(tokio::sync::Notify::new());
        let stop = tokio_util::sync::CancellationToken::new();
        let opens = gate.clone();
        let config = Config::default().cancellation_token(stop.clone()).authenticator(
            move |_: Credentials| {
                let (asked, opens) = (asked.clone(), opens.clone());
                async move {
                    asked.send(()).unwrap();
                    opens.notified().await;
                    Ok(Identity::new("late"))
                }
            },
        );
        let (_server, address) = tools(config).await;
        let late = tokio::spawn(async move { try_upgrade(address, "").await.0 });
        was_asked.recv().await.unwrap();
        stop.cancel();
        gate.notify_one();
        let head = late.await.unwrap();
        assert_eq!((head.status(), head.get("retry-after")), (503, Some("5")));
    })
    .await;
}
