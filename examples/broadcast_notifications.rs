//! A server that knows its clients: it tells all of them, some of them, and sends one away.
//!
//! `cargo run --example broadcast_notifications`

use std::error::Error;

use futures::StreamExt;
use mcp_ws_transport::{
    CatchPanic, CloseCode, CloseReason, connect, serve,
    server::{Config, Registry, RegistryEvent},
};
use rmcp::{
    ClientHandler, RoleClient, ServerHandler, ServiceExt,
    model::{ResourceUpdatedNotification, ResourceUpdatedNotificationParam, ServerNotification},
    service::NotificationContext,
};
use serde_json::json;

#[derive(Clone)]
struct Town;

impl ServerHandler for Town {}

/// A client that prints what it is told.
struct Citizen(&'static str);

impl ClientHandler for Citizen {
    async fn on_resource_updated(
        &self,
        updated: ResourceUpdatedNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        println!("{} is told of {}", self.0, updated.uri);
    }
}

fn updated(uri: &str) -> ServerNotification {
    ResourceUpdatedNotification::new(ResourceUpdatedNotificationParam::new(uri)).into()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let registry = Registry::default();
    let mut events = registry.events();
    let config = Config::default().registry(registry.clone());
    let server = serve("127.0.0.1:0", || Town).config(config).await?;

    let mut citizens = Vec::new();
    for name in ["ann", "ben", "eve"] {
        let transport = connect(format!("ws://{}/mcp", server.local_addr())).await?;
        citizens.push(CatchPanic::new(Citizen(name)).serve(transport).await?);
    }

    let broadcast = registry.notify_all(updated("town://market"))?;
    println!("on its way to {}, missed by {:?}", broadcast.sent, broadcast.failed);
    let broadcast = registry.notify_where(updated("town://mail/ann"), |to| to.id() == 1)?;
    println!("on its way to {}", broadcast.sent);
    registry.disconnect(3, CloseReason::new(CloseCode::Policy, "not welcome"));

    while let Some(event) = events.next().await {
        println!("{event:?}");
        if let RegistryEvent::Disconnected { .. } = event {
            break;
        }
    }
    println!("{}", json!(registry.health()));
    server.shutdown().await;
    Ok(())
}
