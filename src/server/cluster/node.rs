//! [`Node`]: what an instance knows of its cluster, shared by all who take part in it.

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{
    asks::{AskHandler, AskHandlers, AskKind},
    event::ClusterEvent,
    fan_out::FanOut,
    members::{Heartbeat, Members, Process, Says},
    state::{Change, ClusterError, ClusterState, Membership},
};
use crate::{
    cluster::{
        bus::Bus,
        subject::{InvalidSubject, Subject},
        subscription::Delivery,
        warnings::SharedWarnLimit,
    },
    event::Broadcaster,
    server::sessions::instance::InstanceTag,
};

/// Knowledge that an instance has of its cluster.
pub(in crate::server) struct Node {
    pub(in crate::server) bus: Arc<dyn Bus>,
    /// Connection to the bus for relayed sessions: one of their own, or `bus`.
    pub(in crate::server) relay_bus: Arc<dyn Bus>,
    /// The most relayed links of a server, each way.
    pub(in crate::server) max_relays: usize,
    /// This process.
    pub(super) this: Process,
    pub(super) subjects: Subjects,
    pub(super) events: Broadcaster<ClusterEvent>,
    pub(super) members: Mutex<Members>,
    pub(super) state: watch::Sender<ClusterState>,
    pub(super) fan_out: FanOut,
    handlers: AskHandlers,
    membership: Mutex<Membership>,
    warnings: SharedWarnLimit,
    /// Wakes those who wait for an instance to be heard of.
    heartbeats: Notify,
}

/// Subjects of a cluster.
#[derive(Debug)]
pub(super) struct Subjects {
    pub(super) prefix: Subject,
    /// Questions to this instance: `{prefix}.i.<tag>`.
    pub(super) own: Subject,
    /// Notifications: `{prefix}.n`.
    pub(super) notifications: Subject,
    /// Heartbeats: `{prefix}.m`.
    pub(super) members: Subject,
}

impl Subjects {
    fn new(prefix: &str, instance: &str) -> Result<Self, InvalidSubject> {
        let prefix = Subject::new(prefix)?;
        Ok(Self {
            own: prefix.join(&format!("i.{instance}"))?,
            notifications: prefix.join("n")?,
            members: prefix.join("m")?,
            prefix,
        })
    }
}

impl Node {
    /// Creates the node of an instance that has not joined yet.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for a prefix or a tag that cannot be part of a subject.
    pub(super) fn new(
        (bus, relay_bus): (Arc<dyn Bus>, Arc<dyn Bus>),
        prefix: &str,
        instance: String,
        max_relays: usize,
    ) -> io::Result<Self> {
        let invalid = |error: String| io::Error::new(io::ErrorKind::InvalidInput, error);
        InstanceTag::new(&*instance).validate().map_err(invalid)?;
        let subjects =
            Subjects::new(prefix, &instance).map_err(|error| invalid(error.to_string()))?;
        let membership = Membership::new();
        Ok(Self {
            bus,
            relay_bus,
            max_relays,
            this: Process { instance, run: rand::random() },
            subjects,
            events: Broadcaster::default(),
            members: Mutex::default(),
            state: watch::Sender::new(membership.state().clone()),
            fan_out: FanOut::default(),
            handlers: AskHandlers::default(),
            membership: Mutex::new(membership),
            warnings: SharedWarnLimit::default(),
            heartbeats: Notify::new(),
        })
    }

    /// Returns the subject with these `words` behind the prefix.
    pub(in crate::server) fn subject(&self, words: &str) -> Result<Subject, InvalidSubject> {
        self.subjects.prefix.join(words)
    }

    /// Returns the tag of this instance.
    pub(in crate::server) fn instance(&self) -> &str {
        &self.this.instance
    }

    /// Adds a handler of the questions of this `kind`, for as long as it lives.
    pub(in crate::server) fn add_handler(&self, kind: AskKind, handler: Weak<dyn AskHandler>) {
        self.handlers.add(kind, handler);
    }

    /// Returns `true` if the instance was heard of within the last 7 s, and has not left since.
    pub(in crate::server) fn is_up(&self, instance: &str) -> bool {
        self.members().is_up(instance)
    }

    /// Returns when the instance was last heard of.
    pub(in crate::server) fn last_heard(&self, instance: &str) -> Option<Instant> {
        self.members().last_heard(instance)
    }

    /// Resolves when the instance was heard of later than at the time `before`.
    pub(in crate::server) async fn heard_since(&self, instance: &str, before: Option<Instant>) {
        loop {
            let heartbeat = self.heartbeats.notified();
            if self.last_heard(instance) != before {
                return;
            }
            heartbeat.await;
        }
    }

    /// Returns since when the bus is connected, if it is.
    pub(in crate::server) fn up_since(&self) -> Option<Instant> {
        self.membership().up_since()
    }

    /// Publishes a heartbeat.
    pub(super) fn heartbeat(&self, says: Says) {
        let heartbeat = Heartbeat { from: self.this.clone(), says, sent: self.fan_out.sent() };
        if let Ok(heartbeat) = serde_json::to_vec(&heartbeat)
            && let Err(error) = self.bus.publish(&self.subjects.members, heartbeat.into())
        {
            tracing::debug!(%error, "no heartbeat");
        }
    }

    /// Records whether the bus is connected.
    pub(super) fn set_up(&self, is_up: bool) {
        self.change(|membership| membership.set_up(is_up));
    }

    /// Returns `true` if both connections to the bus say that they are connected.
    pub(super) fn is_bus_up(&self) -> bool {
        *self.bus.watch_up().borrow() && *self.relay_bus.watch_up().borrow()
    }

    /// Returns `true` if the cluster was left.
    pub(super) fn has_left(&self) -> bool {
        *self.state.borrow() == ClusterState::Left
    }

    /// Takes a message to this instance.
    pub(super) fn on_ask(&self, delivery: &Delivery) {
        let kind = delivery.payload.first().copied().map(AskKind);
        let is_handled = match (kind, &delivery.reply_to) {
            (Some(AskKind::WHO), Some(reply_to)) => {
                self.answer(reply_to, self.this.run.to_be_bytes().to_vec().into());
                true
            }
            (Some(AskKind::REPORT), None) => self.on_report(&delivery.payload[1..]),
            (Some(kind), Some(reply_to)) => {
                let is_handled =
                    self.handlers.dispatch(kind, &delivery.payload.slice(1..), reply_to);
                let is_unknown_session = !is_handled && kind == AskKind::RESUME;
                // The client waits for the answer. But another process with the same tag is asked
                // too, and may have the session: the first answer counts.
                if is_unknown_session && !self.membership().has_duplicate() {
                    self.answer(reply_to, Bytes::new());
                }
                is_handled || is_unknown_session
            }
            _ => false,
        };
        if !is_handled {
            self.warn_of(&self.subjects.own, "a message that is for nobody here");
        }
    }

    /// Publishes the answer to a question.
    pub(super) fn answer(&self, reply_to: &Subject, payload: Bytes) {
        if let Err(error) = self.bus.publish(reply_to, payload) {
            tracing::debug!(%error, "not answered");
        }
    }

    /// Takes a heartbeat of this instance or another. Returns `true` if it asks for one.
    pub(super) fn on_heartbeat(&self, payload: &[u8]) -> bool {
        let Some(heartbeat) = Heartbeat::parse(payload) else {
            self.warn_of(&self.subjects.members, "what is no heartbeat");
            return false;
        };
        if heartbeat.from == self.this {
            self.change(Membership::note_self);
            return false;
        }
        if heartbeat.from.instance == self.this.instance {
            if heartbeat.says != Says::Bye {
                self.change(|membership| membership.note_duplicate(&self.this.instance));
            }
            return false;
        }
        let mut events = Vec::new();
        self.members().on_heartbeat(&heartbeat, &mut events);
        self.heartbeats.notify_waiters();
        self.announce(events);
        heartbeat.says == Says::Hello
    }

    /// Looks for instances, this one included, of which nothing has come for too long.
    pub(super) fn on_tick(&self) {
        self.change(Membership::check_silence);
        let mut events = Vec::new();
        self.members().sweep(&mut events);
        self.announce(events);
    }

    /// Announces events of other instances.
    pub(super) fn announce(&self, events: Vec<ClusterEvent>) {
        if !events.is_empty() {
            self.record();
        }
        for event in events {
            tracing::debug!(?event, "cluster");
            self.events.announce(|| event);
        }
    }

    /// Records that this instance does not take part, for this `cause`.
    pub(super) fn degrade(&self, cause: ClusterError) {
        self.change(|membership| membership.degrade(cause));
    }

    /// Changes the membership, and announces the change of the state that this makes, if any.
    pub(super) fn change(&self, change: impl FnOnce(&mut Membership) -> Option<Change>) {
        let mut membership = self.membership();
        let Some(change) = change(&mut membership) else { return };
        self.state.send_replace(membership.state().clone());
        drop(membership);
        self.record();
        let instance = &self.this.instance;
        let event = match change {
            Change::Degraded(cause) if cause.is_outage() => {
                tracing::warn!(instance, %cause, "no other instance is reached");
                ClusterEvent::Degraded(cause)
            }
            Change::Degraded(cause) => {
                tracing::error!(instance, %cause, "no other instance is reached");
                ClusterEvent::Degraded(cause)
            }
            Change::Healed => {
                tracing::info!(instance, "the other instances are reached");
                ClusterEvent::Healed
            }
        };
        self.events.announce(|| event);
    }

    /// Leaves the cluster. Returns `false` if it had been left before.
    pub(super) fn leave(&self) -> bool {
        let mut membership = self.membership();
        let is_first = membership.leave();
        self.state.send_replace(membership.state().clone());
        drop(membership);
        if is_first {
            self.record();
            self.heartbeat(Says::Bye);
        }
        is_first
    }

    /// Warns that `what` has come on a subject, at a limited rate.
    pub(super) fn warn_of(&self, subject: &Subject, what: &str) {
        if let Some(suppressed) = self.warnings.admit() {
            tracing::warn!(%subject, suppressed, "{what} has come by the bus, and is ignored");
        }
    }

    pub(super) fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn membership(&self) -> MutexGuard<'_, Membership> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("prefix", &self.subjects.prefix)
            .field("instance", &self.this.instance)
            .field("state", self.membership().state())
            .finish_non_exhaustive()
    }
}
