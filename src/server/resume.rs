//! Sessions that outlive their connections: a client that comes back finds its service as it left it.
//!
//! | | |
//! |---|---|
//! | a client opens a session | it gets a service of its own, as every client does, and a secret |
//! | its connection is lost | the service runs on for [`SessionConfig::window`]; what it sends is kept |
//! | it comes back in time, with the secret, as the same identity | nothing is lost |
//! | … while its old connection seems to live | the same; the old one is closed with 4409 |
//! | it comes too late, or it is somebody else | a new session; who guesses learns nothing |
//! | it comes with the name alone | the service is as it was; what it says first shows who it is |
//! | there are too many without a connection | of the address that has the most, the one that has been so for the longest ends |
//! | the server stops | those without a connection end at once |

mod detached;
pub(crate) mod name;
pub(crate) mod slot;
mod source;

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{SinkExt, StreamExt};
use http::{StatusCode, request::Parts};
use tokio::time::{Sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::detached::DetachedSessions;
pub use self::name::SessionIdPolicy;
pub(super) use self::{
    name::RequestedId,
    slot::{NewLink, SessionEntry},
    source::SessionLinks,
};
use super::{auth::Identity, door::Rejection, registry::event::RejectReason};
use crate::{
    error::{CloseCode, CloseReason},
    layer::resume::{
        frame::{Frame, OpenFrame, SessionFrame},
        receive_count::ReceiveCount,
        secret::{Secret, SessionId},
    },
    link::MessageLimits,
    message::Message,
    role::McpRole,
    transport::{WebSocketTransport, builder::Builder},
};

const TAKEN_OVER_TOO_OFTEN: &str = "the session is taken over too often";

/// When they may come again who take a session from each other.
const RETRY_DELAY: Duration = Duration::from_secs(10);

const NOT_YOURS: &str = "the session is not yours";

/// How long it may take to tell a client that it breaks the rules.
const LAST_WORD: Duration = Duration::from_secs(1);

/// How long clients may be away, and how many of them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SessionConfig {
    /// How long a session is kept without a connection: 120 s. Its calls go on meanwhile.
    pub window: Duration,
    /// Number of sessions kept without a connection: 1,024. Beyond it, the address with the most
    /// (one of IPv4, or a /64 of IPv6) loses the session that has been without a connection for the
    /// longest. Behind a proxy all clients share one address, unless
    /// [`Config::peer_addr`](super::Config::peer_addr) tells them apart.
    pub max_sessions: usize,
    /// The same for the bytes of the messages that wait for their clients, in all of them: 64 MiB.
    pub max_bytes: usize,
    /// By what name clients come back that do not speak the extension.
    pub ids: SessionIdPolicy,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(120),
            max_sessions: 1024,
            max_bytes: 64 << 20,
            ids: SessionIdPolicy::default(),
        }
    }
}

impl SessionConfig {
    /// Sets [`window`](Self::window).
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets [`max_sessions`](Self::max_sessions).
    #[must_use]
    pub fn max_sessions(mut self, sessions: usize) -> Self {
        self.max_sessions = sessions;
        self
    }

    /// Sets [`max_bytes`](Self::max_bytes).
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets [`ids`](Self::ids).
    #[must_use]
    pub fn ids(mut self, ids: SessionIdPolicy) -> Self {
        self.ids = ids;
        self
    }
}

/// The sessions of a server that can be resumed.
pub(super) struct SessionStore<R: McpRole> {
    config: SessionConfig,
    /// What each keeps for its client, which is told to it.
    window_bytes: u64,
    /// Limits of each session, announced to its client.
    limits: MessageLimits,
    stop: CancellationToken,
    inner: Mutex<Inner<R>>,
}

struct Inner<R: McpRole> {
    all: HashMap<SessionId, Arc<SessionEntry<R>>>,
    /// Sessions without a connection.
    detached: DetachedSessions<Arc<SessionEntry<R>>>,
}

impl<R: McpRole> SessionStore<R> {
    pub(super) fn new(
        config: SessionConfig,
        window_bytes: usize,
        limits: MessageLimits,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let inner = Inner { all: HashMap::new(), detached: DetachedSessions::default() };
        let window_bytes = window_bytes as u64;
        Arc::new(Self { config, window_bytes, limits, stop, inner: Mutex::new(inner) })
    }

    /// The name under which the request of these `parts` comes.
    pub(super) fn requested_id(
        &self,
        parts: &Parts,
    ) -> Result<Option<RequestedId>, Box<Rejection>> {
        RequestedId::of(parts, self.config.ids)
    }

    /// Whether `identity` may come by that `name`. The one by which it does: perhaps another.
    pub(super) fn authorize(
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

    /// Gives `new_link` to the session that its client asks for, or a new session the transport that is
    /// returned. Before the `timer` fires, where the client `speaks` the extension and has yet to ask.
    pub(super) async fn attach(
        self: &Arc<Self>,
        builder: Builder<R>,
        mut new_link: NewLink,
        (identity, requested, speaks): (Option<Identity>, Option<RequestedId>, bool),
        timer: Pin<&mut Sleep>,
    ) -> Option<(WebSocketTransport<R>, Arc<SessionEntry<R>>)> {
        let mut unknown = false;
        if speaks {
            match read_open(&mut new_link, timer).await {
                Ok(OpenFrame::New) => {}
                Ok(OpenFrame::Resume { session, secret, received }) => {
                    unknown = true;
                    let asked = (&session, &secret, received);
                    match self.resume(asked, identity.as_ref(), new_link) {
                        Ok(()) => return None,
                        Err(back) => new_link = back,
                    }
                }
                Err(reason) => {
                    close_link(new_link, reason).await;
                    return None;
                }
            }
        }
        let mut has_known_id = requested.is_some();
        // Without a name, no other has this one.
        let mut requested = requested.unwrap_or_else(RequestedId::issue);
        let entry = loop {
            let (entry, is_new) = self.get_or_insert(
                &requested.id,
                identity.as_ref(),
                has_known_id,
                new_link.address(),
            );
            if is_new {
                break entry;
            }
            // What was found at the door need not be so any more.
            let rejection = match entry.may_attach(identity.as_ref()) {
                false => Some((CloseCode::Forbidden, NOT_YOURS)),
                true if entry.is_taken_over_too_often() => {
                    Some((CloseCode::TryAgainLater, TAKEN_OVER_TOO_OFTEN))
                }
                true => None,
            };
            if let Some((code, what)) = rejection {
                close_link(new_link, CloseReason::new(code, what)).await;
                return None;
            }
            let describe = |given| self.describe(requested.id.clone(), given);
            match entry.return_to(new_link, &requested, speaks.then_some(&describe as _)) {
                Ok(()) => return None,
                Err(back) => new_link = back,
            }
            if entry.is_closed() {
                // It has just ended, and is about to be forgotten.
                self.forget(&entry);
            } else {
                // It is too late to tell the client of another name.
                requested = RequestedId::issue();
                has_known_id = !speaks;
            }
        };
        if speaks {
            let session = self.describe(requested.id.clone(), entry.secret());
            new_link.send_session(if unknown { session.unknown() } else { session });
        } else {
            entry.begin_without_extension(requested.returns_by());
        }
        // It is an MCP server that names sessions.
        if has_known_id
            && !R::IS_CLIENT
            && let Some(session) = builder.session()
        {
            session.set(Some(requested.id.as_str().to_owned()));
        }
        entry.receive_count.peer().set(new_link.limits());
        let source = SessionLinks::new(self.clone(), entry.clone());
        let transport = builder.over_session(new_link, source, entry.receive_count.clone());
        Some((transport, entry))
    }

    /// Hands `new_link` to the session that it resumes, if there is one, and it may. The client has
    /// received so many messages in it.
    fn resume(
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

    /// The session of this id, and whether it has just been made.
    fn get_or_insert(
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

    fn describe(&self, id: SessionId, given: Secret) -> SessionFrame {
        let window = self.config.window;
        let seconds = u32::try_from(window.as_secs()).unwrap_or(u32::MAX);
        // A client that was told too little would take its session for lost while it is kept.
        let window_s = seconds.saturating_add(u32::from(window.subsec_nanos() > 0));
        SessionFrame::new(id, given, window_s, self.window_bytes).within(self.limits)
    }

    /// The session has no link, for the `departure`th time of all, and so many bytes wait in it. That
    /// number, where it is yet to be given.
    fn set_detached(
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

    fn set_attached(&self, departure: u64) {
        self.lock().detached.remove(departure);
    }

    fn forget(&self, entry: &Arc<SessionEntry<R>>) {
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

/// What a client asks for that speaks the extension.
async fn read_open(
    new_link: &mut NewLink,
    timer: Pin<&mut Sleep>,
) -> Result<OpenFrame, CloseReason> {
    let first = tokio::select! {
        first = new_link.next() => match first {
            Some(Ok(Message::Text(text))) => Frame::parse(&text),
            Some(Ok(_)) => Ok(None),
            Some(Err(_)) | None => return Err(CloseCode::Abnormal.into()),
        },
        () = timer => {
            return Err(CloseReason::new(CloseCode::Policy, "resume: no @open in time"));
        }
    };
    let violation = match first {
        Ok(Some(Frame::Open(open, limits))) => {
            new_link.update_limits(limits);
            return Ok(open);
        }
        Ok(_) => "resume: the first message is not @open".to_owned(),
        Err(malformed) => malformed.to_string(),
    };
    Err(CloseReason::new(CloseCode::Protocol, violation))
}

async fn close_link(mut new_link: NewLink, reason: CloseReason) {
    tracing::debug!(%reason, "no session");
    let closing = async {
        new_link.send(Message::Close(Some(reason))).await?;
        new_link.close().await
    };
    let _ = timeout(LAST_WORD, closing).await;
}

impl<R: McpRole> fmt::Debug for SessionStore<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionStore").field("config", &self.config).finish_non_exhaustive()
    }
}
