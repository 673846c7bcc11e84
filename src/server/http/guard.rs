//! [`GuardLayer`]: the checks of an upgrade, for HTTP services beside the WebSockets.

use std::{
    fmt,
    future::Future,
    io, mem,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version, header::HOST, request::Parts};
use hyper::upgrade::OnUpgrade;
use tower_layer::Layer;
use tower_service::Service;

use super::{
    body::Body,
    headers::{mark_sensitive, strip_handshake_headers},
    origin::NotAllowed,
    rejection::{Rejection, auth_rejection, several_tokens},
    response::HttpResponse,
};
use crate::{
    role::McpRole,
    server::{
        auth::{self, Credentials, Identity, token},
        config::Config,
        registry::event::RejectReason,
    },
};

/// Tower layer that wraps services in a [`Guard`], axum routes included.
///
/// [`Config::guard`] makes it. `Serve::or`, [`Serve::fallback`](crate::server::Serve::fallback) and
/// [`WebSocketService::or`](crate::server::WebSocketService::or) put one before their service by
/// themselves.
#[derive(Clone)]
pub struct GuardLayer {
    checks: Arc<dyn Checks>,
    authenticates: bool,
}

/// Service that makes the checks of a [`WebSocketService`](crate::server::WebSocketService) before
/// another service.
///
/// A request reaches the inner service when its `Host` and `Origin` are allowed and the
/// [`Authenticator`](crate::server::Authenticator), if there is one, says who sends it. The
/// [`Identity`] is then in the request's extensions, where [`Identity::of`] finds it from within an
/// MCP handler too. Every other request gets the response that it would have got for an upgrade:
///
/// | request | response |
/// |---|---|
/// | a target that is not the `Host` | 400 |
/// | `Host` or `Origin` not allowed | 403 |
/// | more than one token | 400 |
/// | not authenticated | 401 with `WWW-Authenticate` |
/// | authenticated, but not allowed | 403 |
/// | the authenticator fails or takes too long | 503 with `Retry-After` |
/// | [`Config::peer_addr`] panics | 500 |
///
/// The registry of the configuration counts it among the rejected. In HTTP/2 the `:authority`
/// stands for the `Host`. A token comes from the same places as for an upgrade; so a
/// [cookie](Config::token_cookie) counts only beside an allowed `Origin`, which browsers leave out
/// when a page gets something from its own server.
///
/// Limits and [authentication within the connection](Config::in_band_authentication) are for
/// WebSockets alone, and a server that stops goes on answering here until its last connection ends.
///
/// **CORS**: a preflight (`OPTIONS` with `Access-Control-Request-Method`) is a request like any
/// other. Browsers send it without a token, so that it is 401 where there is an authenticator. For
/// pages of other origins put a CORS layer *outside* of the guard, which answers preflights itself
/// and lets pages read the refusals; the guard needs their origins in
/// [`allowed_origins`](Config::allowed_origins) too.
#[derive(Clone)]
#[must_use = "it answers nothing until it is mounted"]
pub struct Guard<S> {
    inner: S,
    layer: GuardLayer,
}

/// Checks of a [`Config`] of either role.
trait Checks: Send + Sync {
    /// Returns the future of [`check`].
    fn check<'a>(
        &'a self,
        parts: &'a mut Parts,
        authenticates: bool,
    ) -> Pin<Box<dyn Future<Output = Result<(), HttpResponse>> + Send + 'a>>;
}

impl<R: McpRole> Checks for Config<R> {
    fn check<'a>(
        &'a self,
        parts: &'a mut Parts,
        authenticates: bool,
    ) -> Pin<Box<dyn Future<Output = Result<(), HttpResponse>> + Send + 'a>> {
        Box::pin(check(self, parts, authenticates))
    }
}

impl<R: McpRole> Config<R> {
    /// Returns a tower layer that makes the checks of an upgrade before other HTTP services.
    ///
    /// Checks `Host` and `Origin`, and asks the [authenticator](Self::authenticator) if there is
    /// one: for axum routes and other services beside the WebSockets; see [`Guard`].
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] when an allowed host or origin, a trusted proxy or
    /// the tag of the instance cannot be read.
    ///
    /// ```no_run
    /// use axum::{Router, routing::get};
    /// use mcp_ws_transport::server::{BearerTokens, Config, Identity, WebSocketService};
    ///
    /// # #[derive(Clone)] struct Calculator;
    /// # impl rmcp::ServerHandler for Calculator {}
    /// # fn example() -> std::io::Result<Router> {
    /// let config: Config =
    ///     Config::default().authenticator(BearerTokens::default().token("s3cr3t", Identity::new("alice")));
    /// let guard = config.guard()?;
    /// let figures = get(async || "for those who have a token");
    /// let health = get(async || "for everybody, but for no page of other origins");
    /// let mcp = WebSocketService::new(|| Ok(Calculator), config)?;
    /// Ok(Router::new()
    ///     .route("/figures", figures.layer(guard.clone()))
    ///     .route("/health", health.layer(guard.without_authenticator()))
    ///     .route_service("/mcp", mcp))
    /// # }
    /// ```
    pub fn guard(&self) -> io::Result<GuardLayer> {
        self.validate()?;
        self.has_guard.store(true, Relaxed);
        Ok(GuardLayer::new(self.clone()))
    }
}

impl GuardLayer {
    /// Creates the layer with all checks of `config`.
    pub(in crate::server) fn new<R: McpRole>(config: Config<R>) -> Self {
        Self { checks: Arc::new(config), authenticates: true }
    }

    /// Leaves out the authenticator: for public pages and health checks.
    #[must_use]
    pub fn without_authenticator(mut self) -> Self {
        self.authenticates = false;
        self
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { inner, layer: self.clone() }
    }
}

impl<S, B, A> Service<Request<B>> for Guard<S>
where
    S: Service<Request<B>, Response = Response<A>, Future: Send> + Clone + Send + 'static,
    B: Send + 'static,
    A: http_body::Body<Data = Bytes> + Send + 'static,
    A::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The clone that was polled ready takes the request.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let GuardLayer { checks, authenticates } = self.layer.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            match checks.check(&mut parts, authenticates).await {
                Ok(()) => {
                    let request = Request::from_parts(parts, body);
                    Ok(inner.call(request).await?.map(Body::new))
                }
                Err(answer) => Ok(answer.map(Body::new)),
            }
        })
    }
}

impl fmt::Debug for GuardLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardLayer")
            .field("authenticates", &self.authenticates)
            .finish_non_exhaustive()
    }
}

impl<S: fmt::Debug> fmt::Debug for Guard<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("inner", &self.inner).field("layer", &self.layer).finish()
    }
}

/// Checks a request as `config` says, and adds the identity of its sender to its extensions.
///
/// # Errors
/// The response to a request that is rejected; the registry has counted it.
pub(in crate::server) async fn check<R: McpRole>(
    config: &Config<R>,
    parts: &mut Parts,
    authenticates: bool,
) -> Result<(), HttpResponse> {
    let (peer, outcome) = match config.peer.of(parts) {
        Ok(peer) => (peer, identify(config, peer, parts, authenticates).await),
        Err(rejection) => (None, Err(rejection)),
    };
    let identity = outcome.map_err(|rejection| {
        config.registry.rejected(&rejection.refusal(), peer);
        rejection.response
    })?;
    mark_sensitive(&mut parts.headers);
    if let Some(identity) = identity {
        parts.extensions.insert(identity);
    }
    Ok(())
}

/// Identifies the sender of a request: `None` if there is no authenticator.
async fn identify<R: McpRole>(
    config: &Config<R>,
    peer: Option<SocketAddr>,
    parts: &Parts,
    authenticates: bool,
) -> Result<Option<Identity>, Box<Rejection>> {
    let (headers, target) = (&parts.headers, parts.uri.authority());
    match target.map(|target| target.as_str()) {
        // RFC 9113, section 8.3.1.
        Some(target) if parts.version >= Version::HTTP_2 && !headers.contains_key(HOST) => {
            config.allowed.check_at(target, headers)
        }
        // An absolute target overrules `Host` (RFC 9112, section 3.2.2).
        Some(target) if headers.get(HOST).is_none_or(|host| host != target) => {
            let what = "the target is not the Host";
            return Err(Rejection::new(RejectReason::Host, StatusCode::BAD_REQUEST, what));
        }
        _ => config.allowed.check(headers),
    }
    .map_err(NotAllowed::reject)?;

    let Some(authenticator) = config.authenticator.as_deref().filter(|_| authenticates) else {
        return Ok(None);
    };
    let token = token::of(headers, config.cookie.as_deref()).map_err(|()| several_tokens())?;
    let has_token = token.is_some();
    let mut parts = parts.clone();
    parts.extensions.remove::<OnUpgrade>();
    strip_handshake_headers(&mut parts);
    let credentials = Credentials { token, parts, peer };
    let asked = auth::verify(authenticator, credentials, config.timeout).await;
    asked.map(Some).map_err(|denied| auth_rejection(denied, has_token))
}
