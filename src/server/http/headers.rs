//! Headers of requests: removal of the handshake's own, and marks on those that must not be logged.

use http::{
    Extensions, HeaderMap, HeaderValue,
    header::{
        AUTHORIZATION, CONNECTION, COOKIE, HeaderName, PROXY_AUTHORIZATION,
        SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        UPGRADE,
    },
    request::Parts,
};

use super::peer::AcceptedFrom;
use crate::handshake::headers::{MAX_MESSAGE, MAX_REQUESTS, SESSION_HEADER};

/// Headers whose values must not be logged.
const SECRET: [HeaderName; 5] =
    [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE, SEC_WEBSOCKET_PROTOCOL, SESSION_HEADER];

/// Marks the headers of a request that must not be logged as sensitive.
pub(in crate::server) fn mark_sensitive(headers: &mut HeaderMap) {
    for (_, value) in headers.iter_mut().filter(|(name, _)| SECRET.contains(name)) {
        value.set_sensitive(true);
    }
}

/// Strips a request of the handshake's own headers, and marks those that must not be logged.
///
/// The others are copied: as hyper has read them, each small value keeps the whole buffer alive.
pub(in crate::server) fn strip_handshake_headers(parts: &mut Parts) {
    const HANDSHAKE: [HeaderName; 8] = [
        MAX_MESSAGE,
        MAX_REQUESTS,
        CONNECTION,
        UPGRADE,
        SEC_WEBSOCKET_EXTENSIONS,
        SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION,
    ];
    let stays = |name: &HeaderName| !HANDSHAKE.contains(name);
    // No larger than needed: each request of the connection carries a copy.
    let names = parts.headers.keys().filter(|name| stays(name)).count();
    let mut headers = HeaderMap::with_capacity(names);
    for (name, value) in parts.headers.iter().filter(|(name, _)| stays(name)) {
        if let Ok(mut copy) = HeaderValue::from_bytes(value.as_bytes()) {
            copy.set_sensitive(value.is_sensitive() || SECRET.contains(name));
            headers.append(name.clone(), copy);
        }
    }
    parts.headers = headers;
    if let Ok(uri) = parts.uri.to_string().try_into() {
        parts.uri = uri;
    }
    parts.extensions.remove::<AcceptedFrom>();
    if parts.extensions.is_empty() {
        // Even an empty map would be cloned for each request.
        parts.extensions = Extensions::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_request_has_no_room_for_what_is_not() {
        let mut request = http::Request::new(());
        for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, MAX_MESSAGE] {
            request.headers_mut().insert(name, HeaderValue::from_static("x"));
        }
        for name in SECRET {
            request.headers_mut().insert(name, HeaderValue::from_static("x"));
        }
        let (mut parts, ()) = request.into_parts();
        strip_handshake_headers(&mut parts);
        // Among those are the offers of subprotocols, which are the handshake's.
        assert_eq!(parts.headers.len(), SECRET.len() - 1);
        assert!(parts.headers.values().all(HeaderValue::is_sensitive));
        assert!(parts.headers.capacity() <= 6, "{}", parts.headers.capacity());
    }
}
