//! Headers that both ends of the opening handshake read and write (RFC 6455, section 4).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AsHeaderName, CONNECTION, UPGRADE},
};
use sha1::{Digest as _, Sha1};

use crate::link::MessageLimits;

/// Subprotocol of MCP over WebSockets.
pub(crate) const SUBPROTOCOL: &str = "mcp";

/// Prefix of a subprotocol that is the id of a session (SEP-1288).
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

/// Header with the id of a session: in a 101 the one that is issued, in a request the one that the
/// client comes back to.
pub(crate) const SESSION_HEADER: HeaderName = HeaderName::from_static("mcp-session-id");

/// Name of a session id in a query and in a cookie.
#[cfg(any(feature = "server", feature = "cookies"))]
pub(crate) const SESSION_ID: &str = "mcp_session_id";

/// Returns the `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key`.
pub(crate) fn accept_key(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

/// Returns the comma-separated elements of a header, over all its lines.
pub(crate) fn elements(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|element| !element.is_empty())
}

/// Returns the names and values of the cookies in a request (RFC 6265, section 4.2.1).
///
/// Browsers send whatever a page has set: only a cookie that is not ASCII itself is skipped.
#[cfg(feature = "server")]
pub(crate) fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = headers.get_all(http::header::COOKIE).into_iter().map(HeaderValue::as_bytes);
    lines.flat_map(|line| line.split(|byte| *byte == b';')).filter_map(|pair| {
        let pair = str::from_utf8(pair).ok().filter(|pair| pair.is_ascii())?;
        pair.trim().split_once('=')
    })
}

/// Returns `true` if the headers ask for, or grant, an upgrade to WebSocket.
pub(crate) fn is_websocket(headers: &HeaderMap) -> bool {
    elements(headers, UPGRADE).any(|element| element.eq_ignore_ascii_case("websocket"))
        && elements(headers, CONNECTION).any(|element| element.eq_ignore_ascii_case("upgrade"))
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
