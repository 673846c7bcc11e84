//! Points in time.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// Duration that nobody waits for, and every clock can add.
const FAR_FUTURE: Duration = Duration::from_secs(30 * 365 * 86_400);

/// Lead of the wall clock from which the machine is thought to have slept.
const SUSPEND_THRESHOLD: Duration = Duration::from_secs(5);

/// Detects that the machine was asleep: the wall clock has moved on, and no timer has. A clock that
/// is set forward looks the same.
#[derive(Debug)]
pub(crate) struct SuspendDetector {
    wall: fn() -> SystemTime,
    last: (SystemTime, Instant),
}

impl SuspendDetector {
    /// Interval at which to ask.
    pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

    pub(crate) fn new() -> Self {
        Self::with_clock(SystemTime::now)
    }

    pub(crate) fn with_clock(wall: fn() -> SystemTime) -> Self {
        Self { wall, last: (wall(), Instant::now()) }
    }

    /// Returns `true` if the machine has slept since this was last asked.
    pub(crate) fn take_suspended(&mut self) -> bool {
        let now = ((self.wall)(), Instant::now());
        let (wall, timers) = std::mem::replace(&mut self.last, now);
        now.0.duration_since(wall).is_ok_and(|passed| passed > now.1 - timers + SUSPEND_THRESHOLD)
    }
}

/// Returns the whole milliseconds of `duration`.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Timer that allocates when it is set first.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    is_set: bool,
}

impl Timer {
    pub(crate) fn set(&mut self, deadline: Instant) {
        self.is_set = true;
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(deadline),
            None => self.sleep = Some(Box::pin(sleep_until(deadline))),
        }
    }

    pub(crate) fn clear(&mut self) {
        self.is_set = false;
    }

    pub(crate) fn is_set(&self) -> bool {
        self.is_set
    }

    /// Polls the timer: ready when it fires, once; pending while it is not set.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(sleep) = self.sleep.as_mut().filter(|_| self.is_set) else {
            return Poll::Pending;
        };
        let fired = sleep.as_mut().poll(cx);
        self.is_set = fired.is_pending();
        fired
    }
}

/// Returns the moment after `duration`, however long that is.
pub(crate) fn deadline_in(duration: Duration) -> Instant {
    Instant::now() + duration.min(FAR_FUTURE)
}

/// Adds `duration` to `moment`, however long that is.
pub(crate) fn saturating_add(moment: Instant, duration: Duration) -> Instant {
    moment + duration.min(FAR_FUTURE)
}
