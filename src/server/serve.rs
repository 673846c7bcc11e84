//! [`serve`]: a listener that runs one service for each connection.

use std::{
    fmt,
    future::{Future, IntoFuture},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use rmcp::{ServiceExt, transport::Transport as _};
use tokio::{
    net::{TcpListener, TcpStream, ToSocketAddrs},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Instrument;

use super::service::Gate;
use crate::{
    decode::Role,
    framing::{Framing, JsonRpc},
    transport::{self, WebSocketTransport},
};

/// Listens on `addr` and runs a service of its own, made by `factory`, for each connection. Await
/// the result, or set options first.
///
/// Each connection is upgraded on the path `/mcp`.
///
/// ```no_run
/// # async fn example<S: rmcp::ServerHandler>(service: impl Fn() -> S + Send + Sync + 'static) -> std::io::Result<()> {
/// let server = mcp_ws_transport::serve("127.0.0.1:8080", service).await?;
/// println!("listening on ws://{}/mcp", server.local_addr());
/// tokio::signal::ctrl_c().await?;
/// server.shutdown().await;
/// # Ok(()) }
/// ```
pub fn serve<R, A, F, S>(addr: A, factory: F) -> Serve<R, A, F>
where
    R: Role,
    A: ToSocketAddrs,
    F: Fn() -> S + Send + Sync + 'static,
    S: ServiceExt<R>,
{
    Serve {
        addr,
        factory,
        gate: Gate::new(Some("/mcp".into())),
        config: transport::Config::default(),
        framing: Arc::new(|| Box::new(JsonRpc::default())),
    }
}

/// A server to be started; see [`serve`]. Awaiting it binds the address.
#[must_use = "nothing listens until this is awaited"]
pub struct Serve<R: Role, A, F> {
    addr: A,
    factory: F,
    gate: Gate,
    config: transport::Config,
    framing: NewFraming<R>,
}

/// Makes the framing of one connection.
type NewFraming<R> = Arc<dyn Fn() -> Box<dyn Framing<R>> + Send + Sync>;

impl<R: Role, A, F> Serve<R, A, F> {
    /// The path that is upgraded: `/mcp`. Every other one is 404.
    pub fn path(mut self, path: impl Into<Arc<str>>) -> Self {
        self.gate.path = Some(path.into());
        self
    }

    /// How long a client may take for its opening handshake, and then for its first message: 10 s
    /// each.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.gate.timeout = timeout;
        self
    }

    /// The hosts that may be asked for, each with a port or for any: by default the names of the
    /// loopback interface, `localhost`, `127.0.0.1` and `::1`. Any other `Host` is 403, since a web
    /// page can let a name of its own point here (DNS rebinding).
    pub fn allowed_hosts<T: Into<String>>(mut self, hosts: impl IntoIterator<Item = T>) -> Self {
        self.gate.allowed.hosts(hosts);
        self
    }

    /// Serves every `Host`, as behind a proxy that has checked it. Web pages must then be listed in
    /// [`allowed_origins`](Self::allowed_origins), even the server's own.
    pub fn disable_allowed_hosts(mut self) -> Self {
        self.gate.allowed.every_host();
        self
    }

    /// The origins whose web pages may connect, besides those of the allowed hosts themselves: scheme,
    /// host, and a port where it is not the scheme's own, `:*` for any; or `null`. By default none.
    /// Programs send no `Origin` and are not concerned.
    pub fn allowed_origins<T: Into<String>>(
        mut self,
        origins: impl IntoIterator<Item = T>,
    ) -> Self {
        self.gate.allowed.origins(origins);
        self
    }

    /// The settings of each connection's layers.
    pub fn config(mut self, config: transport::Config) -> Self {
        self.config = config;
        self
    }

    /// The form of the messages, in place of JSON-RPC itself. Each connection has a clone.
    pub fn framing(mut self, framing: impl Framing<R> + Clone + Sync + 'static) -> Self {
        self.framing = Arc::new(move || Box::new(framing.clone()));
        self
    }
}

impl<R, A, F, S> IntoFuture for Serve<R, A, F>
where
    R: Role,
    R::InitializeError: fmt::Display + Send,
    A: ToSocketAddrs<Future: Send> + Send + 'static,
    F: Fn() -> S + Send + Sync + 'static,
    S: ServiceExt<R>,
{
    type Output = io::Result<Server>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { addr, factory, gate, config, framing } = self;
            let invalid = |entry| io::Error::new(io::ErrorKind::InvalidInput, entry);
            gate.allowed.validate().map_err(invalid)?;
            let listener = TcpListener::bind(addr).await?;
            let local_addr = listener.local_addr()?;
            let stop = CancellationToken::new();
            let shop = Shop { factory, gate, config, framing, stop: stop.clone() };
            let task = tokio::spawn(Arc::new(shop).listen::<S>(listener));
            Ok(Server { local_addr, stop: stop.drop_guard(), task })
        })
    }
}

impl<R: Role, A: fmt::Debug, F> fmt::Debug for Serve<R, A, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("addr", &self.addr)
            .field("gate", &self.gate)
            .finish_non_exhaustive()
    }
}

/// A running server. Dropping it stops the server without waiting for that.
#[derive(Debug)]
pub struct Server {
    local_addr: SocketAddr,
    stop: DropGuard,
    task: JoinHandle<()>,
}

impl Server {
    /// The address it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops listening, closes every connection with the closing handshake, and waits until all are
    /// gone. Calls in flight have 2 s to be answered, which is rmcp's own limit.
    pub async fn shutdown(self) {
        drop(self.stop);
        let _ = self.task.await;
    }
}

/// What every connection shares.
struct Shop<R: Role, F> {
    factory: F,
    gate: Gate,
    config: transport::Config,
    framing: NewFraming<R>,
    stop: CancellationToken,
}

impl<R, F> Shop<R, F>
where
    R: Role<InitializeError: fmt::Display + Send>,
    F: Send + Sync + 'static,
{
    async fn listen<S>(self: Arc<Self>, listener: TcpListener)
    where
        F: Fn() -> S,
        S: ServiceExt<R>,
    {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = self.stop.cancelled() => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let span = tracing::info_span!("websocket", %peer);
                    connections.spawn(self.clone().attend::<S>(stream).instrument(span));
                }
                // Out of file descriptors, most likely: they come back as connections end.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    /// One connection, from the handshake to the end of its service.
    async fn attend<S>(self: Arc<Self>, stream: TcpStream)
    where
        F: Fn() -> S,
        S: ServiceExt<R>,
    {
        let upgraded = tokio::select! {
            upgraded = self.gate.open(stream) => upgraded,
            () = self.stop.cancelled() => return,
        };
        let mut transport = match upgraded {
            Ok(upgraded) => {
                let builder = WebSocketTransport::builder().config(self.config.clone());
                let builder = builder.framing((self.framing)()).span(tracing::Span::current());
                upgraded.transport(builder)
            }
            Err(error) => return tracing::debug!(%error, "no upgrade"),
        };
        // An MCP client speaks first. One that does not takes up a place for nothing.
        if !R::IS_CLIENT {
            let begun = tokio::select! {
                begun = transport.begins_within(self.gate.timeout) => begun,
                () = self.stop.cancelled() => false,
            };
            if !begun {
                tracing::debug!("no first message");
                return drop(transport.close().await);
            }
        }
        let service = (self.factory)();
        match service.serve_with_ct(transport, self.stop.child_token()).await {
            Ok(running) => drop(running.waiting().await),
            Err(error) => tracing::debug!(%error, "not initialized"),
        }
    }
}
