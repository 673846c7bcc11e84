//! The first connection of a client, and the transport over it.

use std::time::Duration;

use http::header::AUTHORIZATION;

use super::{
    backoff::Backoff,
    connect::Connect,
    dial::DialedLink,
    dialer::{Dialer, sleep_unless_suspended},
    endpoint::Endpoint,
    session::{SessionOpening, open},
    subprotocol::shown,
};
use crate::{
    close::{CloseCode, CloseReason},
    error::{Error, HandshakeError},
    event::{Broadcaster, ConnectionEvents, Event, State},
    handshake::{headers::SUBPROTOCOL, stream::Io},
    layer::resume::{self, receive_count::ReceiveCount},
    role::McpRole,
    time::SuspendDetector,
    transport::{WebSocketTransport, layers::Layers},
};

impl<R: McpRole> Connect<R> {
    /// Makes the first connection: over `stream` if there is one, else by dialling.
    pub(super) async fn run<S: Io>(
        self,
        stream: Option<S>,
    ) -> Result<WebSocketTransport<R>, Error> {
        let Self { mut endpoint, timeout, builder, reconnect, resume, state, events, .. } = self;
        let mut invalid = self.invalid;
        if let Err(error) = endpoint.resolve_unix_url() {
            invalid.get_or_insert(error);
        }
        #[cfg(feature = "proxy")]
        if stream.is_none()
            && let Err(error) = endpoint.use_proxy_of_environment()
        {
            invalid.get_or_insert(error);
        }
        let properties = builder.framing_properties();
        if self.in_band {
            endpoint.in_band_auth = properties.in_band_auth;
            endpoint.bearer = endpoint.headers.remove(AUTHORIZATION);
            if endpoint.in_band_auth.is_none()
                || endpoint.tokens.is_none() && endpoint.bearer.is_none()
            {
                let what = "no token, or no form in which it is shown within the connection";
                invalid.get_or_insert(HandshakeError::Invalid(what.into()));
            }
        }
        if !properties.uses_subprotocols {
            endpoint.offers.retain(|offer| offer != SUBPROTOCOL);
        } else {
            let may_resume = resume && properties.ping_message.is_none();
            if may_resume && reconnect.is_some() && !self.in_band {
                endpoint.offers.insert(1, resume::SUBPROTOCOL.to_owned());
            }
            endpoint.session = builder.session();
        }
        let layers = builder.layers();
        let receive_count = endpoint.receive_count.clone();
        let policy = || reconnect.clone().unwrap_or_default();
        let backoff = self.retry_first.then(|| Backoff::new(policy()));
        let first =
            First { endpoint: &endpoint, layers: &layers, timeout, receive_count: &receive_count };
        let opened = match (invalid, stream, backoff) {
            (Some(error), ..) => Err(error.into()),
            (None, Some(stream), _) => first.handshake_over(stream).await,
            (None, None, None) => first.dial().await,
            (None, None, Some(backoff)) => first.dial_with_retries(backoff, &events).await,
        };
        match opened {
            Ok((DialedLink { link, subprotocol, limits, span }, opened)) => {
                let session = opened.name();
                let agreed = subprotocol.as_deref().map(shown);
                tracing::info!(parent: &span, subprotocol = agreed, session, "connected");
                let builder = builder.subprotocol(subprotocol).span(span.clone());
                let builder = builder.peer(receive_count.peer().clone());
                opened.begin(&receive_count, limits);
                let Some(policy) = reconnect else {
                    return Ok(builder.over_link(link, ConnectionEvents::of_state(state)));
                };
                let events = ConnectionEvents::new(state, events);
                let count = receive_count.clone();
                let source =
                    Dialer::new(endpoint, layers, timeout, policy, events.clone(), count, span);
                Ok(builder.over_dialled_session(link, source, events, receive_count))
            }
            Err(error) => {
                state.send_replace(State::Closed(CloseReason::new(
                    CloseCode::Abnormal,
                    error.to_string(),
                )));
                Err(error)
            }
        }
    }
}

/// The parts that making the first connection needs.
struct First<'a> {
    endpoint: &'a Endpoint,
    layers: &'a Layers,
    timeout: Duration,
    receive_count: &'a ReceiveCount,
}

impl First<'_> {
    async fn handshake_over<S: Io>(
        &self,
        stream: S,
    ) -> Result<(DialedLink, SessionOpening), Error> {
        let handshake = self.endpoint.handshake_over(stream, self.layers);
        let dialed = tokio::time::timeout(self.timeout, handshake).await;
        self.open(dialed.unwrap_or(Err(HandshakeError::TimedOut(self.timeout)))?).await
    }

    async fn dial(&self) -> Result<(DialedLink, SessionOpening), Error> {
        self.open(self.endpoint.dial_within(self.timeout, self.layers, false).await?).await
    }

    /// Dials until a connection is made, the error is permanent, or the attempts are used up.
    async fn dial_with_retries(
        &self,
        mut backoff: Backoff,
        events: &Broadcaster<Event>,
    ) -> Result<(DialedLink, SessionOpening), Error> {
        loop {
            backoff.attempt = backoff.attempt.saturating_add(1);
            let attempt = backoff.attempt;
            let error = match self.dial().await {
                Ok(opened) => return Ok(opened),
                Err(error) if !error.is_retryable() => return Err(error),
                Err(error) => error,
            };
            let Some(next) = backoff.after_failure(&error) else { return Err(error) };
            match attempt {
                1 => tracing::warn!(%error, ?next, "not connected yet; trying again"),
                _ => tracing::debug!(%error, attempt, ?next, "not connected yet"),
            }
            events.announce(|| Event::Failed { attempt, error, next });
            sleep_unless_suspended(next, SuspendDetector::new()).await;
        }
    }

    async fn open(&self, mut dialed: DialedLink) -> Result<(DialedLink, SessionOpening), Error> {
        let (subprotocol, own) = (dialed.subprotocol.as_deref(), self.layers.limits());
        let opened = open(&mut dialed.link, subprotocol, self.receive_count, own).await?;
        Ok((dialed, opened))
    }
}
