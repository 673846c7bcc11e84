//! The forms that JSON-RPC messages take inside WebSocket messages.
//!
//! [`JsonRpc`] is MCP's own: one JSON-RPC message per text message, nothing around it.

mod json_rpc;

use rmcp::{
    ErrorData,
    model::RequestId,
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};

pub use self::json_rpc::{BinaryPolicy, JsonRpc};
use crate::{
    decode::{Calls, Malformed, Role},
    error::{CloseReason, MessageError},
    message::Message,
};

/// Translates between rmcp's messages of role `R` and WebSocket messages.
pub trait Framing<R: Role>: Send {
    /// The WebSocket message that stands for `message`.
    ///
    /// # Errors
    /// [`MessageError::Encode`] when it has no such form. The link lives on.
    fn encode(&mut self, message: &TxJsonRpcMessage<R>) -> Result<Message, MessageError>;

    /// What a text or binary message stands for; `None` when it means nothing to the service.
    ///
    /// `calls` knows the method of each request in flight, by which a response is decoded.
    ///
    /// # Errors
    /// [`Unreadable`] when it is not a message of this form.
    fn decode(
        &mut self,
        message: Message,
        calls: &dyn Calls,
    ) -> Result<Option<RxJsonRpcMessage<R>>, Unreadable>;
}

impl<R: Role, F: Framing<R> + ?Sized> Framing<R> for Box<F> {
    fn encode(&mut self, message: &TxJsonRpcMessage<R>) -> Result<Message, MessageError> {
        (**self).encode(message)
    }

    fn decode(
        &mut self,
        message: Message,
        calls: &dyn Calls,
    ) -> Result<Option<RxJsonRpcMessage<R>>, Unreadable> {
        (**self).decode(message, calls)
    }
}

/// A message that a [`Framing`] could not decode, and what becomes of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Unreadable {
    /// It asked for something: the peer is answered with this error, under its id if that could be
    /// read (JSON-RPC 2.0, section 5).
    Request {
        /// The id, where there was a readable one.
        id: Option<RequestId>,
        /// The answer.
        error: ErrorData,
    },
    /// It answered something: the request with this id, if one is in flight, ends with this error.
    /// The peer is not answered, or two ends could trade errors for ever.
    Response {
        /// The id, where there was a readable one.
        id: Option<RequestId>,
        /// What the caller is told.
        error: ErrorData,
    },
    /// Its kind is not accepted at all: the link is closed with this reason.
    Unacceptable(CloseReason),
}

impl From<Malformed> for Unreadable {
    fn from(malformed: Malformed) -> Self {
        let (id, error) = (malformed.id.clone(), malformed.error.clone());
        if malformed.is_response() {
            Self::Response { id, error }
        } else {
            Self::Request { id, error }
        }
    }
}
