//! [`Stall`]: checks that the peer reads what is written to it fast enough.
//!
//! Two rules: the peer takes at least one byte within the write timeout, and while bytes wait, it
//! takes them at a minimum rate over a window. The first is measured from byte to byte, whoever waits
//! in between, since it is looked at after an attempt to write; in the second only time counts
//! during which this side waits for the peer. A side that comes too late to look begins anew.

use std::{pin::Pin, task::Context, time::Duration};

use tokio::time::{Instant, Sleep, sleep_until};

use super::{config::Config, pace::SLACK};
use crate::{error::LinkError, time::saturating_add};

/// Rate check of what waits to be written.
#[derive(Debug)]
pub(super) struct Stall {
    /// The bytes written when the peer last took some, and the time of that.
    taken: u64,
    since: Instant,
    /// Bytes written when the window began.
    window_taken: u64,
    /// Time spent waiting within the window, and the start of the present wait.
    waited: Duration,
    waiting: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Stall {
    /// Starts the check with the first wait, after `written` bytes.
    pub(super) fn new(written: u64, config: &Config) -> Self {
        let now = Instant::now();
        let mut stall = Self {
            taken: written,
            since: now,
            window_taken: written,
            waited: Duration::ZERO,
            waiting: Some(now),
            timer: Box::pin(sleep_until(now)),
        };
        stall.set(now, config);
        stall
    }

    /// Ends the present wait, although bytes may be left to write.
    pub(super) fn pause(&mut self) {
        if let Some(since) = self.waiting.take() {
            self.waited += Instant::now() - since;
        }
    }

    /// Starts or continues a wait for the peer, which has taken `written` bytes and takes no more.
    ///
    /// # Errors
    /// The peer is too slow.
    pub(super) fn wait(
        &mut self,
        cx: &mut Context<'_>,
        written: u64,
        config: &Config,
    ) -> Result<(), LinkError> {
        let now = Instant::now();
        let was_waiting = self.waiting.replace(now);
        if let Some(since) = was_waiting {
            self.waited += now - since;
        }
        // A waiting socket is polled when the timer fires. If it is later, this side did not write.
        let is_late = now > saturating_add(self.timer.deadline(), SLACK);
        if self.taken != written || was_waiting.is_none() && is_late {
            self.taken = written;
            self.since = now;
        }
        if was_waiting.is_some() && is_late {
            self.begin(written);
        }
        let timeout = config.write_timeout;
        if now >= saturating_add(self.since, timeout) {
            return Err(LinkError::Stalled(timeout));
        }
        let window = window(config);
        if self.waited >= window {
            let taken = (written - self.window_taken) as f64;
            // Precise enough: both are far below 2^53.
            match config.min_send_rate {
                Some(rate) if taken < rate as f64 * window.as_secs_f64() => {
                    return Err(LinkError::ReadsTooSlowly { rate, window });
                }
                _ => self.begin(written),
            }
        }
        self.set(now, config);
        if self.timer.as_mut().poll(cx).is_ready() {
            // The timer has fired since `now`: the next poll checks again.
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    fn begin(&mut self, written: u64) {
        self.window_taken = written;
        self.waited = Duration::ZERO;
    }

    /// Sets the timer to the nearer of both deadlines.
    fn set(&mut self, now: Instant, config: &Config) {
        let silent = saturating_add(self.since, config.write_timeout);
        let deadline = match config.min_send_rate {
            Some(_) => silent.min(saturating_add(now, window(config).saturating_sub(self.waited))),
            None => silent,
        };
        if self.timer.deadline() != deadline {
            self.timer.as_mut().reset(deadline);
        }
    }
}

/// Returns the window, at least a millisecond: the resolution of a timer.
fn window(config: &Config) -> Duration {
    config.send_window.max(Duration::from_millis(1))
}
