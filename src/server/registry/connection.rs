use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use tokio::sync::Notify;

use crate::{
    error::CloseReason,
    server::auth::Identity,
    stats::{Snapshot, Stats},
};

/// One connection, or one after the other that carry one session: a cheap handle, which outlives it. Tools find their own in the extensions of
/// their requests.
#[derive(Clone)]
pub struct Connection(Arc<Facts>);

struct Facts {
    id: u64,
    peer: Option<SocketAddr>,
    identity: Option<Identity>,
    since: SystemTime,
    stats: Stats,
    initialized: AtomicBool,
    slow: AtomicBool,
    away: AtomicBool,
    farewell: Farewell,
}

/// That a connection is to be closed, and why.
#[derive(Debug, Default)]
pub(in crate::server) struct Farewell {
    reason: OnceLock<CloseReason>,
    said: Notify,
}

impl Farewell {
    /// Resolves when the connection is to be closed.
    pub(in crate::server) async fn said(&self) -> CloseReason {
        loop {
            if let Some(reason) = self.reason.get() {
                return reason.clone();
            }
            self.said.notified().await;
        }
    }
}

impl Connection {
    pub(in crate::server) fn new(
        id: u64,
        peer: Option<SocketAddr>,
        identity: Option<Identity>,
        stats: Stats,
    ) -> Self {
        Self(Arc::new(Facts {
            id,
            peer,
            identity,
            since: SystemTime::now(),
            stats,
            initialized: AtomicBool::new(false),
            slow: AtomicBool::new(false),
            away: AtomicBool::new(false),
            farewell: Farewell::default(),
        }))
    }

    /// Its number in the registry, never used twice. It is no secret.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Where it came from at first, as far as that is known; see [`Config::peer`](crate::server::Config::peer).
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.0.peer
    }

    /// Who has been let in; `None` where nobody is asked.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.0.identity.as_ref()
    }

    /// When it was let in.
    #[must_use]
    pub fn since(&self) -> SystemTime {
        self.0.since
    }

    /// Its counters: messages and bytes each way, the round trip, the last activity.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.0.stats
    }

    /// Whether its service runs.
    #[must_use]
    pub fn is_initialized(&self) -> bool {
        self.0.initialized.load(Relaxed)
    }

    /// Whether there is only its session, which the client may still [resume](crate::server::Resumption).
    #[must_use]
    pub fn is_away(&self) -> bool {
        self.0.away.load(Relaxed)
    }

    /// Closes it with the closing handshake and this `reason`. Whether that is news.
    pub fn disconnect(&self, reason: CloseReason) -> bool {
        let is_first = self.0.farewell.reason.set(reason).is_ok();
        self.0.farewell.said.notify_one();
        is_first
    }

    /// All that is known of it now, for people and dashboards.
    #[must_use]
    pub fn info(&self) -> Info {
        Info {
            id: self.0.id,
            peer: self.0.peer,
            identity: self.0.identity.as_ref().map(|identity| identity.subject().to_owned()),
            since_ms: self.0.since.duration_since(UNIX_EPOCH).map_or(0, millis),
            initialized: self.is_initialized(),
            slow: self.0.slow.load(Relaxed),
            away: self.is_away(),
            stats: self.0.stats.snapshot(),
        }
    }

    pub(in crate::server) fn initialized(&self) {
        self.0.initialized.store(true, Relaxed);
    }

    pub(in crate::server) fn farewell(&self) -> &Farewell {
        &self.0.farewell
    }

    /// Says whether its client is away, and returns what was said before.
    pub(super) fn away(&self, away: bool) -> bool {
        self.0.away.swap(away, Relaxed)
    }

    pub(super) fn keeps_up(&self) {
        if self.0.slow.load(Relaxed) {
            self.0.slow.store(false, Relaxed);
        }
    }

    /// Whether it kept up until now.
    pub(super) fn falls_behind(&self) -> bool {
        !self.0.slow.swap(true, Relaxed)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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

/// What is known of a connection at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Info {
    /// Its number in the registry.
    pub id: u64,
    /// Where it comes from, as far as that is known.
    pub peer: Option<SocketAddr>,
    /// The name of who has been let in.
    pub identity: Option<String>,
    /// When it was let in, in milliseconds since 1970.
    pub since_ms: u64,
    /// Whether its service runs.
    pub initialized: bool,
    /// Whether it missed the last notification that it should have got.
    pub slow: bool,
    /// Whether there is only its session, which the client may still resume.
    pub away: bool,
    /// Its counters.
    #[serde(flatten)]
    pub stats: Snapshot,
}
