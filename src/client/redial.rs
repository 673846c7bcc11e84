//! [`Redial`]: the links of a client that dials again whenever it has lost one.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::time::{Instant, Sleep, sleep, timeout_at};
use tracing::{Instrument, Span};

use super::{
    dial::Target,
    opening::{Opened, open},
    reconnect::{Reconnect, Waits},
};
use crate::{
    duplex::BoxLink,
    error::{CloseCode, Error, HandshakeError, LinkError},
    event::{Event, Notices, State},
    layer::{
        relink::{LinkSource, Renew},
        resume::Tally,
    },
    link::Up,
    time::after,
    transport::Layers,
};

type Dialling = BoxFuture<'static, Result<(BoxLink, Opened), Error>>;

pub(super) struct Redial {
    target: Arc<Target>,
    layers: Layers,
    timeout: Duration,
    waits: Waits,
    notices: Notices,
    tally: Tally,
    renew: Renew,
    span: Span,
    /// Whether there is a link that counts, and since when.
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
        tally: Tally,
        span: Span,
    ) -> Self {
        Self {
            target: Arc::new(target),
            layers,
            timeout,
            waits: Waits::new(policy),
            notices,
            tally,
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
        let (target, layers, tally) =
            (self.target.clone(), self.layers.clone(), self.tally.clone());
        let timeout = self.timeout;
        let dialling = async move {
            let deadline = after(timeout);
            let mut dialled = target.dial_within(timeout, &layers, refused).await?;
            let opening = open(&mut dialled.link, dialled.subprotocol.as_deref(), &tally);
            match timeout_at(deadline, opening).await {
                Ok(opened) => Ok((dialled.link, opened?)),
                Err(_) => Err(HandshakeError::TimedOut(timeout).into()),
            }
        };
        self.phase = Phase::Dialling(dialling.instrument(self.span.clone()).boxed());
    }

    /// An attempt has failed. The error, if it was the last.
    fn failed(&mut self, error: Error) -> Option<Error> {
        self.phase = Phase::Idle;
        let attempt = self.waits.attempt;
        if self.live && !self.tally.is_frozen() {
            tracing::debug!(%error, "no other connection");
            return None;
        }
        if ends_session(&error) {
            self.tally.forget();
        }
        if !error.is_retryable() && !is_violation(&error) {
            return Some(error);
        }
        if self.live {
            // The peer was told the count, so nothing is received over the present link any more.
            let next = self.lose(&error);
            self.wait(next);
            return None;
        }
        let Some(next) = self.waits.failed(&error) else { return Some(error) };
        tracing::debug!(%error, attempt, ?next, "not reconnected yet");
        self.notices.announce(|| Event::Failed { attempt, error, next });
        self.wait(next);
        None
    }

    /// The present link is as good as lost, for this reason. How long it is until the next attempt.
    fn lose(&mut self, cause: &Error) -> Duration {
        self.live = false;
        tracing::warn!(%cause, "connection lost; reconnecting");
        self.notices.lost(cause);
        self.waits.lost(cause, self.since.elapsed())
    }
}

impl LinkSource for Redial {
    type Link = BoxLink;

    fn lost(mut self: Pin<&mut Self>, cause: &Error) -> bool {
        let this = &mut *self;
        if !this.live {
            return true;
        }
        let span = this.span.clone();
        let _entered = span.enter();
        // Once only, unless the new token has done for a while.
        let used_up = this.refreshed && this.since.elapsed() < this.waits.stable();
        let refreshed = this.target.asks_for_tokens()
            && is_closed_with(cause, CloseCode::Unauthorized)
            && !used_up;
        let dials = matches!(this.phase, Phase::Dialling(_));
        // The server lets each client have one connection, and the next is under way.
        let replaced = dials
            && (is_closed_with(cause, CloseCode::TakenOver)
                || is_closed_with(cause, CloseCode::Normal) && this.target.names_session());
        // The peer was told the count over the next one: this one has no say any more.
        let deaf = this.tally.is_frozen();
        if !cause.is_retryable() && !refreshed && !replaced && !deaf {
            return false;
        }
        if !deaf && ends_session(cause) {
            this.tally.forget();
        }
        let next = this.lose(cause);
        if dials {
            // Another link was wanted even before this one was lost.
            this.waits.attempt = 1;
            this.tell(Duration::ZERO);
        } else if refreshed {
            this.dial(true);
        } else {
            this.wait(next);
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
                    Ok((link, opened)) => {
                        this.phase = Phase::Idle;
                        // Whoever asked meanwhile has been heard.
                        let _ = this.renew.poll_asked(cx);
                        this.live = true;
                        this.since = Instant::now();
                        let up = opened.begin(&this.tally);
                        let session = if up == Up::Restarted { "restarted" } else { "resumed" };
                        tracing::info!(parent: &this.span, session, "reconnected");
                        return Poll::Ready(Ok((link, up)));
                    }
                    Err(error) => {
                        if let Some(error) = this.failed(error) {
                            return Poll::Ready(Err(error));
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

/// Whether no session outlives a link that ended so (`mcp.resume.v1`, section 7).
fn ends_session(cause: &Error) -> bool {
    let Error::Link(cause) = cause else { return false };
    match cause.close_reason().code {
        CloseCode::SessionGone => true,
        CloseCode::TakenOver => false,
        _ => !cause.is_retryable(),
    }
}

/// Whether a rule was broken when a session was to be resumed. A new one may fare better.
fn is_violation(cause: &Error) -> bool {
    use CloseCode as C;
    let Error::Link(cause) = cause else { return false };
    matches!(
        cause.close_reason().code,
        C::Protocol | C::Unsupported | C::InvalidPayload | C::TooBig | C::MandatoryExtension
    )
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
        let redial =
            Redial::new(target, layers, timeout, policy, notices, Tally::default(), Span::none());
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
