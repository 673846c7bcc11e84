//! The settings of a [`Resume`](super::Resume) layer.

use std::time::Duration;

/// Largest window of a side that dials: a peer need not have room for more.
const MAX_DIALLED_WINDOW: usize = 1 << 20;

/// Settings of a [`Resume`](super::Resume) layer: what it keeps, and for how long it waits.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) window_bytes: usize,
    pub(crate) ack_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { window_bytes: 1 << 20, ack_timeout: Duration::from_secs(30) }
    }
}

impl Config {
    /// Sets the send window in bytes: 1 MiB. From this many unacknowledged bytes on nothing more
    /// is sent. A message counts 64 bytes more than its payload.
    ///
    /// Less than 128 KiB is slow: a peer need not acknowledge less than 64 KiB within a second. On
    /// the side that dials, more than 1 MiB counts as 1 MiB.
    #[must_use]
    pub fn window_bytes(mut self, bytes: usize) -> Self {
        self.window_bytes = bytes;
        self
    }

    /// Sets the time in which a peer must acknowledge something while a full window holds messages
    /// up: 30 s. After that the link is closed with 1008, and the session is over.
    ///
    /// The time counts only while the peer is known to have read all it was sent, which pings
    /// show, sent a third of this time apart; so a slow network needs no longer timeout. A peer
    /// that answers no ping gets twice this time, and one second for each 16 KiB in the window.
    #[must_use]
    pub fn ack_timeout(mut self, timeout: Duration) -> Self {
        self.ack_timeout = timeout;
        self
    }

    /// Returns the window of a side that dialled, or of one that accepted, in bytes.
    pub(super) fn window(&self, dialled: bool) -> usize {
        if dialled { self.window_bytes.min(MAX_DIALLED_WINDOW) } else { self.window_bytes }
    }
}
