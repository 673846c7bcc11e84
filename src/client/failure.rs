//! Handshakes that came to nothing: what the answer says, and what it is called.

use std::{fmt, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode, Uri,
    header::{LOCATION, RETRY_AFTER, WWW_AUTHENTICATE},
};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use url::Url;

use crate::error::{HandshakeError, Refusal};

/// How much of a refusal's body is kept, in bytes.
pub(super) const MAX_BODY: usize = 4 << 10;

/// The connection ended after the upgrade request was begun and before it was answered.
#[derive(Debug)]
struct Cut(&'static str);

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} during the handshake", self.0)
    }
}

impl std::error::Error for Cut {}

/// The error of a handshake that is cut, `how` in the past tense.
pub(super) fn cut(how: &'static str) -> HandshakeError {
    HandshakeError::Connect(Arc::new(io::Error::new(io::ErrorKind::UnexpectedEof, Cut(how))))
}

/// Whether the connection was lost while the upgrade request was under way.
pub(super) fn is_cut(error: &HandshakeError) -> bool {
    let HandshakeError::Connect(error) = error else { return false };
    error.get_ref().is_some_and(|inner| inner.is::<Cut>())
}

pub(super) fn is_unauthorized(error: &HandshakeError) -> bool {
    matches!(error, HandshakeError::Refused(refusal) if refusal.status == StatusCode::UNAUTHORIZED)
}

/// Where a refusal redirects to, if that is in the same origin (RFC 6454).
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

/// The place that a `Location` names. A `Uri` cannot hold every relative reference, so those are
/// resolved (RFC 9110, section 10.2.2), without the credentials of the URL that they are relative to.
fn location(from: &Url, reference: &str) -> Option<Uri> {
    reference.parse().ok().or_else(|| {
        let mut to = from.join(reference).ok()?;
        to.set_username("").ok()?;
        to.set_password(None).ok()?;
        to.as_str().parse().ok()
    })
}

/// What is to be known about an answer that is no upgrade.
pub(super) async fn refusal(from: &Url, response: Response<Incoming>) -> Refusal {
    let (parts, mut body) = response.into_parts();
    let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let mut refusal = Refusal::new(parts.status, "");
    refusal.location = text(LOCATION).and_then(|reference| location(from, reference));
    refusal.retry_after =
        text(RETRY_AFTER).and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
    refusal.www_authenticate = text(WWW_AUTHENTICATE).map(str::to_owned);
    let mut bytes = Vec::new();
    // The body is an aid, not a promise: a server that stalls on it is not waited for.
    let read = async {
        while bytes.len() < MAX_BODY
            && let Some(Ok(frame)) = body.frame().await
        {
            bytes.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), read).await;
    bytes.truncate(MAX_BODY);
    refusal.body = String::from_utf8_lossy(&bytes).into_owned();
    refusal
}

/// What hyper says of an upgrade that failed.
pub(super) fn handshake_error(error: hyper::Error) -> HandshakeError {
    use io::ErrorKind as K;
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return cut("closed");
    }
    let source = std::error::Error::source(&error);
    match source.and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(source) => match source.kind() {
            K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe => cut("reset"),
            K::UnexpectedEof => cut("closed"),
            kind => HandshakeError::Connect(Arc::new(io::Error::new(kind, source.to_string()))),
        },
        None => HandshakeError::NotWebSocket(error.to_string()),
    }
}
