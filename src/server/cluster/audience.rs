//! [`Audience`]: the clients that a notification to a cluster is for.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Clients that a notification to a cluster is for, on whatever instance they are.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Audience {
    /// Every client.
    All,
    /// The clients with an [`Identity`](crate::server::Identity) of this name.
    Identity(String),
    /// The clients in this [group](crate::server::Connection::join_group).
    Group(String),
    /// The client that has the session with this id. `Debug` does not show it.
    Session(String),
    /// One connection, or all that carry its session, one after the other.
    Connection {
        /// Tag of the instance.
        instance: String,
        /// [Number](crate::server::Connection::id) of the connection there.
        id: u64,
    },
}

impl Audience {
    /// Returns the tag of the one instance at which it can be, if there is one.
    pub(super) fn only_at(&self) -> Option<&str> {
        match self {
            Self::Connection { instance, .. } => Some(instance),
            _ => None,
        }
    }

    /// Returns `true` if some of it may be at this instance.
    pub(in crate::server) fn may_be_at(&self, instance: &str) -> bool {
        self.only_at().is_none_or(|only| only == instance)
    }
}

impl fmt::Debug for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("All"),
            Self::Identity(name) => f.debug_tuple("Identity").field(name).finish(),
            Self::Group(name) => f.debug_tuple("Group").field(name).finish(),
            Self::Session(_) => f.write_str("Session(..)"),
            Self::Connection { instance, id } => {
                f.debug_struct("Connection").field("instance", instance).field("id", id).finish()
            }
        }
    }
}
