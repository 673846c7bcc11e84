//! [`Drain`]: the settings for the stop of a server, and the pace of it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    close::{CloseCode, CloseReason},
    time::saturating_add,
};

/// Settings for the stop of a server.
///
/// Each connection is closed with 1012, "service restart", as soon as no call is in flight on it.
/// Meanwhile new clients get 503, and further calls an error that says that they were not executed.
#[derive(Debug, Clone)]
pub struct Drain {
    pub(crate) deadline: Duration,
    pub(crate) closes_per_second: u32,
    pub(crate) reason: CloseReason,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            closes_per_second: 1000,
            reason: CloseReason::new(CloseCode::Restart, "the server is stopping"),
        }
    }
}

impl Drain {
    /// Sets the time that calls in flight may still take: 30 s. Then they are dropped, and their
    /// connections closed. What a [`fallback`](crate::server::Serve::fallback) is answering has as
    /// long.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets how many connections are closed per second: 1,000, or as many more as it takes to be
    /// done in half of the deadline. Their clients come back, and had better not do so all at
    /// once.
    #[must_use]
    pub fn closes_per_second(mut self, closes: u32) -> Self {
        self.closes_per_second = closes;
        self
    }

    /// Sets the reason that each is closed with: 1012, "the server is stopping". Clients do not
    /// come back after a 1000.
    #[must_use]
    pub fn reason(mut self, reason: CloseReason) -> Self {
        self.reason = reason;
        self
    }
}

/// Schedule of the connections that are closed when a server stops, one after the other.
///
/// Their clients would else come back all at once.
#[derive(Debug, Default)]
pub(super) struct ClosePacer(Mutex<Option<Pace>>);

/// Pace of the closes.
#[derive(Debug)]
struct Pace {
    /// Time at which the server began to stop.
    since: Instant,
    interval: Duration,
    /// Number of times that were handed out since.
    count: u32,
}

impl ClosePacer {
    /// Returns the time at which the next of `connections` may be closed.
    pub(super) fn next(&self, drain: &Drain, connections: usize) -> Instant {
        let mut pace = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = pace.get_or_insert_with(|| {
            let all = u32::try_from(connections).unwrap_or(u32::MAX).max(1);
            let interval = Duration::from_secs(1) / drain.closes_per_second.max(1);
            let interval = interval.min(drain.deadline / 2 / all);
            Pace { since: Instant::now(), interval, count: 0 }
        });
        let next = saturating_add(pace.since, pace.interval.saturating_mul(pace.count));
        pace.count += 1;
        next
    }
}
