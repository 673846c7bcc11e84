//! [`Endpoint`]: the server that is dialled, and what is said to it.

use std::{borrow::Cow, fmt};

use http::{HeaderMap, HeaderValue};
use tracing::Span;
use url::Url;

use super::{
    connector::Route,
    cookies::Cookies,
    subprotocol::{self, Offers, shown},
    tls::ClientTls,
    token::Tokens,
};
#[cfg(feature = "proxy")]
use super::{connector::Target, proxy::environment};
use crate::{
    error::HandshakeError,
    framing::{properties::InBandAuth, session_id::SessionIdCell},
    layer::resume::{frame::SUBPROTOCOL as RESUME, receive_count::ReceiveCount},
};

/// Server to dial, and what to say to it.
pub(super) struct Endpoint {
    pub(super) url: String,
    pub(super) route: Route,
    pub(super) headers: HeaderMap,
    /// Subprotocols to offer, `mcp` first.
    pub(super) offers: Vec<String>,
    pub(super) tls: ClientTls,
    pub(super) tokens: Option<Tokens>,
    /// Subprotocol offers, in the order that earlier handshakes have taught.
    pub(super) learned: Offers,
    /// Cookies that the server has set so far.
    pub(super) cookies: Cookies,
    /// Id of the session to come back to, if there is one.
    pub(super) session: Option<SessionIdCell>,
    /// Count of the session to resume, if there is one.
    pub(super) receive_count: ReceiveCount,
    /// Authentication within the connection, in place of a header, and the token that lasts.
    pub(super) in_band_auth: Option<InBandAuth>,
    pub(super) bearer: Option<HeaderValue>,
}

impl Endpoint {
    /// Returns `true` if a token that was refused can be had anew.
    pub(super) fn asks_for_tokens(&self) -> bool {
        self.tokens.is_some()
    }

    /// Returns `true` if this client returns by session id. A Close with 1000 may then mean that a
    /// newer connection took over.
    pub(super) fn names_session(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.get().is_some())
    }

    /// Returns the subprotocols to offer now.
    pub(super) fn offers(&self) -> Cow<'_, [String]> {
        match self.session.as_ref().and_then(subprotocol::session) {
            Some(session) if !self.offers.contains(&session) => {
                let mut offers = self.offers.clone();
                offers.push(session);
                offers.into()
            }
            _ => (&self.offers).into(),
        }
    }

    /// Returns the header with the id of the session that a link with these `subprotocols` resumes.
    ///
    /// A load balancer may lead the client by it. The server is told the id again in `@open`.
    pub(super) fn session_header(&self, subprotocols: &[String]) -> Option<HeaderValue> {
        if !subprotocols.iter().any(|offered| offered == RESUME) {
            return None;
        }
        let session = self.receive_count.session()?.session;
        let mut id = HeaderValue::try_from(session.as_str()).ok()?;
        id.set_sensitive(true);
        Some(id)
    }

    /// Takes the URL of a Unix socket apart: connections go there, and ask `localhost`.
    pub(super) fn resolve_unix_url(&mut self) -> Result<(), HandshakeError> {
        #[cfg(unix)]
        if let Some((socket, url)) = super::unix::split(&self.url)? {
            if matches!(self.route, Route::Connector(_)) {
                let what = "the URL of a Unix socket leaves no room for a connector or a proxy";
                return Err(HandshakeError::Invalid(what.into()));
            }
            self.url = url.into();
            self.route = Route::by(socket);
        }
        Ok(())
    }

    /// Takes the proxy that the environment names, unless the way of the connections is settled.
    #[cfg(feature = "proxy")]
    pub(super) fn use_proxy_of_environment(&mut self) -> Result<(), HandshakeError> {
        let (Route::Unset, Ok(url)) = (&self.route, self.url()) else { return Ok(()) };
        if let Some(proxy) = environment::proxy(&Target::of(&url)?)? {
            tracing::debug!(?proxy, "connecting by way of a proxy, as the environment says");
            self.route = Route::Connector(std::sync::Arc::new(proxy));
        }
        Ok(())
    }

    pub(super) fn url(&self) -> Result<Url, HandshakeError> {
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
        // A URL parser would take the first part of the path for the host.
        let names_no_host =
            self.url.split_once(':').is_some_and(|(_, rest)| rest.starts_with("///"));
        if names_no_host || url.host().is_none() {
            return Err(invalid(&"no host; it stands after ws:// or wss://"));
        }
        url.set_fragment(None);
        Ok(url)
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

/// Returns the URL without what may be secret: user, password and query.
fn origin_and_path(url: &Url) -> String {
    let host = &url[url::Position::BeforeHost..url::Position::AfterPath];
    format!("{}://{host}", url.scheme())
}

/// Creates the span of a connection to `url`, without what may be secret: user, password and query.
///
/// Its fields have the names of OpenTelemetry's semantic conventions.
pub(super) fn span(url: &Url) -> Span {
    tracing::info_span!(
        "websocket",
        otel.kind = "client",
        network.protocol.name = "websocket",
        server.address = url.host_str(),
        server.port = url.port_or_known_default(),
        url.scheme = url.scheme(),
        url.path = url.path(),
    )
}
