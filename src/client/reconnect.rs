//! When to dial again.

use std::{fmt, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::{FutureExt, future::BoxFuture};
use rand::RngExt;

use crate::error::{CloseCode, Error, HandshakeError, LinkError};

/// When a lost connection is made again.
///
/// Each wait is drawn evenly from zero to a bound, so that clients which lost their server together
/// do not come back together.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Reconnect {
    /// The bound of the first wait: 1 s.
    pub first: Duration,
    /// The bound of the first wait after the server has announced that it restarts, or has no room
    /// (1012, 1013): 10 s.
    pub after_restart: Duration,
    /// The bound of the second wait, from which it doubles: 1 s.
    pub min: Duration,
    /// The largest bound: 30 s.
    pub max: Duration,
    /// How long a connection has to last until the next wait is a first one again: 60 s.
    pub stable: Duration,
    /// How often one connection is tried for. `None`, the default: for ever.
    pub attempts: Option<u32>,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            after_restart: Duration::from_secs(10),
            min: Duration::from_secs(1),
            max: Duration::from_secs(30),
            stable: Duration::from_secs(60),
            attempts: None,
        }
    }
}

impl Reconnect {
    /// Sets [`first`](Self::first).
    #[must_use]
    pub fn first(mut self, bound: Duration) -> Self {
        self.first = bound;
        self
    }

    /// Sets [`after_restart`](Self::after_restart).
    #[must_use]
    pub fn after_restart(mut self, bound: Duration) -> Self {
        self.after_restart = bound;
        self
    }

    /// Sets [`min`](Self::min).
    #[must_use]
    pub fn min(mut self, bound: Duration) -> Self {
        self.min = bound;
        self
    }

    /// Sets [`max`](Self::max).
    #[must_use]
    pub fn max(mut self, bound: Duration) -> Self {
        self.max = bound;
        self
    }

    /// Sets [`stable`](Self::stable).
    #[must_use]
    pub fn stable(mut self, time: Duration) -> Self {
        self.stable = time;
        self
    }

    /// Sets [`attempts`](Self::attempts).
    #[must_use]
    pub fn attempts(mut self, attempts: impl Into<Option<u32>>) -> Self {
        self.attempts = attempts.into();
        self
    }
}

/// The waits of one client.
#[derive(Debug)]
pub(super) struct Waits {
    policy: Reconnect,
    growth: Option<ExponentialBackoff>,
    /// The next wait is a first one.
    fresh: bool,
    /// How many attempts there have been for the next connection.
    pub(super) attempt: u32,
}

impl Waits {
    pub(super) fn new(policy: Reconnect) -> Self {
        Self { policy, growth: None, fresh: true, attempt: 0 }
    }

    /// How long a connection has to last.
    pub(super) fn stable(&self) -> Duration {
        self.policy.stable
    }

    /// The wait after a connection that lasted so long.
    pub(super) fn lost(&mut self, cause: &Error, lasted: Duration) -> Duration {
        self.attempt = 0;
        if lasted >= self.policy.stable {
            self.growth = None;
            self.fresh = true;
        }
        let fresh = std::mem::replace(&mut self.fresh, false);
        let announced = matches!(
            cause,
            Error::Link(LinkError::Closed(reason))
                if matches!(reason.code, CloseCode::Restart | CloseCode::TryAgainLater)
        );
        if announced {
            up_to(self.policy.after_restart)
        } else if fresh {
            up_to(self.policy.first)
        } else {
            self.grown()
        }
    }

    /// The wait after an attempt that failed, unless it was the last.
    pub(super) fn failed(&mut self, error: &Error) -> Option<Duration> {
        if self.policy.attempts.is_some_and(|attempts| self.attempt >= attempts) {
            return None;
        }
        let asked = match error {
            Error::Handshake(HandshakeError::Refused(refusal)) => refusal.retry_after,
            _ => None,
        };
        // All who are told the same time do not come at that time.
        Some(asked.unwrap_or_default().min(LONGEST) + self.grown())
    }

    fn grown(&mut self) -> Duration {
        let Reconnect { min, max, .. } = self.policy;
        let growth = self.growth.get_or_insert_with(|| {
            let growth = ExponentialBuilder::new().with_min_delay(min).with_max_delay(max);
            growth.without_max_times().build()
        });
        up_to(growth.next().unwrap_or(max))
    }
}

/// No `Retry-After` is obeyed for longer.
const LONGEST: Duration = Duration::from_secs(3600);

fn up_to(bound: Duration) -> Duration {
    bound.mul_f64(rand::rng().random::<f64>())
}

/// What is known when a token is asked for.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct TokenRequest {
    /// The server has refused the token that it was given last.
    pub refused: bool,
}

type Ask = dyn Fn(TokenRequest) -> BoxFuture<'static, Result<String, String>> + Send + Sync;

/// Where tokens come from.
#[derive(Clone)]
pub(super) struct Tokens(Arc<Ask>);

impl Tokens {
    pub(super) fn new<F, E>(ask: impl Fn(TokenRequest) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<String, E>> + Send + 'static,
        E: fmt::Display,
    {
        Self(Arc::new(move |request| {
            let token = ask(request);
            Box::pin(async { token.await.map_err(|error| error.to_string()) })
        }))
    }

    pub(super) async fn ask(&self, refused: bool) -> Result<String, HandshakeError> {
        // It is the user's code, and runs where a panic would take the connection with it.
        let asking = AssertUnwindSafe(async { (self.0)(TokenRequest { refused }).await });
        let token = asking.catch_unwind().await;
        token.unwrap_or_else(|_| Err("its source panicked".into())).map_err(HandshakeError::Token)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn abnormal() -> Error {
        LinkError::Closed(CloseCode::Abnormal.into()).into()
    }

    fn unreachable() -> Error {
        HandshakeError::TimedOut(Duration::ZERO).into()
    }

    /// The largest of many waits that are drawn alike, in whole seconds, rounded up.
    fn bound(mut draw: impl FnMut() -> Duration) -> u64 {
        (0..1000).map(|_| draw()).max().unwrap().as_secs_f64().ceil() as u64
    }

    #[test]
    fn waits_grow_to_their_bound() {
        let mut waits: Vec<_> = (0..1000).map(|_| Waits::new(Reconnect::default())).collect();
        let mut all = waits.iter_mut();
        assert_eq!(bound(|| all.next().unwrap().lost(&abnormal(), Duration::ZERO)), 1);
        for expected in [1, 2, 4, 8, 16, 30, 30] {
            let mut all = waits.iter_mut();
            assert_eq!(bound(|| all.next().unwrap().failed(&unreachable()).unwrap()), expected);
        }
        // A connection that does not last changes nothing, one that does begins anew.
        let mut all = waits.iter_mut();
        assert_eq!(bound(|| all.next().unwrap().lost(&abnormal(), Duration::from_secs(59))), 30);
        let mut all = waits.iter_mut();
        assert_eq!(bound(|| all.next().unwrap().lost(&abnormal(), Duration::from_secs(60))), 1);
    }

    #[test]
    fn a_server_that_takes_every_connection_and_drops_it_is_left_alone_for_longer_and_longer() {
        let mut waits: Vec<_> = (0..1000).map(|_| Waits::new(Reconnect::default())).collect();
        for expected in [1, 1, 2, 4, 8, 16, 30] {
            let mut all = waits.iter_mut();
            let lost = || all.next().unwrap().lost(&abnormal(), Duration::from_secs(1));
            assert_eq!(bound(lost), expected);
        }
    }

    #[test]
    fn a_restart_is_waited_for_longer_and_a_wish_is_heeded() {
        let mut waits = Waits::new(Reconnect::default());
        let restart = LinkError::Closed(CloseCode::Restart.into()).into();
        assert_eq!(bound(|| waits.lost(&restart, Duration::ZERO)), 10);
        let mut refusal = crate::error::Refusal::new(http::StatusCode::SERVICE_UNAVAILABLE, "");
        refusal.retry_after = Some(Duration::from_secs(100));
        let wait = waits.failed(&HandshakeError::Refused(Box::new(refusal)).into()).unwrap();
        assert!((100..=101).contains(&wait.as_secs()), "{wait:?}");
    }

    #[test]
    fn attempts_end() {
        let mut waits = Waits::new(Reconnect::default().attempts(2));
        waits.lost(&abnormal(), Duration::ZERO);
        waits.attempt = 1;
        assert!(waits.failed(&unreachable()).is_some());
        waits.attempt = 2;
        assert!(waits.failed(&unreachable()).is_none());
    }
}
