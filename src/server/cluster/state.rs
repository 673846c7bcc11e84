//! [`ClusterState`]: whether an instance takes part in its cluster.

use std::{io, time::Duration};

use tokio::time::Instant;

/// Time after which an instance that is not heard of is thought to be gone.
pub(super) const SILENCE_TIMEOUT: Duration = Duration::from_secs(7);

/// State of this instance in its cluster.
///
/// Its own sessions, and notifications to them, go on in any state.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterState {
    /// The other instances are reached.
    Joined,
    /// The other instances are not reached. This ends by itself when the cause is gone.
    Degraded {
        /// The cause.
        cause: ClusterError,
        /// Time at which it began.
        since: Instant,
    },
    /// This instance has left the cluster, for good.
    Left,
}

/// Error of joining a cluster, and cause for which an instance does not take part in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The bus is not connected.
    #[error("the bus is away")]
    Away,
    /// The bus seems to be connected, but nothing arrives by it.
    #[error("the bus brings nothing, not even what this instance itself publishes")]
    Silent,
    /// Another process has joined with the same tag.
    #[error(
        "another process has joined as the instance {0:?}; give each a tag of its own, or none"
    )]
    InstanceInUse(String),
    /// A question of this instance to itself has no answer: rights on the bus are missing.
    #[error(
        "a question of this instance to itself was not answered; it needs the rights to publish and to \
         subscribe on {prefix}.> and on the inbox that its bus has for answers"
    )]
    NoRights {
        /// Prefix of the cluster's subjects.
        prefix: String,
    },
    /// The bus refuses to subscribe, for this reason.
    #[error(
        "the bus refuses to subscribe: {why}; this instance needs the rights to publish and to \
         subscribe on {prefix}.> and on the inbox that its bus has for answers"
    )]
    Refused {
        /// Prefix of the cluster's subjects.
        prefix: String,
        /// Reason that the bus gives.
        why: String,
    },
}

impl ClusterError {
    /// Returns `true` if it passes without anybody doing something about it in the cluster.
    pub(super) fn is_outage(&self) -> bool {
        matches!(self, Self::Away | Self::Silent)
    }
}

impl From<ClusterError> for io::Error {
    fn from(error: ClusterError) -> Self {
        let kind = match error {
            ClusterError::Away | ClusterError::Silent => io::ErrorKind::NotConnected,
            ClusterError::InstanceInUse(_) => io::ErrorKind::AddrInUse,
            ClusterError::NoRights { .. } | ClusterError::Refused { .. } => {
                io::ErrorKind::PermissionDenied
            }
        };
        Self::new(kind, error)
    }
}

/// Change of the state, to be announced.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Degraded(ClusterError),
    Healed,
}

/// Membership of this instance in its cluster: its state, and what decides on the next one.
///
/// | state | when | then |
/// |---|---|---|
/// | `Joined`, `Degraded` | the bus is no longer connected | `Degraded`: `Away` |
/// | `Joined`, `Degraded` | it is, and nothing of this instance's own comes back for 7 s | `Degraded`: `Silent` |
/// | `Joined`, `Degraded` | another process with the same tag is heard of | `Degraded`: `InstanceInUse` |
/// | `Degraded` | a check of the rights or the tag fails | `Degraded` with that cause |
/// | `Degraded` | an own heartbeat comes back, and no other process was heard of for 7 s | `Joined` |
/// | any | this instance leaves | `Left` |
#[derive(Debug)]
pub(super) struct Membership {
    state: ClusterState,
    /// `true` while the bus is connected.
    is_up: bool,
    /// Time at which the bus was connected, if it is.
    up_since: Option<Instant>,
    /// Time at which something of this instance's own last came back, or the bus did.
    heard_self: Instant,
    /// Time at which another process with the same tag was last heard of.
    heard_duplicate: Option<Instant>,
    last_error: Option<ClusterError>,
}

impl Membership {
    /// Creates the membership of an instance that has not joined yet.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            state: ClusterState::Degraded { cause: ClusterError::Away, since: now },
            is_up: false,
            up_since: None,
            heard_self: now,
            heard_duplicate: None,
            last_error: None,
        }
    }

    pub(super) fn state(&self) -> &ClusterState {
        &self.state
    }

    pub(super) fn up_since(&self) -> Option<Instant> {
        self.up_since
    }

    pub(super) fn last_error(&self) -> Option<&ClusterError> {
        self.last_error.as_ref()
    }

    /// Records whether the bus is connected.
    pub(super) fn set_up(&mut self, is_up: bool) -> Option<Change> {
        if is_up != self.is_up {
            self.is_up = is_up;
            self.heard_self = Instant::now();
            self.up_since = is_up.then_some(self.heard_self);
        }
        if is_up { None } else { self.degrade(ClusterError::Away) }
    }

    /// Returns `true` if another process with the same tag was heard of within the last 7 s.
    pub(super) fn has_duplicate(&self) -> bool {
        self.heard_duplicate.is_some_and(|heard| heard.elapsed() < SILENCE_TIMEOUT)
    }

    /// Records that something of this instance's own has come back by the bus.
    pub(super) fn note_self(&mut self) -> Option<Change> {
        self.heard_self = Instant::now();
        match &self.state {
            ClusterState::Degraded { .. } if self.is_up && !self.has_duplicate() => {
                self.state = ClusterState::Joined;
                Some(Change::Healed)
            }
            _ => None,
        }
    }

    /// Records that another process with the tag `instance` is heard of.
    pub(super) fn note_duplicate(&mut self, instance: &str) -> Option<Change> {
        self.heard_duplicate = Some(Instant::now());
        self.degrade(ClusterError::InstanceInUse(instance.into()))
    }

    /// Degrades this instance if nothing of its own has come back for too long.
    pub(super) fn check_silence(&mut self) -> Option<Change> {
        let is_silent = self.is_up && self.heard_self.elapsed() > SILENCE_TIMEOUT;
        let was_joined = self.state == ClusterState::Joined;
        if is_silent && was_joined { self.degrade(ClusterError::Silent) } else { None }
    }

    /// Records that this instance does not take part, for this `cause`.
    pub(super) fn degrade(&mut self, cause: ClusterError) -> Option<Change> {
        let (is_new, since) = match &self.state {
            ClusterState::Joined => (true, Instant::now()),
            ClusterState::Degraded { cause: before, since } => {
                (*before != cause || self.last_error.is_none(), *since)
            }
            ClusterState::Left => return None,
        };
        self.state = ClusterState::Degraded { cause: cause.clone(), since };
        self.last_error = Some(cause.clone());
        is_new.then_some(Change::Degraded(cause))
    }

    /// Records that this instance has left. Returns `false` if it had before.
    pub(super) fn leave(&mut self) -> bool {
        let before = std::mem::replace(&mut self.state, ClusterState::Left);
        before != ClusterState::Left
    }
}
