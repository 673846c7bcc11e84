//! [`RegistryEvent`]: an event of a server's connections.

use std::{fmt, net::SocketAddr};

use super::connection::Connection;
use crate::{close::CloseReason, event};

/// Event of a server's connections.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RegistryEvent {
    /// A client was admitted.
    Connected(Connection),
    /// A client has lost its connection. Its session is kept for a while.
    Detached(Connection),
    /// A client has come back to its session.
    Reattached(Connection),
    /// A connection has ended, and its session with it.
    Disconnected {
        /// The connection.
        connection: Connection,
        /// Reason of the closing handshake, or of the loss.
        reason: CloseReason,
    },
    /// A client was rejected.
    Rejected {
        /// The reason.
        reason: RejectReason,
        /// Address that the client came from, if known.
        peer: Option<SocketAddr>,
    },
    /// A client missed a notification, because it reads too slowly.
    ///
    /// There is one such event until the client has got a notification again.
    Slow(Connection),
    /// The reader of these events was too slow, and missed this many of them.
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

            /// Returns the name of the reason, for dashboards.
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
    /// Request that is no valid upgrade to WebSocket: 400, 405, 426 or 501.
    NotWebSocket => "not_websocket",
    /// `Host` that is not served: 403.
    Host => "host",
    /// `Origin` that may not connect: 403.
    Origin => "origin",
    /// Session id that is missing or malformed, or belongs to another identity: 400 or 403.
    ///
    /// Also for a first message that asks for no session or cannot be read: 1002, 1007 or 1009. And
    /// for two clients that take a session from each other: 429, or 1013 within the connection.
    SessionId => "session_id",
    /// Missing or invalid token: 401, or 4401 within the connection.
    Unauthorized => "unauthorized",
    /// Known client that may not connect: 403, or 4403 within the connection.
    Forbidden => "forbidden",
    /// No decision of the authenticator: 503, or 1013 within the connection.
    ///
    /// Also for a panic of [`Config::peer_addr`](crate::server::Config::peer_addr): 500. And where
    /// the way to the instance that has the session is lost: 1001.
    Unavailable => "unavailable",
    /// Limit of connections, or of sessions of other instances: 503, or 1013 within the connection.
    AtCapacity => "at_capacity",
    /// Limit of connections per address: 503, or 1013 within the connection.
    AddressAtCapacity => "address_at_capacity",
    /// Stop of the server: 503, or 1012 within the connection.
    Stopping => "stopping",
    /// Timeout: cut, with 408 or 1008 where the client can still be told.
    TimedOut => "timed_out",
    /// Eviction, as one of too many unauthenticated clients at once: cut.
    Evicted => "evicted",
    /// Failure of the TLS handshake, or bytes that are no HTTP.
    NoHandshake => "no_handshake",
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Stream of the events of a server's connections. It ends with the registry.
pub type RegistryEvents = event::Events<RegistryEvent>;

impl event::Lagged for RegistryEvent {
    fn lagged(events: u64) -> Self {
        Self::Lagged(events)
    }
}
