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
        ALLOW, CONNECTION, CONTENT_LENGTH, HOST, HeaderName, SEC_WEBSOCKET_ACCEPT,
        SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        TRANSFER_ENCODING, UPGRADE,
    },
    request::Parts,
    uri::Authority,
};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use super::{
    auth::in_band::Unauthenticated,
    body::Body,
    config::Config,
    door::{self, Admission, ClientInfo, Rejection},
    lobby::PendingConnections,
    origin::{Allowed, NotAllowed},
    registry::event::RejectReason,
    visit::{MAX_HEAD_BYTES, Progress, TrackedBody, WriteTimeout},
};
use crate::{
    duplex::BoxLink,
    error::HandshakeError,
    extensions::Extensions,
    layer::{
        resume,
        socket::{self, Side},
    },
    link::{MessageLimits, PeerLimits},
    role::McpRole,
    time::deadline_in,
    transport::{
        WebSocketTransport,
        builder::{Builder, Layers},
    },
    upgrade::{
        Io, SUBPROTOCOL, accept_key, elements, is_websocket, read_limits, reclaim, set_tcp_options,
        write_limits,
    },
};

/// Time that writing the last response to a client may take.
pub(super) const LAST_RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// hyper adds what it is given to the present moment, and panics where that is too much.
const MAX_HEAD_TIMEOUT: Duration = Duration::from_secs(86_400);

/// A connection whose upgrade was granted.
pub(super) struct Upgraded<S> {
    stream: S,
    leftover: Bytes,
    negotiated: Negotiated,
}

/// What was chosen of what the client offered.
pub(super) struct Negotiated {
    pub(super) subprotocol: Option<String>,
    pub(super) extensions: Extensions,
    /// Limits that the client announces.
    pub(super) limits: MessageLimits,
}

impl<S: Io> Upgraded<S> {
    /// What `builder` makes over it.
    pub(super) fn transport<R: McpRole>(self, builder: Builder<R>) -> WebSocketTransport<R> {
        let peer = self.peer_limits();
        let Negotiated { subprotocol, extensions, .. } = self.negotiated;
        let builder = builder.subprotocol(subprotocol).peer(peer);
        builder.over_upgraded(self.stream, self.leftover, Side::Server, extensions)
    }

    /// Returns the limits of the client.
    pub(super) fn peer_limits(&self) -> PeerLimits {
        let limits = PeerLimits::default();
        limits.set(self.negotiated.limits);
        limits
    }

    /// Returns the connection of an unauthenticated client.
    pub(super) fn unauthenticated(self, layers: &Layers, limit: usize) -> Box<dyn Unauthenticated> {
        BeforeAuthentication { layers, limit }.build(self.stream, self.leftover)
    }
}

/// Builder of what runs over the stream of an upgraded connection.
pub(super) trait BuildOverStream {
    type Output;

    fn build<S: Io>(self, stream: S, leftover: Bytes) -> Self::Output;
}

/// Builds all layers, for a client that is admitted.
pub(super) struct AllLayers<'a> {
    pub(super) layers: &'a Layers,
    pub(super) extensions: Extensions,
}

impl BuildOverStream for AllLayers<'_> {
    type Output = BoxLink;

    fn build<S: Io>(self, stream: S, leftover: Bytes) -> BoxLink {
        self.layers.link(stream, leftover, Side::Server, self.extensions)
    }
}

/// Builds the socket alone, for an unauthenticated client or one to be refused, whose messages have
/// at most `limit` bytes.
pub(super) struct BeforeAuthentication<'a> {
    pub(super) layers: &'a Layers,
    pub(super) limit: usize,
}

impl BuildOverStream for BeforeAuthentication<'_> {
    type Output = Box<dyn Unauthenticated>;

    fn build<S: Io>(self, stream: S, leftover: Bytes) -> Box<dyn Unauthenticated> {
        Box::new(self.layers.unauthenticated(stream, &leftover, Side::Server, self.limit))
    }
}

/// Builds something over an upgraded connection. A stream of a known type is unboxed, so that
/// messages pass without dynamic dispatch; any other stays in its box.
pub(super) fn build_over_upgraded<B: BuildOverStream>(
    upgraded: hyper::upgrade::Upgraded,
    what: B,
) -> B::Output {
    let upgraded = match downcast_stream::<TcpStream>(upgraded) {
        Ok((stream, leftover)) => {
            set_tcp_options(&stream);
            return what.build(stream, leftover);
        }
        Err(upgraded) => upgraded,
    };
    #[cfg(feature = "rustls-tls")]
    let upgraded = match downcast_stream::<tokio_rustls::server::TlsStream<TcpStream>>(upgraded) {
        Ok((stream, leftover)) => {
            set_tcp_options(stream.get_ref().0);
            return what.build(stream, leftover);
        }
        Err(upgraded) => upgraded,
    };
    #[cfg(unix)]
    let upgraded = match downcast_stream::<tokio::net::UnixStream>(upgraded) {
        Ok((stream, leftover)) => return what.build(stream, leftover),
        Err(upgraded) => upgraded,
    };
    what.build(TokioIo::new(upgraded), Bytes::new())
}

/// The stream that hyper, or hyper-util, or our own [`Porch`](super::porch::Porch) was given, and what it read beyond the request.
fn downcast_stream<S: Io>(
    upgraded: hyper::upgrade::Upgraded,
) -> Result<(S, Bytes), hyper::upgrade::Upgraded> {
    let upgraded = match upgraded.downcast::<TokioIo<WriteTimeout<S>>>() {
        Ok(parts) => return Ok((parts.io.into_inner().into_inner(), parts.read_buf)),
        Err(upgraded) => upgraded,
    };
    match upgraded.downcast::<TokioIo<S>>() {
        Ok(parts) => Ok((parts.io.into_inner(), parts.read_buf)),
        Err(upgraded) => auto::upgrade::downcast::<TokioIo<S>>(upgraded)
            .map(|parts| (parts.io.into_inner(), parts.read_buf)),
    }
}

/// Answers requests on `stream` until one is upgraded, or the time is over.
pub(super) async fn accept<R: McpRole, S: Io>(
    stream: S,
    config: &Config<R>,
) -> Result<(Upgraded<S>, ClientInfo), HandshakeError> {
    set_tcp_options(&stream);
    let overdue = deadline_in(config.timeout);
    // By itself.
    let progress = Progress::new(PendingConnections::new(1).register(None));
    let granted = Mutex::new(None);
    let answer = service_fn(|request: Request<Incoming>| {
        // At once: what is read from now on is no head.
        progress.set_requested(false);
        async {
            let (mut parts, _) = request.into_parts();
            let upgrade = parts.extensions.remove::<OnUpgrade>();
            let admitted = match config.peer_of(&parts) {
                Ok(peer) => door::admit(config, None, peer, parts).await,
                Err(rejection) => Err(rejection),
            };
            let mut answer = match admitted {
                Ok(Admission { response, negotiated, client }) => {
                    *granted.lock().unwrap_or_else(PoisonError::into_inner) =
                        upgrade.map(|upgrade| (upgrade, negotiated, client));
                    response
                }
                Err(rejection) => rejection.response,
            };
            if Instant::now() >= overdue {
                close_connection_after(&mut answer);
            }
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                progress.set_upgraded();
            }
            Ok::<_, Infallible>(
                answer.map(|body| TrackedBody::new(Body::new(body), progress.clone())),
            )
        }
    });
    let late = || HandshakeError::TimedOut(config.timeout);
    let answering = async {
        let stream = WriteTimeout::new(stream, progress.clone(), config.timeout);
        let mut connection =
            http1(None).serve_connection(TokioIo::new(stream), answer).with_upgrades();
        match timeout_at(overdue, &mut connection).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                if progress.is_too_large()
                    && let Some(parts) = connection.into_parts()
                {
                    close_unread(parts.io.into_inner(), &too_large()).await;
                }
                Err(HandshakeError::NotWebSocket(error.to_string()))
            }
            // An authenticator has as much time, and the client is to hear its verdict.
            Err(_) if progress.is_busy() => {
                match timeout_at(deadline_in(config.timeout), connection).await {
                    Ok(Ok(())) => Ok(()),
                    _ => Err(late()),
                }
            }
            Err(_) => Err(late()),
        }
    };
    answering.await?;
    let granted = granted.into_inner().unwrap_or_else(PoisonError::into_inner);
    let Some((upgrade, negotiated, client)) = granted else {
        let left = io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an upgrade");
        return Err(HandshakeError::Connect(Arc::new(left)));
    };
    let lost = |what: &dyn ToString| HandshakeError::NotWebSocket(what.to_string());
    let upgraded = upgrade.await.map_err(|error| lost(&error))?;
    let (stream, leftover) = reclaim::<WriteTimeout<S>>(upgraded)
        .ok_or_else(|| lost(&"the stream was lost in the upgrade"))?;
    Ok((Upgraded { stream: stream.into_inner(), leftover, negotiated }, client))
}

/// HTTP/1.1, with a bound to the size of each head, and a deadline where the caller has none.
pub(super) fn http1(head_timeout: Option<Duration>) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(head_timeout.map(|timeout| timeout.min(MAX_HEAD_TIMEOUT)))
        // Never reached: less is read of a head.
        .max_buf_size(MAX_HEAD_BYTES + (8 << 10));
    http
}

pub(super) type HttpResponse = Response<Full<Bytes>>;

/// An upgrade that may be granted.
pub(super) struct ValidUpgrade {
    accept: String,
    subprotocol: Option<String>,
    /// The client offers to resume.
    resumes: bool,
    extensions: (Extensions, Option<HeaderValue>),
    limits: MessageLimits,
}

impl ValidUpgrade {
    /// Whether the client offers to resume.
    pub(super) fn resumes(&self) -> bool {
        self.resumes
    }

    /// Returns the 101, and what it chooses: the subprotocol of the resume extension if it is
    /// offered and spoken here, and, for clients that are `known`, the extensions. An
    /// unauthenticated client could make this side inflate data, and browsers compress whatever
    /// they may. The response announces the limits of this side.
    pub(super) fn accept(
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

/// Whether a request asks for an upgrade as RFC 6455 wants it, from a host and a page that are
/// allowed.
pub(super) fn validate(
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
    // A body would be read as frames, and what a proxy takes for the one must not be the other.
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
    let resumes =
        elements(headers, SEC_WEBSOCKET_PROTOCOL).any(|offer| offer == resume::SUBPROTOCOL);
    let extensions = Extensions::choose(config, headers);
    Ok(ValidUpgrade {
        accept: accept_key(key),
        subprotocol: choose_subprotocol(headers),
        resumes,
        extensions,
        limits: read_limits(headers),
    })
}

/// The subprotocol to answer: `mcp` where it is offered; else the first `mcp.version.…`, which
/// carries no secret; never any other, for it may be a token.
fn choose_subprotocol(headers: &HeaderMap) -> Option<String> {
    let offered = || elements(headers, SEC_WEBSOCKET_PROTOCOL);
    offered()
        .find(|offer| *offer == SUBPROTOCOL)
        .or_else(|| offered().find(|offer| offer.starts_with("mcp.version.")))
        .map(str::to_owned)
}

/// The value of a header that stands there once.
fn single_header(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).into_iter();
    values.next().filter(|_| values.next().is_none())
}

/// Lets no further request follow the answer, unless that is 101.
pub(super) fn close_connection_after<B>(answer: &mut Response<B>) {
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Returns the body of the response to a request whose head is too large (RFC 6585, section 5).
pub(super) fn too_large() -> String {
    let body = format!("the head of the request has more than {MAX_HEAD_BYTES} bytes");
    format!(
        "HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n\
         Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Writes the `last` response and closes `stream`. Input that still arrives is read and discarded:
/// the kernel answers unread data with a reset, which would overtake the response.
pub(super) async fn close_unread<I: Io>(mut stream: I, last: &str) {
    let closing = async {
        stream.write_all(last.as_bytes()).await?;
        stream.shutdown().await?;
        let mut unread = [0; 4 << 10];
        while stream.read(&mut unread).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    let _ = timeout(LAST_RESPONSE_TIMEOUT, closing).await;
}

pub(super) fn plain_response(status: StatusCode, body: &'static str) -> HttpResponse {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response
}
