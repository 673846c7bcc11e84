//! [`WsExtensions`]: the extensions agreed on (RFC 6455, section 9): permessage-deflate, or none.

use bytes::Bytes;
#[cfg(any(feature = "client", feature = "deflate"))]
#[cfg(feature = "__http")]
use http::header::SEC_WEBSOCKET_EXTENSIONS;
#[cfg(feature = "__http")]
use http::{HeaderMap, HeaderValue};
use tokio::io::{AsyncRead, AsyncWrite};

#[cfg(feature = "deflate")]
use crate::layer::socket::deflate::negotiate::Agreement;
use crate::{
    layer::socket::{Socket, config::Config, side::Side},
    stats::Stats,
};

/// Extensions of one connection.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct WsExtensions {
    #[cfg(feature = "deflate")]
    deflate: Option<Agreement>,
}

impl WsExtensions {
    /// Creates a socket that speaks them.
    pub(crate) fn socket<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        stream: S,
        leftover: Bytes,
        side: Side,
        config: Config,
        stats: Stats,
    ) -> Socket<S> {
        #[cfg(feature = "deflate")]
        stats.record_compression(self.deflate.is_some());
        #[cfg(feature = "deflate")]
        if let Some(agreement) = self.deflate {
            return Socket::deflating(stream, leftover, side, config, stats, agreement);
        }
        Socket::with_leftover(stream, leftover, side, config, stats)
    }
}

#[cfg(feature = "client")]
impl WsExtensions {
    /// Returns what a client of this `config` offers.
    pub(crate) fn offer(config: &Config) -> Option<HeaderValue> {
        #[cfg(feature = "deflate")]
        return config.deflate.as_ref().map(|deflate| HeaderValue::from_static(deflate.offer()));
        #[cfg(not(feature = "deflate"))]
        {
            let _ = config;
            None
        }
    }

    /// Reads what the server has chosen of the offer.
    ///
    /// # Errors
    /// The fault of the choice, in words.
    pub(crate) fn chosen(config: &Config, answer: &HeaderMap) -> Result<Self, String> {
        // An empty list is none (RFC 9110, section 5.6.1).
        let blank = |value: &&[u8]| value.iter().all(|byte| b", \t".contains(byte));
        let answers = answer.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().map(HeaderValue::as_bytes);
        let mut answers = answers.filter(|value| !blank(value)).peekable();
        #[cfg(feature = "deflate")]
        if let Some(deflate) = &config.deflate {
            let deflate = deflate.confirm(answers);
            return deflate
                .map(|deflate| Self { deflate })
                .map_err(|what| format!("the extension chosen: {what}"));
        }
        let _ = config;
        match answers.peek() {
            Some(_) => Err("an extension that was not offered".into()),
            None => Ok(Self::default()),
        }
    }
}

#[cfg(feature = "server")]
impl WsExtensions {
    /// Chooses for a server of this `config` from what `request` offers, and says how to answer.
    pub(crate) fn choose(config: &Config, request: &HeaderMap) -> (Self, Option<HeaderValue>) {
        #[cfg(feature = "deflate")]
        if let Some(deflate) = &config.deflate {
            let offers = request.get_all(SEC_WEBSOCKET_EXTENSIONS);
            let chosen = deflate.answer(offers.iter().map(HeaderValue::as_bytes));
            if let Some((agreement, answer)) = chosen
                && let Ok(answer) = HeaderValue::try_from(answer)
            {
                return (Self { deflate: Some(agreement) }, Some(answer));
            }
        }
        let _ = (config, request);
        (Self::default(), None)
    }
}
