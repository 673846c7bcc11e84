//! [`Endpoint`]: the server that is dialled, and what is said to it.

use std::{borrow::Cow, fmt};

use http::{HeaderMap, HeaderValue};
use tracing::Span;

use super::{
    cookies::Cookies,
    subprotocol::{self, Offers, shown},
    tls::ClientTls,
    token::Tokens,
    url::Url,
};
use crate::{
    error::HandshakeError,
    framing::{properties::InBandAuth, session_id::SessionIdCell},
};

/// Server to dial, and what to say to it.
pub(super) struct Endpoint {
    pub(super) url: String,
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

    /// Parses the URL.
    pub(super) fn url(&self) -> Result<Url, HandshakeError> {
        Url::parse(&self.url).map_err(|what| HandshakeError::Invalid(format!("URL: {what}")))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url().map(|url| url.to_string());
        f.debug_struct("Endpoint")
            .field("url", &url.unwrap_or_default())
            // Not the iterator itself: its `Debug` shows the values.
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("offers", &self.offers.iter().map(|offer| shown(offer)).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Returns the span of a connection to `url`.
pub(super) fn span(url: &Url) -> Span {
    tracing::info_span!("websocket", %url)
}
