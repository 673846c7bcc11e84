//! Limits of connections: one too many is told so before the upgrade. Every slot is released,
//! however a connection ends.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use mcp_ws_transport::{
    serve,
    server::{
        AuthError, BearerTokens, Config, Credentials, Identity, Limits, Registry, Server,
        TrustedProxies,
    },
};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{CallToolRequestParams, CallToolResponse, InitializeRequestParams, InitializeResult},
    service::RequestContext,
};
use serde_json::json;

use crate::common::{
    Tools,
    handshake::{tools, try_upgrade, upgrade},
    limit,
    raw::{Frame, Raw, initialize},
};

fn one() -> Config {
    Config::default().sessions(None).limits(Limits::default().connections(1))
}

/// Waits until nobody is connected.
async fn wait_until_empty<R: mcp_ws_transport::McpRole>(registry: &Registry<R>) {
    while !registry.list().is_empty() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn assert_full(address: SocketAddr) {
    let (head, mut raw) = try_upgrade(address, "").await;
    assert_eq!((head.status(), head.get("retry-after")), (503, Some("5")), "{head:?}");
    assert!(head.get("sec-websocket-accept").is_none());
    let length = head.get("content-length").unwrap().parse().unwrap();
    assert_eq!(raw.body(length).await, "the server is at capacity");
}

#[tokio::test]
async fn one_too_many_is_told_to_come_again() {
    limit(async {
        let config = Config::default().sessions(None).limits(Limits::default().connections(3));
        let (server, address) = tools(config).await;
        let mut here = Vec::new();
        for _ in 0..3 {
            let mut raw = upgrade(address, "").await;
            raw.initialize().await;
            here.push(raw);
        }
        for _ in 0..20 {
            assert_full(address).await;
        }
        for raw in &mut here {
            raw.ping().await;
        }
        let health = server.registry().health();
        assert_eq!((health.active, health.rejected_by["at_capacity"]), (3, 20));
    })
    .await;
}

/// However a connection ends, the next one finds its place.
#[tokio::test]
async fn a_place_is_given_back_however_a_connection_ends() {
    limit(async {
        let tools = Tools::default();
        let serving = tools.clone();
        let config = one().handshake_timeout(Duration::from_millis(1500));
        let server = serve("127.0.0.1:0", move || serving.clone()).config(config).await.unwrap();
        let address = server.local_addr();
        for way in 0..9 {
            let mut raw = upgrade(address, "").await;
            match way {
                // Before it is initialized: closed, cut, too late, and with what is no initialize.
                0 => raw.send(Frame::close(1000)).await,
                1 => raw.reset(),
                2 => assert_eq!(raw.closed().await.0, 1008),
                3 => {
                    raw.json(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }))
                        .await;
                    assert_eq!(raw.closed().await.0, 1008);
                }
                4 => {
                    raw.initialize().await;
                    raw.send(Frame::close(1000)).await;
                }
                5 => {
                    raw.initialize().await;
                    raw.reset();
                }
                // In the middle of a call, of one that heeds nothing, and of a message.
                6 | 7 => {
                    raw.initialize().await;
                    let begun = *tools.started.borrow();
                    raw.json(&crate::common::call(
                        1,
                        if way == 6 { "wait" } else { "uncancellable" },
                        json!({}),
                    ))
                    .await;
                    tools.begun(begun + 1).await;
                    raw.reset();
                }
                _ => {
                    raw.initialize().await;
                    raw.write(&Frame::text("{\"jsonrpc\"").bytes(true)[..8]).await;
                    drop(raw);
                }
            }
            wait_until_empty(server.registry()).await;
        }
        let mut raw = upgrade(address, "").await;
        raw.initialize().await;
        assert_full(address).await;
    })
    .await;
}

#[tokio::test]
async fn who_is_not_let_in_takes_no_place() {
    limit(async {
        let tokens = BearerTokens::default().token("right", Identity::new("alice"));
        let (_server, address) = tools(one().authenticator(tokens)).await;
        for line in ["", "Authorization: Bearer wrong\r\n", "Origin: http://evil.example\r\n"] {
            for _ in 0..5 {
                assert!(matches!(try_upgrade(address, line).await.0.status(), 401 | 403));
            }
        }
        let mut raw = upgrade(address, "Authorization: Bearer right\r\n").await;
        raw.initialize().await;
        // One that comes before the verdict is told at once; nobody is asked.
        assert_full(address).await;
    })
    .await;
}

/// A client that waits for the authenticator takes nobody's place, and cannot become the second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_get_one_place() {
    limit(async {
        let config = one().authenticator(|_: Credentials| async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok::<_, AuthError>(Identity::new("anyone"))
        });
        let (server, address) = tools(config).await;
        let dials: Vec<_> =
            (0..50).map(|_| tokio::spawn(async move { try_upgrade(address, "").await })).collect();
        let mut statuses = Vec::new();
        let mut kept = Vec::new();
        for dial in dials {
            let (head, raw) = dial.await.unwrap();
            statuses.push(head.status());
            kept.push(raw);
        }
        statuses.sort_unstable();
        assert_eq!((statuses[0], statuses[1], statuses[49]), (101, 503, 503));
        drop(kept);
        wait_until_empty(server.registry()).await;
        upgrade(address, "").await;
    })
    .await;
}

/// Fault in the user's own code, at each moment of a connection.
#[derive(Debug, Clone, Copy)]
struct Faulty(usize);

impl ServerHandler for Faulty {
    async fn initialize(
        &self,
        _: InitializeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        match self.0 {
            1 => panic!("in initialize"),
            2 => Err(ErrorData::internal_error("no", None)),
            _ => Ok(self.get_info()),
        }
    }

    fn get_info(&self) -> rmcp::model::ServerConfig {
        assert!(self.0 != 3, "in get_info");
        Default::default()
    }

    async fn call_tool(
        &self,
        _: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        panic!("in a handler")
    }
}

#[tokio::test]
async fn a_place_is_given_back_whatever_panics() {
    limit(async {
        let made = AtomicUsize::new(0);
        let factory = move || {
            let n = made.fetch_add(1, Ordering::Relaxed);
            assert!(n != 0, "in the factory");
            Faulty(n)
        };
        let server: Server = serve("127.0.0.1:0", factory).config(one()).await.unwrap();
        let address = server.local_addr();
        for n in 0..4 {
            let mut raw = upgrade(address, "").await;
            raw.json(&initialize("init")).await;
            // A Close with a code where there is still somebody to send it, else the end.
            while let Ok(Some(frame)) = raw.try_next().await {
                let text = String::from_utf8_lossy(&frame.payload);
                assert!(!text.contains("in get_info") && !text.contains("in the factory"), "{n}");
            }
            wait_until_empty(server.registry()).await;
        }
        let mut raw = upgrade(address, "").await;
        raw.initialize().await;
        for id in 0..3 {
            let answer = raw.ask(&crate::common::call(id, "any", json!({}))).await;
            assert_eq!(answer["error"]["code"], -32603, "{answer}");
        }
        raw.ping().await;
        drop(raw);
        wait_until_empty(server.registry()).await;
        upgrade(address, "").await;
    })
    .await;
}

/// Behind a proxy that says in a header where a request comes from.
fn forwarded() -> Config {
    let limits = Limits::default().connections_per_address(2);
    Config::default().sessions(None).limits(limits).peer_addr(|parts| {
        let line = parts.headers.get("x-forwarded-for")?.to_str().ok()?;
        let address: IpAddr = line.rsplit(',').next()?.trim().parse().ok()?;
        Some((address, 0).into())
    })
}

#[tokio::test]
async fn an_address_has_its_share() {
    limit(async {
        let (server, address) = tools(forwarded()).await;
        let from = |address: &str| format!("X-Forwarded-For: {address}\r\n");
        let mut here = Vec::new();
        for (first, second, third) in [
            ("192.0.2.1", "192.0.2.1", "192.0.2.1"),
            ("192.0.2.2", "::ffff:192.0.2.2", "::ffff:c000:202"),
            ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:0:ffff:ffff:ffff:ffff"),
            ("2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:1::3"),
            // What a client adds in front is not what the proxy says.
            ("198.51.100.1, 192.0.2.3", "198.51.100.2, 192.0.2.3", "198.51.100.3,192.0.2.3"),
            // Those of whom nothing is known count as one.
            ("nonsense", "", "unknown"),
        ] {
            here.push(upgrade(address, &from(first)).await);
            here.push(upgrade(address, &from(second)).await);
            let (head, _) = try_upgrade(address, &from(third)).await;
            assert_eq!((head.status(), head.get("retry-after")), (503, Some("5")), "{third}");
        }
        assert_eq!(server.registry().health().rejected_by["address_at_capacity"], 6);
        let known = server.registry().list()[0].peer();
        assert_eq!(known, Some("192.0.2.1:0".parse().unwrap()));

        drop(here);
        wait_until_empty(server.registry()).await;
        upgrade(address, &from("2001:db8::1")).await;
    })
    .await;
}

/// The address is by default that of the socket.
#[tokio::test]
async fn a_header_is_believed_only_where_it_is_configured() {
    limit(async {
        let limits = Limits::default().connections_per_address(1);
        let (_server, address) = tools(Config::default().sessions(None).limits(limits)).await;
        let _here: Raw = upgrade(address, "X-Forwarded-For: 192.0.2.1\r\n").await;
        for line in ["X-Forwarded-For: 192.0.2.2\r\n", "Forwarded: for=192.0.2.3\r\n", ""] {
            assert_eq!(try_upgrade(address, line).await.0.status(), 503, "{line}");
        }
    })
    .await;
}

/// Asks from `source` for an upgrade with these header lines. Returns the status, and the
/// connection.
#[cfg(target_os = "linux")]
async fn upgrade_from(source: &str, address: SocketAddr, lines: &str) -> (u16, Raw) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    let mut raw = Raw::over(socket.connect(address).await.unwrap(), true);
    raw.write(crate::common::raw::upgrade_request(address, lines)).await;
    (raw.head().await.unwrap().status(), raw)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn only_the_word_of_a_trusted_proxy_counts() {
    limit(async {
        let limits = Limits::default().connections_per_address(1);
        let config = Config::default().sessions(None).limits(limits);
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let peers = seen.clone();
        let config = config.authenticator(move |credentials: Credentials| {
            peers.lock().unwrap().push(credentials.peer.map(|peer| peer.ip().to_string()));
            async { Ok(Identity::new("anyone")) }
        });
        let by = |proxies| config.clone().registry(Registry::default()).trusted_proxies(proxies);
        for (proxies, header) in [
            (TrustedProxies::x_forwarded_for(["127.0.0.1", "127.1.0.0/16"]), "X-Forwarded-For: "),
            (TrustedProxies::forwarded(["127.0.0.1", "127.1.0.0/16"]), "Forwarded: for="),
        ] {
            let (server, address) = tools(by(proxies)).await;
            let mut here = Vec::new();
            for (source, chains, status, peer) in [
                ("127.0.0.1", &["192.0.2.1"][..], 101, "192.0.2.1"),
                // What the client has made up stands in front, in this line or in another.
                ("127.0.0.1", &["198.51.100.1, 192.0.2.1"], 503, ""),
                ("127.0.0.1", &["198.51.100.2", "192.0.2.1"], 503, ""),
                ("127.1.2.3", &["198.51.100.3, 192.0.2.1, 127.0.0.1"], 503, ""),
                ("127.1.2.3", &["198.51.100.3, 192.0.2.2, 127.0.0.1"], 101, "192.0.2.2"),
                ("127.0.0.1", &[], 101, "127.0.0.1"),
                // Past the proxies.
                ("127.0.0.2", &["192.0.2.3"], 101, "127.0.0.2"),
                ("127.0.0.2", &["192.0.2.4"], 503, ""),
            ] {
                let lines = chains.iter().map(|chain| match header {
                    "Forwarded: for=" => format!("{header}{}\r\n", chain.replace(", ", ", for=")),
                    _ => format!("{header}{chain}\r\n"),
                });
                // The header that is not the proxies' is the client's own.
                let other = if header.starts_with('X') {
                    "Forwarded: for=203.0.113.1\r\n"
                } else {
                    "X-Forwarded-For: 203.0.113.1\r\n"
                };
                let lines = lines.collect::<String>() + other;
                let (given, raw) = upgrade_from(source, address, &lines).await;
                assert_eq!(given, status, "{source} {lines}");
                if status == 101 {
                    assert_eq!(seen.lock().unwrap().pop().unwrap().as_deref(), Some(peer));
                    here.push(raw);
                }
            }
            assert_eq!(server.registry().health().rejected_by["address_at_capacity"], 4);
        }
        let wrong = by(TrustedProxies::x_forwarded_for(["10.0.0.0/8", "proxy.example.com"]));
        let serve = mcp_ws_transport::serve("127.0.0.1:0", crate::common::Tools::default);
        let error = serve.config(wrong).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("proxy.example.com"), "{error}");
    })
    .await;
}
