//! [`WebSocketService`]: MCP over WebSockets as a tower service, for axum and other hyper servers.

use std::{
    convert::Infallible,
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use rmcp::{RoleServer, Service, model::Extensions};

use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::{
    admission::{self, Admission, Capacity},
    config::Config,
    connection::{
        host::{Host, ServiceHost},
        relay::RelayHost,
        state::ServerState,
    },
    http::{
        body::Body,
        pending::PendingConnections,
        rejection::Rejection,
        response::{HttpResponse, plain_response},
    },
    registry::{Registry, event::RejectReason},
    role::HostedRole,
    shutdown::ClosePacer,
    span::{connection_span, record_request},
};
use crate::{
    relay::{end::End, role::RelayRole},
    role::McpRole,
};

/// Tower service that upgrades requests and runs an MCP service for each session.
///
/// It has the shape of rmcp's `StreamableHttpService`: made from a factory and a configuration,
/// `Clone`, and mounted on a path. The server around it must allow upgrades, as axum's `serve`
/// does, and set deadlines for the request's head, which axum's `serve` does not; and await
/// [`closed`](Self::closed) when it stops. [`or`](Self::or) shares the path with another service.
///
/// | request | response |
/// |---|---|
/// | not `GET` | 405 |
/// | no upgrade to WebSocket, not HTTP/1.1, or another version than 13 | 426 |
/// | `Sec-WebSocket-Key` missing, doubled or malformed, a body, or a target that is not the `Host` | 400 |
/// | no `Host`, where every one is allowed | 400 |
/// | `Host` or `Origin` not allowed | 403 |
/// | more than one token | 400 |
/// | the session id is missing or malformed | 400 |
/// | not authenticated | 401 with `WWW-Authenticate` |
/// | authenticated, but not allowed, or the session is another identity's | 403 |
/// | the session is taken over too often | 429 with `Retry-After` |
/// | a limit is reached, the authenticator fails, or the server is stopping | 503 with `Retry-After` |
/// | [`Config::peer_addr`] panics | 500 |
///
/// The server around this service decides how header names are written: hyper, and axum with it,
/// writes `sec-websocket-accept`, which HTTP allows but small devices that compare bytes may not
/// understand. Under [`serve`](crate::serve()), which takes an axum `Router` as its
/// [`fallback`](crate::server::Serve::fallback), it is `Sec-WebSocket-Accept`.
///
/// Any path is upgraded; whether `/mcp/` leads here as `/mcp` does is up to the router:
/// `nest_service("/mcp", mcp)` of axum's takes both.
///
/// ```no_run
/// # #[derive(Clone, Default)] struct Calculator;
/// # impl rmcp::ServerHandler for Calculator {}
/// # async fn example() -> std::io::Result<()> {
/// use mcp_ws_transport::server::{Config, WebSocketService};
///
/// let mcp = WebSocketService::new(|| Ok(Calculator::default()), Config::default())?;
/// let app = axum::Router::new().route_service("/mcp", mcp);
/// axum::serve(tokio::net::TcpListener::bind("127.0.0.1:8080").await?, app).await
/// # }
/// ```
pub struct WebSocketService<R: McpRole = RoleServer> {
    state: Arc<ServerState<R>>,
}

impl<R: HostedRole> WebSocketService<R> {
    /// Creates the service; `factory` makes the MCP service of each session.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] when an allowed host or origin, a trusted proxy or
    /// the tag of the instance in `config` cannot be read, or its cluster is not that of the
    /// registry or has another tag.
    pub fn new<S: Service<R>>(
        factory: impl Fn() -> io::Result<S> + Send + Sync + 'static,
        config: Config<R>,
    ) -> io::Result<Self> {
        Self::hosting(Box::new(ServiceHost::new(factory)), config)
    }
}

impl<R: RelayRole> WebSocketService<R> {
    /// Creates a service that carries the messages of each connection to an end and back.
    ///
    /// `factory` makes the [end](crate::relay::End) of a new connection, or of a new session where
    /// those outlive connections. It gets what handlers find in their extensions: the upgrade
    /// request, the identity, and the [`Connection`](crate::server::Connection). A client whose end
    /// is not made within the [handshake timeout](crate::server::Config::handshake_timeout) is
    /// closed with 1011.
    ///
    /// # Errors
    /// Those of [`new`](WebSocketService::new).
    pub fn relay<F, E>(
        factory: impl Fn(Extensions) -> F + Send + Sync + 'static,
        config: Config<R>,
    ) -> io::Result<Self>
    where
        F: Future<Output = io::Result<E>> + Send + 'static,
        E: End,
    {
        Self::hosting(Box::new(RelayHost::new(factory)), config)
    }
}

impl<R: McpRole> WebSocketService<R> {
    /// Creates the service that runs `host` on each connection.
    pub(super) fn hosting(host: Box<dyn Host<R>>, config: Config<R>) -> io::Result<Self> {
        config.validate()?;
        #[cfg(feature = "cluster")]
        if let Some(cluster) = &config.cluster {
            config.registry.set_cluster(cluster.clone())?;
        }
        Ok(Self {
            state: Arc::new(ServerState {
                host,
                encode: config.encode(),
                capacity: Capacity::new(&config),
                tasks: TaskTracker::new(),
                pacer: ClosePacer::default(),
                config,
            }),
        })
    }

    /// Returns the registry of the connections, that of [`Config::registry`].
    #[must_use]
    pub fn registry(&self) -> &Registry<R> {
        &self.state.config.registry
    }

    /// Resolves when the service is told to stop and every connection has ended.
    ///
    /// The token of [`Config::cancellation_token`] stops it. Await it after the server around this
    /// service has stopped, as axum's graceful shutdown does not know of upgraded connections. If
    /// the process ends without waiting, calls in flight are lost without a Close (1006 to the
    /// client).
    ///
    /// ```no_run
    /// # #[derive(Clone, Default)] struct Calculator;
    /// # impl rmcp::ServerHandler for Calculator {}
    /// # async fn example() -> std::io::Result<()> {
    /// use mcp_ws_transport::server::{Config, WebSocketService};
    /// use tokio_util::sync::CancellationToken;
    ///
    /// let stop = CancellationToken::new();
    /// let config = Config::default().cancellation_token(stop.clone());
    /// let mcp = WebSocketService::new(|| Ok(Calculator), config)?;
    /// let app = axum::Router::new().route_service("/mcp", mcp.clone());
    /// let signal = async move {
    ///     drop(tokio::signal::ctrl_c().await);
    ///     stop.cancel();
    /// };
    /// let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
    /// axum::serve(listener, app).with_graceful_shutdown(signal).await?;
    /// mcp.closed().await;
    /// # Ok(()) }
    /// ```
    pub async fn closed(&self) {
        self.state.config.stop.cancelled().await;
        self.state.tasks.close();
        self.state.tasks.wait().await;
    }

    /// Returns the connections of unauthenticated clients, before the upgrade or after it.
    pub(super) fn pending(&self) -> &Arc<PendingConnections> {
        &self.state.capacity.pending
    }

    /// Resolves when the service is told to stop.
    pub(super) async fn stopping(&self) {
        self.state.config.stop.cancelled().await;
    }

    /// Returns the configuration.
    pub(super) fn config(&self) -> &Config<R> {
        &self.state.config
    }

    /// Returns the response to `request`. If it is 101, a task waits for the upgrade.
    pub(super) async fn handle<B>(self, request: Request<B>) -> HttpResponse {
        let state = self.state;
        // `closed` waits for requests, which may become connections.
        let _pending = state.tasks.token();
        let (mut parts, _) = request.into_parts();
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let peer = match state.config.peer.of(&parts) {
            Ok(peer) => peer,
            Err(rejection) => {
                state.config.registry.rejected(&rejection.refusal(), None);
                return rejection.response;
            }
        };
        record_request(&parts, peer);
        let admitted = match admission::admit(&state.config, &state.capacity, peer, parts).await {
            Ok(admitted) if upgrade.is_some() => Ok(admitted),
            Ok(_) => {
                let what = "upgrades are not possible here";
                Err(Rejection::new(RejectReason::NotWebSocket, StatusCode::NOT_IMPLEMENTED, what))
            }
            Err(rejection) => Err(rejection),
        };
        match (admitted, upgrade) {
            (Ok(Admission { response, negotiated, client }), Some(upgrade)) => {
                let span = tracing::Span::current();
                // On the heap, each for its time alone: an unauthenticated client is to take up little.
                let opening = Box::pin(state.clone().open(upgrade, negotiated, client));
                let tasks = state.tasks.clone();
                let serving = async move {
                    if let Some(connection) = opening.await {
                        Box::pin(state.run(connection)).await;
                    }
                };
                tasks.spawn(serving.instrument(span));
                response
            }
            (Err(rejection), _) => {
                state.config.registry.rejected(&rejection.refusal(), peer);
                rejection.response
            }
            (Ok(_), None) => plain_response(StatusCode::NOT_IMPLEMENTED, ""),
        }
    }
}

impl<R: McpRole> Clone for WebSocketService<R> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone() }
    }
}

impl<R: McpRole> fmt::Debug for WebSocketService<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketService")
            .field("config", &self.state.config)
            .finish_non_exhaustive()
    }
}

impl<B, R: McpRole> tower_service::Service<Request<B>> for WebSocketService<R>
where
    B: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let answer = self.clone().handle(request.map(drop)).instrument(connection_span(None, None));
        Box::pin(async move { Ok(answer.await.map(Body::new)) })
    }
}
