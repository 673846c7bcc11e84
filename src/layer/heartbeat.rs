//! [`Heartbeat`]: pings the peer, and ends a link over which nothing arrives.
//!
//! Items are [`Message`]s. Pings stop here, and so do the pongs that answer this layer's own; a
//! layer above may send pings too, and gets the pongs of those. Only what *arrives* counts: a
//! socket goes on accepting writes for minutes after the peer is gone. The pings go beneath
//! whatever queues messages above, so a long queue delays none, and the link is ended even while
//! nothing can be written at all.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::{Sink, Stream};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    duplex::{Duplex, forward_sink},
    error::{Error, LinkError},
    message::Message,
    stats::Stats,
    time::{SuspendDetector, saturating_add},
};

/// Times at which a [`Heartbeat`] pings and gives up.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) ping_interval: Option<Duration>,
    pub(crate) pong_timeout: Duration,
    pub(crate) idle_timeout: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ping_interval: Some(Duration::from_secs(20)),
            pong_timeout: Duration::from_secs(10),
            idle_timeout: Some(Duration::from_secs(45)),
        }
    }
}

impl Config {
    /// Sets after how long without anything arriving a ping is sent, and again while nothing does:
    /// 20 s. `None` sends none. Of the links that the crate makes, the side that dialled pings an
    /// eighth earlier, so that of two sides with the same settings one pings, and not both.
    #[must_use]
    pub fn ping_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.ping_interval = interval.into();
        self
    }

    /// Sets after how long a link is down on which nothing at all arrives after a ping: 10 s.
    #[must_use]
    pub fn pong_timeout(mut self, timeout: Duration) -> Self {
        self.pong_timeout = timeout;
        self
    }

    /// Sets after how long a link is down on which nothing at all arrives, pinged or not: 45 s.
    /// `None` waits for ever.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.idle_timeout = timeout.into();
        self
    }
}

impl Config {
    /// Returns the next ping where the last thing of note was at `moment`.
    fn next_ping(&self, moment: Instant) -> NextPing {
        self.ping_interval
            .map_or(NextPing::Never, |interval| NextPing::At(saturating_add(moment, interval)))
    }

    /// Returns when the link is down on which something last arrived at `moment`.
    fn idle_due(&self, moment: Instant) -> Option<Instant> {
        self.idle_timeout.map(|timeout| saturating_add(moment, timeout))
    }
}

/// Next ping.
///
/// | | waits for | then |
/// |---|---|---|
/// | `Never` | | |
/// | `At` | the time, which is put off by whatever arrives | `At`, an interval later; `Overdue` if the link takes nothing |
/// | `Overdue` | the link, which takes no ping: the transport of one large message may take longer than any pong | `At`, an interval later |
#[derive(Debug, Clone, Copy, PartialEq)]
enum NextPing {
    Never,
    At(Instant),
    Overdue,
}

impl NextPing {
    fn due(self) -> Option<Instant> {
        if let Self::At(due) = self { Some(due) } else { None }
    }

    fn is_due(self, now: Instant) -> bool {
        self == Self::Overdue || self.due().is_some_and(|due| due <= now)
    }
}

/// Items that have arrived since the last look at the timer.
///
/// | | the timer |
/// |---|---|
/// | `Nothing` | stays |
/// | `Messages` | stays: where much arrives, it is cheaper to let it fire |
/// | `PingOrPong`, perhaps among messages | is set anew: an idle link is not woken once more for a ping that is no longer due |
#[derive(Debug, Clone, Copy, PartialEq)]
enum Arrived {
    Nothing,
    Messages,
    PingOrPong,
}

pin_project! {
    /// Watches over a link by WebSocket pings (RFC 6455, section 5.5.2).
    #[derive(Debug)]
    #[must_use = "a layer does nothing unless polled"]
    #[project = Projected]
    pub struct Heartbeat<S> {
        config: Config,
        stats: Stats,
        arrived: Arrived,
        // Time at which something last arrived, and the bytes received by then: a large message
        // counts before it is whole.
        last_received: Instant,
        bytes: u64,
        next_ping: NextPing,
        // Time of the first ping since something arrived.
        unanswered: Option<Instant>,
        // Number of the last ping, which is its payload, and the time at which it was sent.
        sent: (u64, Instant),
        unflushed: bool,
        // Builds the message that is sent in place of a ping.
        ping_message: Option<fn() -> Message>,
        // Detector of a machine that was asleep, if that is looked for, and the time of its next
        // check.
        suspend: Option<(SuspendDetector, Instant)>,
        #[pin]
        timer: Sleep,
        #[pin]
        inner: S,
    }
}

impl<S: Duplex<Message, Message>> Heartbeat<S> {
    /// Creates the layer over `inner`, whose deadlines begin now.
    pub fn new(inner: S, config: Config) -> Self {
        Self::with_stats(inner, config, Stats::default())
    }

    /// Creates the layer with the counters in which the round trip is recorded. Where the socket
    /// below counts in them too, parts of a message count as arrived.
    pub fn with_stats(inner: S, config: Config, stats: Stats) -> Self {
        let now = Instant::now();
        let next_ping = config.next_ping(now);
        let first = next_ping.due().into_iter().chain(config.idle_due(now)).min();
        Self {
            stats,
            arrived: Arrived::Nothing,
            last_received: now,
            bytes: 0,
            next_ping,
            unanswered: None,
            sent: (0, now),
            unflushed: false,
            ping_message: None,
            suspend: None,
            timer: sleep_until(first.unwrap_or_else(|| saturating_add(now, Duration::MAX))),
            inner,
            config,
        }
    }

    /// Pings at once when the machine has been asleep. No timer notices that, and the peer may have
    /// given this link up in the meantime. For that it looks at the clock every second. Does nothing
    /// where no pings are sent.
    pub fn detect_suspend(self) -> Self {
        self.with_suspend_detector(SuspendDetector::new())
    }

    /// Sends what `ping_message` makes in place of pings, for peers that answer none. Whatever
    /// arrives answers it.
    pub fn with_ping_message(self, ping_message: Option<fn() -> Message>) -> Self {
        Self { ping_message, ..self }
    }

    /// Pings an eighth earlier than a peer that has the same settings.
    pub(crate) fn before_the_peer(mut self) -> Self {
        let shorter = self.config.ping_interval.map(|interval| interval - interval / 8);
        self.config.ping_interval = shorter;
        self.next_ping = self.config.next_ping(self.last_received);
        let first = self.next_ping.due().into_iter().chain([self.timer.deadline()]).min();
        Self { timer: first.map_or(self.timer, sleep_until), ..self }
    }

    fn with_suspend_detector(self, suspend: SuspendDetector) -> Self {
        if self.next_ping == NextPing::Never {
            return self;
        }
        let next = saturating_add(Instant::now(), SuspendDetector::INTERVAL);
        let first = self.timer.deadline().min(next);
        Self { suspend: Some((suspend, next)), timer: sleep_until(first), ..self }
    }

    /// Sends a due ping. Ready, with the error, once the peer has missed its deadline.
    fn poll_heartbeat(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Error> {
        let mut this = self.project();
        this.record_arrivals();
        if *this.unflushed
            && let Poll::Ready(Err(error)) = this.poll_flush(cx)
        {
            return Poll::Ready(error);
        }
        loop {
            let fired = this.timer.as_mut().poll(cx).is_ready();
            if !fired && *this.next_ping != NextPing::Overdue {
                return Poll::Pending;
            }
            let now = Instant::now();
            this.check_suspended(now);
            if this.peer_due().is_some_and(|due| due <= now) {
                return Poll::Ready(LinkError::TimedOut(now - *this.last_received).into());
            }
            if this.next_ping.is_due(now) {
                match this.poll_ping(now, cx) {
                    Poll::Ready(Ok(())) => continue,
                    Poll::Ready(Err(error)) => return Poll::Ready(error),
                    Poll::Pending => *this.next_ping = NextPing::Overdue,
                }
            }
            if !fired {
                return Poll::Pending;
            }
            match this.next_due() {
                Some(next) => this.timer.as_mut().reset(next),
                None => return Poll::Pending,
            }
        }
    }
}

impl<S: Duplex<Message, Message>> Projected<'_, S> {
    /// Records what has arrived: it answers all pings, and puts off the next.
    fn record_arrivals(&mut self) {
        let bytes = self.stats.received();
        let grown = std::mem::replace(self.bytes, bytes) != bytes;
        let arrived = std::mem::replace(self.arrived, Arrived::Nothing);
        if arrived != Arrived::Nothing || grown {
            *self.last_received = Instant::now();
            *self.unanswered = None;
            if *self.next_ping != NextPing::Overdue {
                *self.next_ping = self.config.next_ping(*self.last_received);
            }
        }
        if arrived == Arrived::PingOrPong
            && let Some(next) = self.next_due()
        {
            self.timer.as_mut().reset(next);
        }
    }

    /// Makes the next ping due at once if the machine was asleep.
    fn check_suspended(&mut self, now: Instant) {
        if let Some((suspend, next)) = self.suspend
            && *next <= now
        {
            *next = saturating_add(now, SuspendDetector::INTERVAL);
            if suspend.take_suspended() {
                tracing::debug!("the machine was asleep");
                *self.next_ping = NextPing::At(now);
            }
        }
    }

    /// Returns when the link is down unless something arrives before.
    fn peer_due(&self) -> Option<Instant> {
        let pong_due = self.unanswered.map(|sent| saturating_add(sent, self.config.pong_timeout));
        pong_due.into_iter().chain(self.config.idle_due(*self.last_received)).min()
    }

    /// Returns the time for which the timer is to be set.
    fn next_due(&self) -> Option<Instant> {
        let suspend_check_due = self.suspend.as_ref().map(|(_, next)| *next);
        [self.peer_due(), self.next_ping.due(), suspend_check_due].into_iter().flatten().min()
    }

    /// Sends a ping; pending if the link takes none.
    fn poll_ping(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(self.inner.as_mut().poll_ready(cx))?;
        let number = self.sent.0 + 1;
        *self.sent = (number, now);
        let ping = self.ping_message.map_or_else(
            || Message::Ping(Bytes::copy_from_slice(&number.to_be_bytes())),
            |ping_message| ping_message(),
        );
        self.inner.as_mut().start_send(ping)?;
        let first = *self.unanswered.get_or_insert(now);
        *self.next_ping = self.config.next_ping(now);
        // The timer may be set for a time after that of the pong.
        let pong_due = saturating_add(first, self.config.pong_timeout);
        if pong_due < self.timer.deadline() {
            self.timer.as_mut().reset(pong_due);
        }
        let _ = self.poll_flush(cx)?;
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let flushed = self.inner.as_mut().poll_flush(cx);
        *self.unflushed = flushed.is_pending();
        flushed
    }
}

impl<S: Duplex<Message, Message>> Stream for Heartbeat<S> {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let mut this = self.as_mut().project();
            let Poll::Ready(item) = this.inner.as_mut().poll_next(cx) else {
                return self.poll_heartbeat(cx).map(|error| Some(Err(error)));
            };
            match item {
                Some(Ok(Message::Ping(_))) => {}
                Some(Ok(Message::Pong(payload))) if payload[..] == this.sent.0.to_be_bytes() => {
                    this.stats.record_round_trip(this.sent.1.elapsed());
                }
                item => {
                    if *this.arrived == Arrived::Nothing {
                        *this.arrived = Arrived::Messages;
                    }
                    return Poll::Ready(item);
                }
            }
            *this.arrived = Arrived::PingOrPong;
        }
    }
}

impl<S: Duplex<Message, Message>> Sink<Message> for Heartbeat<S> {
    type Error = Error;

    forward_sink!(inner, Message: poll_ready, start_send, poll_flush, poll_close);
}

#[cfg(test)]
mod tests;
