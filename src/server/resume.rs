//! Sessions that outlive their connections: a client that comes back finds its service as it left it.
//!
//! | | |
//! |---|---|
//! | a client opens a session | it gets a service of its own, as every client does, and a secret |
//! | its connection is lost | the service runs on for [`Resumption::window`]; what it sends is kept |
//! | it comes back in time, with the secret, as the same identity | nothing is lost |
//! | … while its old connection seems to live | the same; the old one is closed with 4409 |
//! | it comes too late, or it is somebody else | a new session; who guesses learns nothing |
//! | there are too many without a connection | those that have been so for the longest end |
//! | the server stops | those without a connection end at once |

mod slot;
mod source;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{SinkExt, StreamExt};
use tokio::time::{Sleep, timeout};
use tokio_util::sync::CancellationToken;

pub(super) use self::{
    slot::{Arrival, Slot},
    source::Returns,
};
use super::{
    auth::Identity,
    door::{Guest, Standing},
};
use crate::{
    decode::Role,
    duplex::{BoxLink, Duplex},
    error::{CloseCode, CloseReason},
    layer::resume::{Frame, Open, Secret, Session, SessionId, Tally},
    message::Message,
    transport::{Builder, WebSocketTransport},
};

/// How long it may take to tell a client that it breaks the rules.
const LAST_WORD: Duration = Duration::from_secs(1);

/// How long clients may be away, and how many of them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Resumption {
    /// How long a session is kept without a connection: 120 s. Its calls go on meanwhile.
    pub window: Duration,
    /// How many sessions are kept without a connection: 1,024. One more, and the one that has been so
    /// for the longest ends.
    pub max_sessions: usize,
    /// The same for the bytes of the messages that wait for their clients, in all of them: 64 MiB.
    pub max_bytes: usize,
}

impl Default for Resumption {
    fn default() -> Self {
        Self { window: Duration::from_secs(120), max_sessions: 1024, max_bytes: 64 << 20 }
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
}

/// The sessions of a server that can be resumed.
pub(super) struct Sessions<R: Role> {
    config: Resumption,
    /// What each keeps for its client, which is told to it.
    window_bytes: u64,
    stop: CancellationToken,
    inner: Mutex<Inner<R>>,
}

struct Inner<R: Role> {
    all: HashMap<SessionId, Arc<Slot<R>>>,
    /// Those without a connection, in the order in which they lost it, and what waits in each.
    away: BTreeMap<u64, (Arc<Slot<R>>, usize)>,
    away_bytes: usize,
    departures: u64,
}

impl<R: Role> Sessions<R> {
    pub(super) fn new(
        config: Resumption,
        window_bytes: usize,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let (all, away) = (HashMap::new(), BTreeMap::new());
        let inner = Inner { all, away, away_bytes: 0, departures: 0 };
        let window_bytes = window_bytes as u64;
        Arc::new(Self { config, window_bytes, stop, inner: Mutex::new(inner) })
    }

    /// Waits for what a client asks for on `link`, before the `timer` fires, and gives a new session a
    /// transport. `None` where there is none, or it was another one that the client came for.
    pub(super) async fn receive(
        self: &Arc<Self>,
        builder: Builder<R>,
        mut link: BoxLink,
        guest: Guest,
        timer: Pin<&mut Sleep>,
    ) -> Option<(WebSocketTransport<R>, Arc<Slot<R>>, Guest)> {
        let open = tokio::select! {
            first = link.next() => match first?.ok()? {
                Message::Text(text) => Frame::parse(&text),
                _ => Ok(None),
            },
            () = timer => {
                tracing::debug!("no session was asked for in time");
                let reason = CloseReason::new(CloseCode::Policy, "resume: no @open in time");
                return refuse(link, reason).await;
            }
        };
        let Guest { parts, peer, standing } = guest;
        let Standing::Known(identity, permit) = standing else { return None };
        let mut arrival = Arrival::new(link, builder.counters(), permit);
        let unknown = match open {
            Ok(Some(Frame::Open(Open::New))) => false,
            Ok(Some(Frame::Open(Open::Resume { session, secret, received }))) => {
                let asked = (&session, &secret, received);
                match self.resume(asked, identity.as_ref(), arrival) {
                    Ok(()) => return None,
                    Err(back) => arrival = back,
                }
                true
            }
            violation => {
                let what = "resume: the first message is not @open".to_owned();
                let what = violation.map_or_else(|error| error.to_string(), |_| what);
                return refuse(arrival, CloseReason::new(CloseCode::Protocol, what)).await;
            }
        };
        let (source, tally) = self.open(identity.clone(), &mut arrival, unknown);
        let slot = source.slot().clone();
        let transport = builder.over_session(arrival, source, tally);
        let standing = Standing::Known(identity, None);
        Some((transport, slot, Guest { parts, peer, standing }))
    }

    /// A new session of `identity`, on a link on which a client has asked for one; `unknown` where it
    /// asked for another.
    pub(super) fn open(
        self: &Arc<Self>,
        identity: Option<Identity>,
        first: &mut Arrival,
        unknown: bool,
    ) -> (Returns<R>, Tally) {
        let tally = Tally::default();
        let slot = Arc::new(Slot::new(SessionId::random(), identity, tally.clone()));
        let session = self.describe(slot.id.clone(), slot.given());
        first.answer(if unknown { session.unknown() } else { session });
        self.lock().all.insert(slot.id.clone(), slot.clone());
        (Returns::new(self.clone(), slot), tally)
    }

    /// Hands `arrival` to the session that it resumes, if there is one, and it may. The client has
    /// received so many messages in it.
    pub(super) fn resume(
        &self,
        asked: (&SessionId, &Secret, u64),
        identity: Option<&Identity>,
        arrival: Arrival,
    ) -> Result<(), Arrival> {
        let (id, secret, received) = asked;
        let slot = self.lock().all.get(id).cloned();
        match slot {
            Some(slot) if slot.identity.as_ref() == identity => {
                let describe = |given| self.describe(id.clone(), given);
                slot.resume(secret, received, arrival, describe)
            }
            _ => Err(arrival),
        }
    }

    fn describe(&self, id: SessionId, given: Secret) -> Session {
        let window_s = u32::try_from(self.config.window.as_secs()).unwrap_or(u32::MAX);
        Session::new(id, given, window_s, self.window_bytes)
    }

    /// The session has no link, for the `departure`th time of all, and so many bytes wait in it. That
    /// number, where it is yet to be given.
    fn note_away(&self, slot: &Arc<Slot<R>>, departure: Option<u64>, bytes: usize) -> u64 {
        let mut inner = self.lock();
        let departure = departure.unwrap_or_else(|| {
            inner.departures += 1;
            inner.departures
        });
        let before = inner.away.insert(departure, (slot.clone(), bytes));
        inner.away_bytes += bytes;
        inner.away_bytes -= before.map_or(0, |(_, bytes)| bytes);
        while inner.away.len() > self.config.max_sessions
            || inner.away_bytes > self.config.max_bytes
        {
            let Some((_, (oldest, bytes))) = inner.away.pop_first() else { break };
            inner.away_bytes -= bytes;
            oldest.dismiss();
        }
        departure
    }

    fn note_back(&self, departure: u64) {
        let mut inner = self.lock();
        let was = inner.away.remove(&departure);
        inner.away_bytes -= was.map_or(0, |(_, bytes)| bytes);
    }

    fn forget(&self, id: &SessionId) {
        self.lock().all.remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, Inner<R>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn refuse<T>(
    mut link: impl Duplex<Message, Message> + Unpin,
    reason: CloseReason,
) -> Option<T> {
    tracing::debug!(%reason, "refused");
    let closing = async {
        link.send(Message::Close(Some(reason))).await?;
        link.close().await
    };
    let _ = timeout(LAST_WORD, closing).await;
    None
}

impl<R: Role> fmt::Debug for Sessions<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("config", &self.config).finish_non_exhaustive()
    }
}
