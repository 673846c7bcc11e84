//! [`Health`]: the figures of a server.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use serde::Serialize;

use super::{connection::Connection, event::RejectReason};
use crate::stats::Snapshot;

/// Figures of a server at one moment.
///
/// With the feature `metrics` they are recorded as [metrics](crate::guide::observability#metrics)
/// too.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// Connections at present, and sessions that are kept without one.
    pub active: u64,
    /// Sessions among these without a connection, whose clients may come back.
    pub detached: u64,
    /// Connections among these whose clients are at other instances of the cluster, and sessions
    /// that are offered to one.
    #[cfg(feature = "cluster")]
    #[cfg_attr(docsrs, doc(cfg(feature = "cluster")))]
    pub relayed_in: u64,
    /// Clients here whose sessions are at other instances of the cluster; not among the
    /// connections.
    #[cfg(feature = "cluster")]
    #[cfg_attr(docsrs, doc(cfg(feature = "cluster")))]
    pub relayed_out: u64,
    /// Connections so far.
    pub total: u64,
    /// Clients that were rejected.
    pub rejected: u64,
    /// Rejected clients by [reason](RejectReason::as_str), where there were any.
    pub rejected_by: BTreeMap<&'static str, u64>,
    /// Messages from clients, on all connections so far.
    pub messages_received: u64,
    /// Messages to clients.
    pub messages_sent: u64,
    /// Bytes from clients, after the handshakes.
    pub bytes_received: u64,
    /// Bytes to clients.
    pub bytes_sent: u64,
    /// Messages that could not be read, and requests that the transport itself refused.
    pub errors: u64,
    /// Figures of the cluster, if the server is an instance of one.
    #[cfg(feature = "cluster")]
    #[cfg_attr(docsrs, doc(cfg(feature = "cluster")))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<crate::server::cluster::health::ClusterHealth>,
}

impl Health {
    /// Adds the figures of one connection.
    fn add(&mut self, stats: &Snapshot) {
        self.messages_received += stats.messages_received;
        self.messages_sent += stats.messages_sent;
        self.bytes_received += stats.bytes_received;
        self.bytes_sent += stats.bytes_sent;
        self.errors += stats.malformed + stats.refused;
    }
}

/// Counts of ended connections and rejected clients.
#[derive(Debug, Default)]
pub(super) struct Counters {
    total: AtomicU64,
    rejected: [AtomicU64; RejectReason::ALL.len()],
    /// Sums over the connections that have ended.
    ended: Mutex<Health>,
}

impl Counters {
    /// Counts a connection.
    pub(super) fn connected(&self) {
        self.total.fetch_add(1, Relaxed);
        #[cfg(feature = "metrics")]
        {
            metrics::counter!("mcp_ws_connections_total").increment(1);
            metrics::gauge!("mcp_ws_connections").increment(1);
        }
    }

    /// Adds the figures of a connection that has ended.
    pub(super) fn disconnected(&self, stats: &Snapshot) {
        #[cfg(feature = "metrics")]
        metrics::gauge!("mcp_ws_connections").decrement(1);
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).add(stats);
    }

    /// Counts a rejected client.
    pub(super) fn rejected(&self, reason: RejectReason) {
        #[cfg(feature = "metrics")]
        metrics::counter!("mcp_ws_rejected_connections_total", "reason" => reason.as_str())
            .increment(1);
        self.rejected[reason as usize].fetch_add(1, Relaxed);
    }

    /// Records in the metrics that a client is detached, or no longer is.
    pub(super) fn detached(&self, detached: bool) {
        #[cfg(feature = "metrics")]
        metrics::gauge!("mcp_ws_sessions_detached").increment(if detached { 1 } else { -1 });
        let _ = detached;
    }

    /// Returns the figures, with those of the connections that are `active`.
    pub(super) fn health<'a>(&self, active: impl Iterator<Item = &'a Connection>) -> Health {
        let mut health = self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for connection in active {
            health.active += 1;
            health.detached += u64::from(connection.is_detached());
            health.add(&connection.stats().snapshot());
        }
        health.total = self.total.load(Relaxed);
        for (reason, count) in RejectReason::ALL.iter().zip(&self.rejected) {
            let count = count.load(Relaxed);
            if count > 0 {
                health.rejected += count;
                health.rejected_by.insert(reason.as_str(), count);
            }
        }
        health
    }
}
