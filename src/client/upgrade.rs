//! A single attempt: TCP, TLS, and the opening handshake of the client (RFC 6455, section 4.1).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::FutureExt;
use http::{
    HeaderValue, Method, Request, StatusCode,
    header::{
        AUTHORIZATION, CONNECTION, HOST, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
    },
};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use url::Url;

use super::{
    authorization,
    connector::{Route, Target},
    endpoint::Endpoint,
    http1::{PRODUCT, driving},
    refusal::{handshake_error, refusal},
    subprotocol::check,
    tcp, tls,
};
use crate::{
    duplex::BoxLink,
    error::HandshakeError,
    handshake::{
        extensions::WsExtensions,
        header_case::ExactCase,
        headers::{SESSION_HEADER, read_limits, write_limits},
        stream::{Io, reclaim, set_tcp_options},
    },
    layer::socket::side::Side,
    link::MessageLimits,
    transport::layers::Layers,
};

/// Part of a request that differs from one attempt to the next.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) offer: &'a [String],
    pub(super) bearer: Option<&'a HeaderValue>,
}

/// Link that was made, before its tracing span is added.
pub(super) struct UpgradedLink {
    pub(super) link: BoxLink,
    pub(super) subprotocol: Option<String>,
    pub(super) limits: MessageLimits,
}

/// Stream of an accepted upgrade, and what was agreed on.
struct UpgradedStream<S> {
    stream: S,
    leftover: Bytes,
    subprotocol: Option<String>,
    limits: MessageLimits,
    extensions: WsExtensions,
}

impl Endpoint {
    /// Dials `url` once.
    pub(super) async fn dial_once(
        &self,
        url: &Url,
        attempt: Attempt<'_>,
        layers: &Layers,
    ) -> Result<UpgradedLink, HandshakeError> {
        let target = Target::of(url)?;
        match &self.route {
            Route::Connector(connector) => {
                let stream = connector.connect_boxed(target).await?;
                self.secure(url, attempt, layers, stream).await
            }
            _ => {
                let tcp = tcp::connect(target.host(), target.port()).await?;
                set_tcp_options(&tcp);
                self.secure(url, attempt, layers, tcp).await
            }
        }
    }

    /// Speaks TLS over `stream` if that is called for, and builds the link over it.
    async fn secure<S: Io>(
        &self,
        url: &Url,
        attempt: Attempt<'_>,
        layers: &Layers,
        stream: S,
    ) -> Result<UpgradedLink, HandshakeError> {
        let target = Target::of(url)?;
        if !target.is_tls() {
            return self.link(url, attempt, layers, stream).await;
        }
        let stream = tls::handshake(&self.tls, target.host(), stream).await?;
        self.link(url, attempt, layers, stream).await
    }

    /// Performs the opening handshake on `stream`, and builds the link over it.
    pub(super) async fn link<S: Io>(
        &self,
        url: &Url,
        attempt: Attempt<'_>,
        layers: &Layers,
        stream: S,
    ) -> Result<UpgradedLink, HandshakeError> {
        let UpgradedStream { stream, leftover, subprotocol, limits, extensions } =
            self.upgrade(url, attempt, layers, stream).await?;
        let link = layers.link(stream, leftover, Side::Client, extensions);
        Ok(UpgradedLink { link, subprotocol, limits })
    }

    /// Performs the opening handshake, by hyper.
    async fn upgrade<S: Io>(
        &self,
        url: &Url,
        attempt: Attempt<'_>,
        layers: &Layers,
        stream: S,
    ) -> Result<UpgradedStream<S>, HandshakeError> {
        let config = layers.socket();
        let failed = |error| handshake_error(url, error);
        let key = STANDARD.encode(rand::random::<[u8; 16]>());
        let mut request = self.request(url, attempt, &key)?;
        write_limits(request.headers_mut(), layers.limits());
        if let Some(extensions) = WsExtensions::offer(config) {
            request.headers_mut().insert(SEC_WEBSOCKET_EXTENSIONS, extensions);
        }
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(ExactCase::request(stream))).await.map_err(failed)?;
        let mut connection = connection.with_upgrades().fuse();
        let response = driving(&mut connection, sender.send_request(request).boxed()).await;
        let response = response.map_err(failed)?;
        self.cookies.keep(url, response.headers());
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let refusal = driving(&mut connection, refusal(url, response).boxed()).await;
            return Err(HandshakeError::Refused(Box::new(refusal)));
        }
        let (subprotocol, extensions) = check(&response, attempt.offer, config, &key)?;
        let limits = read_limits(response.headers());
        let upgraded = driving(&mut connection, hyper::upgrade::on(response).boxed()).await;
        let upgraded = upgraded.map_err(failed)?;
        let Some((stream, leftover)) = reclaim::<ExactCase<S>>(upgraded) else {
            return Err(HandshakeError::NotWebSocket("the stream was lost in the upgrade".into()));
        };
        let stream = stream.into_inner();
        Ok(UpgradedStream { stream, leftover, subprotocol, limits, extensions })
    }

    fn request(
        &self,
        url: &Url,
        attempt: Attempt<'_>,
        key: &str,
    ) -> Result<Request<Empty<Bytes>>, HandshakeError> {
        let invalid = |error: http::Error| HandshakeError::Invalid(error.to_string());
        let host = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (host, _) => host.unwrap_or_default().to_owned(),
        };
        let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(path)
            .header(HOST, host)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(USER_AGENT, PRODUCT)
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, key);
        if !attempt.offer.is_empty() {
            request = request.header(SEC_WEBSOCKET_PROTOCOL, attempt.offer.join(", "));
        }
        let mut request = request.body(Empty::new()).map_err(invalid)?;
        if let Some(credentials) = basic(url)? {
            request.headers_mut().insert(AUTHORIZATION, credentials);
        }
        if let Some(bearer) = attempt.bearer.filter(|_| self.in_band_auth.is_none()) {
            request.headers_mut().insert(AUTHORIZATION, bearer.clone());
        }
        if let Some(session) = self.session_header(attempt.offer) {
            request.headers_mut().insert(SESSION_HEADER, session);
        }
        for name in self.headers.keys() {
            request.headers_mut().remove(name);
            for value in self.headers.get_all(name) {
                request.headers_mut().append(name, value.clone());
            }
        }
        self.cookies.add(url, request.headers_mut());
        Ok(request)
    }
}

/// Returns the credentials in a URL, as browsers and HTTP clients send them.
fn basic(url: &Url) -> Result<Option<HeaderValue>, HandshakeError> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    let decode = |text| percent_encoding::percent_decode_str(text).decode_utf8_lossy();
    let (user, password) = (decode(url.username()), decode(url.password().unwrap_or_default()));
    authorization::basic(&user, &password).map(Some)
}
