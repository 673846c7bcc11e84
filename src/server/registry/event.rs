use std::{fmt, net::SocketAddr};

use super::connection::Connection;
use crate::{close::CloseReason, event};

/// Something that happened to a server's connections.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RegistryEvent {
    /// A client was let in.
    Connected(Connection),
    /// A client has lost its connection, and may yet come back: its session is kept.
    Detached(Connection),
    /// A client has come back to its session.
    Reattached(Connection),
    /// A connection has ended, and its session with it.
    Disconnected {
        /// The connection.
        connection: Connection,
        /// What was negotiated in the closing handshake, or what names its loss.
        reason: CloseReason,
    },
    /// A client was rejected.
    Rejected {
        /// The reason.
        reason: RejectReason,
        /// Address that the client came from, if known.
        peer: Option<SocketAddr>,
    },
    /// A connection did not get a notification, because its client reads too slowly. Told once, until
    /// it has got one again.
    Slow(Connection),
    /// The reader of these events was too slow, and missed so many of them.
    Lagged(u64),
}

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident => $label:literal,)*) => {
        /// Reason why a client was rejected.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum RejectReason {
            $($(#[$doc])* $name,)*
        }

        impl RejectReason {
            pub(super) const ALL: &[Self] = &[$(Self::$name),*];

            /// Returns a name for dashboards.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }
        }
    };
}

causes! {
    /// Request that is not one for this protocol: 400, 405, 426 or 501.
    NotWebSocket => "not_websocket",
    /// `Host` that is not served: 403.
    Host => "host",
    /// `Origin` that may not connect: 403.
    Origin => "origin",
    /// The id of its session is missing, is none, or is somebody else's: 400 or 403. Or two clients take
    /// the session from each other: 429.
    SessionId => "session_id",
    /// Missing or invalid token: 401, or 4401 within the connection.
    Unauthorized => "unauthorized",
    /// Known client that may not connect: 403, or 4403 within the connection.
    Forbidden => "forbidden",
    /// The authenticator gave no verdict: 503, or 1013 within the connection. Or what tells the
    /// client's address panicked: 500.
    Unavailable => "unavailable",
    /// All places are taken: 503, or 1013 within the connection.
    AtCapacity => "at_capacity",
    /// All places of its address are taken: 503, or 1013 within the connection.
    AddressAtCapacity => "address_at_capacity",
    /// The server is stopping: 503, or 1012 within the connection.
    Stopping => "stopping",
    /// Timeout: cut, with 408 or 1008 where that can still be said.
    TimedOut => "timed_out",
    /// Eviction as the slowest of too many at once: cut.
    Crowded => "crowded",
    /// The TLS handshake failed, or what came is no HTTP.
    NoHandshake => "no_handshake",
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Stream of what happens to a server's connections. It ends with the registry.
pub type RegistryEvents = event::Events<RegistryEvent>;

impl event::Lagged for RegistryEvent {
    fn lagged(events: u64) -> Self {
        Self::Lagged(events)
    }
}
