//! [`RelayContext`]: what the relayed links of one server share.

use std::{sync::Arc, time::Duration};

use super::{
    count::{Direction, RelayCounts, RelaySlot},
    pipe::{Pipe, PipeEnd, bounds::Bounds},
};
use crate::{
    cluster::{subject::Subject, subscription::Subscription},
    server::cluster::node::Node,
    stats::Stats,
};

/// Time within which an offered session is to be taken, by the clock of the instance that has it.
pub(super) const GO_TIMEOUT: Duration = Duration::from_secs(2);

/// Settings and counts that the relayed links of one server share, in both directions.
pub(in crate::server) struct RelayContext {
    pub(super) node: Arc<Node>,
    counts: RelayCounts,
    /// The largest message, in bytes.
    pub(super) max_message: usize,
}

impl RelayContext {
    /// Creates the context of a server whose largest message has so many bytes.
    pub(super) fn new(node: Arc<Node>, counts: RelayCounts, max_message: usize) -> Self {
        Self { node, counts, max_message }
    }

    /// Returns `true` if this instance relays sessions at all.
    pub(super) fn relays_any(&self) -> bool {
        self.node.max_relays > 0
    }

    /// Takes a place for a relayed link, if there is one.
    pub(super) fn try_acquire(&self, direction: Direction) -> Option<RelaySlot> {
        self.counts.try_acquire(direction, self.node.max_relays)
    }

    /// Returns the bounds of each pipe.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds::new(self.node.relay_bus.max_payload(), self.max_message)
    }

    /// Creates one end of a pipe, which has the `slot` for as long as it lives.
    pub(super) fn pipe(
        &self,
        end: PipeEnd,
        subscription: Subscription,
        to: Subject,
        stats: Option<Stats>,
        slot: RelaySlot,
    ) -> Pipe {
        let bus = self.node.relay_bus.clone();
        Pipe::new(bus, end, subscription, to, self.bounds(), stats).with_slot(slot)
    }
}
