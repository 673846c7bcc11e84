//! [`Dialer`]: the links of a client that dials again whenever it has lost one.

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
    backoff::{Backoff, ReconnectPolicy},
    endpoint::Endpoint,
    lifetimes::Lifetimes,
    session::{SessionOpening, close_with, open},
};
use crate::{
    close::CloseCode,
    duplex::BoxLink,
    error::{Error, HandshakeError, LinkError},
    event::{ConnectionEvents, Event, State},
    layer::{
        reconnect::{LinkSource, ReconnectHandle},
        resume::receive_count::ReceiveCount,
    },
    link::{LinkUp, MessageLimits},
    time::{SuspendDetector, deadline_in, millis, saturating_add},
    transport::layers::Layers,
};

/// Number of connections in a row that may be lost to a message that is too large. Another cause of
/// loss, or [`ReconnectPolicy::stable`] between them, resets the count. The message itself is not
/// sent again.
const MAX_OVERSIZED: u32 = 5;

type Dialing = BoxFuture<'static, Result<(BoxLink, MessageLimits, SessionOpening), Error>>;

/// Source of a client's links: dials, waits, and decides which causes of a loss are final.
pub(super) struct Dialer {
    endpoint: Arc<Endpoint>,
    layers: Layers,
    timeout: Duration,
    backoff: Backoff,
    events: ConnectionEvents,
    receive_count: ReceiveCount,
    reconnect_handle: ReconnectHandle,
    span: Span,
    /// `true` while there is a link that counts.
    live: bool,
    /// Time at which the last link that counted was lost.
    lost_at: Option<Instant>,
    /// `true` if the last attempt was made after the server had refused a token.
    refreshed: bool,
    reclaim: Reclaim,
    /// Connections lost in a row to a message that is too large.
    oversized: u32,
    since: Instant,
    /// The connection has carried a message each way.
    carried: bool,
    lifetimes: Lifetimes,
    suspend_detector: fn() -> SuspendDetector,
    phase: Phase,
}

/// Return to a session that another connection has taken over.
///
/// | | the next connection |
/// |---|---|
/// | `No` | opens or resumes a session |
/// | `Wanted` | resumes the session, or this error ends the client: `Done` |
/// | `Done`, by the present connection | as with `No`; another takeover ends the client, unless this connection has lasted |
#[derive(Debug, Clone)]
enum Reclaim {
    No,
    Wanted(Error),
    Done,
}

/// Attempt to connect.
///
/// | | until | next |
/// |---|---|---|
/// | `Idle` | another connection is requested | `Dialing` |
/// | `Waiting` | the time has passed, or another connection is requested | `Dialing` |
/// | `Dialing` | it succeeds or fails | `Idle`; `Waiting` if it fails and is tried again |
enum Phase {
    Idle,
    /// The wait for the next attempt, which resolves to `true` if the machine was asleep meanwhile.
    Waiting(BoxFuture<'static, bool>),
    Dialing(Dialing),
}

impl Dialer {
    pub(super) fn new(
        endpoint: Endpoint,
        layers: Layers,
        timeout: Duration,
        policy: ReconnectPolicy,
        events: ConnectionEvents,
        receive_count: ReceiveCount,
        span: Span,
    ) -> Self {
        Self {
            endpoint: Arc::new(endpoint),
            layers,
            timeout,
            backoff: Backoff::new(policy),
            events,
            receive_count,
            reconnect_handle: ReconnectHandle::default(),
            span,
            live: true,
            lost_at: None,
            refreshed: false,
            reclaim: Reclaim::No,
            oversized: 0,
            since: Instant::now(),
            carried: false,
            lifetimes: Lifetimes::default(),
            suspend_detector: SuspendDetector::new,
            phase: Phase::Idle,
        }
    }

    fn wait(&mut self, next: Duration) {
        self.tell(next);
        self.phase =
            Phase::Waiting(sleep_unless_suspended(next, (self.suspend_detector)()).boxed());
    }

    fn tell(&self, next: Duration) {
        if !self.live {
            let attempt = self.backoff.attempt;
            self.events.state.send_replace(State::Reconnecting { attempt, next });
        }
    }

    fn dial(&mut self, refused: bool) {
        self.backoff.attempt = self.backoff.attempt.saturating_add(1);
        self.tell(Duration::ZERO);
        self.refreshed = refused;
        let (endpoint, layers, receive_count) =
            (self.endpoint.clone(), self.layers.clone(), self.receive_count.clone());
        let (timeout, reclaim) = (self.timeout, self.reclaim.clone());
        let dialing = async move {
            let deadline = deadline_in(timeout);
            let mut dialed = endpoint.dial_within(timeout, &layers, refused).await?;
            let (subprotocol, own) = (dialed.subprotocol.as_deref(), layers.limits());
            let opening = open(&mut dialed.link, subprotocol, &receive_count, own);
            let opened = match timeout_at(deadline, opening).await {
                Ok(opened) => opened?,
                Err(_) => return Err(HandshakeError::TimedOut(timeout).into()),
            };
            match reclaim {
                Reclaim::Wanted(cause) if !matches!(opened, SessionOpening::Resumed(..)) => {
                    // The server has begun another session, which is not wanted.
                    close_with(&mut dialed.link, CloseCode::Normal.into()).await;
                    Err(cause)
                }
                _ => Ok((dialed.link, dialed.limits, opened)),
            }
        };
        self.phase = Phase::Dialing(dialing.instrument(self.span.clone()).boxed());
    }

    /// Records that an attempt has failed. Returns its error, if it was the last.
    fn failed(&mut self, error: Error) -> Option<Error> {
        self.phase = Phase::Idle;
        let attempt = self.backoff.attempt;
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
            // The count is frozen, so nothing is received over the present link any more.
            let next = self.lose(&error);
            self.wait(next);
            return None;
        }
        let Some(next) = self.backoff.after_failure(&error) else { return Some(error) };
        tracing::debug!(%error, attempt, ?next, "not reconnected yet");
        self.events.announce(|| Event::Failed { attempt, error, next });
        self.wait(next);
        None
    }

    /// Logs that there is another link.
    fn log_reconnected(&mut self, up: &LinkUp) {
        let session = if *up == LinkUp::NewPeer { "restarted" } else { "resumed" };
        // There is none where the former link was given up for this one.
        let lost_at = self.lost_at.take();
        tracing::info!(
            parent: &self.span,
            session,
            attempts = lost_at.map(|_| self.backoff.attempt),
            outage_ms = lost_at.map(|lost_at| millis(lost_at.elapsed())),
            "reconnected"
        );
    }

    /// Records the loss of the present link, for this reason. Returns the time until the next
    /// attempt.
    fn lose(&mut self, cause: &Error) -> Duration {
        self.live = false;
        self.lost_at = Some(Instant::now());
        tracing::warn!(parent: &self.span, cause = cause.to_string(), "connection lost; reconnecting");
        self.events.announce_lost(cause);
        if let Some(age) = self.lifetimes.record_loss(cause, self.since.elapsed()) {
            tracing::warn!(
                parent: &self.span,
                ?age,
                "connections are lost again and again at this age: an idle timeout on the way? Then \
                 pings keep them: set `layer::heartbeat::Config::ping_interval` well below it. If they \
                 do not, something on the way bounds how long a connection may last"
            );
        }
        self.backoff
            .after_loss(cause, self.carried || self.since.elapsed() >= self.backoff.stable())
    }
}

impl LinkSource for Dialer {
    type Link = BoxLink;

    fn on_lost(mut self: Pin<&mut Self>, cause: &Error) -> bool {
        let this = &mut *self;
        if !this.live {
            return true;
        }
        let span = this.span.clone();
        let _entered = span.enter();
        // Only once, unless the link made with the new token has lasted.
        let used_up = this.refreshed && this.since.elapsed() < this.backoff.stable();
        let refreshed = this.endpoint.asks_for_tokens()
            && is_closed_with(cause, CloseCode::Unauthorized)
            && !used_up;
        let dials = matches!(this.phase, Phase::Dialing(_));
        let taken_over = is_closed_with(cause, CloseCode::TakenOver);
        // The server allows each client one connection, and the next is under way.
        let replaced = dials
            && (taken_over
                || is_closed_with(cause, CloseCode::Normal) && this.endpoint.names_session());
        // Perhaps an attempt that this client had given up took over: then the session is still its
        // own.
        let reclaims = taken_over
            && this.receive_count.session().is_some()
            && !(matches!(this.reclaim, Reclaim::Done)
                && this.since.elapsed() < this.backoff.stable());
        // A message that was too large is not sent again, so the next link fares better; unless it
        // does not.
        this.oversized = match is_too_large(cause) {
            true if this.since.elapsed() < this.backoff.stable() => this.oversized + 1,
            large => u32::from(large),
        };
        let oversized = (1..=MAX_OVERSIZED).contains(&this.oversized);
        // The peer was told the count over the next link, so this one no longer matters.
        let is_frozen = this.receive_count.is_frozen();
        if !cause.is_retryable() && !refreshed && !replaced && !is_frozen && !reclaims && !oversized
        {
            return false;
        }
        this.reclaim = match reclaims && !replaced && !is_frozen {
            true => Reclaim::Wanted(cause.clone()),
            false => Reclaim::No,
        };
        if !is_frozen && ends_session(cause) {
            this.receive_count.forget();
        }
        let next = this.lose(cause);
        if dials {
            // Another link was requested before this one was lost.
            this.backoff.attempt = 1;
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
                        this.backoff.on_wakeup();
                    }
                    this.dial(false);
                }
                Phase::Dialing(dialing) => match ready!(dialing.as_mut().poll(cx)) {
                    Ok((link, limits, opened)) => {
                        this.phase = Phase::Idle;
                        this.reclaim = match this.reclaim {
                            Reclaim::Wanted(_) => Reclaim::Done,
                            Reclaim::No | Reclaim::Done => Reclaim::No,
                        };
                        // A request for another link that came meanwhile is fulfilled.
                        let _ = this.reconnect_handle.poll_requested(cx);
                        this.live = true;
                        this.since = Instant::now();
                        this.carried = false;
                        let up = opened.begin(&this.receive_count, limits);
                        this.log_reconnected(&up);
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

/// Sleeps for `next`, or until the machine has been asleep. Returns `true` if it was. No timer
/// notices that, and the network is another now.
pub(super) async fn sleep_unless_suspended(
    next: Duration,
    mut suspend_detector: SuspendDetector,
) -> bool {
    let due = deadline_in(next);
    loop {
        let now = Instant::now();
        if now >= due {
            return false;
        }
        sleep_until(due.min(saturating_add(now, SuspendDetector::INTERVAL))).await;
        if suspend_detector.take_suspended() {
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

/// Returns `true` if no session outlives a link that ended so (`mcp.resume.v1`, section 7).
fn ends_session(cause: &Error) -> bool {
    let Error::Link(cause) = cause else { return false };
    match cause.close_reason().code {
        CloseCode::SessionGone => true,
        CloseCode::TakenOver => false,
        _ => !cause.is_retryable(),
    }
}

/// Returns `true` if a rule was broken when a session was to be resumed. A new one may fare better.
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
        event::{Broadcaster, Events},
        transport::WebSocketTransport,
    };

    /// Creates a dialer of an address where nobody listens, with its events and state.
    fn dialer(
        policy: ReconnectPolicy,
    ) -> (Pin<Box<Dialer>>, Events<Event>, watch::Receiver<State>) {
        let endpoint = super::super::connect::<RoleClient>("ws://127.0.0.1:1/").endpoint;
        let layers = WebSocketTransport::<RoleClient>::builder().layers();
        let announcer = Broadcaster::default();
        let news = announcer.subscribe();
        let events = ConnectionEvents::new(watch::Sender::new(State::Connected), announcer);
        let state = events.state.subscribe();
        let timeout = Duration::from_secs(10);
        let dialer = Dialer::new(
            endpoint,
            layers,
            timeout,
            policy,
            events,
            ReceiveCount::default(),
            Span::none(),
        );
        (Box::pin(dialer), news, state)
    }

    fn cut() -> Error {
        LinkError::Closed(CloseCode::Abnormal.into()).into()
    }

    /// Returns the next event, while the next link is waited for.
    async fn next_event(dialer: &mut Pin<Box<Dialer>>, news: &mut Events<Event>) -> Event {
        tokio::select! {
            _ = poll_fn(|cx| dialer.as_mut().poll_next_link(cx)) => panic!("there is no server"),
            event = news.next() => event.unwrap(),
        }
    }

    #[tokio::test]
    async fn an_attempt_that_began_before_the_loss_is_the_first() {
        let (mut dialer, mut news, state) = dialer(ReconnectPolicy::default());
        dialer.dial(false);
        assert!(dialer.as_mut().on_lost(&cut()));
        assert!(matches!(*state.borrow(), State::Reconnecting { attempt: 1, .. }));
        assert!(matches!(news.next().await, Some(Event::Lost(_))));
        let event = next_event(&mut dialer, &mut news).await;
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
        let (mut dialer, mut news, _state) = dialer(ReconnectPolicy::default());
        dialer.suspend_detector = || SuspendDetector::with_clock(clock);
        assert!(dialer.as_mut().on_lost(&cut()));
        assert!(matches!(news.next().await, Some(Event::Lost(_))));
        // The server has been unreachable for long.
        for _ in 0..10 {
            dialer.backoff.after_failure(&cut());
        }
        dialer.wait(hour);
        let early = timeout(60 * second, next_event(&mut dialer, &mut news)).await;
        assert!(early.is_err(), "{early:?}");
        SLEPT.store(600, Relaxed);
        let woke = Instant::now();
        let event = timeout(2 * second, next_event(&mut dialer, &mut news)).await.unwrap();
        assert!(woke.elapsed() <= second, "{:?}", woke.elapsed());
        // If the network is not there yet, the next attempt follows soon.
        assert!(
            matches!(event, Event::Failed { attempt: 1, next, .. } if next <= 2 * second),
            "{event:?}"
        );
    }
}
