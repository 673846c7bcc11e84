//! Counters of one connection, and their snapshot.
//!
//! With the feature `metrics` every connection also counts in the metrics of the process: see the
//! [guide](crate::guide::observability#metrics).

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::{Serialize, Serializer};
use tokio::time::Instant;

use crate::time::millis;

/// The counters of one connection: a cheap handle that outlives it.
#[derive(Debug, Clone, Default)]
pub struct Stats(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    messages_received: Counter,
    messages_sent: Counter,
    bytes_received: Counter,
    bytes_sent: Counter,
    malformed: Counter,
    orphans: Counter,
    refused: Counter,
    round_trip_us: AtomicU64,
    #[cfg(feature = "metrics")]
    round_trips: metrics::Histogram,
    created: Instant,
    /// Counters of the present link, if it is not the first of its session.
    link: Mutex<Option<Stats>>,
    /// Time at which bytes last arrived, in milliseconds since `created`.
    last_received_ms: AtomicU64,
    is_compressed: AtomicBool,
}

/// A count of this connection, and with the feature `metrics` of the process.
#[derive(Debug)]
struct Counter {
    count: AtomicU64,
    #[cfg(feature = "metrics")]
    process: metrics::Counter,
}

impl Counter {
    fn add(&self, count: u64) {
        self.count.fetch_add(count, Relaxed);
        #[cfg(feature = "metrics")]
        self.process.increment(count);
    }

    fn get(&self) -> u64 {
        self.count.load(Relaxed)
    }
}

/// A [`Counter`], and the name and labels that it has in the process.
macro_rules! counter {
    ($($key:tt)*) => {
        Counter {
            count: AtomicU64::new(0),
            #[cfg(feature = "metrics")]
            process: metrics::counter!($($key)*),
        }
    };
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            messages_received: counter!("mcp_ws_messages_total", "direction" => "received"),
            messages_sent: counter!("mcp_ws_messages_total", "direction" => "sent"),
            bytes_received: counter!("mcp_ws_bytes_total", "direction" => "received"),
            bytes_sent: counter!("mcp_ws_bytes_total", "direction" => "sent"),
            malformed: counter!("mcp_ws_malformed_total"),
            orphans: counter!("mcp_ws_orphans_total"),
            refused: counter!("mcp_ws_refused_requests_total"),
            round_trip_us: AtomicU64::new(0),
            #[cfg(feature = "metrics")]
            round_trips: metrics::histogram!("mcp_ws_round_trip_seconds"),
            created: Instant::now(),
            link: Mutex::default(),
            last_received_ms: AtomicU64::new(0),
            is_compressed: AtomicBool::new(false),
        }
    }
}

impl Counters {
    fn age_ms(&self) -> u64 {
        millis(self.created.elapsed())
    }
}

/// The counters of a connection at one moment.
///
/// Serialised it has these fields, but `round_trip_us`, in microseconds or null, for `round_trip`,
/// and `idle_ms`, in milliseconds, for `idle`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
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
    /// Inbound requests and notifications refused by the transport itself. A request is answered
    /// with an error for an id already in flight or too many requests at once; a notification is
    /// dropped where too many wait or take too much memory.
    pub refused: u64,
    /// The latest round trip of a ping, once there has been one.
    #[serde(rename = "round_trip_us", serialize_with = "as_micros")]
    pub round_trip: Option<Duration>,
    /// Time since bytes last came from the peer, or the counters were made: see [`Stats::idle`].
    #[serde(rename = "idle_ms", serialize_with = "as_millis")]
    pub idle: Duration,
}

/// Converts `number`, cut to the range of the integer.
fn saturate(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

fn as_micros<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    duration.map(|duration| saturate(duration.as_micros())).serialize(serializer)
}

fn as_millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    millis(*duration).serialize(serializer)
}

impl Stats {
    /// Returns the counters as they are now. They are read one by one, not at one instant.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let link = self.0.link.lock().unwrap_or_else(PoisonError::into_inner);
        let own = self.own();
        let Some(link) = link.as_ref().map(Self::snapshot) else { return own };
        Snapshot {
            messages_received: own.messages_received + link.messages_received,
            messages_sent: own.messages_sent + link.messages_sent,
            bytes_received: own.bytes_received + link.bytes_received,
            bytes_sent: own.bytes_sent + link.bytes_sent,
            round_trip: link.round_trip.or(own.round_trip),
            idle: own.idle.min(link.idle),
            ..own
        }
    }

    fn own(&self) -> Snapshot {
        let counters = &*self.0;
        Snapshot {
            messages_received: counters.messages_received.get(),
            messages_sent: counters.messages_sent.get(),
            bytes_received: counters.bytes_received.get(),
            bytes_sent: counters.bytes_sent.get(),
            malformed: counters.malformed.get(),
            orphans: counters.orphans.get(),
            refused: counters.refused.get(),
            round_trip: match counters.round_trip_us.load(Relaxed) {
                0 => None,
                us => Some(Duration::from_micros(us)),
            },
            idle: self.own_idle(),
        }
    }

    /// Counts what `link` counts from now on, too, in place of the one before.
    #[cfg(feature = "server")]
    pub(crate) fn follow(&self, link: Self) {
        let mut current = self.0.link.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(former) = current.replace(link) {
            let counted = former.snapshot();
            let own = &*self.0;
            for (count, more) in [
                (&own.messages_received, counted.messages_received),
                (&own.messages_sent, counted.messages_sent),
                (&own.bytes_received, counted.bytes_received),
                (&own.bytes_sent, counted.bytes_sent),
            ] {
                // The counters of the process have it already.
                count.count.fetch_add(more, Relaxed);
            }
        }
    }

    /// Returns the time since bytes last came from the peer, or the counters were made where none
    /// have. Whole milliseconds by tokio's clock. Pongs are bytes too, so with a
    /// [`Heartbeat`](crate::layer::Heartbeat) an open connection is never idle for long.
    #[must_use]
    pub fn idle(&self) -> Duration {
        let link = self.0.link.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = self.own_idle();
        link.as_ref().map_or(idle, |link| idle.min(link.idle()))
    }

    /// Returns `true` if both sides of the present link have agreed on compression
    /// (permessage-deflate, RFC 7692).
    #[must_use]
    pub fn is_compressed(&self) -> bool {
        let link = self.0.link.lock().unwrap_or_else(PoisonError::into_inner);
        link.as_ref().map_or_else(|| self.0.is_compressed.load(Relaxed), Self::is_compressed)
    }

    #[cfg(feature = "deflate")]
    pub(crate) fn record_compression(&self, is_compressed: bool) {
        self.0.is_compressed.store(is_compressed, Relaxed);
    }

    fn own_idle(&self) -> Duration {
        let last_received = self.0.last_received_ms.load(Relaxed);
        Duration::from_millis(self.0.age_ms().saturating_sub(last_received))
    }

    pub(crate) fn record_message_received(&self) {
        self.0.messages_received.add(1);
    }

    pub(crate) fn record_message_sent(&self) {
        self.0.messages_sent.add(1);
    }

    pub(crate) fn record_bytes_received(&self, bytes: usize) {
        if bytes > 0 {
            self.0.bytes_received.add(bytes as u64);
            self.0.last_received_ms.store(self.0.age_ms(), Relaxed);
        }
    }

    /// Returns the time since the counters were made, in whole milliseconds.
    pub(crate) fn age_ms(&self) -> u64 {
        self.0.age_ms()
    }

    /// Returns the number of bytes received.
    pub(crate) fn received(&self) -> u64 {
        self.0.bytes_received.get()
    }

    pub(crate) fn record_bytes_sent(&self, bytes: usize) {
        self.0.bytes_sent.add(bytes as u64);
    }

    pub(crate) fn record_malformed(&self) {
        self.0.malformed.add(1);
    }

    pub(crate) fn record_orphan(&self) {
        self.0.orphans.add(1);
    }

    pub(crate) fn record_refused(&self) {
        self.0.refused.add(1);
    }

    pub(crate) fn record_round_trip(&self, round_trip: Duration) {
        self.0.round_trip_us.store(saturate(round_trip.as_micros()).max(1), Relaxed);
        #[cfg(feature = "metrics")]
        self.0.round_trips.record(round_trip);
    }
}

#[cfg(test)]
#[cfg(feature = "metrics")]
pub(crate) mod test_recorder;
#[cfg(test)]
mod tests;
