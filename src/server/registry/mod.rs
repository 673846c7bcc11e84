//! [`Registry`]: the list of a server's connections, notifications to them, and their events.
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
//! for (connection, why) in broadcast.failed {
//!     println!("{}: {why}", connection.id());
//! }
//! # let _: Config = config;
//! # Ok::<(), mcp_ws_transport::Error>(())
//! ```

#[cfg(feature = "cluster")]
mod cluster;
pub(super) mod connection;
pub(super) mod event;
#[cfg(feature = "cluster")]
mod groups;
pub(super) mod health;
pub(super) mod refusal;
pub(super) mod report;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rmcp::{RoleServer, model::JsonRpcMessage, service::TxJsonRpcMessage};

use self::{
    connection::Connection,
    event::{RegistryEvent, RegistryEvents},
    health::{Counters, Health},
    refusal::{Refusal, RefusalLog},
    report::{BroadcastReport, NotifyError},
};
use crate::{
    close::{CloseCode, CloseReason},
    error::Error,
    event::{Broadcaster, State},
    layer::shared_link::{SharedLink, queue::TrySendError},
    message::Message,
    role::McpRole,
};

/// Encoder of a notification for several connections; `None` if their framing has no message for
/// it.
pub(super) type Encode<R> =
    Arc<dyn Fn(&TxJsonRpcMessage<R>) -> Result<Option<Message>, Error> + Send + Sync>;

/// List of the connections of a server, or of several that share it; a cheap handle.
///
/// It can be made before the server, so that the server's own services can hold it; give it to
/// [`Config::registry`](crate::server::Config::registry).
pub struct Registry<R: McpRole = RoleServer> {
    inner: Arc<Inner<R>>,
}

struct Inner<R: McpRole> {
    next: AtomicU64,
    connections: Mutex<Connections<R>>,
    counters: Counters,
    refusals: RefusalLog,
    events: Broadcaster<RegistryEvent>,
    #[cfg(feature = "cluster")]
    cluster: std::sync::OnceLock<super::cluster::Cluster>,
    #[cfg(feature = "cluster")]
    relays: super::cluster::relay::count::RelayCounts,
}

type Connections<R> = BTreeMap<u64, Listed<R>>;

/// Listed connection, and its link.
struct Listed<R: McpRole> {
    connection: Connection,
    shared: SharedLink,
    encode: Encode<R>,
}

impl<R: McpRole> Clone for Listed<R> {
    fn clone(&self) -> Self {
        Self {
            connection: self.connection.clone(),
            shared: self.shared.clone(),
            encode: self.encode.clone(),
        }
    }
}

impl<R: McpRole> Registry<R> {
    /// Returns the connections, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Connection> {
        self.lock().values().map(|listed| listed.connection.clone()).collect()
    }

    /// Returns the connection with this id.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Connection> {
        self.lock().get(&id).map(|listed| listed.connection.clone())
    }

    /// Queues `notification` for one connection, without waiting.
    ///
    /// # Errors
    /// [`NotifyError`] when it was not queued.
    pub fn notify(&self, id: u64, notification: R::Not) -> Result<(), NotifyError> {
        let message = JsonRpcMessage::notification(notification);
        let listed = self.lock().get(&id).cloned().ok_or(NotifyError::Gone)?;
        let message = (listed.encode)(&message).map_err(NotifyError::Unsendable)?;
        // The framing has no message for it; that is not a failure.
        message.map_or(Ok(()), |message| self.try_send(&listed, message))
    }

    /// Queues `notification` for every connection, without waiting: slow clients miss it.
    ///
    /// # Errors
    /// [`Error::Message`] when the notification cannot be encoded; no client gets it then.
    pub fn notify_all(&self, notification: R::Not) -> Result<BroadcastReport, Error> {
        let chosen = self.lock().values().cloned().collect();
        self.send_to(chosen, &JsonRpcMessage::notification(notification))
    }

    /// Queues `notification` for the connections that `filter` chooses, without waiting.
    ///
    /// # Errors
    /// [`Error::Message`] when the notification cannot be encoded; no client gets it then.
    pub fn notify_where(
        &self,
        notification: R::Not,
        mut filter: impl FnMut(&Connection) -> bool,
    ) -> Result<BroadcastReport, Error> {
        // Without the lock: the filter is the caller's code, and may use the registry.
        let chosen = self.list().into_iter().filter(|connection| filter(connection));
        let chosen: Vec<u64> = chosen.map(|connection| connection.id()).collect();
        let connections = self.lock();
        let chosen = chosen.iter().filter_map(|id| connections.get(id)).cloned().collect();
        drop(connections);
        self.send_to(chosen, &JsonRpcMessage::notification(notification))
    }

    /// Queues `notification` for the `chosen`, without the lock: connections come and go meanwhile.
    fn send_to(
        &self,
        chosen: Vec<Listed<R>>,
        notification: &TxJsonRpcMessage<R>,
    ) -> Result<BroadcastReport, Error> {
        let mut broadcast = BroadcastReport::default();
        // Encoded once for all that have the same framing; a registry seldom has two.
        let mut encoded: Vec<(&Encode<R>, Option<Message>)> = Vec::new();
        for listed in &chosen {
            if !encoded.iter().any(|(encode, _)| Arc::ptr_eq(encode, &listed.encode)) {
                encoded.push((&listed.encode, (listed.encode)(notification)?));
            }
        }
        for listed in &chosen {
            let message = encoded.iter().find(|(encode, _)| Arc::ptr_eq(encode, &listed.encode));
            let Some((_, Some(message))) = message else { continue };
            match self.try_send(listed, message.clone()) {
                Ok(()) => broadcast.sent += 1,
                Err(why) => broadcast.failed.push((listed.connection.clone(), why)),
            }
        }
        Ok(broadcast)
    }

    /// Closes the connection with this id, with the closing handshake and this `reason`.
    ///
    /// Returns `false` if there is none, or it was told to close before.
    pub fn disconnect(&self, id: u64, reason: CloseReason) -> bool {
        self.get(id).is_some_and(|connection| connection.disconnect(reason))
    }

    /// Returns the events from now on, as a stream.
    pub fn events(&self) -> RegistryEvents {
        self.inner.events.subscribe()
    }

    /// Returns the figures up to now.
    #[must_use]
    pub fn health(&self) -> Health {
        let connections = self.lock();
        let connections = connections.values().map(|listed| &listed.connection);
        let health = self.inner.counters.health(connections);
        #[cfg(feature = "cluster")]
        let health = self.with_cluster(health);
        health
    }

    /// Records a client that was rejected, and logs it.
    pub(super) fn rejected(&self, refusal: &Refusal<'_>, peer: Option<SocketAddr>) {
        let reason = refusal.reason;
        self.log_refusal(refusal, peer);
        self.inner.counters.rejected(reason);
        self.inner.events.announce(|| RegistryEvent::Rejected { reason, peer });
    }

    /// Logs a refusal that is not counted.
    pub(super) fn log_refusal(&self, refusal: &Refusal<'_>, peer: Option<SocketAddr>) {
        self.inner.refusals.log(refusal, peer);
    }

    /// Records that a client has lost its connection, or is back.
    pub(super) fn set_detached(&self, connection: &Connection, detached: bool) {
        if connection.swap_detached(detached) != detached {
            self.inner.counters.detached(detached);
            let event = if detached { RegistryEvent::Detached } else { RegistryEvent::Reattached };
            self.inner.events.announce(|| event(connection.clone()));
        }
    }

    /// Records that the session of a detached client has ended.
    pub(super) fn forget_detached(&self, connection: &Connection) {
        if connection.swap_detached(false) {
            self.inner.counters.detached(false);
        }
    }

    /// Returns the id for the next connection.
    pub(super) fn next_id(&self) -> u64 {
        self.inner.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Lists `connection` until the registration is dropped.
    pub(super) fn register(
        &self,
        connection: Connection,
        shared: SharedLink,
        encode: Encode<R>,
    ) -> Registration<R> {
        let listed = Listed { connection: connection.clone(), shared, encode };
        let mut connections = self.lock();
        connections.insert(connection.id(), listed);
        // Under the lock, as `health` is: a connection is neither missing there nor counted twice.
        self.inner.counters.connected();
        drop(connections);
        self.inner.events.announce(|| RegistryEvent::Connected(connection.clone()));
        Registration { registry: self.clone(), connection }
    }

    /// Queues a message for one connection, and records if it keeps up.
    fn try_send(&self, listed: &Listed<R>, message: Message) -> Result<(), NotifyError> {
        if !listed.connection.is_initialized() {
            return Err(NotifyError::NotInitialized);
        }
        match listed.shared.try_send(message) {
            Ok(()) => {
                listed.connection.mark_caught_up();
                Ok(())
            }
            Err(TrySendError::Full) => {
                if listed.connection.mark_slow() {
                    self.inner.events.announce(|| RegistryEvent::Slow(listed.connection.clone()));
                }
                Err(NotifyError::Slow)
            }
            Err(TrySendError::Closed) => Err(NotifyError::Gone),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connections<R>> {
        self.inner.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: McpRole> Default for Registry<R> {
    fn default() -> Self {
        let inner = Inner {
            next: AtomicU64::new(0),
            connections: Mutex::default(),
            counters: Counters::default(),
            refusals: RefusalLog::default(),
            events: Broadcaster::default(),
            #[cfg(feature = "cluster")]
            cluster: std::sync::OnceLock::new(),
            #[cfg(feature = "cluster")]
            relays: super::cluster::relay::count::RelayCounts::default(),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl<R: McpRole> Clone for Registry<R> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<R: McpRole> fmt::Debug for Registry<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

/// Registration of a connection; dropping it removes the connection from the list.
pub(super) struct Registration<R: McpRole> {
    registry: Registry<R>,
    pub(super) connection: Connection,
}

impl<R: McpRole> Drop for Registration<R> {
    fn drop(&mut self) {
        let mut connections = self.registry.lock();
        let Some(listed) = connections.remove(&self.connection.id()) else { return };
        self.registry.inner.counters.disconnected(&self.connection.stats().snapshot());
        drop(connections);
        let inner = &self.registry.inner;
        let reason = match &*listed.shared.state().borrow() {
            State::Closed(reason) => reason.clone(),
            _ => CloseCode::Abnormal.into(),
        };
        let connection = self.connection.clone();
        inner.events.announce(|| RegistryEvent::Disconnected { connection, reason });
    }
}
