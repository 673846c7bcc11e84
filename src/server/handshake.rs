//! The server's opening handshake (RFC 6455, section 4.2), by hyper.

use std::{
    convert::Infallible,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{
        ALLOW, CONNECTION, HOST, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
    },
    uri::Authority,
};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::net::TcpStream;

use super::origin::Allowed;
use crate::{
    decode::Role,
    error::HandshakeError,
    layer::socket::Side,
    transport::{Builder, WebSocketTransport},
    upgrade::{Io, SUBPROTOCOL, accept_key, elements, is_websocket, reclaim, set_nodelay},
};

/// hyper adds what it is given to the present moment, and panics where that is too much.
pub(super) const MAX_HEAD: Duration = Duration::from_secs(86_400);

/// A connection whose upgrade was granted.
pub(super) struct Upgraded<S> {
    stream: S,
    leftover: Bytes,
    subprotocol: Option<String>,
}

impl<S: Io> Upgraded<S> {
    /// What `builder` makes over it.
    pub(super) fn transport<R: Role>(self, builder: Builder<R>) -> WebSocketTransport<R> {
        let builder = builder.subprotocol(self.subprotocol);
        builder.over_stream(self.stream, self.leftover, Side::Server)
    }
}

/// What `builder` makes over an upgraded connection. A TCP stream is taken out of hyper's box, so that
/// nothing dynamic stays on the way of each message; any other stays in it.
pub(super) fn over_upgraded<R: Role>(
    builder: Builder<R>,
    upgraded: hyper::upgrade::Upgraded,
) -> WebSocketTransport<R> {
    let upgraded = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => return over_tcp(builder, parts.io, parts.read_buf),
        Err(upgraded) => upgraded,
    };
    match auto::upgrade::downcast::<TokioIo<TcpStream>>(upgraded) {
        Ok(parts) => over_tcp(builder, parts.io, parts.read_buf),
        Err(upgraded) => builder.over_stream(TokioIo::new(upgraded), Bytes::new(), Side::Server),
    }
}

fn over_tcp<R: Role>(
    builder: Builder<R>,
    io: TokioIo<TcpStream>,
    leftover: Bytes,
) -> WebSocketTransport<R> {
    let stream = io.into_inner();
    set_nodelay(&stream);
    builder.over_stream(stream, leftover, Side::Server)
}

/// Answers requests on `stream` until one is granted the upgrade.
pub(super) async fn accept<S: Io>(
    stream: S,
    allowed: &Allowed,
    timeout: Duration,
) -> Result<Upgraded<S>, HandshakeError> {
    set_nodelay(&stream);
    let granted: Mutex<Option<(OnUpgrade, Option<String>)>> = Mutex::new(None);
    let answer = service_fn(async |mut request: Request<_>| {
        Ok::<_, Infallible>(match grant(&request, allowed) {
            Ok(Granted { response, subprotocol }) => {
                let upgrade = hyper::upgrade::on(&mut request);
                *granted.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some((upgrade, subprotocol));
                response
            }
            Err(refusal) => *refusal,
        })
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout.min(MAX_HEAD))
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades()
        .await
        .map_err(|error| HandshakeError::NotWebSocket(error.to_string()))?;
    let granted = granted.into_inner().unwrap_or_else(PoisonError::into_inner);
    let Some((upgrade, subprotocol)) = granted else {
        let left = io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an upgrade");
        return Err(HandshakeError::Connect(Arc::new(left)));
    };
    let lost = |what: &dyn ToString| HandshakeError::NotWebSocket(what.to_string());
    let upgraded = upgrade.await.map_err(|error| lost(&error))?;
    let (stream, leftover) =
        reclaim(upgraded).ok_or_else(|| lost(&"the stream was lost in the upgrade"))?;
    Ok(Upgraded { stream, leftover, subprotocol })
}

pub(super) type Answer = Response<Full<Bytes>>;

/// The 101, and the subprotocol chosen in it.
pub(super) struct Granted {
    pub(super) response: Answer,
    pub(super) subprotocol: Option<String>,
}

/// The 101 that grants an upgrade, or the refusal.
pub(super) fn grant<B>(request: &Request<B>, allowed: &Allowed) -> Result<Granted, Box<Answer>> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err(refuse(
            StatusCode::METHOD_NOT_ALLOWED,
            "Method Not Allowed",
            &[(ALLOW, "GET")],
        ));
    }
    let upgrade = [(UPGRADE, "websocket"), (CONNECTION, "Upgrade"), (SEC_WEBSOCKET_VERSION, "13")];
    if !is_websocket(headers) || request.version() != Version::HTTP_11 {
        return Err(refuse(StatusCode::UPGRADE_REQUIRED, "Upgrade Required", &upgrade));
    }
    if only(headers, SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(refuse(
            StatusCode::UPGRADE_REQUIRED,
            "WebSocket version 13 is spoken here",
            &upgrade,
        ));
    }
    let key = only(headers, SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if !STANDARD.decode(key).is_ok_and(|key| key.len() == 16) {
        let what = "Sec-WebSocket-Key is not 16 bytes in base64";
        return Err(refuse(StatusCode::BAD_REQUEST, what, &[]));
    }
    // An absolute target overrules `Host` (RFC 9112, section 3.2.2), so they had better agree.
    let target = request.uri().authority().map(Authority::as_str);
    if target.is_some_and(|target| only(headers, HOST).is_none_or(|host| host != target)) {
        return Err(refuse(StatusCode::BAD_REQUEST, "the target is not the Host", &[]));
    }
    allowed.check(headers).map_err(|what| refuse(StatusCode::FORBIDDEN, what, &[]))?;
    let subprotocol = choose(headers);
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::try_from(accept_key(key)) {
        answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(Ok(subprotocol)) = subprotocol.as_ref().map(HeaderValue::try_from) {
        answer.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    Ok(Granted { response, subprotocol })
}

/// The subprotocol to answer: `mcp` where it is offered; else the first `mcp.version.…`, which
/// carries no secret; never any other, for it may be a token.
fn choose(headers: &HeaderMap) -> Option<String> {
    let offered = || elements(headers, SEC_WEBSOCKET_PROTOCOL);
    offered()
        .find(|offer| *offer == SUBPROTOCOL)
        .or_else(|| offered().find(|offer| offer.starts_with("mcp.version.")))
        .map(str::to_owned)
}

/// The value of a header that stands there once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).into_iter();
    values.next().filter(|_| values.next().is_none())
}

pub(super) fn refuse(
    status: StatusCode,
    body: &'static str,
    headers: &[(HeaderName, &'static str)],
) -> Box<Answer> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Box::new(response)
}
