//! The rules of a room: who is sent what, and how much each may send.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use mcp_ws_transport::server::{Connection, NotifyError, Registry};
use rmcp::{RoleServer, ServerHandler, model::CustomNotification, service::NotificationContext};

use crate::{
    client::Client,
    message::{NO_TYPE, RoomMessage, parse_types},
};

/// The room: a cheap handle.
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

    /// Sends a message to all who want it, or to its target. Returns to how many.
    pub(crate) fn send(&self, message: &RoomMessage) -> Result<usize, String> {
        let notification = message.to_notification();
        if let Some(target) = &message.target {
            let id = target.strip_prefix("client-").and_then(|id| id.parse().ok());
            let id = id.filter(|id| *target == name(*id));
            let sent =
                id.map_or(Err(NotifyError::Gone), |id| self.registry.notify(id, notification));
            return sent.map(|()| 1).map_err(|_| format!("{target} is not here"));
        }
        let wants = |connection: &Connection| {
            self.clients().get(&connection.id()).is_none_or(|client| client.wants(&message.kind))
        };
        let report = self.registry.notify_where(notification, wants);
        report.map(|report| report.sent).map_err(|error| error.to_string())
    }

    /// Handles a message of the client with this id. Returns what it is answered.
    fn handle(&self, id: u64, mut message: RoomMessage) -> Option<RoomMessage> {
        // A client that has left is not to be recorded any more.
        self.registry.get(id)?;
        if !self.clients().entry(id).or_default().may_send(self.rate) {
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
