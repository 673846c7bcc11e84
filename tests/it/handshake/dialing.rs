//! Dialling: what a client keeps from one dial to the next, and what an error tells people to do.

use std::{
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use futures::StreamExt;
use mcp_ws_transport::{
    State, connect,
    error::HandshakeError,
    event::Event,
    server::{BearerTokens, Config, Identity, serve_on},
};
use rmcp::{RoleClient, ServiceExt};
use tokio::net::TcpSocket;

use super::{Dialled, failure, refusal};
use crate::common::{
    LIMIT, Tools, limit, listen, ms,
    proxy::Proxy,
    raw::{Head, accepted},
    reconnect_policy, reconnect_within,
    scripted::{Link, immediate_reconnect},
    serve_tools, within,
};

fn http(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}

/// Dials a server that answers so, and returns what comes of it.
async fn answered(answer: impl Fn(&Head) -> String, path: &str) -> Dialled {
    let (listener, url) = listen().await;
    let url = url.replace("/mcp", path);
    let serving = async {
        loop {
            let (mut raw, head) = Link::asked(&listener).await;
            raw.write(answer(&head)).await;
        }
    };
    tokio::select! {
        dialled = connect(url) => dialled,
        () = serving => unreachable!(),
    }
}

#[cfg(feature = "cookies")]
#[tokio::test]
async fn cookies_lead_back_to_the_same_instance() {
    limit(async {
        let (listener, url) = listen().await;
        let serving = async {
            let (mut raw, head) = Link::asked(&listener).await;
            assert_eq!(head.all("cookie"), ["own=x"]);
            let to = "Set-Cookie: a=1; Path=/\r\nLocation: /other\r\n";
            raw.write(http("307 Temporary", to, "")).await;

            let (mut raw, head) = Link::asked(&listener).await;
            assert_eq!(head.all("cookie"), ["own=x; a=1"]);
            let set = "Set-Cookie: lb=two; Path=/; HttpOnly\r\nSet-Cookie: a=; Max-Age=0; Path=/\r\n\
                       Set-Cookie: mcp_session_id=s; Path=/\r\n";
            raw.write(accepted(&head, set)).await;
            raw.answer_initialize().await;
            raw.reset();

            // A refusal sets one too.
            let (mut raw, head) = Link::asked(&listener).await;
            assert_eq!(head.all("cookie"), ["own=x; lb=two"]);
            raw.write(http("503 Unavailable", "Set-Cookie: lb=three; Path=/\r\n", "")).await;

            let (mut raw, head) = Link::asked(&listener).await;
            assert_eq!(head.all("cookie"), ["own=x; lb=three"]);
            raw.write(accepted(&head, "")).await;
            raw.answer_initialize().await;
            raw
        };
        let connect = immediate_reconnect(connect(url)).header("Cookie", "own=x");
        let dialling = async { ().serve(connect.await.unwrap()).await.unwrap() };
        let (client, raw) = tokio::join!(dialling, serving);
        drop((client, raw));
    })
    .await;
}

#[tokio::test]
async fn a_server_may_name_the_time_when_to_come_again() {
    limit(async {
        let date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        for (headers, seconds) in [
            ("Retry-After: 17\r\n".to_owned(), Some(17)),
            (format!("{date}Retry-After: Sun, 06 Nov 1994 08:50:00 GMT\r\n"), Some(23)),
            (format!("{date}Retry-After: Sunday, 06-Nov-94 08:50:00 GMT\r\n"), Some(23)),
            (format!("{date}Retry-After: Sun Nov  6 08:50:00 1994\r\n"), Some(23)),
            // That was before.
            (format!("{date}Retry-After: Sun, 06 Nov 1994 08:00:00 GMT\r\n"), Some(0)),
            ("Retry-After: Sun, 06 Nov 1994 08:50:00 GMT\r\n".to_owned(), Some(0)),
            (format!("{date}Retry-After: tomorrow\r\n"), None),
            ("Retry-After: -1\r\n".to_owned(), None),
            ("Retry-After: +1\r\n".to_owned(), None),
            ("Retry-After: 86400\r\n".to_owned(), Some(86_400)),
            ("Retry-After: 4294967295\r\n".to_owned(), Some(86_400)),
            ("Retry-After: 99999999999999999999999\r\n".to_owned(), Some(86_400)),
            (format!("{date}Retry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n"), Some(86_400)),
        ] {
            let answer = http("503 Service Unavailable", &headers, "");
            let refusal = refusal(answered(|_| answer.clone(), "/mcp").await);
            assert_eq!(refusal.retry_after, seconds.map(Duration::from_secs), "{headers}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_empty_list_of_extensions_is_none() {
    limit(async {
        for list in ["", " ", ",", " , ,"] {
            let list = format!("Sec-WebSocket-Extensions:{list}\r\n");
            let _ = answered(|head| accepted(head, &list), "/mcp").await.unwrap();
            #[cfg(feature = "deflate")]
            {
                use mcp_ws_transport::{layer::socket, transport};
                let (listener, url) = listen().await;
                let deflate = socket::deflate::Config::default();
                let config =
                    transport::Config::default().socket(socket::Config::default().deflate(deflate));
                let dialling = connect::<RoleClient>(url).transport(config).into_future();
                let serving = async {
                    let (mut raw, head) = Link::asked(&listener).await;
                    raw.write(accepted(&head, &list)).await;
                    raw
                };
                let (dialled, _raw) = tokio::join!(dialling, serving);
                let _ = dialled.unwrap();
            }
        }
    })
    .await;
}

#[tokio::test]
async fn who_the_client_is_stands_in_the_request() {
    limit(async {
        let (listener, url) = listen().await;
        let dialling = tokio::spawn(connect::<RoleClient>(url).into_future());
        let (mut raw, head) = Link::asked(&listener).await;
        let product = concat!("mcp-ws-transport/", env!("CARGO_PKG_VERSION"));
        assert_eq!(head.all("user-agent"), [product]);
        raw.write(accepted(&head, "")).await;
        let _ = dialling.await.unwrap().unwrap();
    })
    .await;
}

/// An address that nobody else gets, and where nobody listens yet.
fn reserved() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    socket
}

#[tokio::test]
async fn the_first_connection_may_be_tried_for_again() {
    limit(async {
        for once in [true, false] {
            let socket = reserved();
            let address = socket.local_addr().unwrap();
            let url = format!("ws://{address}/mcp");
            let connect = reconnect_within(ms(20), connect(url)).retry_first();
            let connect = if once { connect.no_reconnect() } else { connect };
            let (state, mut events) = (connect.state(), connect.events());
            let dialling = tokio::spawn(async { ().serve(connect.await.unwrap()).await.unwrap() });
            for expected in 1..=if once { 1 } else { 4 } {
                let event = events.next().await;
                assert!(
                    matches!(event, Some(Event::Failed { attempt, .. }) if attempt == expected),
                    "{event:?}"
                );
                assert_eq!(*state.borrow(), State::Connecting);
            }
            let tools = Tools::default();
            let server = serve_on(socket.listen(8).unwrap(), move || tools.clone()).await.unwrap();
            let client = dialling.await.unwrap();
            assert_eq!(*state.borrow(), State::Connected);
            client.list_all_tools().await.unwrap();
            client.cancel().await.unwrap();
            server.shutdown().await;
        }
    })
    .await;
}

#[tokio::test]
async fn the_first_connection_is_tried_for_as_often_as_it_is_said() {
    limit(async {
        let (listener, url) = listen().await;
        let policy = reconnect_policy(ms(20)).attempts(3);
        let connect = connect(url).reconnect(policy).retry_first();
        let dialling = tokio::spawn(connect.into_future());
        for _ in 0..3 {
            let (mut raw, _) = Link::asked(&listener).await;
            raw.write(http("503 Service Unavailable", "", "starting")).await;
        }
        assert_eq!(refusal(dialling.await.unwrap()).status, 503);
    })
    .await;
}

#[tokio::test]
async fn what_no_later_attempt_can_mend_fails_at_once() {
    limit(async {
        let began = Instant::now();
        for status in ["401 Unauthorized", "403 Forbidden", "404 Not Found"] {
            let (listener, url) = listen().await;
            let dialling = tokio::spawn(connect(url).retry_first().into_future());
            let (mut raw, _) = Link::asked(&listener).await;
            raw.write(http(status, "", "")).await;
            let refused = refusal(dialling.await.unwrap());
            assert_eq!(refused.status.as_str(), &status[..3]);
            assert!(
                within(LIMIT, async { futures::poll!(Box::pin(listener.accept())) })
                    .await
                    .is_pending()
            );
        }
        // One token more, but no more.
        let tokens = BearerTokens::default().token("right", Identity::new("someone"));
        let config = Config::default().authenticator(tokens);
        let (_server, address) = serve_tools(&Tools::default(), config).await;
        let proxy = Proxy::new(address).await;
        let token = |_| async { Ok::<_, String>("wrong".to_owned()) };
        let dialled = connect(proxy.url()).bearer_provider(token).retry_first().await;
        assert_eq!((refusal(dialled).status.as_u16(), proxy.dials.load(SeqCst)), (401, 2));
        for url in ["http://localhost/", "ws://", "nonsense"] {
            let error = failure(connect(url).retry_first().await);
            assert!(matches!(error, HandshakeError::Invalid(_)), "{error:?}");
        }
        #[cfg(feature = "rustls-tls")]
        {
            let tls = mcp_ws_transport::client::ClientTls::authorities("nonsense");
            let url = proxy.url().replace("ws://", "wss://");
            let error = failure(connect(url).tls(tls).retry_first().await);
            assert!(matches!(error, HandshakeError::Tls(_)), "{error:?}");
        }
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    })
    .await;
}

/// A reader of an error learns what to do next.
#[tokio::test]
async fn an_error_names_the_mend() {
    limit(async {
        let says = |error: &dyn std::fmt::Display, words: &[&str]| {
            let text = error.to_string();
            for word in words {
                assert!(text.contains(word), "no {word:?} in: {text}");
            }
        };
        for (url, words) in [
            ("localhost:8080/mcp", &["ws://", "wss://"][..]),
            ("/mcp", &["no scheme", "ws://"]),
            ("example.com/mcp", &["no scheme", "wss://"]),
            ("http://localhost/mcp", &["ws"]),
            ("https://localhost/mcp", &["wss"]),
            ("ws:///mcp", &["no host", "ws://"]),
            ("ws://no-such-host.invalid/", &["no-such-host.invalid", "does not resolve"]),
            ("ws://127.0.0.1:1/", &["127.0.0.1:1", "running"]),
        ] {
            says(&failure(connect(url).await), words);
        }
        let not_found = http("404 Not Found", "", "");
        let page = http("200 OK", "Content-Type: text/html\r\n", "<html>");
        let plain = "The plain HTTP request was sent to HTTPS port";
        for (answer, path, words) in [
            (not_found.clone(), "/", &["404", "/mcp"][..]),
            (page.clone(), "", &["200", "/mcp"]),
            (page, "/mcp", &["200", "proxy"]),
            (not_found, "/mcp", &["404", "path"]),
            (http("401 Unauthorized", "", ""), "/mcp", &["401", "Connect::bearer"]),
            (http("403 Forbidden", "", "no"), "/mcp", &["403", "no", "Origin"]),
            (
                http("302 Found", "Location: https://a.b/\r\n", ""),
                "/mcp",
                &["https://a.b/", "wss://"],
            ),
            (http("503 No", "Retry-After: 7\r\n", ""), "/mcp", &["503", "7 s"]),
            (http("400 Bad Request", "", plain), "/mcp", &["wss://"]),
            // A fatal alert of TLS.
            ("\x15\x03\x03\0\x02\x02\x46".to_owned(), "/mcp", &["HTTP", "wss://"]),
        ] {
            says(&failure(answered(|_| answer.clone(), path).await), words);
        }
    })
    .await;
}
