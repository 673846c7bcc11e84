//! Relays on a server whose ends are MCP clients: whoever dials is the MCP server.

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use mcp_ws_transport::{
    connect, relay,
    server::{Config, WebSocketService},
};
use serde_json::json;
use tokio::{net::TcpListener, sync::mpsc};

use super::{Program, program};
use crate::common::limit;

/// A server whose connections have a host behind them.
async fn serve_hosts(
    config: Config<relay::Client>,
) -> (SocketAddr, mpsc::UnboundedReceiver<Program>) {
    let (sender, hosts) = mpsc::unbounded_channel();
    let service = WebSocketService::relay(
        move |_| {
            let (end, host) = program();
            let _ = sender.send(host);
            async move { Ok(end) }
        },
        config,
    );
    let router = Router::new().route_service("/mcp", service.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, hosts)
}

#[tokio::test]
async fn a_host_initializes_whoever_dials() {
    limit(async {
        let (address, mut hosts) = serve_hosts(Config::default()).await;
        let transport = connect::<relay::Server>(format!("ws://{address}/mcp")).await.unwrap();
        let (end, mut server) = program();
        let _relaying = tokio::spawn(async move { relay::run(transport, end).await });
        let mut host = hosts.recv().await.unwrap();
        tokio::join!(host.initialize(), server.answer_initialize());
        server.write(r#"{"jsonrpc":"2.0","id":1,"method":"roots/list"}"#).await;
        assert_eq!(host.json().await["id"], 1);
    })
    .await;
}

/// In the lifecycle without `initialize`, its first request shows that a host is there.
#[tokio::test]
async fn a_host_that_does_not_initialize_is_kept() {
    limit(async {
        let config = Config::default().handshake_timeout(Duration::from_millis(200));
        let (address, mut hosts) = serve_hosts(config).await;
        let transport = connect::<relay::Server>(format!("ws://{address}/mcp"));
        let transport = transport.no_reconnect().await.unwrap();
        let (end, mut server) = program();
        let relaying = tokio::spawn(async move { relay::run(transport, end).await });
        let mut host = hosts.recv().await.unwrap();
        for id in 0..2 {
            host.write(json!({ "jsonrpc": "2.0", "id": id, "method": "tools/list" }).to_string())
                .await;
            assert_eq!(server.json().await["id"], id);
            server.write(json!({ "jsonrpc": "2.0", "id": id, "result": {} }).to_string()).await;
            assert_eq!(host.json().await["id"], id);
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        assert!(!relaying.is_finished());
    })
    .await;
}
