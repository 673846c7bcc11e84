//! [`Heartbeat`]: asks the peer for a sign of life, and ends a link that gives none.
//!
//! Items are [`Message`]s. Pings stop here, and so do the pongs that answer this layer's own; a
//! layer above may send pings too, and gets the pongs of those. Only what *arrives* counts as life:
//! a socket goes on accepting writes for minutes after the peer is gone. The pings go beneath
//! whatever queues messages above, so a long queue delays none, and the verdict falls even while
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

/// When a [`Heartbeat`] pings, and when it gives up.
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
        // When something last arrived, and whether something has since that was noted.
        heard: Instant,
        fresh: bool,
        // What has arrived since then was a sign of life and nothing else.
        is_idle: bool,
        // The bytes that had arrived when that was noted: a large message counts before it is whole.
        bytes: u64,
        next_ping: Option<Instant>,
        // The ping that nothing has followed yet.
        unanswered: Option<Instant>,
        // The number of the last ping, which is its payload, and when it was sent.
        sent: (u64, Instant),
        unflushed: bool,
        // A ping is due, but the link could not take it.
        overdue: bool,
        // What is sent in place of a ping.
        probe: Option<fn() -> Message>,
        // Tells that the machine was asleep, where that is looked for, and when it is asked next.
        suspend: Option<(SuspendDetector, Instant)>,
        #[pin]
        timer: Sleep,
        #[pin]
        inner: S,
    }
}

impl<S: Duplex<Message, Message>> Heartbeat<S> {
    /// Watches over `inner` from now on.
    pub fn new(inner: S, config: Config) -> Self {
        Self::with_stats(inner, config, Stats::default())
    }

    /// The same, with the counters in which the round trip is noted. Where the socket below counts
    /// in them too, parts of a message are signs of life.
    pub fn with_stats(inner: S, config: Config, stats: Stats) -> Self {
        let now = Instant::now();
        let next_ping = config.ping_interval.map(|interval| saturating_add(now, interval));
        let idle_due = config.idle_timeout.map(|timeout| saturating_add(now, timeout));
        let first = next_ping.into_iter().chain(idle_due).min();
        Self {
            stats,
            heard: now,
            fresh: false,
            is_idle: false,
            bytes: 0,
            next_ping,
            unanswered: None,
            sent: (0, now),
            unflushed: false,
            overdue: false,
            probe: None,
            suspend: None,
            timer: sleep_until(first.unwrap_or_else(|| saturating_add(now, Duration::MAX))),
            inner,
            config,
        }
    }
}

impl<S: Duplex<Message, Message>> Heartbeat<S> {
    /// Pings at once when the machine has been asleep, which no timer notices: the peer may have given
    /// this link up in the meantime. For that it looks at the clock every second.
    pub fn wakeful(self) -> Self {
        self.with_alarm(SuspendDetector::new())
    }

    /// Sends what `probe` makes in place of pings, for peers that answer none. Whatever arrives answers it.
    pub fn with_ping_message(self, probe: Option<fn() -> Message>) -> Self {
        Self { probe, ..self }
    }

    /// Pings an eighth earlier than a peer that has the same settings.
    pub(crate) fn before_the_peer(mut self) -> Self {
        let shorter = self.config.ping_interval.map(|interval| interval - interval / 8);
        self.config.ping_interval = shorter;
        let due = shorter.map(|interval| saturating_add(self.heard, interval));
        self.next_ping = due;
        let first = due.into_iter().chain([self.timer.deadline()]).min();
        Self { timer: first.map_or(self.timer, sleep_until), ..self }
    }

    fn with_alarm(self, suspend: SuspendDetector) -> Self {
        let next = saturating_add(Instant::now(), SuspendDetector::INTERVAL);
        let first = self.timer.deadline().min(next);
        Self { suspend: Some((suspend, next)), timer: sleep_until(first), ..self }
    }

    /// Sends what is due and falls the verdict; pending while all is well.
    fn poll_beat(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Error> {
        let mut this = self.as_mut().project();
        let bytes = this.stats.received();
        let grown = std::mem::replace(this.bytes, bytes) != bytes;
        if std::mem::take(this.fresh) || grown {
            let now = Instant::now();
            *this.heard = now;
            *this.unanswered = None;
            if !*this.overdue {
                *this.next_ping =
                    this.config.ping_interval.map(|interval| saturating_add(now, interval));
            }
        }
        if std::mem::take(this.is_idle) {
            // An idle link is not woken once more for a ping that is no longer due. Where much
            // arrives, it is cheaper to let the timer fire.
            let idle_due =
                this.config.idle_timeout.map(|timeout| saturating_add(*this.heard, timeout));
            let ping_due = this.next_ping.filter(|_| !*this.overdue);
            let alarm_due = this.suspend.as_ref().map(|(_, next)| *next);
            if let Some(next) = [idle_due, ping_due, alarm_due].into_iter().flatten().min() {
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
                if suspend.has_slept() && this.config.ping_interval.is_some() {
                    tracing::debug!("the machine was asleep");
                    *this.next_ping = Some(now);
                }
            }
            let alarm_due = this.suspend.as_ref().map(|(_, next)| *next);
            let pong_due =
                this.unanswered.map(|sent| saturating_add(sent, this.config.pong_timeout));
            let idle_due =
                this.config.idle_timeout.map(|timeout| saturating_add(*this.heard, timeout));
            if pong_due.into_iter().chain(idle_due).any(|due| due <= now) {
                return Poll::Ready(LinkError::TimedOut(now - *this.heard).into());
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
                        let ping = this.probe.map_or_else(
                            || Message::Ping(Bytes::copy_from_slice(&number.to_be_bytes())),
                            |probe| probe(),
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
            match pong_due.into_iter().chain(idle_due).chain(ping_due).chain(alarm_due).min() {
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
            *this.fresh = true;
            match item {
                Some(Ok(Message::Ping(_))) => *this.is_idle = true,
                Some(Ok(Message::Pong(payload))) if payload[..] == this.sent.0.to_be_bytes() => {
                    this.stats.round_trip(this.sent.1.elapsed());
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
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering::Relaxed},
        time::UNIX_EPOCH,
    };

    use tokio::time::advance;
    use tokio_test::{assert_pending, assert_ready, task::spawn};

    use super::*;
    use crate::layer::fake;

    const SECOND: Duration = Duration::from_secs(1);

    fn pings(peer: &fake::Peer) -> Vec<Bytes> {
        let payload = |message| match message {
            Message::Ping(payload) => payload,
            other => panic!("{other:?} is no ping"),
        };
        peer.sent().into_iter().map(payload).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_answers_is_left_alone() {
        let (link, peer) = fake::link();
        let stats = Stats::default();
        let mut heartbeat = spawn(Heartbeat::with_stats(link, Config::default(), stats.clone()));
        for _ in 0..100 {
            assert_pending!(heartbeat.poll_next());
            advance(20 * SECOND).await;
            assert!(heartbeat.is_woken());
            assert_pending!(heartbeat.poll_next());
            let [ping] = &pings(&peer)[..] else { panic!("one ping every 20 s") };
            advance(9 * SECOND).await;
            peer.send(Message::Pong(ping.clone()));
            assert_pending!(heartbeat.poll_next());
            assert_eq!(stats.snapshot().round_trip, Some(9 * SECOND));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pongs_for_the_layers_above_pass() {
        let (link, peer) = fake::link();
        let mut heartbeat = spawn(Heartbeat::new(link, Config::default()));
        assert_pending!(heartbeat.poll_next());
        advance(20 * SECOND).await;
        assert_pending!(heartbeat.poll_next());
        let own = Message::Pong(pings(&peer).remove(0));
        let other = Message::Pong(Bytes::from_static(b"of another"));
        for pong in [own, other.clone()] {
            peer.send(pong);
        }
        assert_eq!(assert_ready!(heartbeat.poll_next()).unwrap().unwrap(), other);
        assert_pending!(heartbeat.poll_next());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_found_within_interval_and_timeout() {
        let (link, _peer) = fake::link();
        let mut heartbeat = spawn(Heartbeat::new(link, Config::default()));
        let start = Instant::now();
        let error = loop {
            match heartbeat.poll_next() {
                Poll::Ready(item) => break item.unwrap().unwrap_err(),
                Poll::Pending => advance(SECOND).await,
            }
        };
        assert!(matches!(error, Error::Link(LinkError::TimedOut(_))), "{error}");
        assert_eq!(start.elapsed(), 30 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn anything_that_arrives_is_life_and_nothing_that_is_sent() {
        let (link, peer) = fake::link();
        let mut heartbeat = spawn(Heartbeat::new(link, Config::default()));
        for _ in 0..10 {
            assert_pending!(heartbeat.poll_next());
            advance(29 * SECOND).await;
            peer.send(Message::text("{}"));
            assert!(assert_ready!(heartbeat.poll_next()).is_some());
        }
        assert_pending!(heartbeat.poll_next());
        for _ in 0..29 {
            advance(SECOND).await;
            heartbeat.enter(|_, heartbeat| heartbeat.start_send(Message::text("{}"))).unwrap();
            assert_pending!(heartbeat.poll_next());
        }
        advance(SECOND).await;
        assert!(assert_ready!(heartbeat.poll_next()).unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_link_is_woken_by_the_pings_of_the_peer_and_nothing_else() {
        let (link, peer) = fake::link();
        let mut heartbeat = spawn(Heartbeat::new(link, Config::default()));
        assert_pending!(heartbeat.poll_next());
        for _ in 0..100 {
            advance(17 * SECOND).await;
            assert!(!heartbeat.is_woken());
            peer.send(Message::Ping(Bytes::new()));
            assert!(heartbeat.is_woken());
            assert_pending!(heartbeat.poll_next());
        }
        advance(20 * SECOND).await;
        assert!(heartbeat.is_woken());
        assert_pending!(heartbeat.poll_next());
        assert_eq!(pings(&peer).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_heard_is_not_pinged() {
        let (link, peer) = fake::link();
        let mut heartbeat = spawn(Heartbeat::new(link, Config::default()));
        for _ in 0..100 {
            peer.send(Message::text("{}"));
            assert_ready!(heartbeat.poll_next()).unwrap().unwrap();
            assert_pending!(heartbeat.poll_next());
            advance(19 * SECOND).await;
            assert_pending!(heartbeat.poll_next());
            assert!(peer.sent().is_empty());
        }
        advance(SECOND).await;
        assert!(heartbeat.is_woken());
        assert_pending!(heartbeat.poll_next());
        assert_eq!(pings(&peer).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_quiet_sides_one_pings() {
        let ((near, near_peer), (far, far_peer)) = (fake::link(), fake::link());
        let mut near = spawn(Heartbeat::new(near, Config::default()).before_the_peer());
        let mut far = spawn(Heartbeat::new(far, Config::default()));
        let mut pings = [0, 0];
        for _ in 0..600 {
            advance(SECOND).await;
            let _ = near.poll_next();
            let _ = far.poll_next();
            for (side, sent, other) in [
                (0, near_peer.sent(), [&far_peer, &near_peer]),
                (1, far_peer.sent(), [&near_peer, &far_peer]),
            ] {
                for message in sent {
                    let Message::Ping(payload) = &message else { panic!("{message:?}") };
                    pings[side] += 1;
                    // As sockets do, the other side answers.
                    other[1].send(Message::Pong(payload.clone()));
                    other[0].send(message);
                }
            }
        }
        assert!((30..=35).contains(&pings[0]), "{pings:?}");
        assert_eq!(pings[1], 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_is_probed_as_soon_as_the_machine_wakes_up() {
        static SLEPT: AtomicU64 = AtomicU64::new(0);
        let clock = || UNIX_EPOCH + Duration::from_secs(SLEPT.load(Relaxed));
        let (link, peer) = fake::link();
        let heartbeat =
            Heartbeat::new(link, Config::default()).with_alarm(SuspendDetector::with_clock(clock));
        let mut heartbeat = spawn(heartbeat);
        for _ in 0..12 {
            assert_pending!(heartbeat.poll_next());
            advance(SECOND).await;
        }
        assert!(pings(&peer).is_empty());
        SLEPT.store(3600, Relaxed);
        assert!(heartbeat.is_woken());
        assert_pending!(heartbeat.poll_next());
        assert_eq!(pings(&peer).len(), 1);
        for _ in 0..9 {
            advance(SECOND).await;
            assert_pending!(heartbeat.poll_next());
        }
        assert!(pings(&peer).is_empty());
        advance(SECOND).await;
        assert!(assert_ready!(heartbeat.poll_next()).unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_that_takes_no_ping_is_left_to_the_watchdog() {
        let (link, peer) = fake::link();
        peer.block(true);
        let mut heartbeat = spawn(Heartbeat::new(link, Config::default()));
        for _ in 0..44 {
            assert_pending!(heartbeat.poll_next());
            advance(SECOND).await;
        }
        assert_pending!(heartbeat.poll_next());
        advance(SECOND).await;
        assert!(assert_ready!(heartbeat.poll_next()).unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_that_had_to_wait_goes_out_as_soon_as_it_can() {
        let (link, peer) = fake::link();
        let mut heartbeat = spawn(Heartbeat::new(link, Config::default()));
        assert_pending!(heartbeat.poll_next());
        peer.block(true);
        advance(20 * SECOND).await;
        assert_pending!(heartbeat.poll_next());
        assert!(pings(&peer).is_empty());
        advance(5 * SECOND).await;
        peer.block(false);
        assert!(heartbeat.is_woken());
        assert_pending!(heartbeat.poll_next());
        assert_eq!(pings(&peer).len(), 1);
        advance(9 * SECOND).await;
        assert_pending!(heartbeat.poll_next());
        // Its pong is due before the watchdog.
        advance(SECOND).await;
        assert!(heartbeat.is_woken());
        assert!(assert_ready!(heartbeat.poll_next()).unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn with_all_off_it_waits_for_ever() {
        let (link, peer) = fake::link();
        let config = Config::default().ping_interval(None).idle_timeout(None);
        let mut heartbeat = spawn(Heartbeat::new(link, config));
        assert_pending!(heartbeat.poll_next());
        advance(86_400 * SECOND).await;
        assert_pending!(heartbeat.poll_next());
        assert!(peer.sent().is_empty());
    }
}
