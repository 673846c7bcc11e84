//! [`Pace`]: checks that a message which has begun arrives fast enough.
//!
//! Only the time is counted for which this side has waited for the peer: where it does not read,
//! the peer cannot write. One timer serves many messages, since it is cheaper to let it fire for
//! nothing once per window than to set it for each of them.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::frames::Frames;
use crate::time::saturating_add;

/// Delay after the timer fires within which a socket that reads or writes all the time is polled.
pub(super) const SLACK: Duration = Duration::from_secs(1);

/// Rate check of the message that is arriving.
#[derive(Debug)]
pub(super) struct Pace {
    window: Duration,
    /// Number of the watched message, and the payload bytes received when the window began.
    message: u64,
    received: u64,
    /// Time spent waiting for the peer in this window, and the start of the present wait.
    waited: Duration,
    waiting: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Pace {
    /// Starts a window of this length.
    pub(super) fn new(window: Duration, frames: &Frames) -> Self {
        // The resolution of a timer.
        let window = window.max(Duration::from_millis(1));
        Self {
            window,
            message: frames.begun(),
            received: frames.received(),
            waited: Duration::ZERO,
            waiting: None,
            timer: Box::pin(sleep_until(saturating_add(Instant::now(), window))),
        }
    }

    /// Records whether the socket `waits` for the peer. Ready with `false` if the peer was slower
    /// than `rate`, in bytes per second, for a whole window, and with `true` if nothing is left to
    /// watch.
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
            // A waiting socket is polled when the timer fires.
            if now > saturating_add(self.timer.deadline(), SLACK) {
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
            self.timer.as_mut().reset(saturating_add(now, self.window - self.waited));
        }
        Poll::Pending
    }

    fn begin(&mut self, frames: &Frames) {
        self.message = frames.begun();
        self.received = frames.received();
        self.waited = Duration::ZERO;
    }
}
