//! [`serve`]: a server with a listener of its own.

use std::{
    fmt,
    future::IntoFuture,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, OnceLock},
};

use rmcp::{RoleServer, Service};
use tokio::net::ToSocketAddrs;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{
    acceptor::{Acceptor, run},
    fallback::{BoxHttpService, HttpService},
    listener::{Bind, IntoListener, Listener},
};
use crate::{
    role::McpRole,
    server::{
        config::Config,
        connection::host::{Host, ServiceHost},
        registry::Registry,
        role::HostedRole,
        service::WebSocketService,
    },
};

/// Listens on `addr` and runs a service made by `factory` for each session.
///
/// Await the result, or set options first. Connections are upgraded on the path `/mcp`. Up to 1,024
/// wait to be accepted, or as many as the system allows.
///
/// # Errors
/// Awaiting it fails with the error of binding the address, and with
/// [`io::ErrorKind::InvalidInput`] when an allowed host or origin, a trusted proxy or
/// the tag of the instance cannot be read, or its cluster is not that of the registry or has another
/// tag.
///
/// ```no_run
/// # async fn example<S: rmcp::ServerHandler>(service: impl Fn() -> S + Send + Sync + 'static) -> std::io::Result<()> {
/// let server = mcp_ws_transport::serve("127.0.0.1:8080", service).await?;
/// println!("listening on ws://{}/mcp", server.local_addr());
/// tokio::signal::ctrl_c().await?;
/// server.shutdown().await;
/// # Ok(()) }
/// ```
pub fn serve<R, A, F, S>(addr: A, factory: F) -> Serve<R, Bind<A>>
where
    R: HostedRole,
    A: ToSocketAddrs<Future: Send> + Send + 'static,
    F: Fn() -> S + Send + Sync + 'static,
    S: Service<R>,
{
    Serve::hosting(Bind(addr), host(factory))
}

/// Accepts connections from `listener` and runs a service made by `factory` for each session.
///
/// It is a TCP or Unix listener that is bound already, or a [`Listener`] of your own.
///
/// ```no_run
/// # async fn example<S: rmcp::ServerHandler>(service: impl Fn() -> S + Send + Sync + 'static) -> std::io::Result<()> {
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
/// let server = mcp_ws_transport::server::serve_on(listener, service).await?;
/// // Dropped, the server would stop, and close the listener.
/// server.wait().await;
/// # Ok(()) }
/// ```
pub fn serve_on<R, L, F, S>(listener: L, factory: F) -> Serve<R, L>
where
    R: HostedRole,
    L: Listener,
    F: Fn() -> S + Send + Sync + 'static,
    S: Service<R>,
{
    Serve::hosting(listener, host(factory))
}

/// Returns what runs a service made by `factory` on each connection.
fn host<R, F, S>(factory: F) -> Box<dyn Host<R>>
where
    R: HostedRole,
    F: Fn() -> S + Send + Sync + 'static,
    S: Service<R>,
{
    Box::new(ServiceHost::new(move || Ok(factory())))
}

/// Server to be started; see [`serve`]. Awaiting it begins to listen.
#[must_use = "nothing listens until this is awaited"]
pub struct Serve<R: McpRole, L> {
    listener: L,
    host: Box<dyn Host<R>>,
    paths: Vec<String>,
    config: Config<R>,
    same_path: Option<BoxHttpService>,
    fallback: Option<BoxHttpService>,
    #[cfg(feature = "rustls-tls")]
    tls: Option<super::tls::ServerTls>,
}

impl<R: McpRole, L> Serve<R, L> {
    /// Creates the server that runs `host` on each connection of `listener`.
    pub(in crate::server) fn hosting(listener: L, host: Box<dyn Host<R>>) -> Self {
        Self {
            listener,
            host,
            paths: vec!["/mcp".into()],
            config: Config::default(),
            same_path: None,
            fallback: None,
            #[cfg(feature = "rustls-tls")]
            tls: None,
        }
    }

    /// Sets the path of the WebSocket, which also matches with a slash at its end: `/mcp`.
    ///
    /// Every other path gets 404, or the [fallback](Self::fallback).
    pub fn path(self, path: impl Into<String>) -> Self {
        self.paths([path])
    }

    /// Sets several paths of the WebSocket. The upgrade request says which of them was asked for.
    pub fn paths<P: Into<String>>(mut self, paths: impl IntoIterator<Item = P>) -> Self {
        self.paths = paths.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the configuration of the server.
    pub fn config(mut self, config: Config<R>) -> Self {
        self.config = config;
        self
    }

    /// Hands the requests for every other path to `service`, such as an axum `Router`.
    ///
    /// A [`Guard`](crate::server::Guard) makes the checks of the upgrade before it: `Host`,
    /// `Origin`, and the authenticator if there is one. Public pages and health checks belong in
    /// [`fallback_unguarded`](Self::fallback_unguarded), and so do further [`WebSocketService`]s,
    /// which make their own checks. A client that reads nothing of a response for the [handshake
    /// timeout](Config::handshake_timeout) is cut.
    pub fn fallback(mut self, service: impl HttpService) -> Self {
        self.fallback = Some(BoxHttpService::guarded(service));
        self
    }

    /// Sets the [fallback](Self::fallback), but `service` **answers every request**.
    ///
    /// Put [`Config::guard`] before those of its routes that are not public; if there is an
    /// authenticator and no guard was made, the start warns.
    ///
    /// ```no_run
    /// use axum::{Router, routing::get};
    /// use mcp_ws_transport::{serve, server::{BearerTokens, Config, Identity}};
    ///
    /// # #[derive(Clone)] struct Calculator;
    /// # impl rmcp::ServerHandler for Calculator {}
    /// # async fn example() -> std::io::Result<()> {
    /// let config: Config =
    ///     Config::default().authenticator(BearerTokens::default().token("s3cr3t", Identity::new("alice")));
    /// let guard = config.guard()?;
    /// let router = Router::new()
    ///     .route("/", get(async || "a page that asks for the token"))
    ///     .layer(guard.clone().without_authenticator())
    ///     .route("/figures", get(async || "for those who have it").layer(guard));
    /// let server = serve("127.0.0.1:8080", || Calculator).config(config).fallback_unguarded(router).await?;
    /// # drop(server);
    /// # Ok(()) }
    /// ```
    pub fn fallback_unguarded(mut self, service: impl HttpService) -> Self {
        self.fallback = Some(BoxHttpService::unguarded(service));
        self
    }

    /// Hands the requests for the same path that ask for no WebSocket to `service`.
    ///
    /// That may be rmcp's streamable HTTP; see [`WebSocketService::or`]. A
    /// [`Guard`](crate::server::Guard) makes the checks of the upgrade before it.
    pub fn or(mut self, service: impl HttpService) -> Self {
        self.same_path = Some(BoxHttpService::guarded(service));
        self
    }

    /// Shares the path like [`or`](Self::or), but `service` **answers every request**.
    ///
    /// It has to make its own checks. If there is an authenticator and no [`Config::guard`] was
    /// made, the start warns.
    pub fn or_unguarded(mut self, service: impl HttpService) -> Self {
        self.same_path = Some(BoxHttpService::unguarded(service));
        self
    }

    /// Accepts TLS alone: `wss://`.
    ///
    /// Of the server's own web pages, those that came by `https` may connect. Keep a clone of `tls`
    /// to [reload](super::tls::ServerTls::reload) its files.
    #[cfg(feature = "rustls-tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "rustls-tls")))]
    pub fn tls(mut self, tls: super::tls::ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Serves until `signal` resolves, then [shuts down](Server::shutdown).
    ///
    /// # Errors
    /// Those of awaiting it.
    ///
    /// ```no_run
    /// # async fn example<S: rmcp::ServerHandler>(service: impl Fn() -> S + Send + Sync + 'static) -> std::io::Result<()> {
    /// let signal = async { drop(tokio::signal::ctrl_c().await) };
    /// mcp_ws_transport::serve("127.0.0.1:8080", service).serve_with_shutdown(signal).await
    /// # }
    /// ```
    pub async fn serve_with_shutdown<A: Clone>(
        self,
        signal: impl Future<Output = ()>,
    ) -> io::Result<()>
    where
        Self: IntoFuture<Output = io::Result<Server<R, A>>>,
    {
        let server = self.await?;
        signal.await;
        server.shutdown().await;
        Ok(())
    }
}

impl<R: McpRole, L: IntoListener> IntoFuture for Serve<R, L> {
    type Output = io::Result<Server<R, <L::Listener as Listener>::Addr>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { host, mut config, .. } = self;
            // A child token: another server may have a clone of the configuration.
            config.stop = config.stop.child_token();
            #[cfg(feature = "rustls-tls")]
            if self.tls.is_some() {
                config.allowed.assume_https();
            }
            let stop = config.stop.clone();
            let registry = config.registry.clone();
            for (service, method) in [(&self.same_path, "or"), (&self.fallback, "fallback")] {
                if service.as_ref().is_some_and(|service| !service.is_guarded()) {
                    config.warn_of_unguarded(method);
                }
            }
            let service = WebSocketService::hosting(host, config)?;
            let listener = self.listener.listener().await?;
            let local_addr = listener.local_addr()?;
            let acceptor = Arc::new(Acceptor {
                service,
                paths: self.paths,
                same_path: self.same_path,
                fallback: self.fallback,
                #[cfg(feature = "rustls-tls")]
                tls: self.tls,
                stopped: CancellationToken::new(),
                deadline: OnceLock::new(),
            });
            let running = TaskTracker::new();
            running.spawn(run(listener, acceptor));
            running.close();
            Ok(Server { local_addr, registry, stop: stop.drop_guard(), running })
        })
    }
}

impl<R: McpRole, L: fmt::Debug> fmt::Debug for Serve<R, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("listener", &self.listener)
            .field("paths", &self.paths)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Running server; dropping it stops the server without waiting for the end.
#[derive(Debug)]
#[must_use = "dropping a `Server` stops it: keep it, and await its `wait` or `shutdown`"]
pub struct Server<R: McpRole = RoleServer, A = SocketAddr> {
    local_addr: A,
    registry: Registry<R>,
    stop: DropGuard,
    running: TaskTracker,
}

impl<R: McpRole, A: Clone> Server<R, A> {
    /// Returns the address that it listens on.
    #[must_use]
    pub fn local_addr(&self) -> A {
        self.local_addr.clone()
    }

    /// Returns the registry of its connections.
    #[must_use]
    pub fn registry(&self) -> &Registry<R> {
        &self.registry
    }

    /// Waits until the server has ended; without a cancellation token, for ever.
    ///
    /// It ends when the token of
    /// [`Config::cancellation_token`](crate::server::Config::cancellation_token) is cancelled and
    /// its connections are drained. Cancel safe, and usable by any number of tasks at once.
    ///
    /// ```no_run
    /// # async fn example<S: rmcp::ServerHandler>(service: impl Fn() -> S + Send + Sync + 'static) -> std::io::Result<()> {
    /// let server = mcp_ws_transport::serve("127.0.0.1:8080", service).await?;
    /// tokio::select! {
    ///     () = server.wait() => {}
    ///     _ = tokio::signal::ctrl_c() => server.shutdown().await,
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn wait(&self) {
        self.running.wait().await;
    }

    /// Stops as [`Drain`](crate::server::Drain) says, and waits until the server has ended.
    ///
    /// New clients are told 503, calls in flight are finished, and each connection is closed with
    /// 1012. Then nothing listens and nothing runs any more.
    pub async fn shutdown(self) {
        drop(self.stop);
        self.running.wait().await;
    }
}
