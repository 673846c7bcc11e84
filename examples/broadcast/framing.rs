//! The framing of a room: each message is a notification, and there are no requests.

use mcp_ws_transport::{
    Message,
    decode::PendingMethods,
    error::MessageError,
    framing::{DecodeError, Framing, FramingProperties},
};
use rmcp::{
    ErrorData, RoleServer,
    model::{ClientNotification, CustomNotification, JsonRpcMessage, ServerNotification},
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};
use serde_json::json;

use crate::message::RoomMessage;

#[derive(Debug, Clone, Copy)]
pub(crate) struct RoomFraming;

impl Framing<RoleServer> for RoomFraming {
    fn encode(
        &mut self,
        message: &TxJsonRpcMessage<RoleServer>,
    ) -> Result<Option<Message>, MessageError> {
        let message = match message {
            JsonRpcMessage::Notification(notification) => match &notification.notification {
                ServerNotification::CustomNotification(message) => json!(message.params),
                _ => return Ok(None),
            },
            JsonRpcMessage::Error(error) => json!(RoomMessage::error(&error.error.message)),
            _ => return Ok(None),
        };
        Ok(Some(Message::text(message.to_string())))
    }

    fn decode(
        &mut self,
        message: Message,
        _: &dyn PendingMethods,
    ) -> Result<Option<RxJsonRpcMessage<RoleServer>>, DecodeError> {
        let json = match &message {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
            _ => return Ok(None),
        };
        let message = RoomMessage::parse(json).map_err(|error| DecodeError::Request {
            id: None,
            error: ErrorData::invalid_request(error, None),
        })?;
        let mut notification = CustomNotification::new("message", None);
        notification.extensions.insert(message);
        let notification = ClientNotification::CustomNotification(notification);
        Ok(Some(JsonRpcMessage::notification(notification)))
    }

    fn properties(&self) -> FramingProperties {
        FramingProperties::default().has_initialize(false).uses_subprotocols(false)
    }
}
