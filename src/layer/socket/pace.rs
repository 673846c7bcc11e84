//! [`Pace`]: whether a message that has begun goes on fast enough.
//!
//! Only the time is counted for which this side has waited for the peer: where it does not read, the
//! peer cannot write. One timer serves many messages, since it is cheaper to let it fire for nothing
//! once per window than to set it for each of them.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::frames::Frames;
use crate::time::later;

/// How much later than the timer fires this side may be polled by which it reads all the time.
const SLACK: Duration = Duration::from_secs(1);

/// Watches over the message that arrives.
#[derive(Debug)]
pub(super) struct Pace {
    window: Duration,
    /// Which message of the connection it is, and how many bytes had come when the window began.
    message: u64,
    received: u64,
    /// How long the peer was waited for in this window, and since when it is now.
    waited: Duration,
    waiting: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Pace {
    /// Begins a window of this length.
    pub(super) fn new(window: Duration, frames: &Frames) -> Self {
        // A timer counts no less.
        let window = window.max(Duration::from_millis(1));
        Self {
            window,
            message: frames.begun(),
            received: frames.received(),
            waited: Duration::ZERO,
            waiting: None,
            timer: Box::pin(sleep_until(later(Instant::now(), window))),
        }
    }

    /// Notes whether the socket `waits` for the peer. Ready with `false` if the peer was slower than
    /// `rate` for a whole window, and with `true` if nothing need be watched any more.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        frames: &Frames,
        rate: u64,
        waits: bool,
    ) -> Poll<bool> {
        let now = Instant::now();
        if let Some(since) = self.waiting.take() {
            self.waited += now - since;
            // Whoever waits is polled when the timer fires.
            if now > later(self.timer.deadline(), SLACK) {
                self.begin(frames);
            }
        }
        let is_unfinished = frames.is_unfinished();
        if !is_unfinished || frames.begun() != self.message {
            self.begin(frames);
        }
        if !waits {
            return Poll::Pending;
        }
        if is_unfinished {
            self.waiting = Some(now);
        }
        if self.waited >= self.window {
            let seconds = self.window.as_secs_f64();
            // Precise enough: both are far below 2^53.
            if ((frames.received() - self.received) as f64) < rate as f64 * seconds {
                return Poll::Ready(false);
            }
            self.begin(frames);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if !is_unfinished {
                return Poll::Ready(true);
            }
            self.timer.as_mut().reset(later(now, self.window - self.waited));
        }
        Poll::Pending
    }

    fn begin(&mut self, frames: &Frames) {
        self.message = frames.begun();
        self.received = frames.received();
        self.waited = Duration::ZERO;
    }
}
