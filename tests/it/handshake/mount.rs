//! `WebSocketService` where users have a server already.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use http::{Request, StatusCode};
use mcp_ws_transport::{
    connect,
    server::{Config, WebSocketService},
};
use rmcp::{
    ClientHandler, ErrorData, RoleClient, RoleServer, ServerHandler, ServiceExt,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ServerCapabilities,
        ServerConfig,
    },
    service::{NotificationContext, RequestContext},
    transport::{
        StreamableHttpClientTransport, StreamableHttpServerConfig, StreamableHttpService,
        streamable_http_server::session::local::LocalSessionManager,
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::common::{
    Tools,
    handshake::ask,
    limit,
    raw::{Raw, initialize, upgrade_request},
    within,
};

async fn mounted(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn service(config: Config) -> WebSocketService {
    WebSocketService::new(|| Ok(Tools::default()), config).unwrap()
}

/// Tells its client something whenever a tool is called.
#[derive(Clone)]
struct Notifier;

impl ServerHandler for Notifier {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        _: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        context.peer.notify_tool_list_changed().await.unwrap();
        Ok(CallToolResult::success(vec![ContentBlock::text("told")]).into())
    }
}

/// Notes when it is told something.
#[derive(Clone, Default)]
struct Listener(Arc<Notify>);

impl ClientHandler for Listener {
    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.0.notify_one();
    }
}

/// Requests for a WebSocket are ours, the rest is rmcp's, on one path. That includes the GET by
/// which its clients hear notifications.
#[tokio::test]
async fn it_shares_a_path_with_streamable_http() {
    limit(async {
        let http = StreamableHttpService::new(
            || Ok(Notifier),
            Arc::new(LocalSessionManager::default()),
            StreamableHttpServerConfig::default(),
        );
        let websocket = WebSocketService::new(|| Ok(Notifier), Config::default()).unwrap();
        let address = mounted(Router::new().route_service("/mcp", websocket.or(http))).await;
        let listener = Listener::default();
        let url = format!("ws://{address}/mcp");
        let over_websocket = listener.clone().serve(connect(url).await.unwrap()).await.unwrap();
        let http = StreamableHttpClientTransport::from_uri(format!("http://{address}/mcp"));
        let over_http = listener.clone().serve(http).await.unwrap();
        for client in [over_websocket, over_http] {
            let result = client.call_tool(CallToolRequestParams::new("tell")).await.unwrap();
            assert_eq!(result.content[0].as_text().unwrap().text, "told");
            listener.0.notified().await;
            client.cancel().await.unwrap();
        }
    })
    .await;
}

/// Requests for a WebSocket are checked here and seen by nobody else, even if refused. The rest has
/// to pass the guard.
#[tokio::test]
async fn who_asks_for_no_websocket_gets_the_other_service() {
    limit(async {
        let other = Router::new().fallback(async |body: String| format!("other {body}"));
        let both = service(Config::default()).or(other);
        let address = mounted(Router::new().route_service("/mcp", both)).await;
        let upgrade = upgrade_request(address, "");
        let without = |line: &str| {
            let (name, _) = line.split_once(':').unwrap();
            let rest = upgrade.lines().filter(|line| !line.starts_with(&format!("{name}:")));
            rest.map(|line| format!("{line}\r\n")).collect::<String>()
        };
        for (request, status) in [
            (upgrade.clone(), 101),
            (upgrade.replace("GET", "POST"), 405),
            (upgrade.replace("websocket", "WebSocket, h2c"), 101),
            (upgrade.replace("HTTP/1.1", "HTTP/1.0"), 426),
            (upgrade.replace("Host: ", "Origin: http://evil.example\r\nHost: "), 403),
            (upgrade.replace("Host: ", "Host: evil.example\r\nX: "), 403),
            // Half of an upgrade, as a proxy may leave it.
            (without("Connection:"), 426),
            (without("Upgrade:"), 426),
            (without("Sec-WebSocket-Key:"), 400),
            (upgrade.replace("websocket", "h2c"), 426),
        ] {
            let (head, mut raw) = ask(address, &request).await;
            assert_eq!(head.status(), status, "{request}");
            let length = head.get("content-length").map_or(0, |length| length.parse().unwrap());
            assert!(!raw.body(length).await.contains("other"), "{request}");
        }
        for request in [
            "GET /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody",
            "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody",
            "GET /mcp HTTP/1.0\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody",
            "GET /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\
             Content-Length: 4\r\n\r\nbody",
        ] {
            let (head, mut raw) = ask(address, request).await;
            assert_eq!(head.status(), 200, "{request}");
            assert_eq!(raw.body("other body".len()).await, "other body", "{request}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_no_upgrade_is_answered_in_http() {
    limit(async {
        let router = Router::new().route_service("/mcp", service(Config::default()));
        let address = mounted(router).await;
        for (change, status) in [
            (("GET", "POST"), 405),
            (("Upgrade: websocket\r\n", ""), 426),
            (("Version: 13", "Version: 12"), 426),
            (("Sec-WebSocket-Key: ", "Sec-WebSocket-Key: x"), 400),
            (("Host: ", "Origin: http://evil.example\r\nHost: "), 403),
            (("Host: ", "Host: evil.example\r\nX: "), 403),
            (("/mcp", "http://evil.example/mcp"), 400),
        ] {
            let request = upgrade_request(address, "").replacen(change.0, change.1, 1);
            let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
            raw.write(&request).await;
            assert_eq!(raw.head().await.unwrap().status(), status, "{request}");
        }
    })
    .await;
}

/// A request that hyper has not received cannot be upgraded, and is not told that it was.
#[tokio::test]
async fn without_hyper_below_nothing_is_promised() {
    let request = Request::get("/mcp")
        .header("host", "localhost")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .body(())
        .unwrap();
    let response = service(Config::default()).call(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
}

#[tokio::test]
async fn the_token_ends_what_there_is_and_refuses_more() {
    limit(async {
        let stop = CancellationToken::new();
        let service = service(Config::default().cancellation_token(stop.clone()));
        let router = Router::new().route_service("/mcp", service.clone());
        let address = mounted(router).await;
        let mut raw = Raw::initialized(address).await;
        stop.cancel();
        assert_eq!(raw.closed().await.0, 1012);
        drop(raw);
        within(Duration::from_secs(3), service.closed()).await;
        let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
        raw.write(upgrade_request(address, "")).await;
        assert_eq!(raw.head().await.unwrap().status(), 503);
    })
    .await;
}

#[tokio::test]
async fn a_service_that_cannot_be_made_is_an_internal_error() {
    limit(async {
        let service = WebSocketService::new(
            || Err::<Tools, _>(std::io::Error::other("no database")),
            Config::default(),
        );
        let address = mounted(Router::new().route_service("/mcp", service.unwrap())).await;
        let mut raw = Raw::dial(address).await;
        raw.json(&initialize("first")).await;
        let (code, reason) = raw.closed().await;
        assert_eq!((code, reason.contains("database")), (1011, false));
    })
    .await;
}

#[test]
fn a_configuration_that_cannot_be_read_is_an_error() {
    let config = Config::default().allowed_hosts(["http://example.com"]);
    let error = WebSocketService::new(|| Ok(Tools::default()), config).unwrap_err();
    assert!(error.to_string().contains("http://example.com"), "{error}");
}

/// Header names that axum writes are up to axum; below our own listener its routes have the exact
/// names too.
#[tokio::test]
async fn the_case_of_header_names_is_the_listeners() {
    limit(async {
        let router = Router::new().nest_service("/mcp", service(Config::default()));
        let address = mounted(router).await;
        let accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        for path in ["/mcp", "/mcp/"] {
            let request = upgrade_request(address, "").replace("/mcp", path);
            let (head, mut raw) = ask(address, request).await;
            assert_eq!(head.status(), 101, "{path}: {head:?}");
            assert!(head.0.contains(&format!("sec-websocket-accept: {accept}")), "{head:?}");
            raw.initialize().await;
        }

        let router = Router::new().route_service("/other", service(Config::default()));
        let server = mcp_ws_transport::serve("127.0.0.1:0", Tools::default).fallback(router);
        let server = server.await.unwrap();
        let address = server.local_addr();
        let request = upgrade_request(address, "").replace("/mcp", "/other");
        let (head, mut raw) = ask(address, request).await;
        assert!(head.0.contains(&format!("\r\nSec-WebSocket-Accept: {accept}")), "{head:?}");
        raw.initialize().await;
    })
    .await;
}

/// The documented way: axum's graceful shutdown, and then the connections that were upgraded.
#[tokio::test]
async fn a_graceful_shutdown_closes_what_was_upgraded() {
    limit(async {
        let stop = CancellationToken::new();
        let service = service(Config::default().cancellation_token(stop.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route_service("/mcp", service.clone());
        let signal = stop.clone().cancelled_owned();
        let serving = axum::serve(listener, router).with_graceful_shutdown(signal);
        let serving = tokio::spawn(async move {
            serving.await.unwrap();
            service.closed().await;
        });
        let mut raw = Raw::initialized(address).await;
        stop.cancel();
        assert_eq!(raw.closed().await.0, 1012);
        drop(raw);
        within(Duration::from_secs(3), serving).await.unwrap();
    })
    .await;
}
