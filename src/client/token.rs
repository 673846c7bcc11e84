//! Tokens that do not last, and where they come from.

use std::{fmt, panic::AssertUnwindSafe, sync::Arc};

use futures::{FutureExt, future::BoxFuture};

use crate::error::HandshakeError;

/// Request for a token, as its provider gets it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct TokenRequest {
    /// `true` if the server has refused the last token.
    pub refused: bool,
}

type Ask = dyn Fn(TokenRequest) -> BoxFuture<'static, Result<String, String>> + Send + Sync;

/// Provider of tokens.
#[derive(Clone)]
pub(super) struct Tokens(Arc<Ask>);

impl Tokens {
    pub(super) fn new<F, E>(ask: impl Fn(TokenRequest) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<String, E>> + Send + 'static,
        E: fmt::Display,
    {
        Self(Arc::new(move |request| {
            let token = ask(request);
            Box::pin(async { token.await.map_err(|error| error.to_string()) })
        }))
    }

    pub(super) async fn ask(&self, refused: bool) -> Result<String, HandshakeError> {
        // The user's code runs here, and its panic would take the connection with it.
        let asking = AssertUnwindSafe(async { (self.0)(TokenRequest { refused }).await });
        let token = asking.catch_unwind().await;
        token.unwrap_or_else(|_| Err("its source panicked".into())).map_err(HandshakeError::Token)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}
