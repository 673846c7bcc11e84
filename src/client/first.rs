//! The first connection of a client, and the transport over it.

use std::time::Duration;

use http::header::AUTHORIZATION;

use super::{
    Connect,
    dial::{Dialled, Target},
    opening::{Opened, open},
    reconnect::Waits,
    redial::{Redial, wait},
};
use crate::{
    decode::Role,
    error::{CloseCode, CloseReason, Error, HandshakeError},
    event::{Announcer, Event, Notices, State},
    layer::resume::{self, ReceiveCount},
    time::Alarm,
    transport::{Layers, WebSocketTransport},
    upgrade::{Io, SUBPROTOCOL},
};

impl<R: Role> Connect<R> {
    /// Makes the first connection: over `stream` if there is one, else by dialling.
    pub(super) async fn run<S: Io>(
        self,
        stream: Option<S>,
    ) -> Result<WebSocketTransport<R>, Error> {
        let Self { mut target, timeout, builder, reconnect, resume, state, events, .. } = self;
        let mut invalid = self.invalid;
        let properties = builder.framing_properties();
        if self.in_band {
            target.in_band_auth = properties.in_band_auth;
            target.bearer = target.headers.remove(AUTHORIZATION);
            if target.in_band_auth.is_none() || target.tokens.is_none() && target.bearer.is_none() {
                let what = "no token, or no form in which it is shown within the connection";
                invalid.get_or_insert(HandshakeError::Invalid(what.into()));
            }
        }
        if !properties.uses_subprotocols {
            target.offers.retain(|offer| offer != SUBPROTOCOL);
        } else {
            if resume && reconnect.is_some() && !self.in_band {
                target.offers.insert(1, resume::SUBPROTOCOL.to_owned());
            }
            target.session = builder.session();
        }
        let layers = builder.layers();
        let receive_count = ReceiveCount::default();
        let policy = || reconnect.clone().unwrap_or_default();
        let waits = self.retry_first.then(|| Waits::new(policy()));
        let first =
            First { target: &target, layers: &layers, timeout, receive_count: &receive_count };
        let opened = match (invalid, stream, waits) {
            (Some(error), ..) => Err(error.into()),
            (None, Some(stream), _) => first.over(stream).await,
            (None, None, None) => first.dial().await,
            (None, None, Some(waits)) => first.dial_with_retries(waits, &events).await,
        };
        match opened {
            Ok((Dialled { link, subprotocol, limits, span }, opened)) => {
                let builder = builder.subprotocol(subprotocol).span(span.clone());
                let builder = builder.peer(receive_count.peer().clone());
                opened.begin(&receive_count, limits);
                let Some(policy) = reconnect else {
                    return Ok(builder.over_link(link, Notices::of_state(state)));
                };
                let notices = Notices::new(state, events);
                let count = receive_count.clone();
                let source =
                    Redial::new(target, layers, timeout, policy, notices.clone(), count, span);
                Ok(builder.over_sessions(link, source, notices, receive_count))
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
    target: &'a Target,
    layers: &'a Layers,
    timeout: Duration,
    receive_count: &'a ReceiveCount,
}

impl First<'_> {
    async fn over<S: Io>(&self, stream: S) -> Result<(Dialled, Opened), Error> {
        let handshake = self.target.over(stream, self.layers);
        let dialled = tokio::time::timeout(self.timeout, handshake).await;
        self.open(dialled.unwrap_or(Err(HandshakeError::TimedOut(self.timeout)))?).await
    }

    async fn dial(&self) -> Result<(Dialled, Opened), Error> {
        self.open(self.target.dial_within(self.timeout, self.layers, false).await?).await
    }

    /// Dials until a connection is made, the error is permanent, or the attempts are used up.
    async fn dial_with_retries(
        &self,
        mut waits: Waits,
        events: &Announcer<Event>,
    ) -> Result<(Dialled, Opened), Error> {
        loop {
            waits.attempt = waits.attempt.saturating_add(1);
            let attempt = waits.attempt;
            let error = match self.dial().await {
                Ok(opened) => return Ok(opened),
                Err(error) if !error.is_retryable() => return Err(error),
                Err(error) => error,
            };
            let Some(next) = waits.failed(&error) else { return Err(error) };
            match attempt {
                1 => tracing::warn!(%error, ?next, "not connected yet; trying again"),
                _ => tracing::debug!(%error, attempt, ?next, "not connected yet"),
            }
            events.announce(|| Event::Failed { attempt, error, next });
            wait(next, Alarm::new()).await;
        }
    }

    async fn open(&self, mut dialled: Dialled) -> Result<(Dialled, Opened), Error> {
        let (subprotocol, own) = (dialled.subprotocol.as_deref(), self.layers.limits());
        let opened = open(&mut dialled.link, subprotocol, self.receive_count, own).await?;
        Ok((dialled, opened))
    }
}
