//! One MCP service, on one path of an axum server, over WebSockets and over streamable HTTP: both ask for
//! the same token, and so does another route.
//!
//! `cargo run --example axum_mount`

use std::{error::Error, sync::Arc};

use axum::{Router, routing::get};
use mcp_ws_transport::{
    connect,
    server::{BearerTokens, Config, Identity, WebSocketService},
};
use rmcp::{
    ServerHandler, ServiceExt,
    transport::{
        StreamableHttpClientTransport, StreamableHttpService,
        streamable_http_client::StreamableHttpClientTransportConfig,
        streamable_http_server::session::local::LocalSessionManager,
    },
};
use tokio_util::sync::CancellationToken;

#[derive(Clone)]
struct Echo;

impl ServerHandler for Echo {}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let stop = CancellationToken::new();
    let config = Config::default()
        .authenticator(BearerTokens::default().token("s3cr3t", Identity::new("alice")))
        .cancellation_token(stop.clone());
    let guard = config.guard()?;
    let websocket = WebSocketService::new(|| Ok(Echo), config)?;
    let sessions = Arc::new(LocalSessionManager::default());
    let http = StreamableHttpService::new(|| Ok(Echo), sessions, Default::default());

    // What asks for a WebSocket gets one, everything else is for streamable HTTP: its GET, which waits for
    // notifications, too. `or` guards it; other routes are guarded by the layer.
    let app = Router::new()
        .route_service("/mcp", websocket.clone().or(http))
        .route("/figures", get(async || "for those who have the token").layer(guard));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serving = axum::serve(listener, app).with_graceful_shutdown(stop.clone().cancelled_owned());
    let serving = tokio::spawn(serving.into_future());

    let url = format!("ws://{address}/mcp");
    let client = ().serve(connect(&url).bearer("s3cr3t").await?).await?;
    println!("over WebSockets: {:?}", client.peer_info().map(|info| info.protocol_version.clone()));
    client.cancel().await?;

    let http = StreamableHttpClientTransportConfig::with_uri(format!("http://{address}/mcp"));
    let with_token = StreamableHttpClientTransport::from_config(http.clone().auth_header("s3cr3t"));
    let client = ().serve(with_token).await?;
    println!("over HTTP:       {:?}", client.peer_info().map(|info| info.protocol_version.clone()));
    client.cancel().await?;

    let without = StreamableHttpClientTransport::from_config(http);
    if let Err(error) = ().serve(without).await {
        println!("without a token: {error}");
    }

    // axum does not know of connections that were upgraded; the service closes them one by one.
    stop.cancel();
    websocket.closed().await;
    serving.await??;
    Ok(())
}
