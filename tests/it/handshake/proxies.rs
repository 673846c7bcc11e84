//! Clients behind forward proxies.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use mcp_ws_transport::{
    Error,
    client::{ClientTls, Connect, Proxy},
    connect,
    error::{HandshakeError, ProxyRefusal},
    server::ServerTls,
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rmcp::{RoleClient, ServiceExt};
use tokio::net::TcpListener;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivatePkcs8KeyDer},
};

use super::connector::{counting, survives};
use crate::common::{
    Tools,
    forward::{ForwardProxy, Rules},
    limit,
    logs::Log,
    ms, reconnect_within,
};

const URL: &str = "ws://server.test/mcp";

fn known() -> Rules {
    Rules { credentials: Some(("alice".into(), "p@ss:word".into())), ..Rules::default() }
}

fn refused_with(answers: &[&[u8]]) -> Rules {
    Rules { refusals: answers.iter().map(|answer| answer.to_vec()).collect(), ..Rules::default() }
}

async fn works(connect: Connect<RoleClient>) {
    let client = ().serve(connect.await.unwrap()).await.unwrap();
    client.list_all_tools().await.unwrap();
    client.cancel().await.unwrap();
}

async fn failure(connect: Connect<RoleClient>) -> HandshakeError {
    match connect.no_reconnect().await {
        Err(Error::Handshake(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn refusal(error: &HandshakeError) -> &ProxyRefusal {
    match error {
        HandshakeError::Proxy(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

/// A certificate for this name, and its key: both as TLS wants them, and as text.
fn certificate(name: &str) -> (TlsAcceptor, String, String) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed([name.to_owned()]).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![cert.der().clone()],
            PrivatePkcs8KeyDer::from(signing_key.serialize_der()).into(),
        )
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), cert.pem(), signing_key.serialize_pem())
}

/// A server for `wss://server.test`, and whom to trust there.
async fn tls_server() -> (mcp_ws_transport::server::Server, SocketAddr, ClientTls) {
    let (_, cert, key) = certificate("server.test");
    let name = format!("mcp-proxies-{}-{:p}", std::process::id(), cert.as_ptr());
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("both.pem");
    std::fs::write(&file, cert.clone() + &key).unwrap();
    let tls = ServerTls::from_pem_files(&file, &file).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    let config = mcp_ws_transport::server::Config::default().allowed_hosts(["server.test"]);
    let tools = Tools::default();
    let serve = mcp_ws_transport::serve("127.0.0.1:0", move || tools.clone());
    let server = serve.config(config).tls(tls).await.unwrap();
    let address = server.local_addr();
    (server, address, ClientTls::authorities(cert))
}

#[tokio::test]
async fn a_session_outlives_its_connections_through_either_proxy() {
    limit(async {
        let (_server, address, counting) = counting().await;
        let proxy = ForwardProxy::http(address, known()).await;
        let url = format!("http://alice:p%40ss%3Aword@{}", proxy.address);
        survives(connect(URL).proxy(url), &counting, || proxy.cut()).await;
        assert!(proxy.asked().len() > 20);
        assert!(proxy.asked().iter().all(|asked| asked == "server.test:80"));
    })
    .await;
    limit(async {
        let (_server, address, counting) = counting().await;
        let proxy = ForwardProxy::socks5(address, known()).await;
        let url = format!("socks5h://{}", proxy.address);
        let way = Proxy::new(url).basic_auth("alice", "p@ss:word");
        survives(connect(URL).proxy(way), &counting, || proxy.cut()).await;
        assert!(proxy.asked().len() > 20);
        assert!(proxy.asked().iter().all(|asked| asked == "server.test:80"));
    })
    .await;
}

#[tokio::test]
async fn tls_is_spoken_with_the_server_and_with_a_proxy_that_wants_it() {
    limit(async {
        let (_server, address, tls) = tls_server().await;
        let (acceptor, pem, _) = certificate("localhost");
        let url = "wss://server.test:8443/mcp";
        let plain = ForwardProxy::http(address, Rules::default()).await;
        let socks = ForwardProxy::socks5(address, Rules::default()).await;
        let rules = Rules { tls: Some(acceptor), ..known() };
        let secret = ForwardProxy::http(address, rules).await;
        let by_tls = format!("https://alice:p%40ss%3Aword@localhost:{}", secret.address.port());
        let trusting = || Proxy::new(&by_tls).tls(ClientTls::authorities(pem.clone()));
        for (proxy, way) in [
            (&plain, Proxy::new(format!("http://{}", plain.address))),
            (&socks, Proxy::new(format!("socks5h://{}", socks.address))),
            (&secret, trusting()),
        ] {
            works(connect(url).tls(tls.clone()).proxy(way)).await;
            assert_eq!(proxy.asked(), ["server.test:8443"]);
        }
        // Who is trusted is said for each.
        let error = failure(connect(url).tls(tls).proxy(&*by_tls)).await;
        let text = error.to_string();
        assert!(matches!(error, HandshakeError::Tls(_)) && text.contains("the proxy"), "{text}");
        assert!(!text.contains("alice") && !text.contains("ss:word"), "{text}");
    })
    .await;
}

/// `socks5` resolves here, and asks for one address after the other.
#[tokio::test]
async fn names_are_resolved_where_the_scheme_says() {
    limit(async {
        let (_server, address, _) = counting().await;
        let proxy = ForwardProxy::socks5(address, Rules::default()).await;
        let url = format!("ws://localhost:{}/mcp", address.port());
        works(connect(&*url).proxy(format!("socks5://{}", proxy.address))).await;
        let asked = proxy.asked().pop().unwrap();
        let resolved: SocketAddr = asked.parse().unwrap();
        assert!(resolved.ip().is_loopback() && resolved.port() == address.port(), "{asked}");
        works(connect(url).proxy(format!("socks5h://{}", proxy.address))).await;
        assert_eq!(proxy.asked().pop(), Some(format!("localhost:{}", address.port())));
        for (url, asked) in [("ws://127.0.0.1:99/", "127.0.0.1:99"), ("ws://[::1]:99/", "[::1]:99")]
        {
            let way = format!("socks5h://{}", proxy.address);
            let error = failure(connect(url).header("host", "elsewhere").proxy(way)).await;
            assert!(matches!(error, HandshakeError::Refused(_)), "{error}");
            assert_eq!(proxy.asked().pop().as_deref(), Some(asked));
        }
        let way = format!("socks5://{}", proxy.address);
        let error = failure(connect(URL).proxy(way)).await;
        assert!(error.is_retryable() && error.to_string().contains("socks5h://"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_refusal_of_an_http_proxy_says_what_to_do() {
    const NTLM: &[u8] = b"HTTP/1.1 407 Authenticate\r\nProxy-Authenticate: Negotiate\r\n\
        Proxy-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n";
    const LOST: &[u8] =
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 23\r\n\r\n\n  no route to the host\n";
    let early = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), b"220 smtp.example.com\r\n"].concat();
    limit(async {
        let (_server, address, _) = counting().await;
        for (answer, status, retried, says) in [
            (NTLM, Some(407), false, "it wants Negotiate, NTLM, and only Basic"),
            (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", Some(403), false, "port 443 alone"),
            (b"HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n", Some(405), false, "port 443 alone"),
            (LOST, Some(502), true, "no route to the host (it does not reach the server"),
            (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", Some(503), true, "does not reach"),
            (b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n", Some(401), false, "401"),
            (
                b"HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\nContent-Length: 0\r\n\r\n",
                Some(302),
                false,
                "302",
            ),
            (b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n", Some(400), false, "`CONNECT`"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", None, false, "is it an HTTP proxy?"),
            (&early, None, false, "speaks before"),
        ] {
            // More than once, so that a second attempt would be seen.
            let proxy = ForwardProxy::http(address, refused_with(&[answer, answer])).await;
            let way = format!("http://alice:canary@{}", proxy.address);
            let token = async |_| Ok::<_, String>("t".to_owned());
            let error = failure(connect(URL).bearer_provider(token).proxy(way)).await;
            let (refusal, text) = (refusal(&error), error.to_string());
            assert_eq!(refusal.status.map(|status| status.as_u16()), status, "{text}");
            assert_eq!(error.is_retryable(), retried, "{text}");
            assert_eq!(refusal.wants_credentials(), status == Some(407), "{text}");
            assert!(text.contains(says) && text.contains(&refusal.proxy), "{text}");
            assert_eq!(refusal.proxy, format!("http://{}", proxy.address));
            assert!(!text.contains("alice") && !text.contains("canary"), "{text}");
            // The next one is let through: not even a subprotocol was tried again.
            let next = failure(connect(URL).proxy(format!("http://{}", proxy.address))).await;
            assert_eq!(next.to_string(), text);
        }
        let proxy = ForwardProxy::http(address, refused_with(&[b""])).await;
        let error = failure(connect(URL).proxy(format!("http://{}", proxy.address))).await;
        assert!(error.is_retryable() && error.to_string().contains("closed the connection"));
    })
    .await;
}

#[tokio::test]
async fn credentials_that_are_missing_or_wrong_are_asked_for_and_never_shown() {
    limit(async {
        let (log, _capture) = Log::capture();
        let (_server, address, _) = counting().await;
        let http = ForwardProxy::http(address, known()).await;
        let socks = ForwardProxy::socks5(address, known()).await;
        let (http, socks) = (http.address, socks.address);
        for (way, says) in [
            (format!("http://{http}"), "it wants a user and password"),
            (format!("http://alice:canary@{http}"), "does not accept this user and password"),
            (format!("socks5h://{socks}"), "a user and password"),
            (format!("socks5h://alice:canary@{socks}"), "does not accept this user and password"),
        ] {
            let connect = connect(URL).proxy(&*way);
            assert!(!format!("{connect:?} {:?}", Proxy::new(&way)).contains("canary"));
            let error = failure(connect).await;
            let text = format!("{error} {error:?}");
            assert!(!error.is_retryable() && text.contains(says), "{text}");
            assert!(refusal(&error).wants_credentials(), "{text}");
            assert!(!text.contains("canary"), "{text}");
        }
        let long = Proxy::new(format!("socks5h://{socks}")).basic_auth("alice", "x".repeat(256));
        assert!(failure(connect(URL).proxy(long)).await.to_string().contains("255 bytes"));
        let log = log.text();
        assert!(!log.contains("canary"), "{log}");
    })
    .await;
}

#[tokio::test]
async fn a_refusal_of_a_socks_proxy_says_what_to_do() {
    limit(async {
        let (_server, address, _) = counting().await;
        for (reply, retried, says) in [
            (1, true, "general server failure"),
            (2, false, "its rules do not allow"),
            (3, true, "network unreachable"),
            (4, true, "host unreachable"),
            (5, true, "connection refused"),
            (6, true, "ttl expired"),
            (7, false, "command not supported"),
            (8, false, "address type not supported"),
        ] {
            let proxy = ForwardProxy::socks5(address, refused_with(&[&[reply]])).await;
            let error = failure(connect(URL).proxy(format!("socks5h://{}", proxy.address))).await;
            let (refusal, text) = (refusal(&error), error.to_string());
            assert_eq!((refusal.status, error.is_retryable()), (None, retried), "{text}");
            assert!(text.contains(says) && !refusal.wants_credentials(), "{text}");
        }
        // A server of something else.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let way = format!("socks5h://{}", listener.local_addr().unwrap());
        let other = async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_u8().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            stream
        };
        let (error, _stream) = tokio::join!(failure(connect(URL).proxy(way)), other);
        assert!(
            !error.is_retryable() && error.to_string().contains("is it a SOCKS5 proxy?"),
            "{error}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_proxy_that_is_away_or_busy_is_tried_again() {
    const BUSY: &[u8] = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
    limit(async {
        let (_server, address, _) = counting().await;
        let proxy = ForwardProxy::http(address, refused_with(&[BUSY, b"", BUSY])).await;
        let connect = reconnect_within(ms(5), connect(URL)).retry_first();
        works(connect.proxy(format!("http://{}", proxy.address))).await;

        let away = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        for scheme in ["http", "https", "socks5h"] {
            let error =
                failure(mcp_ws_transport::connect(URL).proxy(format!("{scheme}://{away}"))).await;
            let says = format!("the proxy {scheme}://{away}");
            assert!(error.is_retryable() && error.to_string().contains(&says), "{error}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_proxy_that_says_nothing_takes_no_longer_than_the_handshake_may() {
    limit(async {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        for scheme in ["http", "https", "socks5h", "socks5"] {
            let url = if scheme == "socks5" { "ws://127.0.0.1:1/" } else { URL };
            let way = format!("{scheme}://{}", silent.local_addr().unwrap());
            let connect = connect(url).proxy(way).handshake_timeout(Duration::from_millis(50));
            let error = failure(connect).await;
            assert!(matches!(error, HandshakeError::TimedOut(_)), "{scheme}: {error}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_url_that_is_no_proxys_is_an_error_that_says_how() {
    limit(async {
        for way in [
            "",
            "http://",
            "http://:3128",
            "ftp://proxy:3128",
            "socks4://proxy:1080",
            "ws://proxy",
            "http://canary:canary@",
            "http://[::1",
            "http://proxy:99999",
        ] {
            let error = failure(connect(URL).proxy(way)).await;
            let text = format!("{error} {error:?}");
            assert!(!error.is_retryable() && text.contains("socks5h://"), "{way}: {text}");
            assert!(!text.contains("canary"), "{text}");
        }
    })
    .await;
}
