//! [`Faults`]: the faults of a bus within a process.

use std::{ops::RangeInclusive, time::Duration};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

/// Faults of a [`Local`](super::Local) bus: messages that are late, lost, doubled or reordered. By
/// default there are none.
///
/// The same seed and the same messages in the same order give the same faults. Shares are between 0
/// and 1. Latency goes by tokio's clock, which a test may pause.
///
/// ```
/// use std::time::Duration;
/// use mcp_ws_transport::cluster::{Faults, Local};
///
/// let faults = Faults::new(7).latency(Duration::from_millis(1)..=Duration::from_millis(5)).loss(0.01);
/// let bus = Local::with_faults(faults).connect();
/// ```
#[derive(Debug, Clone)]
pub struct Faults {
    seed: u64,
    latency: RangeInclusive<Duration>,
    loss: f64,
    duplication: f64,
    reordering: f64,
}

/// Faults in the order in which they are drawn.
pub(super) struct FaultSource {
    faults: Faults,
    rng: SmallRng,
}

/// Arrival of a copy of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    /// Time that the copy takes.
    pub(super) after: Duration,
    /// `true` if it may overtake what was sent before it.
    pub(super) overtakes: bool,
}

impl Faults {
    /// Creates settings with this seed, and without any fault yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let latency = Duration::ZERO..=Duration::ZERO;
        Self { seed, latency, loss: 0.0, duplication: 0.0, reordering: 0.0 }
    }

    /// Sets how long a message takes; drawn for each of its receivers. No time by default.
    #[must_use]
    pub fn latency(mut self, latency: RangeInclusive<Duration>) -> Self {
        self.latency = latency;
        self
    }

    /// Sets the share of messages that are lost; drawn for each of their receivers. 0 by default.
    #[must_use]
    pub fn loss(mut self, share: f64) -> Self {
        self.loss = share;
        self
    }

    /// Sets the share of messages that arrive twice: 0 by default. A [`Bus`](super::Bus) must not let
    /// that happen.
    #[must_use]
    pub fn duplication(mut self, share: f64) -> Self {
        self.duplication = share;
        self
    }

    /// Sets the share of messages that arrive up to 10 ms late, and out of order: 0 by default. A
    /// [`Bus`](super::Bus) must not let that happen.
    #[must_use]
    pub fn reordering(mut self, share: f64) -> Self {
        self.reordering = share;
        self
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::new(0)
    }
}

impl FaultSource {
    /// The longest delay of a message that is out of order.
    const MAX_DELAY: Duration = Duration::from_millis(10);

    pub(super) fn new(faults: Faults) -> Self {
        let rng = SmallRng::seed_from_u64(faults.seed);
        Self { faults, rng }
    }

    /// Returns when the copies of a message arrive: none, one or two.
    pub(super) fn arrivals(&mut self) -> [Option<Arrival>; 2] {
        if self.draws(self.faults.loss) {
            return [None; 2];
        }
        let copy = self.draws(self.faults.duplication).then(|| self.arrival());
        [Some(self.arrival()), copy]
    }

    /// Returns how long an answer of the bus itself takes.
    pub(super) fn latency(&mut self) -> Duration {
        self.rng.random_range(self.faults.latency.clone())
    }

    fn arrival(&mut self) -> Arrival {
        let overtakes = self.draws(self.faults.reordering);
        let delay = if overtakes {
            self.rng.random_range(Duration::ZERO..=Self::MAX_DELAY)
        } else {
            Duration::ZERO
        };
        Arrival { after: self.latency() + delay, overtakes }
    }

    /// Returns `true` with the probability `share`.
    fn draws(&mut self, share: f64) -> bool {
        share > 0.0 && self.rng.random::<f64>() < share
    }
}
