//! Sessions that outlive their connections: a client that comes back finds its service as it left it.
//!
//! | | |
//! |---|---|
//! | a client opens a session | it gets a service of its own, as every client does, and a secret |
//! | its connection is lost | the service runs on for [`Resumption::window`]; what it sends is kept |
//! | it comes back in time, with the secret, as the same identity | nothing is lost |
//! | … while its old connection seems to live | the same; the old one is closed with 4409 |
//! | it comes too late, or it is somebody else | a new session; who guesses learns nothing |
//! | it comes with the name alone | the service is as it was; what it says first shows who it is |
//! | … and nothing that it says for 10 s can be read | it is closed with 1008, and the session ends |
//! | there are too many without a connection | of the address that has the most, the one that has been so for the longest ends |
//! | the server stops | those without a connection end at once |

mod detached;
mod name;
mod slot;
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

use self::detached::Detached;
pub use self::name::SessionIds;
pub(super) use self::{
    name::Name,
    slot::{Arrival, Slot, Tenant},
    source::Returns,
};
use super::{auth::Identity, door::Refusal, registry::Cause};
use crate::{
    decode::Role,
    error::{CloseCode, CloseReason},
    layer::resume::{Frame, OpenFrame, ReceiveCount, Secret, SessionFrame, SessionId},
    link::MessageLimits,
    message::Message,
    transport::{Builder, WebSocketTransport},
};

const FOUGHT_OVER: &str = "the session is taken over too often";

/// When they may come again who take a session from each other.
const AGAIN: Duration = Duration::from_secs(10);

const NOT_YOURS: &str = "the session is not yours";

/// How long it may take to tell a client that it breaks the rules.
const LAST_WORD: Duration = Duration::from_secs(1);

/// How long clients may be away, and how many of them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Resumption {
    /// How long a session is kept without a connection: 120 s. Its calls go on meanwhile.
    pub window: Duration,
    /// Number of sessions kept without a connection: 1,024. Beyond it, the address with the most
    /// (one of IPv4, or a /64 of IPv6) loses the session that has been without a connection for the
    /// longest. Behind a proxy all clients share one address, unless
    /// [`Config::peer`](super::Config::peer) tells them apart.
    pub max_sessions: usize,
    /// The same for the memory that they take, in bytes, in all of them: 64 MiB. It is that of the
    /// messages that wait for their clients, and, as far as it is known, that of what the clients
    /// have asked and is still being handled.
    pub max_bytes: usize,
    /// By what name clients come back that do not speak the extension.
    pub ids: SessionIds,
}

impl Default for Resumption {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(120),
            max_sessions: 1024,
            max_bytes: 64 << 20,
            ids: SessionIds::default(),
        }
    }
}

impl Resumption {
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
    pub fn ids(mut self, ids: SessionIds) -> Self {
        self.ids = ids;
        self
    }
}

/// The sessions of a server that can be resumed.
pub(super) struct Sessions<R: Role> {
    config: Resumption,
    /// What each keeps for its client, which is told to it.
    window_bytes: u64,
    /// Limits of each session, announced to its client.
    limits: MessageLimits,
    stop: CancellationToken,
    inner: Mutex<Inner<R>>,
}

struct Inner<R: Role> {
    all: HashMap<SessionId, Arc<Slot<R>>>,
    /// Sessions without a connection.
    away: Detached<Arc<Slot<R>>>,
}

impl<R: Role> Sessions<R> {
    pub(super) fn new(
        config: Resumption,
        window_bytes: usize,
        limits: MessageLimits,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let inner = Inner { all: HashMap::new(), away: Detached::default() };
        let window_bytes = window_bytes as u64;
        Arc::new(Self { config, window_bytes, limits, stop, inner: Mutex::new(inner) })
    }

    /// The name under which the request of these `parts` comes.
    pub(super) fn name_of(&self, parts: &Parts) -> Result<Option<Name>, Box<Refusal>> {
        Name::of(parts, self.config.ids)
    }

    /// Whether `identity` may come by that `name`. The one by which it does: perhaps another.
    pub(super) fn check(
        &self,
        name: Name,
        identity: Option<&Identity>,
    ) -> Result<Name, Box<Refusal>> {
        let Some(slot) = self.find(&name.id) else {
            // A session that is gone need not be called as it was.
            let renamed = name.ambient && self.config.ids == SessionIds::Issued;
            return Ok(if renamed { Name::issue() } else { name });
        };
        if !slot.is_open_to(identity) {
            return Err(Refusal::new(Cause::SessionId, StatusCode::FORBIDDEN, NOT_YOURS));
        }
        if slot.is_connected() {
            // Every window of a browser has the same.
            if name.ambient {
                return Ok(Name::issue());
            }
            if slot.is_fought_over() {
                let status = StatusCode::TOO_MANY_REQUESTS;
                let refusal = Refusal::new(Cause::SessionId, status, FOUGHT_OVER);
                return Err(refusal.again(AGAIN));
            }
        }
        Ok(name)
    }

    /// Gives `arrival` to the session that its client asks for, or a new session the transport that is
    /// returned. Before the `timer` fires, where the client `speaks` the extension and has yet to ask.
    pub(super) async fn receive(
        self: &Arc<Self>,
        builder: Builder<R>,
        mut arrival: Arrival,
        (identity, name, speaks): (Option<Identity>, Option<Name>, bool),
        timer: Pin<&mut Sleep>,
    ) -> Option<(WebSocketTransport<R>, Arc<Slot<R>>)> {
        let mut unknown = false;
        if speaks {
            match asked(&mut arrival, timer).await {
                Ok(OpenFrame::New) => {}
                Ok(OpenFrame::Resume { session, secret, received }) => {
                    unknown = true;
                    let asked = (&session, &secret, received);
                    match self.resume(asked, identity.as_ref(), arrival) {
                        Ok(()) => return None,
                        Err(back) => arrival = back,
                    }
                }
                Err(reason) => {
                    refuse(arrival, reason).await;
                    return None;
                }
            }
        }
        let mut is_named = name.is_some();
        // Without a name, no other has this one.
        let mut name = name.unwrap_or_else(Name::issue);
        let slot = loop {
            let (slot, is_new) =
                self.enter(&name.id, identity.as_ref(), is_named, arrival.address());
            if is_new {
                break slot;
            }
            // What was found at the door need not be so any more.
            let refusal = match slot.is_open_to(identity.as_ref()) {
                false => Some((CloseCode::Forbidden, NOT_YOURS)),
                true if slot.is_fought_over() => Some((CloseCode::TryAgainLater, FOUGHT_OVER)),
                true => None,
            };
            if let Some((code, what)) = refusal {
                refuse(arrival, CloseReason::new(code, what)).await;
                return None;
            }
            let describe = |given| self.describe(name.id.clone(), given);
            match slot.return_to(arrival, &name, speaks.then_some(&describe as _)) {
                Ok(()) => return None,
                Err(back) => arrival = back,
            }
            if slot.is_shut() {
                // It has just ended, and is about to be forgotten.
                self.forget(&slot);
            } else {
                // It is too late to tell the client of another name.
                name = Name::issue();
                is_named = !speaks;
            }
        };
        if speaks {
            let session = self.describe(name.id.clone(), slot.given());
            arrival.answer(if unknown { session.unknown() } else { session });
        } else {
            slot.begin_plain(name.claim());
        }
        // It is an MCP server that names sessions.
        if is_named
            && !R::IS_CLIENT
            && let Some(session) = builder.session()
        {
            session.set(Some(name.id.as_str().to_owned()));
        }
        slot.receive_count.peer().set(arrival.limits());
        let source = Returns::new(self.clone(), slot.clone());
        let transport = builder.over_session(arrival, source, slot.receive_count.clone());
        Some((transport, slot))
    }

    /// Hands `arrival` to the session that it resumes, if there is one, and it may. The client has
    /// received so many messages in it.
    fn resume(
        &self,
        asked: (&SessionId, &Secret, u64),
        identity: Option<&Identity>,
        arrival: Arrival,
    ) -> Result<(), Arrival> {
        let (id, secret, received) = asked;
        match self.find(id) {
            Some(slot) if slot.identity.as_ref() == identity => {
                let describe = |given| self.describe(id.clone(), given);
                slot.resume(secret, received, arrival, describe)
            }
            _ => Err(arrival),
        }
    }

    fn find(&self, id: &SessionId) -> Option<Arc<Slot<R>>> {
        self.lock().all.get(id).cloned()
    }

    /// The session of this id, and whether it has just been made.
    fn enter(
        &self,
        id: &SessionId,
        identity: Option<&Identity>,
        is_named: bool,
        address: Option<IpAddr>,
    ) -> (Arc<Slot<R>>, bool) {
        match self.lock().all.entry(id.clone()) {
            Entry::Occupied(entry) => (entry.get().clone(), false),
            Entry::Vacant(entry) => {
                let (id, identity) = (id.clone(), identity.cloned());
                let slot = Slot::new(id, identity, ReceiveCount::default(), is_named, address);
                (entry.insert(Arc::new(slot)).clone(), true)
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
    fn note_away(&self, slot: &Arc<Slot<R>>, departure: Option<u64>, bytes: usize) -> u64 {
        let Resumption { max_sessions, max_bytes, .. } = self.config;
        let mut inner = self.lock();
        let departure = inner.away.insert(departure, slot.address(), slot.clone(), bytes);
        while let Some(excess) = inner.away.take_excess(max_sessions, max_bytes) {
            excess.dismiss();
        }
        departure
    }

    fn note_back(&self, departure: u64) {
        self.lock().away.remove(departure);
    }

    fn forget(&self, slot: &Arc<Slot<R>>) {
        let mut inner = self.lock();
        // Another may have the name by now.
        if inner.all.get(&slot.id).is_some_and(|other| Arc::ptr_eq(other, slot)) {
            inner.all.remove(&slot.id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<R>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client asks for that speaks the extension.
async fn asked(arrival: &mut Arrival, timer: Pin<&mut Sleep>) -> Result<OpenFrame, CloseReason> {
    let first = tokio::select! {
        first = arrival.next() => match first {
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
            arrival.takes(limits);
            return Ok(open);
        }
        Ok(_) => "resume: the first message is not @open".to_owned(),
        Err(malformed) => malformed.to_string(),
    };
    Err(CloseReason::new(CloseCode::Protocol, violation))
}

async fn refuse(mut arrival: Arrival, reason: CloseReason) {
    tracing::debug!(%reason, "no session");
    let closing = async {
        arrival.send(Message::Close(Some(reason))).await?;
        arrival.close().await
    };
    let _ = timeout(LAST_WORD, closing).await;
}

impl<R: Role> fmt::Debug for Sessions<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("config", &self.config).finish_non_exhaustive()
    }
}
