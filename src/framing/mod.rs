//! The forms that JSON-RPC messages take inside WebSocket messages.
//!
//! [`JsonRpc`] is MCP's own: one JSON-RPC message per text message, nothing around it. [`Envelope`] and
//! [`ToolCall`] are older than that binding, and still spoken. A form of your own is a [`Framing`] too:
//! `examples/broadcast/framing.rs` has one.

pub(crate) mod decode_error;
mod envelope;
pub(crate) mod first;
pub(crate) mod json_rpc;
mod parts;
pub(crate) mod properties;
pub(crate) mod session_id;
mod tool_call;

use rmcp::{
    ErrorData,
    model::RequestId,
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};

pub use self::{
    decode_error::DecodeError,
    envelope::Envelope,
    first::FirstMessage,
    json_rpc::{BinaryPolicy, JsonRpc},
    properties::{FramingProperties, InBandAuth},
    session_id::SessionIdCell,
    tool_call::ToolCall,
};
use crate::{
    decode::PendingMethods,
    error::{CloseReason, MessageError},
    message::Message,
    role::McpRole,
};

/// Translates between rmcp's messages of role `R` and WebSocket messages.
pub trait Framing<R: McpRole>: Send {
    /// Encodes `message`; `None` if this framing has no message for it.
    ///
    /// # Errors
    /// [`MessageError::Encode`] when it cannot be said. The link lives on.
    fn encode(&mut self, message: &TxJsonRpcMessage<R>) -> Result<Option<Message>, MessageError>;

    /// Decodes a text or binary message; `None` if it means nothing to the service.
    ///
    /// `calls` knows the method of each request in flight, by which a response is decoded.
    ///
    /// # Errors
    /// [`DecodeError`] when it is not a message of this framing.
    fn decode(
        &mut self,
        message: Message,
        calls: &dyn PendingMethods,
    ) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError>;

    /// Says whom the `error` concerns for which a `message` is not decoded: it would take more
    /// memory than it may. By default the peer, without an id.
    fn refuse(
        &mut self,
        message: &Message,
        calls: &dyn PendingMethods,
        error: ErrorData,
    ) -> DecodeError {
        let _ = (message, calls);
        DecodeError::Request { id: None, error }
    }

    /// Reads a message of a peer that has yet to [authenticate within the
    /// connection](crate::server::Config::in_band_authentication): its token, and nothing else that
    /// would take memory. `None`, the default, has it [decoded](Self::decode) as any other; it is
    /// small.
    ///
    /// # Errors
    /// [`DecodeError`] when it is not a message of this framing.
    fn first_message(&mut self, message: &Message) -> Option<Result<FirstMessage, DecodeError>> {
        let _ = message;
        None
    }

    /// Returns what is sent now that `message`, the last that was encoded, may be: by default itself.
    /// A framing whose answers have an order keeps it until it is the [next](Self::next_reply).
    fn enqueue_in_order(&mut self, message: Message) -> Option<Message> {
        Some(message)
    }

    /// Returns the next message that this framing sends by itself: the answer to a sign of life, an
    /// answer whose turn has come. Called after each message in either direction until there is none.
    /// The replies that an inbound message causes are dropped while too much waits to be sent.
    fn next_reply(&mut self) -> Option<Message> {
        None
    }

    /// Notes that the request of ours with this id, which was encoded, is not sent after all.
    fn on_withdrawn(&mut self, id: &RequestId) {
        let _ = id;
    }

    /// Notes that the request of ours with this id was answered by a refusal, or has not been read,
    /// and is sent again as it was encoded, behind all others.
    fn on_resent(&mut self, id: &RequestId) {
        let _ = id;
    }

    /// Notes that the request of the peer with this id, which was refused, is not answered.
    ///
    /// # Errors
    /// The reason with which the connection is closed, where the answers to other requests would be
    /// taken for this one's.
    fn on_unanswered(&mut self, id: &RequestId) -> Result<(), CloseReason> {
        let _ = id;
        Ok(())
    }

    /// Notes that the peer is another from now on, and awaits no answer to what was asked before.
    /// `calls` knows the requests of ours that it is sent, or has yet to be sent again.
    fn on_new_peer(&mut self, calls: &dyn PendingMethods) {
        let _ = calls;
    }

    /// Returns how connections with this framing behave. By default as MCP has it.
    fn properties(&self) -> FramingProperties {
        FramingProperties::default()
    }

    /// Returns the id of the session, where messages of this framing name it: a server sets it when
    /// the session begins, and a client comes back by what it has read. By default they do not.
    fn session_id(&self) -> Option<SessionIdCell> {
        None
    }

    /// Returns a `message` that was encoded for a former session as the present one needs it: by
    /// default unchanged.
    fn reencode(&self, message: Message) -> Message {
        message
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

    fn refuse(
        &mut self,
        message: &Message,
        calls: &dyn PendingMethods,
        error: ErrorData,
    ) -> DecodeError {
        (**self).refuse(message, calls, error)
    }

    fn first_message(&mut self, message: &Message) -> Option<Result<FirstMessage, DecodeError>> {
        (**self).first_message(message)
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

    fn session_id(&self) -> Option<SessionIdCell> {
        (**self).session_id()
    }

    fn reencode(&self, message: Message) -> Message {
        (**self).reencode(message)
    }
}
