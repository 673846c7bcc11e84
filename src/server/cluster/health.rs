//! [`ClusterHealth`]: the figures of an instance in its cluster.

use serde::Serialize;

use super::{node::Node, state::ClusterState};

/// Figures of an instance in its cluster, in [`Health`](crate::server::Health).
///
/// With the feature `metrics` they are recorded as [metrics](crate::guide::observability#metrics)
/// too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ClusterHealth {
    /// Tag of this instance.
    pub instance: String,
    /// `true` if the other instances are reached.
    pub connected: bool,
    /// Number of instances that are heard of, with this one.
    pub instances: u64,
    /// Cause for which the others were last not reached, if there was one.
    pub last_error: Option<String>,
}

impl Node {
    /// Returns the figures at present.
    pub(in crate::server) fn health(&self) -> ClusterHealth {
        let instances = 1 + self.members().count() as u64;
        let membership = self.membership();
        ClusterHealth {
            instance: self.this.instance.clone(),
            connected: *membership.state() == ClusterState::Joined,
            instances,
            last_error: membership.last_error().map(ToString::to_string),
        }
    }

    /// Records the figures as metrics.
    pub(super) fn record(&self) {
        #[cfg(feature = "metrics")]
        {
            let health = self.health();
            metrics::gauge!("mcp_ws_cluster_up").set(f64::from(u8::from(health.connected)));
            #[expect(clippy::cast_precision_loss, reason = "4,096 at most")]
            metrics::gauge!("mcp_ws_cluster_instances").set(health.instances as f64);
        }
    }
}
