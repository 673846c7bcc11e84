//! [`ReconnectPolicy`] and [`Backoff`]: when a lost connection is made again.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{
    close::CloseCode,
    error::{Error, HandshakeError, LinkError},
};

/// Policy for when a lost connection is made again.
///
/// The first wait is random, from zero to [`first`](Self::first), 1 s, so that clients which lost
/// their server together do not return together. A single client need not wait: with
/// `.first(Duration::ZERO)` it reconnects at once, which takes as long as a handshake.
///
/// If that attempt fails, no client returns before all have tried once: each further wait is at
/// least `first`, plus a random part of up to `min`, which doubles each time. The waits reset after
/// a connection that worked: one that has carried a message each way besides `initialize` and its
/// answer, or has lasted for [`stable`](Self::stable). A server that accepts connections and drops
/// them is therefore tried ever more rarely.
#[derive(Debug, Clone)]
pub struct ReconnectPolicy {
    pub(crate) first: Duration,
    pub(crate) after_restart: Duration,
    pub(crate) min: Duration,
    pub(crate) max: Duration,
    pub(crate) stable: Duration,
    pub(crate) attempts: Option<u32>,
}

impl Default for ReconnectPolicy {
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

impl ReconnectPolicy {
    /// Sets the upper bound of the first wait, and the lower bound of the later ones: 1 s. Zero
    /// reconnects at once.
    #[must_use]
    pub fn first(mut self, bound: Duration) -> Self {
        self.first = bound;
        self
    }

    /// Sets the upper bound of the first wait after a Close with 1012 or 1013: 10 s. By these the
    /// server has announced that it restarts, or has no room.
    #[must_use]
    pub fn after_restart(mut self, bound: Duration) -> Self {
        self.after_restart = bound;
        self
    }

    /// Sets the upper bound of the random part of the second wait, which doubles with each further
    /// one: 1 s.
    #[must_use]
    pub fn min(mut self, bound: Duration) -> Self {
        self.min = bound;
        self
    }

    /// Sets the longest wait: 30 s.
    #[must_use]
    pub fn max(mut self, bound: Duration) -> Self {
        self.max = bound;
        self
    }

    /// Sets the age from which a connection that carried nothing resets the waits: 60 s.
    #[must_use]
    pub fn stable(mut self, time: Duration) -> Self {
        self.stable = time;
        self
    }

    /// Sets the most attempts for one connection: each that is made begins the count anew. `None`,
    /// the default, tries for ever.
    #[must_use]
    pub fn attempts(mut self, attempts: impl Into<Option<u32>>) -> Self {
        self.attempts = attempts.into();
        self
    }
}

/// Waits of one client between its attempts.
#[derive(Debug)]
pub(super) struct Backoff {
    policy: ReconnectPolicy,
    /// Upper bound of the random part of the latest wait that was not a first one.
    growth: Option<Duration>,
    random: SmallRng,
    /// Time over which all who lost the server with this client spread their first attempts.
    spread: Duration,
    /// `true` if the next wait is a first one.
    is_first: bool,
    /// Number of attempts for the next connection.
    pub(super) attempt: u32,
}

impl Backoff {
    pub(super) fn new(policy: ReconnectPolicy) -> Self {
        Self::with_random(policy, SmallRng::from_rng(&mut rand::rng()))
    }

    fn with_random(policy: ReconnectPolicy, random: SmallRng) -> Self {
        Self { spread: policy.first, policy, growth: None, random, is_first: true, attempt: 0 }
    }

    /// Returns the time that a connection has to last.
    pub(super) fn stable(&self) -> Duration {
        self.policy.stable
    }

    /// Returns the wait after a lost connection, which `worked` or not.
    pub(super) fn after_loss(&mut self, cause: &Error, worked: bool) -> Duration {
        self.attempt = 0;
        if worked {
            self.growth = None;
            self.is_first = true;
        }
        let is_first = std::mem::replace(&mut self.is_first, false);
        let announced = matches!(
            cause,
            Error::Link(LinkError::Closed(reason))
                if matches!(reason.code, CloseCode::Restart | CloseCode::TryAgainLater)
        );
        self.spread = if announced { self.policy.after_restart } else { self.policy.first };
        if announced || is_first { self.up_to(self.spread) } else { self.grown(Duration::ZERO) }
    }

    /// Records that the machine was asleep: whatever made attempts fail, that was long ago.
    pub(super) fn on_wakeup(&mut self) {
        self.growth = None;
    }

    /// Returns the wait after an attempt that failed, unless it was the last.
    pub(super) fn after_failure(&mut self, error: &Error) -> Option<Duration> {
        if self.policy.attempts.is_some_and(|attempts| self.attempt >= attempts) {
            return None;
        }
        let asked = match error {
            Error::Handshake(HandshakeError::Refused(refusal)) => refusal.retry_after,
            _ => None,
        };
        Some(self.grown(asked.unwrap_or_default().min(MAX_RETRY_AFTER)))
    }

    /// Returns the next wait, at least as long as the server has `asked` for. Clients that were
    /// told the same time are spread beyond it.
    fn grown(&mut self, asked: Duration) -> Duration {
        let ReconnectPolicy { min, max, .. } = self.policy;
        let growth = self.growth.map_or(min, |last| last.saturating_mul(2).min(max));
        self.growth = Some(growth);
        let least = self.spread.min(max);
        let bound = growth.min(max - least);
        least.max(asked) + self.up_to(bound)
    }

    fn up_to(&mut self, bound: Duration) -> Duration {
        bound.mul_f64(self.random.random::<f64>())
    }
}

/// Longest `Retry-After` that is obeyed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

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
        let mut backoff: Vec<_> =
            (0..1000).map(|_| Backoff::new(ReconnectPolicy::default())).collect();
        let mut all = backoff.iter_mut();
        assert_eq!(bound(|| all.next().unwrap().after_loss(&abnormal(), false)), 1);
        for expected in [2, 3, 5, 9, 17, 30, 30] {
            let mut all = backoff.iter_mut();
            assert_eq!(
                bound(|| all.next().unwrap().after_failure(&unreachable()).unwrap()),
                expected
            );
        }
        // A connection that did not work changes nothing; after one that did, the waits begin anew.
        let mut all = backoff.iter_mut();
        assert_eq!(bound(|| all.next().unwrap().after_loss(&abnormal(), false)), 30);
        let mut all = backoff.iter_mut();
        assert_eq!(bound(|| all.next().unwrap().after_loss(&abnormal(), true)), 1);
    }

    #[test]
    fn a_server_that_takes_every_connection_and_drops_it_is_left_alone_for_longer_and_longer() {
        let mut backoff: Vec<_> =
            (0..1000).map(|_| Backoff::new(ReconnectPolicy::default())).collect();
        for expected in [1, 2, 3, 5, 9, 17, 30] {
            let mut all = backoff.iter_mut();
            let lost = || all.next().unwrap().after_loss(&abnormal(), false);
            assert_eq!(bound(lost), expected);
        }
    }

    #[test]
    fn a_restart_is_waited_for_longer_and_a_wish_is_heeded() {
        let mut backoff = Backoff::new(ReconnectPolicy::default());
        let restart = LinkError::Closed(CloseCode::Restart.into()).into();
        assert_eq!(bound(|| backoff.after_loss(&restart, false)), 10);
        let mut refusal = crate::error::Refusal::new(http::StatusCode::SERVICE_UNAVAILABLE, "");
        refusal.retry_after = Some(Duration::from_secs(100));
        let wait =
            backoff.after_failure(&HandshakeError::Refused(Box::new(refusal)).into()).unwrap();
        assert!((100..=101).contains(&wait.as_secs()), "{wait:?}");
    }

    /// Returns when a thousand clients dial, and when they find the server, in order. They have
    /// lost it together, and it is back after `outage`.
    fn thousand(cause: &Error, outage: Duration) -> (Vec<Duration>, Vec<Duration>) {
        let (mut dials, mut found) = (Vec::new(), Vec::new());
        for client in 0..1000 {
            let random = SmallRng::seed_from_u64(client);
            let mut backoff = Backoff::with_random(ReconnectPolicy::default(), random);
            let mut now = backoff.after_loss(cause, true);
            while now < outage {
                dials.push(now);
                now += backoff.after_failure(&unreachable()).unwrap();
            }
            dials.push(now);
            found.push(now);
        }
        dials.sort_unstable();
        found.sort_unstable();
        (dials, found)
    }

    /// Returns the share of these moments in the window that has the most of them, in percent.
    fn densest(moments: &[Duration], window: Duration) -> f64 {
        let within = |(first, start): (usize, &Duration)| {
            moments[first..].partition_point(|moment| *moment < *start + window)
        };
        let most = moments.iter().enumerate().map(within).max().unwrap();
        100.0 * most as f64 / moments.len() as f64
    }

    #[test]
    fn a_thousand_who_lose_their_server_together_do_not_come_back_together() {
        let restart = LinkError::Closed(CloseCode::Restart.into()).into();
        let (cut, announced) = (Duration::from_millis(100), Duration::from_secs(1));
        for (cause, window) in [(abnormal(), cut), (restart, announced)] {
            let (mut of_dials, mut of_found, mut latest) = (0.0_f64, 0.0_f64, Duration::ZERO);
            // The server may be back at once, or not before a minute has passed.
            for tenths in (0..100).chain((100..=600).step_by(50)) {
                let outage = Duration::from_millis(100 * tenths);
                let (dials, found) = thousand(&cause, outage);
                of_dials = of_dials.max(densest(&dials, window));
                of_found = of_found.max(densest(&found, window));
                latest = latest.max(found[999].saturating_sub(outage));
            }
            println!(
                "figure: {cause}: at most {of_dials:.1} % of all dials in {window:?}, and {of_found:.1} % of \
                 those that find it; all are back {latest:.1?} after it is",
            );
            assert!(of_dials <= 15.0 && of_found <= 15.0);
            assert!(latest <= Duration::from_secs(60));
        }
    }

    #[test]
    fn who_loses_the_server_for_a_day_neither_gives_up_nor_tries_all_the_time() {
        let day = Duration::from_secs(86_400);
        let (mut most, mut latest) = (0, Duration::ZERO);
        for client in 0..1000 {
            let random = SmallRng::seed_from_u64(client);
            let mut backoff = Backoff::with_random(ReconnectPolicy::default(), random);
            let mut now = backoff.after_loss(&abnormal(), false);
            while now < day {
                backoff.attempt += 1;
                now += backoff.after_failure(&unreachable()).unwrap();
            }
            most = most.max(backoff.attempt);
            latest = latest.max(now - day);
        }
        println!(
            "figure: of 1,000 clients: {most} attempts at most, back {latest:.1?} after the server at most"
        );
        assert!(most <= 6000, "{most}");
        assert!(latest <= Duration::from_secs(31), "{latest:?}");
    }

    #[test]
    fn attempts_end() {
        let mut backoff = Backoff::new(ReconnectPolicy::default().attempts(2));
        backoff.after_loss(&abnormal(), false);
        backoff.attempt = 1;
        assert!(backoff.after_failure(&unreachable()).is_some());
        backoff.attempt = 2;
        assert!(backoff.after_failure(&unreachable()).is_none());
    }
}
