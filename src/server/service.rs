//! [`WebSocketService`]: MCP over WebSockets as a tower service, for axum and everything else that
//! speaks hyper.

use std::{
    convert::Infallible,
    fmt, future, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use hyper::upgrade::OnUpgrade;
use rmcp::{RoleServer, ServiceExt, transport::Transport as _};
use tokio_util::task::TaskTracker;
use tower_service::Service;
use tracing::Instrument;

use super::{
    Config,
    handshake::{self, Granted, refuse},
};
use crate::decode::Role;

/// Upgrades requests and runs a service of its own for each connection.
///
/// It has the shape of rmcp's `StreamableHttpService`: made from a factory and a configuration,
/// `Clone`, and mounted on a path. Whoever serves it must allow upgrades, as axum's `serve` does, and
/// set deadlines for the request's head, which axum's `serve` does not.
///
/// | request | answer |
/// |---|---|
/// | not `GET` | 405 |
/// | no upgrade to WebSocket, not HTTP/1.1, or another version than 13 | 426 |
/// | `Sec-WebSocket-Key` missing, doubled or malformed, or a target that is not the `Host` | 400 |
/// | `Host` or `Origin` not allowed | 403 |
/// | the token of [`Config::cancellation_token`] is cancelled | 503 |
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
pub struct WebSocketService<S, R: Role = RoleServer> {
    shop: Arc<Shop<S, R>>,
}

/// What every connection shares.
struct Shop<S, R: Role> {
    factory: Box<dyn Fn() -> io::Result<S> + Send + Sync>,
    config: Config<R>,
    sessions: TaskTracker,
}

impl<S, R> WebSocketService<S, R>
where
    S: ServiceExt<R>,
    R: Role<InitializeError: fmt::Display + Send>,
{
    /// Runs what `factory` makes, once for each connection.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] when an allowed host or origin in `config` cannot be read.
    pub fn new(
        factory: impl Fn() -> io::Result<S> + Send + Sync + 'static,
        config: Config<R>,
    ) -> io::Result<Self> {
        let invalid = |entry| io::Error::new(io::ErrorKind::InvalidInput, entry);
        config.allowed.validate().map_err(invalid)?;
        let factory = Box::new(factory);
        let sessions = TaskTracker::new();
        Ok(Self { shop: Arc::new(Shop { factory, config, sessions }) })
    }

    /// Resolves when the token of [`Config::cancellation_token`] is cancelled and every connection
    /// has ended.
    pub async fn closed(&self) {
        self.shop.config.stop.cancelled().await;
        self.shop.sessions.close();
        self.shop.sessions.wait().await;
    }

    pub(super) fn config(&self) -> &Config<R> {
        &self.shop.config
    }

    /// The answer to `request`. Where that is 101, a task waits for the upgrade.
    pub(super) fn answer<B>(&self, mut request: Request<B>) -> handshake::Answer {
        let shop = &self.shop;
        let granted = match handshake::grant(&request, &shop.config.allowed) {
            Ok(granted) => granted,
            Err(refusal) => return *refusal,
        };
        if shop.config.stop.is_cancelled() {
            return *refuse(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping", &[]);
        }
        if request.extensions().get::<OnUpgrade>().is_none() {
            return *refuse(StatusCode::NOT_IMPLEMENTED, "upgrades are not possible here", &[]);
        }
        let Granted { response, subprotocol } = granted;
        let upgrade = hyper::upgrade::on(&mut request);
        let span = tracing::Span::current();
        shop.sessions.spawn(shop.clone().attend(upgrade, subprotocol).instrument(span));
        response
    }
}

impl<S, R> Shop<S, R>
where
    S: ServiceExt<R>,
    R: Role<InitializeError: fmt::Display + Send>,
{
    /// One connection, from the upgrade to the end of its service.
    async fn attend(self: Arc<Self>, upgrade: OnUpgrade, subprotocol: Option<String>) {
        let Config { timeout, stop, .. } = &self.config;
        let upgraded = tokio::select! {
            upgraded = tokio::time::timeout(*timeout, upgrade) => upgraded,
            () = stop.cancelled() => return,
        };
        let upgraded = match upgraded {
            Ok(Ok(upgraded)) => upgraded,
            Ok(Err(error)) => return tracing::debug!(%error, "no upgrade"),
            Err(_) => return tracing::debug!("no upgrade in time"),
        };
        let builder = self.config.builder().span(tracing::Span::current()).subprotocol(subprotocol);
        let mut transport = handshake::over_upgraded(builder, upgraded);
        // An MCP client speaks first. One that does not takes up a place for nothing.
        if !R::IS_CLIENT {
            let begun = tokio::select! {
                begun = transport.begins_within(*timeout) => begun,
                () = stop.cancelled() => false,
            };
            if !begun {
                tracing::debug!("no first message");
                return drop(transport.close().await);
            }
        }
        let service = match (self.factory)() {
            Ok(service) => service,
            Err(error) => {
                tracing::error!(%error, "no service for a connection");
                return drop(transport.close_with(crate::CloseCode::Internal.into()).await);
            }
        };
        match service.serve_with_ct(transport, stop.child_token()).await {
            Ok(running) => drop(running.waiting().await),
            Err(error) => tracing::debug!(%error, "not initialized"),
        }
    }
}

impl<S, R: Role> Clone for WebSocketService<S, R> {
    fn clone(&self) -> Self {
        Self { shop: self.shop.clone() }
    }
}

impl<S, R: Role> fmt::Debug for WebSocketService<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketService")
            .field("config", &self.shop.config)
            .finish_non_exhaustive()
    }
}

impl<B, S, R> Service<Request<B>> for WebSocketService<S, R>
where
    S: ServiceExt<R>,
    R: Role<InitializeError: fmt::Display + Send>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        future::ready(Ok(self.answer(request).map(Body)))
    }
}

/// The body of an answer that is not an upgrade: a line for people.
#[derive(Debug)]
pub struct Body(Full<Bytes>);

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        http_body::Body::poll_frame(Pin::new(&mut self.0), cx)
    }

    fn is_end_stream(&self) -> bool {
        http_body::Body::is_end_stream(&self.0)
    }

    fn size_hint(&self) -> SizeHint {
        http_body::Body::size_hint(&self.0)
    }
}
