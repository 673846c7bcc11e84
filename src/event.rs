//! State and events of a connection, as the application sees it.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, stream};
use rmcp::{ErrorData, model::InitializeResult};
use tokio::sync::{
    broadcast::{Receiver, Sender, error::RecvError},
    watch,
};

use crate::{
    close::CloseReason,
    error::{Error, LinkError},
};

/// Most events that a reader may be behind.
const BACKLOG: usize = 256;

/// The state of a connection, as found on the `watch` channel of a client or transport.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// The handshake is under way.
    Connecting,
    /// Messages flow.
    Connected,
    /// The connection is lost, and the next is being made.
    Reconnecting {
        /// Attempts since then.
        attempt: u32,
        /// Time until the next attempt, counted from this state. Zero while one is under way.
        next: Duration,
    },
    /// The connection has ended, for this reason, and does not come back.
    Closed(CloseReason),
}

/// Something that happened to a connection that reconnects.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// The connection is lost, for this reason, and the next will be made. Also where the next is
    /// there already and takes over. It comes before each `Resumed` and `Restarted`.
    Lost(Error),
    /// An attempt to make one has failed.
    Failed {
        /// The first is 1.
        attempt: u32,
        /// Cause of the failure.
        error: Error,
        /// Time until the next attempt.
        next: Duration,
    },
    /// A new connection continues the session, and nothing is lost.
    Resumed {
        /// Number of messages of this side that were sent again.
        replayed: u64,
    },
    /// A new connection reaches a peer that knows nothing of what was before.
    Restarted {
        /// New answer of the peer to `initialize`, if it differs from the former one. The service
        /// goes on with what it was told first.
        changed: Option<Box<InitializeResult>>,
    },
    /// The peer has sent an error that names no request, or such an unreadable answer. None or
    /// several requests were in flight; each of those ends within
    /// [`lost_answer_timeout`](crate::layer::correlation::Config::lost_answer_timeout), unless it
    /// makes progress.
    UnmatchedError(ErrorData),
    /// The connection has ended, for this reason, and does not come back. Nothing follows this.
    Closed(Error),
    /// The reader of these events was too slow, and missed this number of them.
    Lagged(u64),
}

/// Event that tells a slow reader how many it missed.
pub(crate) trait Lagged: Clone + Send + 'static {
    fn lagged(events: u64) -> Self;

    /// Returns `true` if no event follows.
    fn is_last(&self) -> bool {
        false
    }
}

impl Lagged for Event {
    fn lagged(events: u64) -> Self {
        Self::Lagged(events)
    }

    fn is_last(&self) -> bool {
        matches!(self, Self::Closed(_))
    }
}

/// Sink of the state and the events of one connection.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionEvents {
    pub(crate) state: watch::Sender<State>,
    /// `None` for a connection that does not reconnect: its state tells all.
    events: Option<Broadcaster<Event>>,
    /// `true` after [`Event::Lost`] while no `Resumed` or `Restarted` has followed.
    lost: Arc<AtomicBool>,
}

impl Default for ConnectionEvents {
    fn default() -> Self {
        Self::of_state(watch::Sender::new(State::Connecting))
    }
}

impl ConnectionEvents {
    /// Creates it for a connection that does not reconnect.
    pub(crate) fn of_state(state: watch::Sender<State>) -> Self {
        Self { state, events: None, lost: Arc::default() }
    }

    pub(crate) fn new(state: watch::Sender<State>, events: Broadcaster<Event>) -> Self {
        Self { state, events: Some(events), lost: Arc::default() }
    }

    pub(crate) fn subscribe(&self) -> Option<Events<Event>> {
        self.events.as_ref().map(Broadcaster::subscribe)
    }

    /// Announces that the connection is lost, for this reason.
    pub(crate) fn announce_lost(&self, cause: &Error) {
        self.lost.store(true, SeqCst);
        self.announce(|| Event::Lost(cause.clone()));
    }

    /// Announces the loss unless that was done. To the source of the links, nothing is lost when a
    /// newer one takes over.
    pub(crate) fn ensure_lost_announced(&self, cause: &Error) {
        if !self.lost.load(SeqCst) {
            self.announce_lost(cause);
        }
    }

    /// Announces a new connection by `event`.
    pub(crate) fn announce_back(&self, event: impl FnOnce() -> Event) {
        self.ensure_lost_announced(&LinkError::taken_over().into());
        self.lost.store(false, SeqCst);
        self.announce(event);
    }

    pub(crate) fn announce(&self, event: impl FnOnce() -> Event) {
        if let Some(events) = &self.events {
            events.announce(event);
        }
    }
}

/// Sends events to everyone who listens.
#[derive(Debug)]
pub(crate) struct Broadcaster<E>(Arc<OnceLock<Sender<E>>>);

impl<E> Default for Broadcaster<E> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<E> Clone for Broadcaster<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<E: Lagged> Broadcaster<E> {
    pub(crate) fn subscribe(&self) -> Events<E> {
        let receiver = self.0.get_or_init(|| Sender::new(BACKLOG)).subscribe();
        Events(Box::pin(stream::unfold(Some(receiver), next)))
    }

    pub(crate) fn announce(&self, event: impl FnOnce() -> E) {
        if let Some(sender) = self.0.get()
            && sender.receiver_count() > 0
        {
            // Fails if the last reader has just gone.
            let _ = sender.send(event());
        }
    }
}

async fn next<E: Lagged>(receiver: Option<Receiver<E>>) -> Option<(E, Option<Receiver<E>>)> {
    let mut receiver = receiver?;
    match receiver.recv().await {
        Ok(event) if event.is_last() => Some((event, None)),
        Ok(event) => Some((event, Some(receiver))),
        Err(RecvError::Lagged(events)) => Some((E::lagged(events), Some(receiver))),
        Err(RecvError::Closed) => None,
    }
}

/// Stream of events. It ends with what they happen to.
#[must_use = "streams do nothing unless polled"]
pub struct Events<E>(Pin<Box<dyn Stream<Item = E> + Send>>);

impl<E> Stream for Events<E> {
    type Item = E;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<E>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl<E> fmt::Debug for Events<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}
