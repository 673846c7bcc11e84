//! Validation of an upgrade request, and the 101 (RFC 6455, section 4.2).

use base64::{Engine as _, engine::general_purpose::STANDARD};

use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode, Version,
    header::{
        ALLOW, CONNECTION, CONTENT_LENGTH, HOST, HeaderName, SEC_WEBSOCKET_ACCEPT,
        SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        TRANSFER_ENCODING, UPGRADE,
    },
    request::Parts,
    uri::Authority,
};
use http_body_util::Full;

use super::{
    origin::{Allowed, NotAllowed},
    rejection::Rejection,
    response::HttpResponse,
};
use crate::{
    handshake::{
        extensions::WsExtensions,
        headers::{SUBPROTOCOL, accept_key, elements, is_websocket, read_limits, write_limits},
    },
    layer::{resume, socket},
    link::MessageLimits,
    server::registry::event::RejectReason,
};

/// Choice among the offers of a client.
pub(in crate::server) struct Negotiated {
    pub(in crate::server) subprotocol: Option<String>,
    pub(in crate::server) extensions: WsExtensions,
    /// Limits announced by the client.
    pub(in crate::server) limits: MessageLimits,
}

/// Upgrade request that is valid, and may be granted.
pub(in crate::server) struct ValidUpgrade {
    accept: String,
    subprotocol: Option<String>,
    /// `true` if the client offers the resume extension.
    resumes: bool,
    extensions: (WsExtensions, Option<HeaderValue>),
    limits: MessageLimits,
}

impl ValidUpgrade {
    /// Returns `true` if the client offers the resume extension.
    pub(in crate::server) fn resumes(&self) -> bool {
        self.resumes
    }

    /// Returns the 101, which announces this side's `own` limits, and what it chooses.
    ///
    /// Chooses the subprotocol of the resume extension if that is offered and this side
    /// `resumes`, and extensions for clients that are `known` alone: an unauthenticated client
    /// could make this side inflate data, and browsers compress whatever they may.
    pub(in crate::server) fn accept(
        self,
        resumes: bool,
        own: MessageLimits,
        known: bool,
    ) -> (HttpResponse, Negotiated) {
        let subprotocol = match resumes && self.resumes {
            true => Some(resume::SUBPROTOCOL.to_owned()),
            false => self.subprotocol,
        };
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        if let Ok(accept) = HeaderValue::try_from(self.accept) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        if let Some(Ok(subprotocol)) = subprotocol.as_ref().map(HeaderValue::try_from) {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
        }
        let (extensions, chosen) = if known { self.extensions } else { Default::default() };
        if let Some(chosen) = chosen {
            headers.insert(SEC_WEBSOCKET_EXTENSIONS, chosen);
        }
        write_limits(headers, own);
        (response, Negotiated { subprotocol, extensions, limits: self.limits })
    }
}

/// Validates an upgrade request (RFC 6455, section 4.2.1) and its `Host` and `Origin`.
pub(in crate::server) fn validate(
    parts: &Parts,
    allowed: &Allowed,
    config: &socket::Config,
) -> Result<ValidUpgrade, Box<Rejection>> {
    let reject = |status, what| Rejection::new(RejectReason::NotWebSocket, status, what);
    let upgrade = |what| {
        reject(StatusCode::UPGRADE_REQUIRED, what)
            .with(UPGRADE, "websocket")
            .with(CONNECTION, "Upgrade")
            .with(SEC_WEBSOCKET_VERSION, "13")
    };
    let headers = &parts.headers;
    if parts.method != Method::GET {
        let rejection = reject(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        return Err(rejection.with(ALLOW, "GET"));
    }
    if !is_websocket(headers) || parts.version != Version::HTTP_11 {
        return Err(upgrade("Upgrade Required"));
    }
    if single_header(headers, SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(upgrade("WebSocket version 13 is spoken here"));
    }
    let key =
        single_header(headers, SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if !STANDARD.decode(key).is_ok_and(|key| key.len() == 16) {
        let what = "Sec-WebSocket-Key is not 16 bytes in base64";
        return Err(reject(StatusCode::BAD_REQUEST, what));
    }
    // A body would be read as frames: a proxy and this side must not disagree on what is which.
    let is_empty = |length: &HeaderValue| length == "0";
    if headers.contains_key(TRANSFER_ENCODING)
        || !headers.get_all(CONTENT_LENGTH).iter().all(is_empty)
    {
        return Err(reject(StatusCode::BAD_REQUEST, "an upgrade has no body"));
    }
    // An absolute target overrules `Host` (RFC 9112, section 3.2.2), so they had better agree.
    let target = parts.uri.authority().map(Authority::as_str);
    if target.is_some_and(|target| single_header(headers, HOST).is_none_or(|host| host != target)) {
        return Err(reject(StatusCode::BAD_REQUEST, "the target is not the Host"));
    }
    allowed.check(headers).map_err(NotAllowed::reject)?;
    if !headers.contains_key(HOST) {
        return Err(reject(StatusCode::BAD_REQUEST, "an upgrade has a Host"));
    }
    let resumes =
        elements(headers, SEC_WEBSOCKET_PROTOCOL).any(|offer| offer == resume::SUBPROTOCOL);
    let extensions = WsExtensions::choose(config, headers);
    Ok(ValidUpgrade {
        accept: accept_key(key),
        subprotocol: choose_subprotocol(headers),
        resumes,
        extensions,
        limits: read_limits(headers),
    })
}

/// Chooses the subprotocol: `mcp` if it is offered, else the first `mcp.version.…`, else none.
///
/// Any other may be a token, and is never echoed.
fn choose_subprotocol(headers: &HeaderMap) -> Option<String> {
    let offered = || elements(headers, SEC_WEBSOCKET_PROTOCOL);
    offered()
        .find(|offer| *offer == SUBPROTOCOL)
        .or_else(|| offered().find(|offer| offer.starts_with("mcp.version.")))
        .map(str::to_owned)
}

/// Returns the value of a header, unless there are several.
fn single_header(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).into_iter();
    values.next().filter(|_| values.next().is_none())
}

/// Returns `true` if a request with these headers asks for a WebSocket.
pub(in crate::server) fn asks_for_websocket(headers: &HeaderMap) -> bool {
    headers.contains_key(SEC_WEBSOCKET_KEY)
        || elements(headers, UPGRADE).any(|element| element.eq_ignore_ascii_case("websocket"))
}
