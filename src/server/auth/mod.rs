//! Authentication of clients: an [`Authenticator`] looks at a request before it is upgraded.
//!
//! ```
//! use mcp_ws_transport::server::{BearerTokens, Config, Credentials, AuthError, Identity};
//! use rmcp::RoleServer;
//!
//! // A list of tokens:
//! let tokens = BearerTokens::default().token("s3cr3t", Identity::new("alice"));
//! let config = Config::<RoleServer>::default().authenticator(tokens);
//!
//! // Or a function of your own:
//! let config = Config::<RoleServer>::default().authenticator(|credentials: Credentials| async move {
//!     let token = credentials.token.ok_or(AuthError::Unauthorized)?;
//!     // … ask somebody about `token.as_str()` …
//!     # let _ = token;
//!     Ok(Identity::new("bob"))
//! });
//! ```

pub(super) mod bearer;
pub(super) mod token;

use std::{
    any::Any, fmt, net::SocketAddr, panic::AssertUnwindSafe, pin::Pin, sync::Arc, time::Duration,
};

use futures::FutureExt;
use http::request::Parts;

use self::token::Token;

/// Decides who may connect.
///
/// Every `Fn(Credentials) -> impl Future<Output = Result<Identity, AuthError>>` is one, and so is
/// [`BearerTokens`](bearer::BearerTokens). Its answer may take as long as
/// [`Config::handshake_timeout`](crate::server::Config::handshake_timeout). After that, and when it
/// panics, the client is told 503, or closed with 1013 where it authenticates
/// [within the connection](crate::server::Config::in_band_authentication).
pub trait Authenticator: Send + Sync + 'static {
    /// Returns the identity that these `credentials` stand for.
    ///
    /// # Errors
    /// The reason why the client may not connect.
    fn authenticate(
        &self,
        credentials: Credentials,
    ) -> impl Future<Output = Result<Identity, AuthError>> + Send;
}

impl<F, A> Authenticator for F
where
    F: Fn(Credentials) -> A + Send + Sync + 'static,
    A: Future<Output = Result<Identity, AuthError>> + Send,
{
    fn authenticate(
        &self,
        credentials: Credentials,
    ) -> impl Future<Output = Result<Identity, AuthError>> + Send {
        self(credentials)
    }
}

/// Credentials of a client that wants to connect.
#[derive(Clone)]
#[non_exhaustive]
pub struct Credentials {
    /// Token of the request, if it has one. An empty one counts as none.
    ///
    /// Taken from `Authorization: Bearer`, else from a subprotocol `mcp.auth.<token>` or
    /// `mcp.auth-base64url.<…>`, the token in base64url without padding, else from the
    /// [cookie](crate::server::Config::token_cookie), else from the method `authenticate` where that
    /// is [allowed](crate::server::Config::in_band_authentication).
    pub token: Option<Token>,
    /// Request that is to be upgraded. Its `Host` and `Origin` are allowed.
    pub parts: Parts,
    /// Address that the request comes from, if known.
    pub peer: Option<SocketAddr>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("token", &self.token)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// Identity of a client. Tools find it in the extensions of their requests.
#[derive(Clone)]
pub struct Identity {
    subject: Arc<str>,
    claims: Option<Arc<dyn Any + Send + Sync>>,
}

impl Identity {
    /// Creates the identity of this name. Two identities of the same name are equal.
    #[must_use]
    pub fn new(subject: impl Into<Arc<str>>) -> Self {
        Self { subject: subject.into(), claims: None }
    }

    /// Adds what else is known of the client, such as its scopes, for tools to read.
    #[must_use]
    pub fn with_claims(mut self, claims: impl Any + Send + Sync) -> Self {
        self.claims = Some(Arc::new(claims));
        self
    }

    /// Returns the identity of the sender of an MCP request with these `extensions`.
    ///
    /// Requests over a WebSocket have one, and those over streamable HTTP behind a
    /// [guard](crate::server::Guard). `None` if there is no authenticator.
    #[must_use]
    pub fn of(extensions: &rmcp::model::Extensions) -> Option<&Self> {
        // rmcp's HTTP transport puts the whole request there.
        let of_http = || extensions.get::<Parts>()?.extensions.get();
        extensions.get().or_else(of_http)
    }

    /// Returns the name.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Returns the value given to [`with_claims`](Self::with_claims), if it is of this type.
    #[must_use]
    pub fn claims<T: Any>(&self) -> Option<&T> {
        self.claims.as_deref()?.downcast_ref()
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.subject == other.subject
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.subject).finish()
    }
}

/// Reason why a client may not connect, which decides the response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// Missing or invalid token: 401 with `WWW-Authenticate: Bearer` (RFC 6750,
    /// section 3).
    #[error("authentication required")]
    Unauthorized,
    /// Missing or invalid token: 401 with this `WWW-Authenticate` (RFC 9110, section 11.6.1).
    #[error("authentication required")]
    Challenge(String),
    /// Known client that may not connect: 403.
    #[error("not allowed")]
    Forbidden,
    /// No decision at present: 503, with this time as `Retry-After`.
    #[error("authentication is not available")]
    Unavailable(Duration),
}

/// Dyn-compatible form of [`Authenticator`].
pub(super) trait DynAuthenticator: Send + Sync {
    /// Returns the future of [`Authenticator::authenticate`], boxed.
    fn authenticate_boxed<'a>(
        &'a self,
        credentials: Credentials,
    ) -> Pin<Box<dyn Future<Output = Result<Identity, AuthError>> + Send + 'a>>;
}

impl<A: Authenticator> DynAuthenticator for A {
    fn authenticate_boxed<'a>(
        &'a self,
        credentials: Credentials,
    ) -> Pin<Box<dyn Future<Output = Result<Identity, AuthError>> + Send + 'a>> {
        Box::pin(self.authenticate(credentials))
    }
}

/// `Retry-After` after a failure of the authenticator.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Returns the decision of `authenticator`, which may take as long as `time`.
///
/// # Errors
/// Those of the authenticator, and [`AuthError::Unavailable`] if it panics or is too late.
pub(super) async fn verify(
    authenticator: &dyn DynAuthenticator,
    credentials: Credentials,
    time: Duration,
) -> Result<Identity, AuthError> {
    let decision = AssertUnwindSafe(async { authenticator.authenticate_boxed(credentials).await })
        .catch_unwind();
    match tokio::time::timeout(time, decision).await {
        Ok(Ok(decision)) => decision,
        Ok(Err(_)) => {
            tracing::error!("the authenticator panicked");
            Err(AuthError::Unavailable(RETRY_AFTER))
        }
        Err(_) => {
            tracing::warn!("no decision of the authenticator in time");
            Err(AuthError::Unavailable(RETRY_AFTER))
        }
    }
}
