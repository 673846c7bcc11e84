//! The rules of a room: who hears what, and how much each may say.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mcp_ws_transport::server::{Connection, NotifyError, Registry};
use rmcp::{RoleServer, ServerHandler, model::CustomNotification, service::NotificationContext};

use crate::message::{NO_TYPE, RoomMessage, parse_types};

/// State of a client.
#[derive(Debug, Default)]
pub(crate) struct Client {
    /// Types that it wants to hear of; `None` for all.
    types: Option<HashSet<String>>,
    /// Times of its messages within the last second.
    recent: VecDeque<Instant>,
}

#[derive(Debug, Clone)]
pub(crate) struct Room {
    pub(crate) registry: Registry,
    pub(crate) clients: Arc<Mutex<HashMap<u64, Client>>>,
    /// Number of messages of each client that are passed on per second.
    pub(crate) rate: usize,
}

/// Returns the name of a client, which is the `sender` of its messages.
fn name(id: u64) -> String {
    format!("client-{id}")
}

impl Room {
    pub(crate) fn clients(&self) -> MutexGuard<'_, HashMap<u64, Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a message. Returns `true` if it is one too many.
    fn note_message(&self, id: u64) -> bool {
        let mut clients = self.clients();
        let recent = &mut clients.entry(id).or_default().recent;
        let now = Instant::now();
        while recent.front().is_some_and(|then| now - *then > Duration::from_secs(1)) {
            recent.pop_front();
        }
        recent.push_back(now);
        recent.truncate(self.rate.saturating_add(1));
        recent.len() > self.rate
    }

    /// Sends a message to all who want to hear it, or to its target. Returns to how many.
    pub(crate) fn send(&self, message: &RoomMessage) -> Result<usize, String> {
        let notification = message.to_notification();
        if let Some(target) = &message.target {
            let id = target.strip_prefix("client-").and_then(|id| id.parse().ok());
            let id = id.filter(|id| *target == name(*id));
            let sent =
                id.map_or(Err(NotifyError::Gone), |id| self.registry.notify(id, notification));
            return sent.map(|()| 1).map_err(|_| format!("{target} is not here"));
        }
        let wants = |connection: &Connection| match self.clients().get(&connection.id()) {
            Some(Client { types: Some(types), .. }) => types.contains(&message.kind),
            _ => true,
        };
        let report = self.registry.notify_where(notification, wants);
        report.map(|report| report.sent).map_err(|error| error.to_string())
    }

    /// Handles a message of the client with this id. Returns what it is answered.
    fn handle(&self, id: u64, mut message: RoomMessage) -> Option<RoomMessage> {
        // A client that has left is not to be recorded any more.
        self.registry.get(id)?;
        if self.note_message(id) {
            return Some(RoomMessage::error("too many messages"));
        }
        match &*message.kind {
            "whoami" => Some(RoomMessage::new("you", name(id).into())),
            "subscribe" => match parse_types(message.payload) {
                Ok(types) => {
                    self.clients().entry(id).or_default().types = types;
                    None
                }
                Err(error) => Some(RoomMessage::error(error)),
            },
            _ if message.is_reserved() => Some(RoomMessage::error(NO_TYPE)),
            _ => {
                message.sender = Some(name(id));
                self.send(&message).err().map(|error| RoomMessage::error(&error))
            }
        }
    }
}

impl ServerHandler for Room {
    async fn on_custom_notification(
        &self,
        mut notification: CustomNotification,
        context: NotificationContext<RoleServer>,
    ) {
        let message = notification.extensions.remove::<RoomMessage>();
        let message = message.or_else(|| context.extensions.get().cloned());
        let connection = context.extensions.get::<Connection>();
        if let (Some(message), Some(connection)) = (message, connection)
            && let Some(answer) = self.handle(connection.id(), message)
        {
            // A client that reads too slowly is told nothing.
            let _ = self.registry.notify(connection.id(), answer.to_notification());
        }
    }
}
