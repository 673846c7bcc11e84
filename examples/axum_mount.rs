//! One MCP service, on one path of an axum server, over WebSockets and over streamable HTTP.
//!
//! `cargo run --example axum_mount`

use std::{error::Error, sync::Arc};

use axum::Router;
use mcp_ws_transport::{
    connect,
    server::{Config, WebSocketService},
};
use rmcp::{
    ServerHandler, ServiceExt,
    transport::{
        StreamableHttpClientTransport, StreamableHttpService,
        streamable_http_server::session::local::LocalSessionManager,
    },
};

#[derive(Clone)]
struct Echo;

impl ServerHandler for Echo {}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let websocket = WebSocketService::new(|| Ok(Echo), Config::default())?;
    let sessions = Arc::new(LocalSessionManager::default());
    let http = StreamableHttpService::new(|| Ok(Echo), sessions, Default::default());

    // What asks for a WebSocket gets one, everything else is for streamable HTTP: its GET, which waits for
    // notifications, too.
    let app = Router::new().route_service("/mcp", websocket.or(http));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async { axum::serve(listener, app).await });

    let client = ().serve(connect(format!("ws://{address}/mcp")).await?).await?;
    println!("over WebSockets: {:?}", client.peer_info().map(|info| info.protocol_version.clone()));
    client.cancel().await?;

    let http = StreamableHttpClientTransport::from_uri(format!("http://{address}/mcp"));
    let client = ().serve(http).await?;
    println!("over HTTP:       {:?}", client.peer_info().map(|info| info.protocol_version.clone()));
    client.cancel().await?;
    Ok(())
}
