use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use serde::Serialize;

use super::{Cause, Connection};
use crate::stats::Snapshot;

/// The figures of a server at one moment.
///
/// With the feature `metrics` the process is told of them as they change, beside those of each
/// connection in [`stats`](crate::stats):
///
/// | name | labels | kind | |
/// |---|---|---|---|
/// | `mcp_ws_connections` | | gauge | [`active`](Self::active) |
/// | `mcp_ws_sessions_away` | | gauge | [`away`](Self::away) |
/// | `mcp_ws_connections_total` | | counter | [`total`](Self::total) |
/// | `mcp_ws_refused_connections_total` | `cause`: see [`Cause::as_str`] | counter | [`refused_by`](Self::refused_by) |
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// Connections now, and sessions that are kept without one.
    pub active: u64,
    /// Of these, those without a connection: their clients may come back.
    pub away: u64,
    /// Connections so far.
    pub total: u64,
    /// How many were not let in.
    pub refused: u64,
    /// The same by [cause](Cause::as_str), where there were any.
    pub refused_by: BTreeMap<&'static str, u64>,
    /// Messages from clients, on all connections so far.
    pub messages_received: u64,
    /// Messages to clients.
    pub messages_sent: u64,
    /// Bytes from clients, after the handshakes.
    pub bytes_received: u64,
    /// Bytes to clients.
    pub bytes_sent: u64,
    /// Messages from clients that could not be read, and requests that the transport itself
    /// answered with an error.
    pub errors: u64,
}

impl Health {
    fn add(&mut self, stats: &Snapshot) {
        self.messages_received += stats.messages_received;
        self.messages_sent += stats.messages_sent;
        self.bytes_received += stats.bytes_received;
        self.bytes_sent += stats.bytes_sent;
        self.errors += stats.malformed + stats.refused;
    }
}

/// What is counted besides the connections that are there.
#[derive(Debug, Default)]
pub(super) struct Tally {
    total: AtomicU64,
    refused: [AtomicU64; Cause::ALL.len()],
    /// The sum over the connections that have ended.
    ended: Mutex<Health>,
}

impl Tally {
    pub(super) fn connected(&self) {
        self.total.fetch_add(1, Relaxed);
        #[cfg(feature = "metrics")]
        {
            metrics::counter!("mcp_ws_connections_total").increment(1);
            metrics::gauge!("mcp_ws_connections").increment(1);
        }
    }

    pub(super) fn disconnected(&self, stats: &Snapshot) {
        #[cfg(feature = "metrics")]
        metrics::gauge!("mcp_ws_connections").decrement(1);
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).add(stats);
    }

    pub(super) fn refused(&self, cause: Cause) {
        #[cfg(feature = "metrics")]
        metrics::counter!("mcp_ws_refused_connections_total", "cause" => cause.as_str())
            .increment(1);
        self.refused[cause as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn away(&self, away: bool) {
        #[cfg(feature = "metrics")]
        metrics::gauge!("mcp_ws_sessions_away").increment(if away { 1 } else { -1 });
        let _ = away;
    }

    pub(super) fn health<'a>(&self, active: impl Iterator<Item = &'a Connection>) -> Health {
        let mut health = self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for connection in active {
            health.active += 1;
            health.away += u64::from(connection.is_away());
            health.add(&connection.stats().snapshot());
        }
        health.total = self.total.load(Relaxed);
        for (cause, count) in Cause::ALL.iter().zip(&self.refused) {
            let count = count.load(Relaxed);
            if count > 0 {
                health.refused += count;
                health.refused_by.insert(cause.as_str(), count);
            }
        }
        health
    }
}
