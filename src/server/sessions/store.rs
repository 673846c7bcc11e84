//! [`SessionStore`]: the sessions of a server that outlive their connections.

#[cfg(feature = "cluster")]
use std::sync::OnceLock;
use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
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
    instance::InstanceTag,
    new_link::NewLink,
};
#[cfg(feature = "cluster")]
use crate::{
    close::CloseReason,
    server::cluster::{
        asks::AskHandler,
        relay::{context::RelayContext, resume::RelayOutcome},
    },
};
use crate::{
    layer::resume::{
        frame::SessionFrame,
        secret::{Proof, Secret, SessionId},
    },
    link::MessageLimits,
    role::McpRole,
    server::{auth::Identity, http::rejection::Rejection, registry::event::RejectReason},
};

/// Text of a rejection for too many takeovers.
pub(super) const TAKEN_OVER_TOO_OFTEN: &str = "the session is taken over too often";

/// Text of a rejection of another identity.
pub(super) const NOT_YOURS: &str = "the session is not yours";

/// `Retry-After` for clients that take a session from each other.
const RETRY_DELAY: Duration = Duration::from_secs(10);

/// Sessions of a server that can be resumed.
pub(in crate::server) struct SessionStore<R: McpRole> {
    pub(super) config: SessionConfig,
    /// Tag in the ids that are issued.
    instance: Option<InstanceTag>,
    /// Bytes that each session keeps for its client, announced to it.
    window_bytes: u64,
    /// Limits of each session, announced to its client.
    limits: MessageLimits,
    pub(in crate::server) stop: CancellationToken,
    inner: Mutex<Inner<R>>,
    /// Relay of the sessions of other instances, if there are any; and what is asked for those
    /// here.
    #[cfg(feature = "cluster")]
    relay: OnceLock<(Arc<RelayContext>, Arc<dyn AskHandler>)>,
}

struct Inner<R: McpRole> {
    all: HashMap<SessionId, Arc<SessionEntry<R>>>,
    /// Sessions without a connection.
    detached: DetachedSessions<Arc<SessionEntry<R>>>,
}

impl<R: McpRole> SessionStore<R> {
    /// Creates the store, whose detached sessions end once `stop` is cancelled.
    pub(in crate::server) fn new(
        config: SessionConfig,
        instance: Option<InstanceTag>,
        window_bytes: usize,
        limits: MessageLimits,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let inner = Inner { all: HashMap::new(), detached: DetachedSessions::default() };
        let window_bytes = window_bytes as u64;
        let inner = Mutex::new(inner);
        Arc::new(Self {
            config,
            instance,
            window_bytes,
            limits,
            stop,
            inner,
            #[cfg(feature = "cluster")]
            relay: OnceLock::new(),
        })
    }

    /// Returns the session id that the request of these `parts` brings or is issued.
    ///
    /// # Errors
    /// 400 without an id where one is required, and for one that is malformed.
    pub(in crate::server) fn requested_id(
        &self,
        parts: &Parts,
    ) -> Result<Option<RequestedId>, Box<Rejection>> {
        RequestedId::of(parts, self.config.ids, self.instance.as_ref())
    }

    /// Issues a new session id.
    pub(super) fn issue(&self) -> RequestedId {
        RequestedId::issue(self.instance.as_ref())
    }

    /// Checks that `identity` may come by the `requested` id. Returns that id, or a new one.
    ///
    /// An id from the header or a cookie is replaced when its session is not here; one from a
    /// cookie also when its session has a link: every window of a browser sends the same. Where the
    /// client `resumes`, and so is told the id, one with the tag of another instance is replaced
    /// too: its session would be looked for there.
    ///
    /// # Errors
    /// 403 if the session is another identity's, 429 if it is taken over too often.
    pub(in crate::server) fn authorize(
        &self,
        requested: RequestedId,
        identity: Option<&Identity>,
        resumes: bool,
    ) -> Result<RequestedId, Box<Rejection>> {
        let Some(entry) = self.find(&requested.id) else {
            let is_stale = requested.is_replaceable() && self.config.ids == SessionIdPolicy::Issued;
            let is_of_another = self
                .instance
                .as_ref()
                .is_some_and(|instance| instance.is_of_another(&requested.id));
            let is_replaced = is_stale || resumes && is_of_another;
            return Ok(if is_replaced { self.issue() } else { requested });
        };
        if !entry.may_attach(identity) {
            return Err(Rejection::new(RejectReason::SessionId, StatusCode::FORBIDDEN, NOT_YOURS));
        }
        if entry.is_connected() {
            if requested.is_from_cookie() {
                return Ok(self.issue());
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

    /// Resumes the session that a client asks for by its id, its secret and the count of its
    /// messages.
    ///
    /// # Errors
    /// The link, if there is no such session, or the client may not have it.
    pub(in crate::server) fn resume(
        &self,
        asked: (&SessionId, &Proof<'_>, u64),
        identity: Option<&Identity>,
        new_link: NewLink,
    ) -> Result<(), NewLink> {
        let (id, proof, received) = asked;
        match self.find(id) {
            Some(entry) if entry.identity.as_ref() == identity => {
                let describe = |given| self.describe(id.clone(), given);
                entry.resume(proof, received, new_link, describe)
            }
            _ => Err(new_link),
        }
    }

    /// Returns `true` if the session is here.
    #[cfg(feature = "cluster")]
    pub(in crate::server) fn has(&self, id: &SessionId) -> bool {
        self.lock().all.contains_key(id)
    }

    /// Returns `true` if the session is here, and such a client may resume it.
    #[cfg(feature = "cluster")]
    pub(in crate::server) fn is_resumable(
        &self,
        id: &SessionId,
        proof: &Proof<'_>,
        identity: Option<&Identity>,
    ) -> bool {
        let entry = self.find(id).filter(|entry| entry.identity.as_ref() == identity);
        !self.stop.is_cancelled() && entry.is_some_and(|entry| entry.is_resumable(proof))
    }

    /// Joins the sessions to those of the other instances of a cluster.
    #[cfg(feature = "cluster")]
    pub(in crate::server) fn join(&self, relay: Arc<RelayContext>, offers: Arc<dyn AskHandler>) {
        let _ = self.relay.set((relay, offers));
    }

    /// Resumes the session of another instance.
    #[cfg(feature = "cluster")]
    pub(super) async fn resume_elsewhere(
        &self,
        asked: (&SessionId, &Secret, u64),
        identity: Option<&Identity>,
        new_link: NewLink,
        stop_reason: &CloseReason,
    ) -> RelayOutcome {
        match self.relay.get() {
            Some((relay, _)) => {
                let stop = (&self.stop, stop_reason);
                relay.resume(asked, identity, new_link, self.limits, stop).await
            }
            None => RelayOutcome::Unknown(new_link),
        }
    }

    fn find(&self, id: &SessionId) -> Option<Arc<SessionEntry<R>>> {
        self.lock().all.get(id).cloned()
    }

    /// Returns the session of this id, and `true` if `new` has just made it.
    pub(super) fn get_or_insert(
        &self,
        id: &SessionId,
        new: impl FnOnce() -> SessionEntry<R>,
    ) -> (Arc<SessionEntry<R>>, bool) {
        match self.lock().all.entry(id.clone()) {
            Entry::Occupied(entry) => (entry.get().clone(), false),
            Entry::Vacant(vacant) => (vacant.insert(Arc::new(new())).clone(), true),
        }
    }

    /// Returns the `@session` frame for a session with this id, whose client is `given` a secret.
    pub(super) fn describe(&self, id: SessionId, given: Secret) -> SessionFrame {
        let window = self.config.window;
        let seconds = u32::try_from(window.as_secs()).unwrap_or(u32::MAX);
        // Rounded up: a client that was told too little would take its session for lost too early.
        let window_s = seconds.saturating_add(u32::from(window.subsec_nanos() > 0));
        SessionFrame::new(id, given, window_s, self.window_bytes).within(self.limits)
    }

    /// Records that the session has no link, and how many bytes wait in it. Returns its sequence
    /// number, new unless one is given.
    pub(super) fn set_detached(
        &self,
        entry: &Arc<SessionEntry<R>>,
        seq: Option<u64>,
        bytes: usize,
    ) -> u64 {
        let SessionConfig { max_sessions, max_bytes, .. } = self.config;
        let mut inner = self.lock();
        let seq = inner.detached.insert(seq, entry.address(), entry.clone(), bytes);
        while let Some(excess) = inner.detached.take_excess(max_sessions, max_bytes) {
            excess.dismiss();
        }
        seq
    }

    /// Records that the session with this sequence number has a link again, or has ended.
    pub(super) fn set_attached(&self, seq: u64) {
        self.lock().detached.remove(seq);
    }

    /// Removes a session from the store.
    pub(super) fn forget(&self, entry: &Arc<SessionEntry<R>>) {
        let mut inner = self.lock();
        // Another may have the id by now.
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
