//! Points in time.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, Sleep, sleep_until};

/// So far away that nobody waits for it, and near enough for every clock.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

/// By how much the wall clock must be ahead before the machine is thought to have slept.
const NAP: Duration = Duration::from_secs(5);

/// Notices that the machine was asleep: then the wall clock has moved on, and no timer has. Somebody who
/// sets the clock forward looks the same.
#[derive(Debug)]
pub(crate) struct Alarm {
    wall: fn() -> SystemTime,
    last: (SystemTime, Instant),
}

impl Alarm {
    /// How often it should be asked.
    pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

    pub(crate) fn new() -> Self {
        Self::with_clock(SystemTime::now)
    }

    pub(crate) fn with_clock(wall: fn() -> SystemTime) -> Self {
        Self { wall, last: (wall(), Instant::now()) }
    }

    /// Whether the machine has slept since this was last asked.
    pub(crate) fn has_slept(&mut self) -> bool {
        let now = ((self.wall)(), Instant::now());
        let (wall, timers) = std::mem::replace(&mut self.last, now);
        now.0.duration_since(wall).is_ok_and(|passed| passed > now.1 - timers + NAP)
    }
}

/// A timer that takes up room once it was set.
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

    /// Ready when it fires, once. Pending while it is not set.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(sleep) = self.sleep.as_mut().filter(|_| self.is_set) else {
            return Poll::Pending;
        };
        let fired = sleep.as_mut().poll(cx);
        self.is_set = fired.is_pending();
        fired
    }
}

/// The moment after `duration`, however long that is.
pub(crate) fn after(duration: Duration) -> Instant {
    Instant::now() + duration.min(FAR)
}

/// `moment` and `duration`, however long that is.
pub(crate) fn later(moment: Instant, duration: Duration) -> Instant {
    moment + duration.min(FAR)
}
