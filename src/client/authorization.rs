//! Values of `Authorization` and `Proxy-Authorization`, marked so that they are not logged.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderValue;

use crate::error::HandshakeError;

/// Scheme that stands before a token (RFC 6750, section 2.1).
pub(super) const BEARER: &str = "Bearer ";

/// Returns `Bearer …` (RFC 6750, section 2.1).
pub(super) fn bearer(token: &str) -> Result<HeaderValue, HandshakeError> {
    let value = HeaderValue::try_from(format!("{BEARER}{token}"));
    let mut value =
        value.map_err(|_| HandshakeError::Invalid("the token cannot stand in a header".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Returns `Basic …` (RFC 7617).
pub(super) fn basic(user: &str, password: &str) -> Result<HeaderValue, HandshakeError> {
    let mut value =
        HeaderValue::try_from(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
            .map_err(|error| HandshakeError::Invalid(error.to_string()))?;
    value.set_sensitive(true);
    Ok(value)
}
