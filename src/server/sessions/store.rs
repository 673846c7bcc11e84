//! [`SessionStore`]: the sessions of a server that outlive their connections.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{StatusCode, request::Parts};

use tokio_util::sync::CancellationToken;

use super::{
    config::SessionConfig,
    detached::DetachedSessions,
    entry::SessionEntry,
    id::{RequestedId, SessionIdPolicy},
    new_link::NewLink,
};
use crate::{
    layer::resume::{
        frame::SessionFrame,
        receive_count::ReceiveCount,
        secret::{Secret, SessionId},
    },
    link::MessageLimits,
    role::McpRole,
    server::{auth::Identity, http::rejection::Rejection, registry::event::RejectReason},
};

pub(super) const TAKEN_OVER_TOO_OFTEN: &str = "the session is taken over too often";

/// `Retry-After` for clients that take a session from each other.
const RETRY_DELAY: Duration = Duration::from_secs(10);

pub(super) const NOT_YOURS: &str = "the session is not yours";

/// Sessions of a server that can be resumed.
pub(in crate::server) struct SessionStore<R: McpRole> {
    pub(super) config: SessionConfig,
    /// Bytes that each keeps for its client, which is told so.
    window_bytes: u64,
    /// Limits of each session, announced to its client.
    limits: MessageLimits,
    pub(super) stop: CancellationToken,
    inner: Mutex<Inner<R>>,
}

struct Inner<R: McpRole> {
    all: HashMap<SessionId, Arc<SessionEntry<R>>>,
    /// Sessions without a connection.
    detached: DetachedSessions<Arc<SessionEntry<R>>>,
}

impl<R: McpRole> SessionStore<R> {
    pub(in crate::server) fn new(
        config: SessionConfig,
        window_bytes: usize,
        limits: MessageLimits,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let inner = Inner { all: HashMap::new(), detached: DetachedSessions::default() };
        let window_bytes = window_bytes as u64;
        Arc::new(Self { config, window_bytes, limits, stop, inner: Mutex::new(inner) })
    }

    /// Returns the session id under which the request of these `parts` comes.
    pub(in crate::server) fn requested_id(
        &self,
        parts: &Parts,
    ) -> Result<Option<RequestedId>, Box<Rejection>> {
        RequestedId::of(parts, self.config.ids)
    }

    /// Checks that `identity` may come by the `requested` id. Returns the id by which it does: perhaps
    /// another.
    pub(in crate::server) fn authorize(
        &self,
        requested: RequestedId,
        identity: Option<&Identity>,
    ) -> Result<RequestedId, Box<Rejection>> {
        let Some(entry) = self.find(&requested.id) else {
            // A session that is gone need not be called as it was.
            let renamed = requested.from_cookie && self.config.ids == SessionIdPolicy::Issued;
            return Ok(if renamed { RequestedId::issue() } else { requested });
        };
        if !entry.may_attach(identity) {
            return Err(Rejection::new(RejectReason::SessionId, StatusCode::FORBIDDEN, NOT_YOURS));
        }
        if entry.is_connected() {
            // Every window of a browser has the same.
            if requested.from_cookie {
                return Ok(RequestedId::issue());
            }
            if entry.is_taken_over_too_often() {
                let status = StatusCode::TOO_MANY_REQUESTS;
                let rejection =
                    Rejection::new(RejectReason::SessionId, status, TAKEN_OVER_TOO_OFTEN);
                return Err(rejection.retry_after(RETRY_DELAY));
            }
        }
        Ok(requested)
    }

    /// Hands `new_link` to the session that it resumes, if there is one, and it may. The client has
    /// received so many messages in it.
    pub(super) fn resume(
        &self,
        asked: (&SessionId, &Secret, u64),
        identity: Option<&Identity>,
        new_link: NewLink,
    ) -> Result<(), NewLink> {
        let (id, secret, received) = asked;
        match self.find(id) {
            Some(entry) if entry.identity.as_ref() == identity => {
                let describe = |given| self.describe(id.clone(), given);
                entry.resume(secret, received, new_link, describe)
            }
            _ => Err(new_link),
        }
    }

    fn find(&self, id: &SessionId) -> Option<Arc<SessionEntry<R>>> {
        self.lock().all.get(id).cloned()
    }

    /// Returns the session of this id, and `true` if it has just been made.
    pub(super) fn get_or_insert(
        &self,
        id: &SessionId,
        identity: Option<&Identity>,
        has_known_id: bool,
        address: Option<IpAddr>,
    ) -> (Arc<SessionEntry<R>>, bool) {
        match self.lock().all.entry(id.clone()) {
            Entry::Occupied(entry) => (entry.get().clone(), false),
            Entry::Vacant(vacant) => {
                let (id, identity) = (id.clone(), identity.cloned());
                let entry =
                    SessionEntry::new(id, identity, ReceiveCount::default(), has_known_id, address);
                (vacant.insert(Arc::new(entry)).clone(), true)
            }
        }
    }

    pub(super) fn describe(&self, id: SessionId, given: Secret) -> SessionFrame {
        let window = self.config.window;
        let seconds = u32::try_from(window.as_secs()).unwrap_or(u32::MAX);
        // A client that was told too little would take its session for lost while it is kept.
        let window_s = seconds.saturating_add(u32::from(window.subsec_nanos() > 0));
        SessionFrame::new(id, given, window_s, self.window_bytes).within(self.limits)
    }

    /// Records that the session has no link, and how many bytes wait in it. Returns its departure
    /// number, new unless one is given.
    pub(super) fn set_detached(
        &self,
        entry: &Arc<SessionEntry<R>>,
        departure: Option<u64>,
        bytes: usize,
    ) -> u64 {
        let SessionConfig { max_sessions, max_bytes, .. } = self.config;
        let mut inner = self.lock();
        let departure = inner.detached.insert(departure, entry.address(), entry.clone(), bytes);
        while let Some(excess) = inner.detached.take_excess(max_sessions, max_bytes) {
            excess.dismiss();
        }
        departure
    }

    pub(super) fn set_attached(&self, departure: u64) {
        self.lock().detached.remove(departure);
    }

    pub(super) fn forget(&self, entry: &Arc<SessionEntry<R>>) {
        let mut inner = self.lock();
        // Another may have the name by now.
        if inner.all.get(&entry.id).is_some_and(|other| Arc::ptr_eq(other, entry)) {
            inner.all.remove(&entry.id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<R>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: McpRole> fmt::Debug for SessionStore<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionStore").field("config", &self.config).finish_non_exhaustive()
    }
}
