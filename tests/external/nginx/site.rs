//! Two instances behind nginx.

use mcp_ws_transport::{
    client::Connect,
    server::{Config, Server},
};
use rmcp::RoleClient;

use super::server::Nginx;
use crate::instance::{behind_proxy, instance};

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
