//! `WebSocketService` where users have a server already.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use common::{
    Tools, limit,
    raw::{Raw, initialize, upgrade_request},
    within,
};
use http::{Request, StatusCode};
use mcp_ws_transport::{
    connect,
    server::{Config, WebSocketService},
};
use rmcp::{
    ServiceExt,
    model::CallToolRequestParams,
    transport::{
        StreamableHttpClientTransport, StreamableHttpServerConfig, StreamableHttpService,
        streamable_http_server::session::local::LocalSessionManager,
    },
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

async fn mounted(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn service(config: Config) -> WebSocketService<Tools> {
    WebSocketService::new(|| Ok(Tools::default()), config).unwrap()
}

/// A GET with an upgrade is ours, a POST is rmcp's, on one path.
#[tokio::test]
async fn it_shares_a_path_with_streamable_http() {
    limit(async {
        let http = StreamableHttpService::new(
            || Ok(Tools::default()),
            Arc::new(LocalSessionManager::default()),
            StreamableHttpServerConfig::default(),
        );
        let path = axum::routing::get_service(service(Config::default())).fallback_service(http);
        let address = mounted(Router::new().route("/mcp", path)).await;
        let url = format!("ws://{address}/mcp");
        let over_websocket = ().serve(connect(url).await.unwrap()).await.unwrap();
        let http = StreamableHttpClientTransport::from_uri(format!("http://{address}/mcp"));
        let over_http = ().serve(http).await.unwrap();
        let arguments = serde_json::Map::from_iter([("text".to_owned(), "hello".into())]);
        let echo = CallToolRequestParams::new("echo").with_arguments(arguments);
        for client in [over_websocket, over_http] {
            let result = client.call_tool(echo.clone()).await.unwrap();
            assert_eq!(result.content[0].as_text().unwrap().text, "hello");
            client.cancel().await.unwrap();
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
        let service = WebSocketService::<Tools>::new(
            || Err(std::io::Error::other("no database")),
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
