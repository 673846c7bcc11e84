//! [`RelayCounts`]: how many relayed links there are, and the most that there may be.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

/// Counts of the relayed links of a server; a cheap handle.
#[derive(Debug, Clone, Default)]
pub(in crate::server) struct RelayCounts(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    relayed_in: AtomicU64,
    relayed_out: AtomicU64,
}

/// Direction of a relayed link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// The session is here.
    In,
    /// The client is here.
    Out,
}

impl Direction {
    #[cfg(feature = "metrics")]
    fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// Place of one relayed link among those that there may be; dropping it gives it back.
#[derive(Debug)]
pub(super) struct RelaySlot {
    counts: RelayCounts,
    direction: Direction,
}

impl RelayCounts {
    /// Takes one of `max` places for relayed links in this direction, if there is one.
    pub(super) fn try_acquire(&self, direction: Direction, max: usize) -> Option<RelaySlot> {
        let more = |count| (count < max as u64).then_some(count + 1);
        self.of(direction).fetch_update(SeqCst, SeqCst, more).ok()?;
        #[cfg(feature = "metrics")]
        metrics::gauge!("mcp_ws_relayed", "direction" => direction.as_str()).increment(1);
        Some(RelaySlot { counts: self.clone(), direction })
    }

    /// Returns the number of links to sessions here whose clients are at other instances.
    pub(in crate::server) fn relayed_in(&self) -> u64 {
        self.of(Direction::In).load(SeqCst)
    }

    /// Returns the number of clients here whose sessions are at other instances.
    pub(in crate::server) fn relayed_out(&self) -> u64 {
        self.of(Direction::Out).load(SeqCst)
    }

    fn of(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::In => &self.0.relayed_in,
            Direction::Out => &self.0.relayed_out,
        }
    }
}

impl Drop for RelaySlot {
    fn drop(&mut self) {
        self.counts.of(self.direction).fetch_sub(1, SeqCst);
        #[cfg(feature = "metrics")]
        metrics::gauge!("mcp_ws_relayed", "direction" => self.direction.as_str()).decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_places_each_way_and_no_more() {
        let counts = RelayCounts::default();
        let acquire = |direction| counts.try_acquire(direction, 100);
        let mut slots: Vec<_> = (0..100).map(|_| acquire(Direction::Out).unwrap()).collect();
        assert!(acquire(Direction::Out).is_none());
        let other = acquire(Direction::In).unwrap();
        assert_eq!((counts.relayed_in(), counts.relayed_out()), (1, 100));
        slots.pop();
        assert!(acquire(Direction::Out).is_some());
        drop((slots, other));
        assert_eq!((counts.relayed_in(), counts.relayed_out()), (0, 0));
    }
}
