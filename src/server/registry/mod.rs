//! Who is connected: the [`Registry`] lists connections, reaches them, and tells what happens to them.
//!
//! ```
//! use mcp_ws_transport::server::{Config, Registry};
//! use rmcp::model::{ServerNotification, ToolListChangedNotification};
//!
//! let registry = Registry::default();
//! let config = Config::default().registry(registry.clone());
//! // … serve with that configuration; then, at any time:
//! let changed = ToolListChangedNotification::default();
//! let broadcast = registry.notify_all(changed.into())?;
//! for (connection, why) in broadcast.missed {
//!     println!("{}: {why}", connection.id());
//! }
//! # let _: Config = config;
//! # Ok::<(), mcp_ws_transport::Error>(())
//! ```

mod connection;
mod event;
mod health;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rmcp::{RoleServer, model::JsonRpcMessage, service::TxJsonRpcMessage};

use self::health::Tally;
pub use self::{
    connection::{Connection, Info},
    event::{Cause, Event, Events},
    health::Health,
};
use crate::{
    decode::Role,
    error::{CloseCode, CloseReason, Error},
    event::{Announcer, State},
    layer::{SharedLink, shared_link::TrySendError},
    message::Message,
};

/// Makes a message out of what goes to several connections, if their framing has one for it.
pub(super) type Encode<R> =
    Arc<dyn Fn(&TxJsonRpcMessage<R>) -> Result<Option<Message>, Error> + Send + Sync>;

/// The connections of a server, or of several that share it: a cheap handle.
///
/// It is there before the server is, so that the server's own services can hold it; give it to
/// [`Config::registry`](super::Config::registry).
pub struct Registry<R: Role = RoleServer> {
    inner: Arc<Inner<R>>,
}

struct Inner<R: Role> {
    next: AtomicU64,
    connections: Mutex<Connections<R>>,
    tally: Tally,
    announcer: Announcer<Event>,
}

type Connections<R> = BTreeMap<u64, Place<R>>;

/// A connection, and the way to it.
struct Place<R: Role> {
    connection: Connection,
    shared: SharedLink,
    encode: Encode<R>,
}

impl<R: Role> Clone for Place<R> {
    fn clone(&self) -> Self {
        Self {
            connection: self.connection.clone(),
            shared: self.shared.clone(),
            encode: self.encode.clone(),
        }
    }
}

/// Whom a notification reached.
#[derive(Debug)]
#[non_exhaustive]
pub struct Broadcast {
    /// To how many connections it is on its way.
    pub reached: usize,
    /// Who does not get it, and why.
    pub missed: Vec<(Connection, Missed)>,
}

/// Why a notification is not on its way.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Missed {
    /// There is no such connection any more.
    #[error("not connected")]
    Gone,
    /// Its client has not initialized it yet, and may not be told anything before.
    #[error("not initialized")]
    NotInitialized,
    /// Its client does not read as fast as it is written to; its queue is full.
    #[error("too slow")]
    Slow,
    /// The notification could not be encoded.
    #[error(transparent)]
    Unsendable(Error),
}

impl<R: Role> Registry<R> {
    /// The connections, in the order in which they came.
    #[must_use]
    pub fn list(&self) -> Vec<Connection> {
        self.lock().values().map(|place| place.connection.clone()).collect()
    }

    /// The connection of this id.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Connection> {
        self.lock().get(&id).map(|place| place.connection.clone())
    }

    /// Sends `notification` to one connection, without waiting.
    ///
    /// # Errors
    /// [`Missed`], when it does not go out.
    pub fn notify(&self, id: u64, notification: R::Not) -> Result<(), Missed> {
        let message = JsonRpcMessage::notification(notification);
        let place = self.lock().get(&id).cloned().ok_or(Missed::Gone)?;
        let message = (place.encode)(&message).map_err(Missed::Unsendable)?;
        // What its form does not know is not missed.
        message.map_or(Ok(()), |message| self.offer(&place, message))
    }

    /// Sends `notification` to every connection, without waiting: who is too slow misses it.
    ///
    /// # Errors
    /// [`Error::Message`] when the notification cannot be encoded; nobody gets it then.
    pub fn notify_all(&self, notification: R::Not) -> Result<Broadcast, Error> {
        let places = self.lock().values().cloned().collect();
        self.offer_to(places, notification)
    }

    /// The same, to those connections that `filter` chooses.
    ///
    /// # Errors
    /// [`Error::Message`] when the notification cannot be encoded; nobody gets it then.
    pub fn notify_where(
        &self,
        notification: R::Not,
        mut filter: impl FnMut(&Connection) -> bool,
    ) -> Result<Broadcast, Error> {
        // Before the lock is taken: it is the caller's code, and may ask the registry itself.
        let chosen = self.list().into_iter().filter(|connection| filter(connection));
        let chosen: Vec<u64> = chosen.map(|connection| connection.id()).collect();
        let connections = self.lock();
        let places = chosen.iter().filter_map(|id| connections.get(id)).cloned().collect();
        drop(connections);
        self.offer_to(places, notification)
    }

    /// Without the lock: nobody who comes or goes waits for a broadcast.
    fn offer_to(&self, places: Vec<Place<R>>, notification: R::Not) -> Result<Broadcast, Error> {
        let notification = JsonRpcMessage::notification(notification);
        let mut broadcast = Broadcast { reached: 0, missed: Vec::new() };
        // Encoded once for all that have the same framing; a registry seldom knows two.
        let mut encoded: Vec<(&Encode<R>, Option<Message>)> = Vec::new();
        for place in &places {
            if !encoded.iter().any(|(encode, _)| Arc::ptr_eq(encode, &place.encode)) {
                encoded.push((&place.encode, (place.encode)(&notification)?));
            }
        }
        for place in &places {
            let message = encoded.iter().find(|(encode, _)| Arc::ptr_eq(encode, &place.encode));
            let Some((_, Some(message))) = message else { continue };
            match self.offer(place, message.clone()) {
                Ok(()) => broadcast.reached += 1,
                Err(why) => broadcast.missed.push((place.connection.clone(), why)),
            }
        }
        Ok(broadcast)
    }

    /// Closes the connection of this id, with the closing handshake and this `reason`. Whether there
    /// was such a connection.
    pub fn disconnect(&self, id: u64, reason: CloseReason) -> bool {
        self.get(id).is_some_and(|connection| connection.disconnect(reason))
    }

    /// What happens from now on.
    pub fn events(&self) -> Events {
        self.inner.announcer.subscribe()
    }

    /// What has happened so far, in figures.
    #[must_use]
    pub fn health(&self) -> Health {
        let connections = self.lock();
        self.inner.tally.health(connections.values().map(|place| &place.connection))
    }

    /// Notes somebody who was not let in.
    pub(super) fn refused(&self, cause: Cause, peer: Option<std::net::SocketAddr>) {
        tracing::debug!(%cause, ?peer, "refused");
        self.inner.tally.refused(cause);
        self.inner.announcer.announce(|| Event::Refused { cause, peer });
    }

    /// Notes that a client has lost its connection, or is back.
    pub(super) fn is_away(&self, connection: &Connection, away: bool) {
        if connection.away(away) != away {
            self.inner.tally.away(away);
            let event = if away { Event::Away } else { Event::Back };
            self.inner.announcer.announce(|| event(connection.clone()));
        }
    }

    /// Notes that a client that was away is not waited for any longer.
    pub(super) fn is_gone(&self, connection: &Connection) {
        if connection.away(false) {
            self.inner.tally.away(false);
        }
    }

    /// An id for the next connection.
    pub(super) fn next_id(&self) -> u64 {
        self.inner.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Lists `connection`, until what is returned is dropped.
    pub(super) fn enter(
        &self,
        connection: Connection,
        shared: SharedLink,
        encode: Encode<R>,
    ) -> Entry<R> {
        let place = Place { connection: connection.clone(), shared, encode };
        let mut connections = self.lock();
        connections.insert(connection.id(), place);
        // Under the lock, as the sums are made: they never miss one, nor have it twice.
        self.inner.tally.connected();
        drop(connections);
        self.inner.announcer.announce(|| Event::Connected(connection.clone()));
        Entry { registry: self.clone(), connection }
    }

    fn offer(&self, place: &Place<R>, message: Message) -> Result<(), Missed> {
        if !place.connection.is_initialized() {
            return Err(Missed::NotInitialized);
        }
        match place.shared.try_send(message) {
            Ok(()) => {
                place.connection.keeps_up();
                Ok(())
            }
            Err(TrySendError::Full) => {
                if place.connection.falls_behind() {
                    self.inner.announcer.announce(|| Event::Slow(place.connection.clone()));
                }
                Err(Missed::Slow)
            }
            Err(TrySendError::Closed) => Err(Missed::Gone),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connections<R>> {
        self.inner.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Role> Default for Registry<R> {
    fn default() -> Self {
        let inner = Inner {
            next: AtomicU64::new(0),
            connections: Mutex::default(),
            tally: Tally::default(),
            announcer: Announcer::default(),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl<R: Role> Clone for Registry<R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<R: Role> fmt::Debug for Registry<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

/// A listed connection. Dropping it takes it off the list.
pub(super) struct Entry<R: Role> {
    registry: Registry<R>,
    pub(super) connection: Connection,
}

impl<R: Role> Drop for Entry<R> {
    fn drop(&mut self) {
        let mut connections = self.registry.lock();
        let Some(place) = connections.remove(&self.connection.id()) else { return };
        self.registry.inner.tally.disconnected(&self.connection.stats().snapshot());
        drop(connections);
        let inner = &self.registry.inner;
        let reason = match &*place.shared.state().borrow() {
            State::Closed(reason) => reason.clone(),
            _ => CloseCode::Abnormal.into(),
        };
        let connection = self.connection.clone();
        inner.announcer.announce(|| Event::Disconnected { connection, reason });
    }
}
