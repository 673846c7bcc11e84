//! Who may enter: an [`Authenticator`] looks at the request before it is upgraded.
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
/// [`BearerTokens`](bearer::BearerTokens). It has the [time of the handshake](crate::server::Config::handshake_timeout) once more for its
/// answer; after that, and when it panics, the client is told 503, or closed with 1013 where it
/// authenticates [within the connection](crate::server::Config::in_band_authentication).
pub trait Authenticator: Send + Sync + 'static {
    /// Who it is that comes with these `credentials`, or that they may not enter.
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

/// What somebody brings who wants to enter.
#[derive(Clone)]
#[non_exhaustive]
pub struct Credentials {
    /// The token, if there was one: from `Authorization: Bearer`, else from a subprotocol
    /// `mcp.auth.<token>`, else from the [cookie](crate::server::Config::token_cookie), else from the method
    /// `authenticate` where that is [allowed](crate::server::Config::in_band_authentication). An empty one is
    /// none.
    pub token: Option<Token>,
    /// The request that is to be upgraded. Its `Host` and `Origin` are allowed.
    pub parts: Parts,
    /// Where it comes from, as far as that is known.
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

/// Who a client is. Tools find it in the extensions of their requests.
#[derive(Clone)]
pub struct Identity {
    subject: Arc<str>,
    claims: Option<Arc<dyn Any + Send + Sync>>,
}

impl Identity {
    /// The one of this name. Two identities of the same name are the same.
    #[must_use]
    pub fn new(subject: impl Into<Arc<str>>) -> Self {
        Self { subject: subject.into(), claims: None }
    }

    /// The same, with more that is known of them: scopes, a tenant, whatever tools want to ask for.
    #[must_use]
    pub fn with_claims(mut self, claims: impl Any + Send + Sync) -> Self {
        self.claims = Some(Arc::new(claims));
        self
    }

    /// Returns the identity of the sender of the request with these `extensions`, over a WebSocket
    /// or over streamable HTTP behind a [guard](crate::server::Guard). `None` if there is no authenticator.
    #[must_use]
    pub fn of(extensions: &rmcp::model::Extensions) -> Option<&Self> {
        // rmcp's HTTP transport puts the whole request there.
        let of_http = || extensions.get::<Parts>()?.extensions.get();
        extensions.get().or_else(of_http)
    }

    /// The name.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// What was given to [`with_claims`](Self::with_claims), if it was of this type.
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

/// Why somebody may not enter, which says what they are answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// There is no token, or it is not valid: 401 with `WWW-Authenticate: Bearer` (RFC 6750,
    /// section 3).
    #[error("authentication required")]
    Unauthorized,
    /// The same, with this `WWW-Authenticate` (RFC 9110, section 11.6.1).
    #[error("authentication required")]
    Challenge(String),
    /// It is known who they are, and they may not: 403.
    #[error("not allowed")]
    Forbidden,
    /// It cannot be told now: 503, with this time as `Retry-After`.
    #[error("authentication is not available")]
    Unavailable(Duration),
}

/// An [`Authenticator`] of any type.
pub(super) trait DynAuthenticator: Send + Sync {
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

/// When they may ask again whose authenticator has failed.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The verdict of `authenticator`, which may take its time and panic.
pub(super) async fn verify(
    authenticator: &dyn DynAuthenticator,
    credentials: Credentials,
    time: Duration,
) -> Result<Identity, AuthError> {
    let verdict = AssertUnwindSafe(async { authenticator.authenticate_boxed(credentials).await })
        .catch_unwind();
    match tokio::time::timeout(time, verdict).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(_)) => {
            tracing::error!("the authenticator panicked");
            Err(AuthError::Unavailable(RETRY_AFTER))
        }
        Err(_) => {
            tracing::warn!("no verdict of the authenticator in time");
            Err(AuthError::Unavailable(RETRY_AFTER))
        }
    }
}
