//! Redirects within an origin, and the `Location` of a refusal.

use http::Uri;

use super::url::Url;
use crate::error::Refusal;

/// Redirects within the origin that are followed.
pub(super) const MAX_REDIRECTS: usize = 5;

/// Returns the URL that a refusal redirects to, if it is of the same origin (RFC 6454).
pub(super) fn redirected(from: &Url, refusal: &Refusal) -> Option<Url> {
    if !matches!(refusal.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let to = from.join(&refusal.location.as_ref()?.to_string())?;
    to.is_same_origin(from).then(|| to.with_credentials_of(from))
}

/// Resolves a `Location` (RFC 9110, section 10.2.2). A `Uri` cannot hold every relative reference,
/// so those are joined to `from`, without its credentials.
pub(super) fn location(from: &Url, reference: &str) -> Option<Uri> {
    reference.parse().ok().or_else(|| from.join(reference)?.to_uri())
}
