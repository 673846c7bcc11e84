//! What both ends of the opening handshake need (RFC 6455, section 4).

use std::any::Any;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AsHeaderName, CONNECTION, UPGRADE},
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use sha1::{Digest as _, Sha1};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::link::MessageLimits;

/// The subprotocol of MCP over WebSockets.
pub(crate) const SUBPROTOCOL: &str = "mcp";

/// What begins a subprotocol that is the name of a session (SEP-1288).
pub(crate) const SESSION: &str = "mcp.session-id.";

/// Header that announces the largest message that its sender accepts, in bytes.
pub(crate) const MAX_MESSAGE: HeaderName = HeaderName::from_static("mcp-max-message-bytes");

/// Header that announces how many unanswered requests its sender accepts.
pub(crate) const MAX_REQUESTS: HeaderName = HeaderName::from_static("mcp-max-requests");

/// Writes the limits of this side.
pub(crate) fn write_limits(headers: &mut HeaderMap, limits: MessageLimits) {
    let limits = [(MAX_MESSAGE, limits.max_message), (MAX_REQUESTS, limits.max_inbound)];
    for (name, limit) in limits {
        if let Some(limit) = limit {
            headers.insert(name, HeaderValue::from(limit));
        }
    }
}

/// Reads the limits of the other side. A value that is not a number, or is given twice, is ignored.
pub(crate) fn read_limits(headers: &HeaderMap) -> MessageLimits {
    let number = |name| {
        let mut values = elements(headers, name);
        let value = values.next().filter(|_| values.next().is_none())?;
        value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok())?
    };
    MessageLimits::from_peer(number(MAX_MESSAGE), number(MAX_REQUESTS))
}

/// Name of a session id in a query and in a cookie.
#[cfg(any(feature = "server", feature = "cookies"))]
pub(crate) const SESSION_ID: &str = "mcp_session_id";

/// A byte stream that a connection can run over.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for S {}

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key`.
pub(crate) fn accept_key(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

/// The comma-separated elements of a header, over all its lines.
pub(crate) fn elements(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|element| !element.is_empty())
}

/// Whether the headers ask for, or grant, an upgrade to WebSocket.
pub(crate) fn is_websocket(headers: &HeaderMap) -> bool {
    elements(headers, UPGRADE).any(|element| element.eq_ignore_ascii_case("websocket"))
        && elements(headers, CONNECTION).any(|element| element.eq_ignore_ascii_case("upgrade"))
}

/// The stream that was given to hyper, and what it read of the new protocol.
pub(crate) fn reclaim<S: Io>(upgraded: Upgraded) -> Option<(S, Bytes)> {
    let parts = upgraded.downcast::<TokioIo<S>>().ok()?;
    Some((parts.io.into_inner(), parts.read_buf))
}

/// Bytes that the kernel takes of a TCP connection beyond those that are on their way.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 64 << 10;

/// Sets the options of the stream where it is a TCP connection.
///
/// Nagle's algorithm is switched off: with it, a short message behind another waits for the peer's
/// delayed acknowledgement, some 40 ms. And the kernel takes no more than it is about to send.
/// Otherwise it takes more only once a third of its buffer, which may be megabytes, is empty: a peer
/// that reads steadily, but slowly, would not seem to read at all for minutes.
pub(crate) fn set_tcp_options<S: 'static>(stream: &S) {
    let Some(tcp) = (stream as &dyn Any).downcast_ref::<TcpStream>() else { return };
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY not set");
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Err(error) = socket2::SockRef::from(tcp).set_tcp_notsent_lowat(UNSENT) {
        tracing::debug!(%error, "TCP_NOTSENT_LOWAT not set");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_are_no_numbers_are_not_said() {
        for (value, told) in [("4096", Some(4096)), ("0", None), ("+4096", None), ("4 MiB", None)] {
            let headers = HeaderMap::from_iter([(MAX_MESSAGE, HeaderValue::from_static(value))]);
            assert_eq!(super::read_limits(&headers).max_message, told, "{value}");
        }
        let mut headers = HeaderMap::new();
        let limits = MessageLimits::from_peer(Some(5000), Some(6));
        write_limits(&mut headers, limits);
        assert_eq!(super::read_limits(&headers), limits);
        headers.append(MAX_REQUESTS, HeaderValue::from_static("7"));
        assert_eq!(super::read_limits(&headers).max_inbound, None);
    }

    #[test]
    fn the_accept_key_is_that_of_rfc_6455_section_1_3() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
