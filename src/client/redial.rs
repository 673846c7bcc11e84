//! [`Redial`]: the links of a client that dials again whenever it has lost one.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{Instrument, Span};

use super::{
    dial::Target,
    lifetimes::Lifetimes,
    opening::{Opened, open, part},
    reconnect::{ReconnectPolicy, Waits},
};
use crate::{
    duplex::BoxLink,
    error::{CloseCode, Error, HandshakeError, LinkError},
    event::{Event, Notices, State},
    layer::{
        reconnect::{LinkSource, ReconnectHandle},
        resume::ReceiveCount,
    },
    link::{LinkUp, MessageLimits},
    time::{Alarm, after, later},
    transport::Layers,
};

/// Number of connections in a row that may be lost to a message that is too large. Another cause of
/// loss, or [`ReconnectPolicy::stable`] between them, resets the count. The message itself is not
/// sent again.
const MAX_OVERSIZED: u32 = 5;

type Dialling = BoxFuture<'static, Result<(BoxLink, MessageLimits, Opened), Error>>;

pub(super) struct Redial {
    target: Arc<Target>,
    layers: Layers,
    timeout: Duration,
    waits: Waits,
    notices: Notices,
    receive_count: ReceiveCount,
    reconnect_handle: ReconnectHandle,
    span: Span,
    /// Whether there is a link that counts, and since when.
    live: bool,
    /// It was made after the server had refused a token.
    refreshed: bool,
    /// The connection was taken over, for which this is told unless the session can be resumed; and
    /// whether the present one was made so.
    reclaims: Option<Error>,
    reclaimed: bool,
    /// Connections lost in a row to a message that is too large.
    oversized: u32,
    since: Instant,
    /// The connection has carried a message each way.
    carried: bool,
    lifetimes: Lifetimes,
    alarm: fn() -> Alarm,
    phase: Phase,
}

enum Phase {
    Idle,
    /// Until the next attempt. Whether the machine was asleep meanwhile.
    Waiting(BoxFuture<'static, bool>),
    Dialling(Dialling),
}

impl Redial {
    pub(super) fn new(
        target: Target,
        layers: Layers,
        timeout: Duration,
        policy: ReconnectPolicy,
        notices: Notices,
        receive_count: ReceiveCount,
        span: Span,
    ) -> Self {
        Self {
            target: Arc::new(target),
            layers,
            timeout,
            waits: Waits::new(policy),
            notices,
            receive_count,
            reconnect_handle: ReconnectHandle::default(),
            span,
            live: true,
            refreshed: false,
            reclaims: None,
            reclaimed: false,
            oversized: 0,
            since: Instant::now(),
            carried: false,
            lifetimes: Lifetimes::default(),
            alarm: Alarm::new,
            phase: Phase::Idle,
        }
    }

    fn wait(&mut self, next: Duration) {
        self.tell(next);
        self.phase = Phase::Waiting(wait(next, (self.alarm)()).boxed());
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
        let (target, layers, receive_count) =
            (self.target.clone(), self.layers.clone(), self.receive_count.clone());
        let (timeout, reclaims) = (self.timeout, self.reclaims.clone());
        let dialling = async move {
            let deadline = after(timeout);
            let mut dialled = target.dial_within(timeout, &layers, refused).await?;
            let (subprotocol, own) = (dialled.subprotocol.as_deref(), layers.limits());
            let opening = open(&mut dialled.link, subprotocol, &receive_count, own);
            let opened = match timeout_at(deadline, opening).await {
                Ok(opened) => opened?,
                Err(_) => return Err(HandshakeError::TimedOut(timeout).into()),
            };
            match reclaims {
                Some(cause) if !matches!(opened, Opened::Resumed(..)) => {
                    // The server has begun another session, which nobody wants.
                    part(&mut dialled.link, CloseCode::Normal.into()).await;
                    Err(cause)
                }
                _ => Ok((dialled.link, dialled.limits, opened)),
            }
        };
        self.phase = Phase::Dialling(dialling.instrument(self.span.clone()).boxed());
    }

    /// An attempt has failed. The error, if it was the last.
    fn failed(&mut self, error: Error) -> Option<Error> {
        self.phase = Phase::Idle;
        let attempt = self.waits.attempt;
        if self.live && !self.receive_count.is_frozen() {
            tracing::debug!(%error, "no other connection");
            return None;
        }
        if ends_session(&error) {
            self.receive_count.forget();
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
        if let Some(age) = self.lifetimes.record_loss(cause, self.since.elapsed()) {
            tracing::warn!(
                ?age,
                "connections are lost again and again at this age: an idle timeout on the way? Then \
                 pings keep them: set `layer::heartbeat::Config::ping_interval` well below it. If they \
                 do not, something on the way bounds how long a connection may last"
            );
        }
        self.waits.lost(cause, self.carried || self.since.elapsed() >= self.waits.stable())
    }
}

impl LinkSource for Redial {
    type Link = BoxLink;

    fn on_lost(mut self: Pin<&mut Self>, cause: &Error) -> bool {
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
        let taken_over = is_closed_with(cause, CloseCode::TakenOver);
        // The server lets each client have one connection, and the next is under way.
        let replaced = dials
            && (taken_over
                || is_closed_with(cause, CloseCode::Normal) && this.target.names_session());
        // Perhaps by an attempt that this client had given up: then the session is still its own.
        let reclaims = taken_over
            && this.receive_count.session().is_some()
            && !(this.reclaimed && this.since.elapsed() < this.waits.stable());
        // It is one message that is not sent again, unless it is not that.
        this.oversized = match is_too_large(cause) {
            true if this.since.elapsed() < this.waits.stable() => this.oversized + 1,
            large => u32::from(large),
        };
        let oversized = (1..=MAX_OVERSIZED).contains(&this.oversized);
        // The peer was told the count over the next one: this one has no say any more.
        let deaf = this.receive_count.is_frozen();
        if !cause.is_retryable() && !refreshed && !replaced && !deaf && !reclaims && !oversized {
            return false;
        }
        this.reclaims = (reclaims && !replaced && !deaf).then(|| cause.clone());
        if !deaf && ends_session(cause) {
            this.receive_count.forget();
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

    fn poll_next_link(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(BoxLink, LinkUp), Error>> {
        let this = &mut *self;
        loop {
            match &mut this.phase {
                Phase::Idle => {
                    ready!(this.reconnect_handle.poll_requested(cx));
                    this.dial(false);
                }
                Phase::Waiting(waiting) => {
                    if this.reconnect_handle.poll_requested(cx).is_pending()
                        && ready!(waiting.as_mut().poll(cx))
                    {
                        tracing::debug!(parent: &this.span, "the machine was asleep");
                        this.waits.woke();
                    }
                    this.dial(false);
                }
                Phase::Dialling(dialling) => match ready!(dialling.as_mut().poll(cx)) {
                    Ok((link, limits, opened)) => {
                        this.phase = Phase::Idle;
                        this.reclaimed = this.reclaims.take().is_some();
                        // Whoever asked meanwhile has been heard.
                        let _ = this.reconnect_handle.poll_requested(cx);
                        this.live = true;
                        this.since = Instant::now();
                        this.carried = false;
                        let up = opened.begin(&this.receive_count, limits);
                        let session = if up == LinkUp::NewPeer { "restarted" } else { "resumed" };
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

    fn carried(mut self: Pin<&mut Self>) {
        self.carried = true;
    }

    fn reconnect_handle(&self) -> ReconnectHandle {
        self.reconnect_handle.clone()
    }
}

/// Ends after `next`, or when the machine has been asleep: no timer notices that, and the network is
/// another now. Whether it was asleep.
pub(super) async fn wait(next: Duration, mut alarm: Alarm) -> bool {
    let due = after(next);
    loop {
        let now = Instant::now();
        if now >= due {
            return false;
        }
        sleep_until(due.min(later(now, Alarm::INTERVAL))).await;
        if alarm.has_slept() {
            return true;
        }
    }
}

fn is_closed_with(cause: &Error, code: CloseCode) -> bool {
    matches!(cause, Error::Link(LinkError::Closed(reason)) if reason.code == code)
}

/// Returns `true` if a message was larger than its receiver accepts, on either side.
fn is_too_large(cause: &Error) -> bool {
    matches!(cause, Error::Link(cause) if cause.close_reason().code == CloseCode::TooBig)
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
    use std::{
        future::poll_fn,
        sync::atomic::{AtomicU64, Ordering::Relaxed},
        time::{SystemTime, UNIX_EPOCH},
    };

    use futures::StreamExt;
    use rmcp::RoleClient;
    use tokio::{sync::watch, time::timeout};

    use super::*;
    use crate::{
        event::{Announcer, Events},
        transport::WebSocketTransport,
    };

    /// Links to where nobody listens, and what is told of them.
    fn redial(
        policy: ReconnectPolicy,
    ) -> (Pin<Box<Redial>>, Events<Event>, watch::Receiver<State>) {
        let target = super::super::connect::<RoleClient>("ws://127.0.0.1:1/").target;
        let layers = WebSocketTransport::<RoleClient>::builder().layers();
        let announcer = Announcer::default();
        let news = announcer.subscribe();
        let notices = Notices::new(watch::Sender::new(State::Connected), announcer);
        let state = notices.state.subscribe();
        let timeout = Duration::from_secs(10);
        let redial = Redial::new(
            target,
            layers,
            timeout,
            policy,
            notices,
            ReceiveCount::default(),
            Span::none(),
        );
        (Box::pin(redial), news, state)
    }

    fn cut() -> Error {
        LinkError::Closed(CloseCode::Abnormal.into()).into()
    }

    /// What is told next, while the next link is waited for.
    async fn next_event(redial: &mut Pin<Box<Redial>>, news: &mut Events<Event>) -> Event {
        tokio::select! {
            _ = poll_fn(|cx| redial.as_mut().poll_next_link(cx)) => panic!("there is no server"),
            event = news.next() => event.unwrap(),
        }
    }

    #[tokio::test]
    async fn an_attempt_that_began_before_the_loss_is_the_first() {
        let (mut redial, mut news, state) = redial(ReconnectPolicy::default());
        redial.dial(false);
        assert!(redial.as_mut().on_lost(&cut()));
        assert!(matches!(*state.borrow(), State::Reconnecting { attempt: 1, .. }));
        assert!(matches!(news.next().await, Some(Event::Lost(_))));
        let event = next_event(&mut redial, &mut news).await;
        assert!(matches!(event, Event::Failed { attempt: 1, .. }), "{event:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_wakes_up_waits_no_longer() {
        static SLEPT: AtomicU64 = AtomicU64::new(0);
        fn clock() -> SystemTime {
            UNIX_EPOCH + Duration::from_secs(SLEPT.load(Relaxed))
        }
        let hour = Duration::from_secs(3600);
        let second = Duration::from_secs(1);
        let (mut redial, mut news, _state) = redial(ReconnectPolicy::default());
        redial.alarm = || Alarm::with_clock(clock);
        assert!(redial.as_mut().on_lost(&cut()));
        assert!(matches!(news.next().await, Some(Event::Lost(_))));
        // It has failed for long.
        for _ in 0..10 {
            redial.waits.failed(&cut());
        }
        redial.wait(hour);
        let early = timeout(60 * second, next_event(&mut redial, &mut news)).await;
        assert!(early.is_err(), "{early:?}");
        SLEPT.store(600, Relaxed);
        let woke = Instant::now();
        let event = timeout(2 * second, next_event(&mut redial, &mut news)).await.unwrap();
        assert!(woke.elapsed() <= second, "{:?}", woke.elapsed());
        // And where the network is not there yet, it is soon asked again.
        assert!(
            matches!(event, Event::Failed { attempt: 1, next, .. } if next <= 2 * second),
            "{event:?}"
        );
    }
}
