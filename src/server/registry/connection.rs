//! [`Connection`]: a handle of one connection.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use tokio::sync::Notify;

#[cfg(feature = "cluster")]
use crate::layer::resume::secret::SessionId;
use crate::{
    close::CloseReason,
    server::auth::Identity,
    stats::{Snapshot, Stats},
    time::millis,
};

/// Handle of one connection, or of all that carry one session, one after the other.
///
/// It is cheap to clone, and outlives the connection. Tools find their own in the extensions of
/// their requests.
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

struct Inner {
    id: u64,
    peer: Option<SocketAddr>,
    identity: Option<Identity>,
    since: SystemTime,
    stats: Stats,
    initialized: AtomicBool,
    slow: AtomicBool,
    detached: AtomicBool,
    close_request: CloseRequest,
    #[cfg(feature = "cluster")]
    groups: super::groups::Groups,
    #[cfg(feature = "cluster")]
    session: OnceLock<SessionId>,
}

/// Request to close a connection.
#[derive(Debug, Default)]
pub(in crate::server) struct CloseRequest {
    reason: OnceLock<CloseReason>,
    requested: Notify,
}

impl CloseRequest {
    /// Resolves when the connection is to be closed, with the reason.
    pub(in crate::server) async fn requested(&self) -> CloseReason {
        loop {
            if let Some(reason) = self.reason.get() {
                return reason.clone();
            }
            self.requested.notified().await;
        }
    }
}

impl Connection {
    /// Creates the handle of a connection whose service does not run yet.
    pub(in crate::server) fn new(
        id: u64,
        peer: Option<SocketAddr>,
        identity: Option<Identity>,
        stats: Stats,
    ) -> Self {
        Self(Arc::new(Inner {
            id,
            peer,
            identity,
            since: SystemTime::now(),
            stats,
            initialized: AtomicBool::new(false),
            slow: AtomicBool::new(false),
            detached: AtomicBool::new(false),
            close_request: CloseRequest::default(),
            #[cfg(feature = "cluster")]
            groups: super::groups::Groups::default(),
            #[cfg(feature = "cluster")]
            session: OnceLock::new(),
        }))
    }

    /// Returns the number in the registry, which is never used twice and is no secret.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Returns the address that the client came from at first, if known.
    ///
    /// See [`Config::trusted_proxies`](crate::server::Config::trusted_proxies).
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.0.peer
    }

    /// Returns the identity of the client; `None` if there is no authenticator.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.0.identity.as_ref()
    }

    /// Returns the time at which the client was admitted.
    #[must_use]
    pub fn since(&self) -> SystemTime {
        self.0.since
    }

    /// Returns the counters: messages and bytes each way, the round trip, the last activity.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.0.stats
    }

    /// Returns `true` once the service runs.
    #[must_use]
    pub fn is_initialized(&self) -> bool {
        self.0.initialized.load(Relaxed)
    }

    /// Returns `true` while the client is not connected, and may still come back to its session.
    ///
    /// See [`SessionConfig`](crate::server::SessionConfig).
    #[must_use]
    pub fn is_detached(&self) -> bool {
        self.0.detached.load(Relaxed)
    }

    /// Closes the connection with the closing handshake and this `reason`.
    ///
    /// Returns `false` if it was told to close before.
    pub fn disconnect(&self, reason: CloseReason) -> bool {
        let is_first = self.0.close_request.reason.set(reason).is_ok();
        self.0.close_request.requested.notify_one();
        is_first
    }

    /// Returns a snapshot of what is known of the connection, for people and dashboards.
    #[must_use]
    pub fn info(&self) -> ConnectionInfo {
        ConnectionInfo {
            id: self.0.id,
            peer: self.0.peer,
            identity: self.0.identity.as_ref().map(|identity| identity.subject().to_owned()),
            since_ms: self.0.since.duration_since(UNIX_EPOCH).map_or(0, millis),
            initialized: self.is_initialized(),
            slow: self.0.slow.load(Relaxed),
            detached: self.is_detached(),
            stats: self.0.stats.snapshot(),
        }
    }

    /// Adds the client to the group of this name, which a notification to a
    /// [cluster](crate::cluster::Audience::Group) can be for.
    ///
    /// Returns `false` if the client is not in it then: a client is in 256 groups at most, whose
    /// names have 1 to 256 bytes.
    #[cfg(feature = "cluster")]
    #[cfg_attr(docsrs, doc(cfg(feature = "cluster")))]
    pub fn join_group(&self, name: &str) -> bool {
        self.0.groups.join(name)
    }

    /// Takes the client out of the group of this name. Returns `false` if it was not in it.
    #[cfg(feature = "cluster")]
    #[cfg_attr(docsrs, doc(cfg(feature = "cluster")))]
    pub fn leave_group(&self, name: &str) -> bool {
        self.0.groups.leave(name)
    }

    /// Returns whether the client is in the group of this name.
    #[cfg(feature = "cluster")]
    #[cfg_attr(docsrs, doc(cfg(feature = "cluster")))]
    #[must_use]
    pub fn is_in_group(&self, name: &str) -> bool {
        self.0.groups.contains(name)
    }

    /// Records the id of the session that it carries.
    #[cfg(feature = "cluster")]
    pub(in crate::server) fn set_session(&self, id: SessionId) {
        let _ = self.0.session.set(id);
    }

    /// Returns `true` if it carries the session with this id.
    #[cfg(feature = "cluster")]
    pub(super) fn has_session(&self, id: &str) -> bool {
        self.0.session.get().is_some_and(|session| session.as_str() == id)
    }

    /// Records that the service runs.
    pub(in crate::server) fn initialized(&self) {
        self.0.initialized.store(true, Relaxed);
    }

    /// Returns the request to close the connection.
    pub(in crate::server) fn close_request(&self) -> &CloseRequest {
        &self.0.close_request
    }

    /// Records whether the client is detached. Returns what was recorded before.
    pub(super) fn swap_detached(&self, detached: bool) -> bool {
        self.0.detached.swap(detached, Relaxed)
    }

    /// Records that the client got a notification.
    pub(super) fn mark_caught_up(&self) {
        if self.0.slow.load(Relaxed) {
            self.0.slow.store(false, Relaxed);
        }
    }

    /// Records a missed notification. Returns `true` if the client kept up until now.
    pub(super) fn mark_slow(&self) -> bool {
        !self.0.slow.swap(true, Relaxed)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.0.id)
            .field("peer", &self.0.peer)
            .field("identity", &self.0.identity)
            .finish_non_exhaustive()
    }
}

/// Snapshot of what is known of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Number in the registry.
    pub id: u64,
    /// Address that the client comes from, if known.
    pub peer: Option<SocketAddr>,
    /// Name of the client's identity.
    pub identity: Option<String>,
    /// Time at which the client was admitted, in milliseconds since 1970.
    pub since_ms: u64,
    /// `true` once the service runs.
    pub initialized: bool,
    /// `true` if the client missed the last notification that it should have got.
    pub slow: bool,
    /// `true` while the client is not connected, and may still come back to its session.
    pub detached: bool,
    /// Counters of messages and bytes.
    #[serde(flatten)]
    pub stats: Snapshot,
}
