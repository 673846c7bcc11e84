//! [`Or`]: a WebSocket service and another HTTP service on one path.

use std::{
    convert::Infallible,
    error::Error,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};

use tower_layer::Layer;
use tower_service::Service;

use super::{
    http::{
        body::Body,
        guard::{Guard, GuardLayer},
        handshake::asks_for_websocket,
    },
    service::WebSocketService,
};
use crate::role::McpRole;

/// Two services on one path; see [`WebSocketService::or`].
#[derive(Debug, Clone)]
#[must_use = "it answers nothing until it is mounted"]
pub struct Or<W, T> {
    websocket: W,
    other: T,
}

impl<R: McpRole> WebSocketService<R> {
    /// Hands every request that asks for no WebSocket to `other`.
    ///
    /// That may be an rmcp `StreamableHttpService`, an axum `Router`, or any tower service that
    /// takes requests with the same body. A request asks for a WebSocket when `websocket` is in its
    /// `Upgrade`, or when it has a `Sec-WebSocket-Key`, as where a proxy has dropped the rest.
    /// `other` sees none of these, not even those which are rejected.
    ///
    /// A [`Guard`] makes the checks of the upgrade before `other`: `Host`, `Origin`, and the
    /// authenticator if there is one. [`or_unguarded`](Self::or_unguarded) leaves them to `other`.
    ///
    /// ```no_run
    /// # #[derive(Clone, Default)] struct Calculator;
    /// # impl rmcp::ServerHandler for Calculator {}
    /// # async fn example() -> std::io::Result<()> {
    /// use std::sync::Arc;
    ///
    /// use mcp_ws_transport::server::{Config, WebSocketService};
    /// use rmcp::transport::streamable_http_server::{
    ///     StreamableHttpService, session::local::LocalSessionManager,
    /// };
    ///
    /// let sessions = Arc::new(LocalSessionManager::default());
    /// let http = StreamableHttpService::new(|| Ok(Calculator), sessions, Default::default());
    /// let mcp = WebSocketService::new(|| Ok(Calculator), Config::default())?.or(http);
    /// let app = axum::Router::new().route_service("/mcp", mcp);
    /// axum::serve(tokio::net::TcpListener::bind("127.0.0.1:8080").await?, app).await
    /// # }
    /// ```
    pub fn or<T>(self, other: T) -> Or<Self, Guard<T>> {
        let other = GuardLayer::new(self.config().clone()).layer(other);
        Or { websocket: self, other }
    }

    /// Shares the path like [`or`](Self::or), but **`other` answers every request**.
    ///
    /// It has to make its own checks. Warns if there is an authenticator, unless
    /// [`Config::guard`](crate::server::Config::guard) was used.
    pub fn or_unguarded<T>(self, other: T) -> Or<Self, T> {
        self.config().warn_of_unguarded("or");
        Or { websocket: self, other }
    }
}

impl<W, T, B, A> Service<Request<B>> for Or<W, T>
where
    W: Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send + 'static>,
    T: Service<Request<B>, Response = Response<A>, Future: Send> + Clone + Send + 'static,
    B: Send + 'static,
    A: http_body::Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = T::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, T::Error>> + Send>>;

    // Neither waits for the other: each is polled when a request for it has come.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), T::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if asks_for_websocket(request.headers()) {
            let answer = self.websocket.call(request);
            return Box::pin(async move {
                let Ok(answer) = answer.await;
                Ok(answer)
            });
        }
        let mut other = self.other.clone();
        Box::pin(async move {
            poll_fn(|cx| other.poll_ready(cx)).await?;
            Ok(other.call(request).await?.map(Body::new))
        })
    }
}
