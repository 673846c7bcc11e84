//! Counters of one connection, and their snapshot.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// The counters of one connection: a cheap handle that outlives it.
#[derive(Debug, Clone, Default)]
pub struct Stats(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    messages_received: AtomicU64,
    messages_sent: AtomicU64,
    bytes_received: AtomicU64,
    bytes_sent: AtomicU64,
    malformed: AtomicU64,
    orphans: AtomicU64,
    refused: AtomicU64,
    round_trip_us: AtomicU64,
}

/// The counters of a connection at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Snapshot {
    /// Text and binary messages from the peer.
    pub messages_received: u64,
    /// Text and binary messages handed to the socket.
    pub messages_sent: u64,
    /// Bytes from the peer after the handshake, as they crossed the network (or TLS).
    pub bytes_received: u64,
    /// Bytes written to the peer after the handshake.
    pub bytes_sent: u64,
    /// Inbound messages that were not JSON-RPC 2.0.
    pub malformed: u64,
    /// Responses without an id, or to no request in flight; dropped.
    pub orphans: u64,
    /// Inbound requests answered with an error by the transport itself: an id already in flight,
    /// or too many requests at once.
    pub refused: u64,
    /// The latest round trip of a ping, once there has been one.
    pub round_trip: Option<Duration>,
}

impl Stats {
    /// The counters as they are now. They are read one by one, not at one instant.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let counters = &*self.0;
        Snapshot {
            messages_received: counters.messages_received.load(Relaxed),
            messages_sent: counters.messages_sent.load(Relaxed),
            bytes_received: counters.bytes_received.load(Relaxed),
            bytes_sent: counters.bytes_sent.load(Relaxed),
            malformed: counters.malformed.load(Relaxed),
            orphans: counters.orphans.load(Relaxed),
            refused: counters.refused.load(Relaxed),
            round_trip: match counters.round_trip_us.load(Relaxed) {
                0 => None,
                us => Some(Duration::from_micros(us)),
            },
        }
    }

    pub(crate) fn message_received(&self) {
        self.0.messages_received.fetch_add(1, Relaxed);
    }

    pub(crate) fn message_sent(&self) {
        self.0.messages_sent.fetch_add(1, Relaxed);
    }

    pub(crate) fn bytes_received(&self, bytes: usize) {
        self.0.bytes_received.fetch_add(bytes as u64, Relaxed);
    }

    /// How many bytes have come from the peer.
    pub(crate) fn received(&self) -> u64 {
        self.0.bytes_received.load(Relaxed)
    }

    pub(crate) fn bytes_sent(&self, bytes: usize) {
        self.0.bytes_sent.fetch_add(bytes as u64, Relaxed);
    }

    pub(crate) fn malformed(&self) {
        self.0.malformed.fetch_add(1, Relaxed);
    }

    pub(crate) fn orphan(&self) {
        self.0.orphans.fetch_add(1, Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.0.refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn round_trip(&self, round_trip: Duration) {
        let us = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX).max(1);
        self.0.round_trip_us.store(us, Relaxed);
    }
}
