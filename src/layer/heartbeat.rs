//! [`Heartbeat`]: pings the peer, and ends a link over which nothing arrives.
//!
//! Items are [`Message`]s. Pings stop here, and so do the pongs that answer this layer's own; a
//! layer above may send pings too, and gets the pongs of those. Only what *arrives* counts: a
//! socket goes on accepting writes for minutes after the peer is gone. The pings go beneath
//! whatever queues messages above, so a long queue delays none, and the link is ended even while
//! nothing can be written at all.

use std::{
    pin::Pin,
    task::{Context, Poll},
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

pin_project! {
    /// Watches over a link by WebSocket pings (RFC 6455, section 5.5.2).
    #[derive(Debug)]
    #[must_use = "a layer does nothing unless polled"]
    pub struct Heartbeat<S> {
        config: Config,
        stats: Stats,
        // Time at which something last arrived, and `true` if something has since that was
        // recorded.
        last_received: Instant,
        received: bool,
        // Since then, only pings and pongs have arrived.
        is_idle: bool,
        // Bytes received at that time: a large message counts before it is whole.
        bytes: u64,
        next_ping: Option<Instant>,
        // Time of the first ping since something arrived.
        unanswered: Option<Instant>,
        // Number of the last ping, which is its payload, and the time at which it was sent.
        sent: (u64, Instant),
        unflushed: bool,
        // A ping is due, but the link could not take it.
        overdue: bool,
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
        let next_ping = config.ping_interval.map(|interval| saturating_add(now, interval));
        let idle_due = config.idle_timeout.map(|timeout| saturating_add(now, timeout));
        let first = next_ping.into_iter().chain(idle_due).min();
        Self {
            stats,
            last_received: now,
            received: false,
            is_idle: false,
            bytes: 0,
            next_ping,
            unanswered: None,
            sent: (0, now),
            unflushed: false,
            overdue: false,
            ping_message: None,
            suspend: None,
            timer: sleep_until(first.unwrap_or_else(|| saturating_add(now, Duration::MAX))),
            inner,
            config,
        }
    }
}

impl<S: Duplex<Message, Message>> Heartbeat<S> {
    /// Pings at once when the machine has been asleep. No timer notices that, and the peer may have
    /// given this link up in the meantime. For that it looks at the clock every second.
    pub fn detect_suspend(self) -> Self {
        self.with_suspend_detector(SuspendDetector::new())
    }

    /// Sends what `ping_message` makes in place of pings, for peers that answer none. Whatever arrives
    /// answers it.
    pub fn with_ping_message(self, ping_message: Option<fn() -> Message>) -> Self {
        Self { ping_message, ..self }
    }

    /// Pings an eighth earlier than a peer that has the same settings.
    pub(crate) fn before_the_peer(mut self) -> Self {
        let shorter = self.config.ping_interval.map(|interval| interval - interval / 8);
        self.config.ping_interval = shorter;
        let due = shorter.map(|interval| saturating_add(self.last_received, interval));
        self.next_ping = due;
        let first = due.into_iter().chain([self.timer.deadline()]).min();
        Self { timer: first.map_or(self.timer, sleep_until), ..self }
    }

    fn with_suspend_detector(self, suspend: SuspendDetector) -> Self {
        let next = saturating_add(Instant::now(), SuspendDetector::INTERVAL);
        let first = self.timer.deadline().min(next);
        Self { suspend: Some((suspend, next)), timer: sleep_until(first), ..self }
    }

    /// Sends a due ping. Ready, with the error, once the peer has missed its deadline.
    fn poll_beat(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Error> {
        let mut this = self.as_mut().project();
        let bytes = this.stats.received();
        let grown = std::mem::replace(this.bytes, bytes) != bytes;
        if std::mem::take(this.received) || grown {
            let now = Instant::now();
            *this.last_received = now;
            *this.unanswered = None;
            if !*this.overdue {
                *this.next_ping =
                    this.config.ping_interval.map(|interval| saturating_add(now, interval));
            }
        }
        if std::mem::take(this.is_idle) {
            // An idle link is not woken once more for a ping that is no longer due. Where much
            // arrives, it is cheaper to let the timer fire.
            let idle_due = this
                .config
                .idle_timeout
                .map(|timeout| saturating_add(*this.last_received, timeout));
            let ping_due = this.next_ping.filter(|_| !*this.overdue);
            let suspend_check_due = this.suspend.as_ref().map(|(_, next)| *next);
            if let Some(next) = [idle_due, ping_due, suspend_check_due].into_iter().flatten().min()
            {
                this.timer.as_mut().reset(next);
            }
        }
        if *this.unflushed
            && let Poll::Ready(flushed) = this.inner.as_mut().poll_flush(cx)
        {
            *this.unflushed = false;
            if let Err(error) = flushed {
                return Poll::Ready(error);
            }
        }
        loop {
            let fired = this.timer.as_mut().poll(cx).is_ready();
            if !fired && !*this.overdue {
                return Poll::Pending;
            }
            let now = Instant::now();
            if let Some((suspend, next)) = this.suspend
                && *next <= now
            {
                *next = saturating_add(now, SuspendDetector::INTERVAL);
                if suspend.take_suspended() && this.config.ping_interval.is_some() {
                    tracing::debug!("the machine was asleep");
                    *this.next_ping = Some(now);
                }
            }
            let suspend_check_due = this.suspend.as_ref().map(|(_, next)| *next);
            let pong_due =
                this.unanswered.map(|sent| saturating_add(sent, this.config.pong_timeout));
            let idle_due = this
                .config
                .idle_timeout
                .map(|timeout| saturating_add(*this.last_received, timeout));
            if pong_due.into_iter().chain(idle_due).any(|due| due <= now) {
                return Poll::Ready(LinkError::TimedOut(now - *this.last_received).into());
            }
            let mut ping_due = *this.next_ping;
            if ping_due.is_some_and(|due| due <= now) {
                // A link that takes no ping now is judged by the watchdog alone: the transport of
                // one large message may take longer than any pong.
                ping_due = None;
                match this.inner.as_mut().poll_ready(cx) {
                    Poll::Ready(Ok(())) => {
                        let number = this.sent.0 + 1;
                        *this.sent = (number, now);
                        let ping = this.ping_message.map_or_else(
                            || Message::Ping(Bytes::copy_from_slice(&number.to_be_bytes())),
                            |ping_message| ping_message(),
                        );
                        if let Err(error) = this.inner.as_mut().start_send(ping) {
                            return Poll::Ready(error);
                        }
                        let first = *this.unanswered.get_or_insert(now);
                        *this.next_ping =
                            this.config.ping_interval.map(|interval| saturating_add(now, interval));
                        *this.overdue = false;
                        if !fired {
                            // The timer is set for a time that may be after that of the pong.
                            let pong_due = saturating_add(first, this.config.pong_timeout);
                            let deadline = this.timer.deadline().min(pong_due);
                            this.timer.as_mut().reset(deadline);
                        }
                        match this.inner.as_mut().poll_flush(cx) {
                            Poll::Ready(Ok(())) => {}
                            Poll::Ready(Err(error)) => return Poll::Ready(error),
                            Poll::Pending => *this.unflushed = true,
                        }
                        continue;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(error),
                    Poll::Pending => *this.overdue = true,
                }
            }
            if !fired {
                return Poll::Pending;
            }
            match pong_due
                .into_iter()
                .chain(idle_due)
                .chain(ping_due)
                .chain(suspend_check_due)
                .min()
            {
                Some(next) => this.timer.as_mut().reset(next),
                None => return Poll::Pending,
            }
        }
    }
}

impl<S: Duplex<Message, Message>> Stream for Heartbeat<S> {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let mut this = self.as_mut().project();
            let Poll::Ready(item) = this.inner.as_mut().poll_next(cx) else {
                return self.poll_beat(cx).map(|error| Some(Err(error)));
            };
            *this.received = true;
            match item {
                Some(Ok(Message::Ping(_))) => *this.is_idle = true,
                Some(Ok(Message::Pong(payload))) if payload[..] == this.sent.0.to_be_bytes() => {
                    this.stats.record_round_trip(this.sent.1.elapsed());
                    *this.is_idle = true;
                }
                item => return Poll::Ready(item),
            }
        }
    }
}

impl<S: Duplex<Message, Message>> Sink<Message> for Heartbeat<S> {
    type Error = Error;

    forward_sink!(inner, Message: poll_ready, start_send, poll_flush, poll_close);
}

#[cfg(test)]
mod tests;
