//! Two instances behind nginx.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use mcp_ws_transport::{
    client::Connect,
    server::{Config, Server},
};
use rmcp::{
    ErrorData, RoleClient, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ServerCapabilities,
        ServerConfig,
    },
    service::RequestContext,
};

use super::server::Nginx;

/// The service of one session: which instance it is at, which session there, and which call in
/// that.
#[derive(Debug)]
pub struct Counter {
    instance: char,
    session: usize,
    calls: AtomicUsize,
}

impl ServerHandler for Counter {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    /// Takes `ms` milliseconds.
    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let call = self.calls.fetch_add(1, SeqCst) + 1;
        let ms = request.arguments.and_then(|arguments| arguments["ms"].as_u64());
        tokio::time::sleep(Duration::from_millis(ms.unwrap_or_default())).await;
        let text = format!("{}{}.{call}", self.instance, self.session);
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

/// Returns the guide's settings of a server that learns the address of its client from a proxy.
pub fn behind_proxy() -> Config {
    Config::default().peer_addr(|parts| {
        let address = parts.headers.get("x-real-ip")?.to_str().ok()?.parse().ok()?;
        Some(SocketAddr::new(address, 0))
    })
}

async fn instance(name: char, config: Config) -> Server {
    let sessions = AtomicUsize::new(0);
    let factory = move || Counter {
        instance: name,
        session: sessions.fetch_add(1, SeqCst) + 1,
        calls: AtomicUsize::new(0),
    };
    mcp_ws_transport::serve("127.0.0.1:0", factory).config(config).await.unwrap()
}

/// Two instances, and nginx before them.
pub struct Site {
    pub nginx: Nginx,
    pub a: Server,
    pub b: Server,
}

impl Site {
    pub async fn new() -> Self {
        Self::with(behind_proxy(), |configuration| configuration).await
    }

    pub async fn with(config: Config, edit: impl FnOnce(String) -> String) -> Self {
        let (a, b) = (instance('a', config.clone()).await, instance('b', config).await);
        let nginx = Nginx::start([a.local_addr(), b.local_addr()], edit).await;
        Self { nginx, a, b }
    }

    pub fn dial(&self, name: &str) -> Connect<RoleClient> {
        self.nginx.dial(self.nginx.address, name)
    }

    /// Returns the number of connections of each instance.
    pub fn connections(&self) -> [u64; 2] {
        [self.a.registry(), self.b.registry()].map(|registry| registry.health().active)
    }
}
