//! The way to an open connection: name, TCP, TLS, upgrade, redirects and fallbacks.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::{
    FutureExt,
    future::{Either, select},
};
use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode,
    header::{
        AUTHORIZATION, CONNECTION, HOST, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
    },
};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tracing::{Instrument, Span};
use url::{Host, Url};

use super::{
    cookies::Cookies,
    failure::{handshake_error, is_cut, is_unauthorized, redirected, refusal},
    greeting::authenticate,
    offer::{self, Failed, Offers, check, shown},
    reconnect::Tokens,
    tcp,
    tls::{self, ClientTls},
};
use crate::{
    duplex::BoxLink,
    error::HandshakeError,
    extensions::Extensions,
    framing::{properties::InBandAuth, session_id::SessionIdCell},
    header_case::ExactCase,
    layer::socket::Side,
    link::MessageLimits,
    transport::builder::Layers,
    upgrade::{Io, read_limits, reclaim, set_tcp_options, write_limits},
};

/// How many redirects within the origin are followed.
const MAX_REDIRECTS: usize = 5;

/// Default `User-Agent` of the upgrade request.
const PRODUCT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// What stands before a token (RFC 6750, section 2.1).
const BEARER: &str = "Bearer ";

/// Where to, and what to say there.
pub(super) struct Endpoint {
    pub(super) url: String,
    pub(super) headers: HeaderMap,
    /// The subprotocols to offer, `mcp` first.
    pub(super) offers: Vec<String>,
    pub(super) tls: ClientTls,
    pub(super) tokens: Option<Tokens>,
    /// Subprotocol offers, in the order that earlier handshakes have taught.
    pub(super) learned: Offers,
    /// Cookies that the server has set so far.
    pub(super) cookies: Cookies,
    /// The session to come back to, where that has a name.
    pub(super) session: Option<SessionIdCell>,
    /// How a token is shown within the connection, in place of a header, and the one that lasts.
    pub(super) in_band_auth: Option<InBandAuth>,
    pub(super) bearer: Option<HeaderValue>,
}

/// What differs from one attempt to the next.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    offer: &'a [String],
    bearer: Option<&'a HeaderValue>,
}

/// A link that was just made.
pub(super) struct DialedLink {
    pub(super) link: BoxLink,
    pub(super) subprotocol: Option<String>,
    /// Limits that the server has announced in its upgrade response.
    pub(super) limits: MessageLimits,
    pub(super) span: Span,
}

/// Link that was made, before its tracing span is added.
struct NewLink {
    link: BoxLink,
    subprotocol: Option<String>,
    limits: MessageLimits,
}

/// An accepted upgrade.
struct UpgradedStream<S> {
    stream: S,
    leftover: Bytes,
    subprotocol: Option<String>,
    limits: MessageLimits,
    extensions: Extensions,
}

impl Endpoint {
    /// Whether a token that was refused can be had anew.
    pub(super) fn asks_for_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// Dials, with a new token where there are such: another one if it is `refused`, but once only.
    pub(super) async fn dial_within(
        &self,
        timeout: Duration,
        layers: &Layers,
        mut refused: bool,
    ) -> Result<DialedLink, HandshakeError> {
        let dialing = async {
            loop {
                let bearer = match &self.tokens {
                    Some(tokens) => Some(bearer(&tokens.ask(refused).await?)?),
                    None => self.bearer.clone(),
                };
                match self.dial(bearer.as_ref(), layers).await {
                    Err(error) if self.asks_for_tokens() && !refused && is_unauthorized(&error) => {
                        refused = true;
                    }
                    dialed => return dialed,
                }
            }
        };
        match tokio::time::timeout(timeout, dialing).await {
            Ok(dialed) => dialed,
            Err(_) => Err(HandshakeError::TimedOut(timeout)),
        }
    }

    /// Dials. Where the server seems to dislike what was offered, it is offered less.
    async fn dial(
        &self,
        bearer: Option<&HeaderValue>,
        layers: &Layers,
    ) -> Result<DialedLink, HandshakeError> {
        let url = self.url()?;
        let span = span(&url);
        let offers = self.learned.in_order(&self.offers());
        async {
            let (mut first, mut whole) = (None, None);
            for offer in offers {
                if !offer.is_due(whole) {
                    continue;
                }
                let attempt = Attempt { offer: &offer.subprotocols, bearer };
                let error = match self.dial_following_redirects(url.clone(), attempt, layers).await
                {
                    Ok(NewLink { mut link, subprotocol, limits }) => {
                        self.learned.record_accepted(&offer, whole);
                        self.authenticate_in_band(&mut link, bearer).await?;
                        tracing::debug!("connected");
                        return Ok(DialedLink { link, subprotocol, limits, span: span.clone() });
                    }
                    Err(error) => error,
                };
                let Some(failed) = offer.failed(&error) else {
                    return Err(first.filter(|first| !is_cut(first)).unwrap_or(error));
                };
                tracing::debug!(%error, "failed, perhaps for the subprotocols offered");
                if offer.is_whole() {
                    whole = Some(failed);
                }
                // An answer says more than a connection that was lost.
                if first.as_ref().is_none_or(|first| is_cut(first) && failed == Failed::Refused) {
                    first = Some(error);
                }
            }
            Err(first.unwrap_or_else(|| HandshakeError::Invalid("nothing to dial".into())))
        }
        .instrument(span.clone())
        .await
    }

    /// The opening handshake on a stream that exists already.
    pub(super) async fn handshake_over<S: Io>(
        &self,
        stream: S,
        layers: &Layers,
    ) -> Result<DialedLink, HandshakeError> {
        let url = self.url()?;
        let span = span(&url);
        set_tcp_options(&stream);
        let bearer = match &self.tokens {
            Some(tokens) => Some(bearer(&tokens.ask(false).await?)?),
            None => self.bearer.clone(),
        };
        let attempt = Attempt { offer: &self.offers, bearer: bearer.as_ref() };
        let linked = self.link(&url, attempt, layers, stream).instrument(span.clone()).await?;
        let NewLink { mut link, subprotocol, limits } = linked;
        self.authenticate_in_band(&mut link, bearer.as_ref()).instrument(span.clone()).await?;
        Ok(DialedLink { link, subprotocol, limits, span })
    }

    /// Authenticates within the connection, where that is to be.
    async fn authenticate_in_band(
        &self,
        link: &mut BoxLink,
        bearer: Option<&HeaderValue>,
    ) -> Result<(), HandshakeError> {
        let Some(in_band_auth) = self.in_band_auth else { return Ok(()) };
        let bearer = bearer.and_then(|bearer| str::from_utf8(bearer.as_bytes()).ok());
        match bearer.and_then(|bearer| bearer.strip_prefix(BEARER)) {
            Some(token) => authenticate(link, in_band_auth, token).await,
            None => Err(HandshakeError::Invalid("there is no token to show".into())),
        }
    }

    /// Whether a session is come back to by its name: then 1000 may mean that another connection has
    /// taken over.
    pub(super) fn names_session(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.get().is_some())
    }

    /// What is offered now.
    fn offers(&self) -> Cow<'_, [String]> {
        match self.session.as_ref().and_then(offer::session) {
            Some(session) if !self.offers.contains(&session) => {
                let mut offers = self.offers.clone();
                offers.push(session);
                offers.into()
            }
            _ => (&self.offers).into(),
        }
    }

    fn url(&self) -> Result<Url, HandshakeError> {
        let invalid = |what: &dyn fmt::Display| HandshakeError::Invalid(format!("URL: {what}"));
        let mut url = Url::parse(&self.url).map_err(|error| match error {
            url::ParseError::RelativeUrlWithoutBase => {
                invalid(&"it has no scheme; it begins with ws:// or wss://")
            }
            error => invalid(&error),
        })?;
        match url.scheme() {
            "ws" | "wss" => {}
            "http" => return Err(invalid(&"the scheme is http; for WebSockets it is ws")),
            "https" => return Err(invalid(&"the scheme is https; for WebSockets it is wss")),
            other => {
                return Err(invalid(&format_args!(
                    "the scheme {other:?} is not ws or wss; if it is a host, put ws:// or wss:// \
                     before it"
                )));
            }
        }
        // To the parser of a URL the first part of the path would be the host then.
        let names_no_host =
            self.url.split_once(':').is_some_and(|(_, rest)| rest.starts_with("///"));
        if names_no_host || url.host().is_none() {
            return Err(invalid(&"no host; it stands after ws:// or wss://"));
        }
        url.set_fragment(None);
        Ok(url)
    }

    /// Dials `url` and whatever it redirects to within its origin.
    async fn dial_following_redirects(
        &self,
        mut url: Url,
        attempt: Attempt<'_>,
        layers: &Layers,
    ) -> Result<NewLink, HandshakeError> {
        for _ in 0..MAX_REDIRECTS {
            match self.dial_once(&url, attempt, layers).await {
                Err(HandshakeError::Refused(refusal)) => match redirected(&url, &refusal) {
                    Some(next) => url = next,
                    None => return Err(HandshakeError::Refused(refusal)),
                },
                result => return result,
            }
        }
        self.dial_once(&url, attempt, layers).await
    }

    async fn dial_once(
        &self,
        url: &Url,
        attempt: Attempt<'_>,
        layers: &Layers,
    ) -> Result<NewLink, HandshakeError> {
        let port = url.port_or_known_default().unwrap_or(80);
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return Err(HandshakeError::Invalid("URL: no host".into())),
        };
        let tcp = tcp::connect(&host, port).await;
        let tcp = tcp.map_err(|error| HandshakeError::Connect(Arc::new(error)))?;
        set_tcp_options(&tcp);
        if url.scheme() == "ws" {
            return self.link(url, attempt, layers, tcp).await;
        }
        let stream = tls::handshake(&self.tls, &host, tcp).await?;
        self.link(url, attempt, layers, stream).await
    }

    async fn link<S: Io>(
        &self,
        url: &Url,
        attempt: Attempt<'_>,
        layers: &Layers,
        stream: S,
    ) -> Result<NewLink, HandshakeError> {
        let UpgradedStream { stream, leftover, subprotocol, limits, extensions } =
            self.upgrade(url, attempt, layers, stream).await?;
        let link = layers.link(stream, leftover, Side::Client, extensions);
        Ok(NewLink { link, subprotocol, limits })
    }

    /// The opening handshake of the client (RFC 6455, section 4.1), by hyper.
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
        if let Some(extensions) = Extensions::offer(config) {
            request.headers_mut().insert(SEC_WEBSOCKET_EXTENSIONS, extensions);
        }
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(ExactCase::request(stream))).await.map_err(failed)?;
        let mut connection = connection.with_upgrades().fuse();
        let response = match select(sender.send_request(request).boxed(), &mut connection).await {
            Either::Left((response, _)) => response,
            Either::Right((_, response)) => response.await,
        };
        let response = response.map_err(failed)?;
        self.cookies.keep(url, response.headers());
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let refusal = match select(refusal(url, response).boxed(), &mut connection).await {
                Either::Left((refusal, _)) => refusal,
                Either::Right((_, refusal)) => refusal.await,
            };
            return Err(HandshakeError::Refused(Box::new(refusal)));
        }
        let (subprotocol, extensions) = check(&response, attempt.offer, config, &key)?;
        let limits = read_limits(response.headers());
        let upgraded = match select(hyper::upgrade::on(response), connection).await {
            Either::Left((upgraded, _)) => upgraded,
            Either::Right((_, upgraded)) => upgraded.await,
        };
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

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url().map(|url| origin_and_path(&url));
        f.debug_struct("Endpoint")
            .field("url", &url.unwrap_or_default())
            // Not the iterator itself: its `Debug` shows the values.
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("offers", &self.offers.iter().map(|offer| shown(offer)).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// The URL without what may be secret: user, password and query.
fn origin_and_path(url: &Url) -> String {
    let host = &url[url::Position::BeforeHost..url::Position::AfterPath];
    format!("{}://{host}", url.scheme())
}

fn span(url: &Url) -> Span {
    tracing::info_span!("websocket", url = %origin_and_path(url))
}

/// The credentials in a URL, as browsers and HTTP clients send them (RFC 7617).
fn basic(url: &Url) -> Result<Option<HeaderValue>, HandshakeError> {
    if url.username().is_empty() && url.password().is_none() {
        return Ok(None);
    }
    let decode = |text| percent_encoding::percent_decode_str(text).decode_utf8_lossy();
    let pair = format!("{}:{}", decode(url.username()), decode(url.password().unwrap_or_default()));
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)))
        .map_err(|error| HandshakeError::Invalid(error.to_string()))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// `Authorization: Bearer …` (RFC 6750, section 2.1).
pub(super) fn bearer(token: &str) -> Result<HeaderValue, HandshakeError> {
    let mut value = HeaderValue::try_from(format!("{BEARER}{token}"))
        .map_err(|_| HandshakeError::Invalid("the token cannot stand in a header".into()))?;
    value.set_sensitive(true);
    Ok(value)
}
