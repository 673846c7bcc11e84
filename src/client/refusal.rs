//! Failed handshakes: reads the refusal and turns it into an error.

use std::{
    fmt, io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{DATE, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE},
};
use http_body_util::BodyExt;
use httpdate::parse_http_date;
use hyper::body::Incoming;
use url::Url;

use super::redirect::location;
use crate::error::{HandshakeError, Refusal};

/// Bytes of a refusal's body that are kept.
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

/// Returns the error of a handshake that was cut; `how` says by what, in the past tense.
pub(super) fn cut(how: &'static str) -> HandshakeError {
    HandshakeError::Connect(Arc::new(io::Error::new(io::ErrorKind::UnexpectedEof, Cut(how))))
}

/// Returns `true` if the connection was lost while the upgrade request was in flight.
pub(super) fn is_cut(error: &HandshakeError) -> bool {
    let HandshakeError::Connect(error) = error else { return false };
    error.get_ref().is_some_and(|inner| inner.is::<Cut>())
}

pub(super) fn is_unauthorized(error: &HandshakeError) -> bool {
    matches!(error, HandshakeError::Refused(refusal) if refusal.status == StatusCode::UNAUTHORIZED)
}

/// Reads a response that is not an upgrade: its status, the headers that matter and its body.
pub(super) async fn refusal(from: &Url, response: Response<Incoming>) -> Refusal {
    let (parts, body) = response.into_parts();
    let text = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let mut refusal = Refusal::new(parts.status, "");
    refusal.location = text(LOCATION).and_then(|reference| location(from, reference));
    refusal.retry_after = text(RETRY_AFTER).and_then(|when| retry_after(when.trim(), text(DATE)));
    refusal.hint = hint(from, parts.status);
    refusal.www_authenticate = text(WWW_AUTHENTICATE).map(str::to_owned);
    refusal.body = body_text(body).await;
    if from.scheme() == "ws" && refusal.status == 400 && refusal.body.contains("HTTPS") {
        refusal.hint = Some(DIAL_WSS);
    }
    refusal
}

/// Reads the beginning of a refusal's body.
pub(super) async fn body_text(mut body: Incoming) -> String {
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
    String::from_utf8_lossy(&bytes).into_owned()
}

const DIAL_WSS: &str = "the port speaks TLS: dial wss:// in place of ws://";

/// Returns advice for a client that was refused with this status.
fn hint(from: &Url, status: StatusCode) -> Option<&'static str> {
    Some(match status.as_u16() {
        200..=299 | 404 | 405 | 410 if from.path() != "/mcp" => {
            "no WebSocket is served at this path: is the URL complete? Its path is often /mcp"
        }
        200..=299 | 404 | 405 | 410 => {
            "no WebSocket is served at this path: are host, port and path those of the MCP server, and \
             does every proxy on the way pass WebSockets on?"
        }
        300..=399 => {
            "only redirects within the origin are followed: dial the other place itself, by ws:// or \
             wss://"
        }
        401 => "the server wants a token, or another one than it was shown: see `Connect::bearer`",
        403 => "the server does not let this client in: its token, or its `Origin` or `Host`",
        407 => "a proxy on the way asks who this is",
        502 | 504 => "the proxy does not reach the server behind it",
        _ => return None,
    })
}

/// Longest time that a server is understood to ask for: a longer one, added to the present time,
/// could be too much for any clock.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(86_400);

/// Parses `Retry-After`, in seconds or an HTTP date (RFC 9110, section 10.2.3). A date is compared
/// with the server's own `Date` where there is one. Returns a day at most.
fn retry_after(when: &str, date: Option<&str>) -> Option<Duration> {
    if !when.is_empty() && when.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than the type holds stand for a very long time too.
        let time = Duration::from_secs(when.parse().unwrap_or(u64::MAX));
        return Some(time.min(MAX_RETRY_AFTER));
    }
    let when = parse_http_date(when).ok()?;
    let now = date.and_then(|date| parse_http_date(date.trim()).ok());
    let now = now.unwrap_or_else(SystemTime::now);
    Some(when.duration_since(now).unwrap_or_default().min(MAX_RETRY_AFTER))
}

/// Converts hyper's error of a failed upgrade request.
pub(super) fn handshake_error(url: &Url, error: hyper::Error) -> HandshakeError {
    use io::ErrorKind as K;
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return cut("closed");
    }
    let source = std::error::Error::source(&error);
    match source.and_then(|source| source.downcast_ref::<io::Error>()) {
        Some(source) => match source.kind() {
            K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe => cut("reset"),
            K::UnexpectedEof => cut("closed"),
            // TLS 1.3 tells a client whose certificate is refused only after its handshake.
            K::InvalidData => HandshakeError::Tls(format!(
                "{source}: does the server want a certificate of the client's, or another?"
            )),
            kind => HandshakeError::Connect(Arc::new(io::Error::new(kind, source.to_string()))),
        },
        None if error.is_parse() => HandshakeError::NotWebSocket(match url.scheme() {
            "ws" => format!(
                "the answer cannot be read as HTTP ({error}): if the port speaks TLS, dial wss://; else it is \
                 another service's"
            ),
            _ => format!(
                "the answer cannot be read as HTTP ({error}): the port is another service's"
            ),
        }),
        None => HandshakeError::NotWebSocket(error.to_string()),
    }
}
