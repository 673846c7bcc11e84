//! [`ClusterEvent`]: an event of a cluster, as one of its instances sees it.

use super::state::ClusterError;
use crate::event;

/// Event of a cluster, as one of its instances sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterEvent {
    /// An instance is heard of.
    InstanceUp(String),
    /// An instance has left, or was not heard of for 7 s.
    InstanceDown(String),
    /// The other instances are not reached, for this cause.
    Degraded(ClusterError),
    /// The other instances are reached again.
    Healed,
    /// Notifications of another instance were lost on the way to this one.
    ///
    /// Some may have been for clients elsewhere. What they said is not kept; clients can be told
    /// once more, for instance, that a list has changed.
    Missed {
        /// Tag of the instance that has sent them.
        from: String,
        /// Number of notifications.
        count: u64,
    },
    /// The reader of these events was too slow, and missed this many of them.
    Lagged(u64),
}

/// Stream of the events of a cluster. It ends with the last handle of the cluster.
pub type ClusterEvents = event::Events<ClusterEvent>;

impl event::Lagged for ClusterEvent {
    fn lagged(events: u64) -> Self {
        Self::Lagged(events)
    }
}
