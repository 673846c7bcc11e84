//! Deadline for acknowledgements, without I/O.

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    message::Message,
    time::{Timer, deadline_in},
};

/// Number of pings that must be answered without an acknowledgement. Between the answers lies time
/// that the peer had, by its own clock, since it had read everything.
const PINGS: u32 = 3;

/// Lowest throughput of a network, in bytes per second, assumed where the peer answers no ping.
const MIN_RATE: usize = 16 << 10;

/// Prefix of a ping's payload, before its number, that distinguishes it from pings of other layers.
const MARK: [u8; 4] = *b"ack?";

/// Detects a peer that leaves a full window unacknowledged.
///
/// A ping is sent after all other messages, so its pong shows that the peer has read them, however
/// slow the network or a layer at either end is. The peer's next pong, requested a while later,
/// follows everything that the peer has sent meanwhile. If that includes no acknowledgement, the
/// peer had the whole time and sent none.
///
/// | state | event | next |
/// |---|---|---|
/// | `Idle` | the window is full, and something waits | `Waiting`, none answered |
/// | `Waiting` | a third of the timeout has passed | `Asked`, after a ping |
/// | `Asked` | the pong, of the last ping or of one before it in this state | `Waiting`, one more answered; with the third `Overdue` |
/// | `Asked` | a third of the timeout has passed since the ping was made | the same, after another ping: RFC 6455 lets a peer answer the newest of several pings alone, and another layer may have sent that |
/// | `Asked` | no pong in twice the timeout, and a second for each 16 KiB in the window | the same: [overdue](Self::overdue) until a pong is read |
/// | any | an acknowledgement of something new, room in the window, a count that is frozen, another link | `Idle` |
#[derive(Debug)]
pub(super) struct AckDeadline {
    timeout: Duration,
    state: State,
    timer: Timer,
    /// Number of the last ping.
    ping: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Idle,
    Waiting {
        answered: u32,
    },
    Asked {
        answered: u32,
        first: u64,
        /// Moment at which a peer that answers nothing is closed, set when the first ping is
        /// flushed.
        given_up: Option<Instant>,
    },
    Overdue,
}

impl AckDeadline {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, state: State::Idle, timer: Timer::default(), ping: 0 }
    }

    /// Begins anew when there is a reason to wait again.
    pub(super) fn reset(&mut self) {
        self.state = State::Idle;
        self.timer.clear();
    }

    /// Waits for an acknowledgement, while the window is full and something waits for room in it.
    /// Ready when the ping is due that [`ask`](Self::ask) makes.
    pub(super) fn poll_ping_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.state {
                State::Idle => {
                    self.state = State::Waiting { answered: 0 };
                    self.timer.set(deadline_in(self.timeout / PINGS));
                }
                State::Waiting { answered } => {
                    ready!(self.timer.poll(cx));
                    let first = self.ping + 1;
                    self.state = State::Asked { answered, first, given_up: None };
                }
                _ if self.overdue().is_some() => return Poll::Pending,
                State::Asked { .. } => {
                    // If it is not set, the link has not taken the ping that is due.
                    if self.timer.is_set() {
                        ready!(self.timer.poll(cx));
                        continue;
                    }
                    return Poll::Ready(());
                }
                State::Overdue => return Poll::Pending,
            }
        }
    }

    /// Returns the reason to end the session, if the peer had all its time.
    ///
    /// To be asked when all that has arrived is read: this side may have been suspended.
    pub(super) fn overdue(&self) -> Option<&'static str> {
        match self.state {
            State::Asked { given_up: Some(given_up), .. } if given_up <= Instant::now() => {
                Some("resume: neither acknowledged nor ponged in time")
            }
            State::Overdue => Some("resume: all was read, and nothing acknowledged"),
            _ => None,
        }
    }

    /// Returns the ping that is due, and counts it as sent.
    pub(super) fn ask(&mut self) -> Message {
        self.ping += 1;
        self.set_timer();
        Message::Ping([&MARK[..], &self.ping.to_be_bytes()].concat().into())
    }

    /// Records that the ping was flushed, behind this many unacknowledged bytes.
    pub(super) fn flushed(&mut self, kept_bytes: usize) {
        if let State::Asked { given_up, .. } = &mut self.state {
            let network = Duration::from_secs((kept_bytes / MIN_RATE) as u64);
            let silence = self.timeout.saturating_mul(2).saturating_add(network);
            given_up.get_or_insert_with(|| deadline_in(silence));
        }
    }

    fn set_timer(&mut self) {
        let next = deadline_in(self.timeout / PINGS);
        self.timer.set(match self.state {
            State::Asked { given_up: Some(given_up), .. } => next.min(given_up),
            _ => next,
        });
    }

    /// Handles a pong. Returns `true` if it changes what is due.
    pub(super) fn pong(&mut self, payload: &Bytes) -> bool {
        let State::Asked { answered, first, .. } = self.state else { return false };
        let number = payload.strip_prefix(&MARK).and_then(|number| number.try_into().ok());
        let number = number.map_or(0, u64::from_be_bytes);
        if !(first..=self.ping).contains(&number) {
            return false;
        }
        if answered + 1 == PINGS {
            self.state = State::Overdue;
        } else {
            self.state = State::Waiting { answered: answered + 1 };
            self.timer.set(deadline_in(self.timeout / PINGS));
        }
        true
    }
}
