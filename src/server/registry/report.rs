//! [`BroadcastReport`]: whom a notification was queued for, and whom not.

use super::connection::Connection;
use crate::error::Error;

/// Result of a notification to several connections.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct BroadcastReport {
    /// Number of connections for which the notification was queued.
    pub sent: usize,
    /// Connections that do not get the notification, and the reasons.
    pub failed: Vec<(Connection, NotifyError)>,
}

impl BroadcastReport {
    /// Adds the result at further connections.
    #[cfg(feature = "cluster")]
    pub(in crate::server) fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.failed.extend(other.failed);
    }
}

/// Reason why a notification was not queued.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NotifyError {
    /// The connection has ended.
    #[error("not connected")]
    Gone,
    /// The client has not initialized MCP yet, and may not be notified before.
    #[error("not initialized")]
    NotInitialized,
    /// The queue of the client is full, since it reads too slowly.
    #[error("too slow")]
    Slow,
    /// The notification could not be encoded.
    #[error(transparent)]
    Unsendable(Error),
}

impl NotifyError {
    /// Returns the name of the reason, for dashboards.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::NotInitialized => "not_initialized",
            Self::Slow => "slow",
            Self::Unsendable(_) => "unsendable",
        }
    }
}
