//! The way to an open connection: offers, redirects, tokens, and authentication within it.

use std::time::Duration;

use http::HeaderValue;
use tracing::{Instrument, Span};
use url::Url;

use super::{
    authorization::{BEARER, bearer},
    endpoint::{Endpoint, span},
    in_band::authenticate,
    redirect::{MAX_REDIRECTS, redirected},
    refusal::{is_cut, is_unauthorized},
    subprotocol::Failed,
    upgrade::{Attempt, UpgradedLink},
};
use crate::{
    duplex::BoxLink,
    error::HandshakeError,
    handshake::stream::{Io, set_tcp_options},
    link::MessageLimits,
    transport::layers::Layers,
};

/// Link that was just made, ready for the session to be opened.
pub(super) struct DialedLink {
    pub(super) link: BoxLink,
    pub(super) subprotocol: Option<String>,
    /// Limits that the server has announced in its upgrade response.
    pub(super) limits: MessageLimits,
    pub(super) span: Span,
}

impl Endpoint {
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
                    Ok(UpgradedLink { mut link, subprotocol, limits }) => {
                        self.learned.record_accepted(&offer, whole);
                        self.authenticate_in_band(&mut link, bearer).await?;
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
                // A response says more than a lost connection.
                if first.as_ref().is_none_or(|first| is_cut(first) && failed == Failed::Refused) {
                    first = Some(error);
                }
            }
            Err(first.unwrap_or_else(|| HandshakeError::Invalid("nothing to dial".into())))
        }
        .instrument(span.clone())
        .await
    }

    /// Performs the opening handshake on a stream that exists already.
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
        let UpgradedLink { mut link, subprotocol, limits } = linked;
        self.authenticate_in_band(&mut link, bearer.as_ref()).instrument(span.clone()).await?;
        Ok(DialedLink { link, subprotocol, limits, span })
    }

    /// Authenticates within the connection, if that is required.
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

    /// Dials `url` and whatever it redirects to within its origin.
    async fn dial_following_redirects(
        &self,
        mut url: Url,
        attempt: Attempt<'_>,
        layers: &Layers,
    ) -> Result<UpgradedLink, HandshakeError> {
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
}
