//! [`Redial`]: the links of a client that dials again whenever it has lost one.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::time::{Instant, Sleep, sleep};
use tracing::{Instrument, Span};

use super::{
    dial::{Dialled, Target},
    reconnect::{Reconnect, Waits},
};
use crate::{
    duplex::BoxLink,
    error::{CloseCode, Error, HandshakeError, LinkError},
    event::{Event, Notices, State},
    layer::relink::{LinkSource, Renew},
    link::Up,
    transport::Layers,
};

type Dialling = BoxFuture<'static, Result<Dialled, HandshakeError>>;

pub(super) struct Redial {
    target: Arc<Target>,
    layers: Layers,
    timeout: Duration,
    waits: Waits,
    notices: Notices,
    renew: Renew,
    span: Span,
    /// Whether there is a link, and since when.
    live: bool,
    /// It was made after the server had refused a token.
    refreshed: bool,
    since: Instant,
    phase: Phase,
}

enum Phase {
    Idle,
    Waiting(Pin<Box<Sleep>>),
    Dialling(Dialling),
}

impl Redial {
    pub(super) fn new(
        target: Target,
        layers: Layers,
        timeout: Duration,
        policy: Reconnect,
        notices: Notices,
        span: Span,
    ) -> Self {
        Self {
            target: Arc::new(target),
            layers,
            timeout,
            waits: Waits::new(policy),
            notices,
            renew: Renew::default(),
            span,
            live: true,
            refreshed: false,
            since: Instant::now(),
            phase: Phase::Idle,
        }
    }

    fn wait(&mut self, next: Duration) {
        self.tell(next);
        self.phase = Phase::Waiting(Box::pin(sleep(next)));
    }

    fn tell(&self, next: Duration) {
        if !self.live {
            let attempt = self.waits.attempt;
            self.notices.state.send_replace(State::Reconnecting { attempt, next });
        }
    }

    fn dial(&mut self, refused: bool) {
        self.waits.attempt = self.waits.attempt.saturating_add(1);
        self.tell(Duration::ZERO);
        self.refreshed = refused;
        let (target, layers, timeout) = (self.target.clone(), self.layers.clone(), self.timeout);
        let dialling = async move { target.dial_within(timeout, &layers, refused).await };
        self.phase = Phase::Dialling(dialling.instrument(self.span.clone()).boxed());
    }

    /// An attempt has failed. The error, if it was the last.
    fn failed(&mut self, error: HandshakeError) -> Option<HandshakeError> {
        self.phase = Phase::Idle;
        let attempt = self.waits.attempt;
        if self.live {
            tracing::debug!(%error, "no other connection");
            return None;
        }
        let next = match self.waits.failed(&error) {
            Some(next) if error.is_retryable() => next,
            _ => return Some(error),
        };
        tracing::debug!(%error, attempt, ?next, "not reconnected yet");
        self.notices.announce(|| Event::Failed { attempt, error: error.into(), next });
        self.wait(next);
        None
    }
}

impl LinkSource for Redial {
    type Link = BoxLink;

    fn lost(mut self: Pin<&mut Self>, cause: &Error) -> bool {
        let this = &mut *self;
        let span = this.span.clone();
        let _entered = span.enter();
        let lasted = this.since.elapsed();
        // Once only, unless the new token has done for a while.
        let used_up = this.refreshed && lasted < this.waits.stable();
        let refreshed = this.target.asks_for_tokens()
            && is_closed_with(cause, CloseCode::Unauthorized)
            && !used_up;
        // The server lets each client have one connection, and the next is under way.
        let replaced =
            matches!(this.phase, Phase::Dialling(_)) && is_closed_with(cause, CloseCode::TakenOver);
        if !cause.is_retryable() && !refreshed && !replaced {
            return false;
        }
        this.live = false;
        let next = this.waits.lost(cause, lasted);
        tracing::warn!(%cause, "connection lost; reconnecting");
        this.notices.lost(cause);
        match this.phase {
            // Another link was wanted even before this one was lost.
            Phase::Dialling(_) => {
                this.waits.attempt = 1;
                this.tell(Duration::ZERO);
            }
            _ if refreshed => this.dial(true),
            _ => this.wait(next),
        }
        true
    }

    fn poll_link(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(BoxLink, Up), Error>> {
        let this = &mut *self;
        loop {
            match &mut this.phase {
                Phase::Idle => {
                    ready!(this.renew.poll_asked(cx));
                    this.dial(false);
                }
                Phase::Waiting(timer) => {
                    if this.renew.poll_asked(cx).is_pending() {
                        ready!(timer.as_mut().poll(cx));
                    }
                    this.dial(false);
                }
                Phase::Dialling(dialling) => match ready!(dialling.as_mut().poll(cx)) {
                    Ok(Dialled { link, .. }) => {
                        this.phase = Phase::Idle;
                        // Whoever asked meanwhile has been heard.
                        let _ = this.renew.poll_asked(cx);
                        this.live = true;
                        this.since = Instant::now();
                        tracing::info!(parent: &this.span, "reconnected");
                        return Poll::Ready(Ok((link, Up::Restarted)));
                    }
                    Err(error) => {
                        if let Some(error) = this.failed(error) {
                            return Poll::Ready(Err(error.into()));
                        }
                    }
                },
            }
        }
    }

    fn renew(&self) -> Renew {
        self.renew.clone()
    }
}

fn is_closed_with(cause: &Error, code: CloseCode) -> bool {
    matches!(cause, Error::Link(LinkError::Closed(reason)) if reason.code == code)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::StreamExt;
    use rmcp::RoleClient;
    use tokio::sync::watch;

    use super::*;
    use crate::{event::Announcer, transport::WebSocketTransport};

    #[tokio::test]
    async fn an_attempt_that_began_before_the_loss_is_the_first() {
        // Nobody listens there.
        let target = super::super::connect::<RoleClient>("ws://127.0.0.1:1/").target;
        let layers = WebSocketTransport::<RoleClient>::builder().layers();
        let announcer = Announcer::default();
        let mut news = announcer.subscribe();
        let notices = Notices::new(watch::Sender::new(State::Connected), announcer);
        let state = notices.state.subscribe();
        let (timeout, policy) = (Duration::from_secs(10), Reconnect::default());
        let redial = Redial::new(target, layers, timeout, policy, notices, Span::none());
        let mut redial = Box::pin(redial);
        redial.dial(false);
        assert!(redial.as_mut().lost(&LinkError::Closed(CloseCode::Abnormal.into()).into()));
        assert!(matches!(*state.borrow(), State::Reconnecting { attempt: 1, .. }));
        assert!(matches!(news.next().await, Some(Event::Lost(_))));
        let event = tokio::select! {
            _ = poll_fn(|cx| redial.as_mut().poll_link(cx)) => panic!("there is no server"),
            event = news.next() => event,
        };
        assert!(matches!(event, Some(Event::Failed { attempt: 1, .. })), "{event:?}");
    }
}
