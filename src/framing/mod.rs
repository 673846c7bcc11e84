//! The forms that JSON-RPC messages take inside WebSocket messages.
//!
//! [`JsonRpc`] is MCP's own: one JSON-RPC message per text message, nothing around it. [`Envelope`]
//! and [`ToolCall`] are older than that binding, and still spoken. A form of your own is a
//! [`Framing`] too: `examples/broadcast/framing.rs` has one.

pub(crate) mod decode_error;
mod envelope;
mod json;
pub(crate) mod json_rpc;
pub(crate) mod properties;
mod sep1288;
pub(crate) mod session_id;
mod timestamp;
mod tool_call;
mod tool_result;
pub(crate) mod unauthenticated;

use rmcp::{
    ErrorData,
    model::RequestId,
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};

pub use self::{
    decode_error::DecodeError,
    envelope::Envelope,
    json_rpc::{BinaryPolicy, JsonRpc},
    properties::{FramingProperties, InBandAuth, SessionIdField},
    session_id::SessionIdCell,
    tool_call::ToolCall,
    unauthenticated::UnauthenticatedMessage,
};
use crate::{
    close::CloseReason, decode::PendingMethods, error::MessageError, message::Message,
    role::McpRole,
};

/// Translates between rmcp's messages of role `R` and WebSocket messages.
pub trait Framing<R: McpRole>: Send {
    /// Encodes `message`; `None` if this framing has no message for it.
    ///
    /// # Errors
    /// [`MessageError`] when it cannot be encoded. The link stays open.
    fn encode(&mut self, message: &TxJsonRpcMessage<R>) -> Result<Option<Message>, MessageError>;

    /// Decodes a text or binary message; `None` if there is nothing in it for the service.
    ///
    /// `calls` returns the method of each request in flight, by which its response is decoded.
    ///
    /// # Errors
    /// [`DecodeError`] when it is not a message of this framing.
    fn decode(
        &mut self,
        message: Message,
        calls: &dyn PendingMethods,
    ) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError>;

    /// Attributes `error` to the request or the call that `message` concerns. Called for a message
    /// that is not decoded, because it would take more memory than it may. By default it is a
    /// request without an id.
    fn attribute_error(
        &mut self,
        message: &Message,
        calls: &dyn PendingMethods,
        error: ErrorData,
    ) -> DecodeError {
        let _ = (message, calls);
        DecodeError::Request { id: None, error }
    }

    /// Decodes a message of a peer that has yet to authenticate. Only its token is read, and
    /// nothing else that would take memory; see [authentication within the
    /// connection](crate::server::Config::in_band_authentication). With `None`, the default, it is
    /// [decoded](Self::decode) as any other; it is small.
    ///
    /// # Errors
    /// [`DecodeError`] when it is not a message of this framing.
    fn decode_unauthenticated(
        &mut self,
        message: &Message,
    ) -> Option<Result<UnauthenticatedMessage, DecodeError>> {
        let _ = message;
        None
    }

    /// Returns the message to be sent now that `message`, the last encoded, may be. The default
    /// returns `message`. A framing whose responses have an order keeps it until it is the
    /// [next](Self::next_reply).
    fn enqueue_in_order(&mut self, message: Message) -> Option<Message> {
        Some(message)
    }

    /// Returns the next message that this framing sends by itself. It is the answer to a ping, or a
    /// response whose turn has come. Called after each message in either direction until there is
    /// none. The replies that an inbound message causes are dropped while too much waits to be
    /// sent.
    fn next_reply(&mut self) -> Option<Message> {
        None
    }

    /// Records that the request of ours with this id, which was encoded, is not sent after all.
    fn on_withdrawn(&mut self, id: &RequestId) {
        let _ = id;
    }

    /// Records that the request of ours with this id is sent again, behind all others. It was
    /// refused or not read, and is sent as it was encoded.
    fn on_resent(&mut self, id: &RequestId) {
        let _ = id;
    }

    /// Records that the request of the peer with this id, which was refused, is not answered.
    ///
    /// # Errors
    /// The reason with which the connection is closed, where the answers to other requests would be
    /// taken for this one's.
    fn on_unanswered(&mut self, id: &RequestId) -> Result<(), CloseReason> {
        let _ = id;
        Ok(())
    }

    /// Records that the peer is a new one, which awaits no response to the requests of the former.
    /// `calls` knows the requests of ours that it is sent, or has yet to be sent again.
    fn on_new_peer(&mut self, calls: &dyn PendingMethods) {
        let _ = calls;
    }

    /// Returns the behaviour of connections with this framing. The default is that of MCP.
    fn properties(&self) -> FramingProperties {
        FramingProperties::default()
    }
}

impl<R: McpRole, F: Framing<R> + ?Sized> Framing<R> for Box<F> {
    fn encode(&mut self, message: &TxJsonRpcMessage<R>) -> Result<Option<Message>, MessageError> {
        (**self).encode(message)
    }

    fn decode(
        &mut self,
        message: Message,
        calls: &dyn PendingMethods,
    ) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
        (**self).decode(message, calls)
    }

    fn attribute_error(
        &mut self,
        message: &Message,
        calls: &dyn PendingMethods,
        error: ErrorData,
    ) -> DecodeError {
        (**self).attribute_error(message, calls, error)
    }

    fn decode_unauthenticated(
        &mut self,
        message: &Message,
    ) -> Option<Result<UnauthenticatedMessage, DecodeError>> {
        (**self).decode_unauthenticated(message)
    }

    fn enqueue_in_order(&mut self, message: Message) -> Option<Message> {
        (**self).enqueue_in_order(message)
    }

    fn next_reply(&mut self) -> Option<Message> {
        (**self).next_reply()
    }

    fn on_withdrawn(&mut self, id: &RequestId) {
        (**self).on_withdrawn(id);
    }

    fn on_resent(&mut self, id: &RequestId) {
        (**self).on_resent(id);
    }

    fn on_unanswered(&mut self, id: &RequestId) -> Result<(), CloseReason> {
        (**self).on_unanswered(id)
    }

    fn on_new_peer(&mut self, calls: &dyn PendingMethods) {
        (**self).on_new_peer(calls);
    }

    fn properties(&self) -> FramingProperties {
        (**self).properties()
    }
}
