//! A server that stops ends connections at every stage, and all that was begun on them.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use futures::{StreamExt, future::join_all};
use mcp_ws_transport::{
    CloseCode, CloseReason, serve,
    server::{AuthError, Authenticator, Config, Credentials, Identity, RegistryEvent},
};
use rmcp::{
    RoleServer, ServerHandler,
    model::{CustomNotification, ServerCapabilities, ServerConfig, SubscriptionFilter},
    service::NotificationContext,
};
use serde_json::json;
use tokio::{io::AsyncReadExt, net::TcpStream, sync::watch};

use super::{assert_closed, deadline};
use crate::common::{
    Tools, assert_tasks_left, limit, ms,
    raw::{Frame, Raw, initialize, upgrade_request},
    scale, serve_tools, within,
};

/// Authenticator that never answers. Counts how often it is asked with a token.
struct HangingAuthenticator(watch::Sender<usize>);

impl Authenticator for HangingAuthenticator {
    async fn authenticate(&self, credentials: Credentials) -> Result<Identity, AuthError> {
        if credentials.token.is_none() {
            return Err(AuthError::Unauthorized);
        }
        self.0.send_modify(|asked| *asked += 1);
        std::future::pending().await
    }
}

/// Whatever a client is at: its end comes at once, or as soon as nobody asks for more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_every_stage_of_a_connection() {
    limit(async {
        let asked = watch::Sender::new(0);
        let config = deadline(ms(2000)).handshake_timeout(ms(6000));
        let config =
            config.authenticator(HangingAuthenticator(asked.clone())).in_band_authentication();
        let (server, address) = serve_tools(&Tools::default(), config).await;
        let connect = || async { TcpStream::connect(address).await.unwrap() };
        let mut bare = connect().await;
        let mut half = Raw::over(connect().await, true);
        half.write("GET /mcp HTTP/1.1\r\nHost:").await;
        let mut waits = Raw::over(connect().await, true);
        waits.write(upgrade_request(address, "Authorization: Bearer x\r\n")).await;
        asked.subscribe().wait_for(|asked| *asked == 1).await.unwrap();
        let mut silent = Raw::dial(address).await;
        let mut claims = Raw::dial(address).await;
        let params = json!({ "token": "y" });
        claims
            .json(&json!({"jsonrpc": "2.0", "id": 1, "method": "authenticate", "params": params}))
            .await;
        asked.subscribe().wait_for(|asked| *asked == 2).await.unwrap();
        let start = Instant::now();
        let clients = async {
            tokio::join!(assert_closed(&mut silent, 1012), assert_closed(&mut claims, 1012));
            assert!(start.elapsed() < ms(2000), "{:?}", start.elapsed());
        };
        tokio::join!(server.shutdown(), clients);
        assert!(start.elapsed() < ms(4000), "{:?}", start.elapsed());
        assert_tasks_left(0).await;
        let mut rest = Vec::new();
        bare.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"");
        // Its authenticator was asked before the server began to stop.
        assert_eq!(waits.head().await.map(|head| head.status()), Some(503));
        drop(half);
    })
    .await;
}

#[tokio::test]
async fn who_has_not_initialized_is_told_at_once() {
    limit(async {
        let (server, address) = serve_tools(&Tools::default(), Config::default()).await;
        let mut silent = Raw::dial(address).await;
        let mut half = Raw::dial(address).await;
        half.ask(&initialize("init")).await;
        // It offers to resume, and does not ask for a session.
        let mut unopened = Raw::over(TcpStream::connect(address).await.unwrap(), true);
        let offers = "Sec-WebSocket-Protocol: mcp, mcp.resume.v1\r\n";
        unopened.write(upgrade_request(address, offers)).await;
        assert_eq!(unopened.head().await.unwrap().status(), 101);
        let clients = async {
            tokio::join!(
                assert_closed(&mut silent, 1012),
                assert_closed(&mut half, 1012),
                assert_closed(&mut unopened, 1012)
            )
        };
        within(ms(5000), async { tokio::join!(server.shutdown(), clients) }).await;
        assert_tasks_left(0).await;
    })
    .await;
}

/// Never done with a notification, nor with a subscription.
#[derive(Clone)]
struct Endless(watch::Sender<usize>);

impl ServerHandler for Endless {
    fn get_info(&self) -> ServerConfig {
        let tools = ServerCapabilities::builder().enable_tools().enable_tool_list_changed();
        ServerConfig::new(tools.build())
    }

    fn accepted_subscription_filter(&self, all: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(all.clone())
    }

    async fn on_custom_notification(
        &self,
        _: CustomNotification,
        _: NotificationContext<RoleServer>,
    ) {
        self.0.send_modify(|begun| *begun += 1);
        std::future::pending().await
    }
}

/// The handler of a notification is not waited for, and not left behind either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notification_without_end_ends_with_its_connection() {
    limit(async {
        let begun = watch::Sender::new(0);
        let service = Endless(begun.clone());
        let server = serve("127.0.0.1:0", move || service.clone()).await.unwrap();
        let mut raw = Raw::initialized(server.local_addr()).await;
        raw.json(&json!({ "jsonrpc": "2.0", "method": "notifications/endless" })).await;
        begun.subscribe().wait_for(|begun| *begun == 1).await.unwrap();
        within(ms(1000), async { tokio::join!(server.shutdown(), assert_closed(&mut raw, 1012)) })
            .await;
        assert_tasks_left(0).await;
    })
    .await;
}

/// A subscription is told its end, and so much is not waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_does_not_hold_up_a_drain() {
    limit(async {
        let service = Endless(watch::Sender::new(0));
        let server = serve("127.0.0.1:0", move || service.clone()).await.unwrap();
        let mut raw = Raw::dial(server.local_addr()).await;
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": { "name": "raw", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let notifications = json!({ "toolsListChanged": true });
        let params = json!({ "_meta": meta, "notifications": notifications });
        let acknowledged = raw
            .ask(&json!({
                "jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params,
            }))
            .await;
        let method = "notifications/subscriptions/acknowledged";
        assert_eq!(acknowledged["method"], method, "{acknowledged}");
        let client = async {
            assert_eq!(raw.receive().await["id"], 1);
            assert_closed(&mut raw, 1012).await;
        };
        within(ms(1000), async { tokio::join!(server.shutdown(), client) }).await;
        assert_tasks_left(0).await;
    })
    .await;
}

/// Upgrades at the very moment when the server stops: each is refused, or told 1012, or finds that
/// nobody listens any more; never is one left in silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_and_a_drain_may_meet_at_any_moment() {
    limit(async {
        let ends = [const { AtomicUsize::new(0) }; 3];
        for round in 0..scale(60, 3000) {
            let (server, address) = serve_tools(&Tools::default(), deadline(ms(6000))).await;
            let registry = server.registry().clone();
            let clients = join_all((0..4).map(async |client| {
                let Ok(stream) = TcpStream::connect(address).await else { return 2 };
                let mut raw = Raw::over(stream, true);
                if raw.try_write(upgrade_request(address, "")).await.is_err() {
                    return 2;
                }
                if client % 2 == 0 {
                    let _ =
                        raw.try_write(Frame::text(initialize("i").to_string()).bytes(true)).await;
                }
                let mut first = [0; 12];
                if raw.stream.peek(&mut first).await.unwrap_or(0) < 12 {
                    return 2;
                }
                let head = raw.head().await.unwrap();
                if head.status() == 503 {
                    return 0;
                }
                assert_eq!(head.status(), 101, "{head:?}");
                assert_eq!(raw.closed().await.0, 1012);
                let _ = raw.try_write(Frame::close(1012).bytes(true)).await;
                1
            }));
            let stop = async {
                tokio::time::sleep(Duration::from_micros(40 * (round as u64 % 60))).await;
                let start = Instant::now();
                server.shutdown().await;
                assert!(start.elapsed() < ms(4000), "{:?}", start.elapsed());
            };
            for end in tokio::join!(clients, stop).0 {
                ends[end].fetch_add(1, Ordering::Relaxed);
            }
            assert_eq!(registry.health().active, 0);
            assert_tasks_left(0).await;
        }
        println!("refused, told and too late: {ends:?}");
    })
    .await;
}

/// Whoever is disconnected before or while it initializes hears the reason all the same, and the
/// events of each connection are in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnect_may_come_at_any_moment() {
    limit(async {
        let (server, address) = serve_tools(&Tools::default(), Config::default()).await;
        let registry = server.registry().clone();
        let rounds = scale(150, 5000);
        let mut events = registry.events();
        let clients = async {
            for round in 0..rounds {
                let mut raw = Raw::dial(address).await;
                if round % 2 == 0 {
                    let _ =
                        raw.try_write(Frame::text(initialize("i").to_string()).bytes(true)).await;
                }
                assert_eq!(raw.closed().await, (4321, "enough".to_owned()));
                let _ = raw.try_write(Frame::close(4321).bytes(true)).await;
            }
        };
        let disconnecting = async {
            let mut ended = 0;
            let mut open = Vec::new();
            while ended < rounds {
                match events.next().await.unwrap() {
                    RegistryEvent::Connected(connection) => {
                        open.push(connection.id());
                        if ended % 3 == 0 {
                            tokio::time::sleep(Duration::from_micros(ended as u64 % 7 * 100)).await;
                        }
                        assert!(
                            connection
                                .disconnect(CloseReason::new(CloseCode::from(4321), "enough"))
                        );
                    }
                    RegistryEvent::Disconnected { connection, reason } => {
                        let at = open.iter().position(|id| *id == connection.id());
                        open.remove(at.expect("connected before, and disconnected once"));
                        assert_eq!(u16::from(reason.code), 4321);
                        ended += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(open.is_empty(), "{open:?}");
        };
        tokio::join!(clients, disconnecting);
        assert_eq!(registry.health().active, 0);
    })
    .await;
}
