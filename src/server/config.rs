use std::{fmt, sync::Arc, time::Duration};

use rmcp::RoleServer;
use tokio_util::sync::CancellationToken;

use super::origin::Allowed;
use crate::{
    decode::Role,
    framing::{Framing, JsonRpc},
    transport::{self, Builder, WebSocketTransport},
};

/// Who may connect, how fast they must be, and what their connections are made of.
pub struct Config<R: Role = RoleServer> {
    pub(super) allowed: Allowed,
    /// For the opening handshake, and again for the first message.
    pub(super) timeout: Duration,
    pub(super) stop: CancellationToken,
    layers: transport::Config,
    framing: NewFraming<R>,
}

/// Makes the framing of one connection.
type NewFraming<R> = Arc<dyn Fn() -> Box<dyn Framing<R>> + Send + Sync>;

impl<R: Role> Default for Config<R> {
    fn default() -> Self {
        Self {
            allowed: Allowed::default(),
            timeout: Duration::from_secs(10),
            stop: CancellationToken::new(),
            layers: transport::Config::default(),
            framing: Arc::new(|| Box::new(JsonRpc::default())),
        }
    }
}

impl<R: Role> Config<R> {
    /// The hosts that may be asked for, each with a port or for any: by default the names of the
    /// loopback interface, `localhost`, `127.0.0.1` and `::1`. Any other `Host` is 403, since a web
    /// page can let a name of its own point here (DNS rebinding).
    #[must_use]
    pub fn allowed_hosts<T: Into<String>>(mut self, hosts: impl IntoIterator<Item = T>) -> Self {
        self.allowed.hosts(hosts);
        self
    }

    /// Serves every `Host`, as behind a proxy that has checked it. Web pages must then be listed in
    /// [`allowed_origins`](Self::allowed_origins), even the server's own.
    #[must_use]
    pub fn disable_allowed_hosts(mut self) -> Self {
        self.allowed.every_host();
        self
    }

    /// The origins whose web pages may connect, besides those of the allowed hosts themselves: scheme,
    /// host, and a port where it is not the scheme's own, `:*` for any; or `null`. By default none.
    /// Programs send no `Origin` and are not concerned.
    #[must_use]
    pub fn allowed_origins<T: Into<String>>(
        mut self,
        origins: impl IntoIterator<Item = T>,
    ) -> Self {
        self.allowed.origins(origins);
        self
    }

    /// How long a client may take for its opening handshake, and then for its first message: 10 s
    /// each.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The settings of each connection's layers.
    #[must_use]
    pub fn layers(mut self, layers: transport::Config) -> Self {
        self.layers = layers;
        self
    }

    /// The form of the messages, in place of JSON-RPC itself. Each connection has a clone.
    #[must_use]
    pub fn framing(mut self, framing: impl Framing<R> + Clone + Sync + 'static) -> Self {
        self.framing = Arc::new(move || Box::new(framing.clone()));
        self
    }

    /// When this token is cancelled, every connection is closed and no more are upgraded (503).
    #[must_use]
    pub fn cancellation_token(mut self, token: CancellationToken) -> Self {
        self.stop = token;
        self
    }

    pub(super) fn builder(&self) -> Builder<R> {
        WebSocketTransport::builder().config(self.layers.clone()).framing((self.framing)())
    }
}

impl<R: Role> Clone for Config<R> {
    fn clone(&self) -> Self {
        Self {
            allowed: self.allowed.clone(),
            timeout: self.timeout,
            stop: self.stop.clone(),
            layers: self.layers.clone(),
            framing: self.framing.clone(),
        }
    }
}

impl<R: Role> fmt::Debug for Config<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("allowed", &self.allowed)
            .field("handshake_timeout", &self.timeout)
            .field("layers", &self.layers)
            .finish_non_exhaustive()
    }
}
