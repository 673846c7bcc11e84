//! Redirects within an origin, and the `Location` of a refusal.

use http::Uri;
use url::Url;

use crate::error::Refusal;

/// Redirects within the origin that are followed.
pub(super) const MAX_REDIRECTS: usize = 5;

/// Returns the URL that a refusal redirects to, if it is of the same origin (RFC 6454).
pub(super) fn redirected(from: &Url, refusal: &Refusal) -> Option<Url> {
    if !matches!(refusal.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let mut to = from.join(&refusal.location.as_ref()?.to_string()).ok()?;
    let scheme = match to.scheme() {
        "http" | "ws" => "ws",
        "https" | "wss" => "wss",
        _ => return None,
    };
    // `Url` forgets a default port when the scheme changes, so compare before.
    let same = scheme == from.scheme()
        && to.host() == from.host()
        && to.port_or_known_default() == from.port_or_known_default();
    to = Url::parse(&format!("{scheme}{}", &to[url::Position::AfterScheme..])).ok()?;
    to.set_fragment(None);
    if to.username().is_empty() && to.password().is_none() {
        to.set_username(from.username()).ok()?;
        to.set_password(from.password()).ok()?;
    }
    same.then_some(to)
}

/// Resolves a `Location` (RFC 9110, section 10.2.2). A `Uri` cannot hold every relative reference,
/// so those are joined to `from`, without its credentials.
pub(super) fn location(from: &Url, reference: &str) -> Option<Uri> {
    reference.parse().ok().or_else(|| {
        let mut to = from.join(reference).ok()?;
        to.set_username("").ok()?;
        to.set_password(None).ok()?;
        to.as_str().parse().ok()
    })
}
