//! The forms that JSON-RPC messages take inside WebSocket messages.
//!
//! [`JsonRpc`] is MCP's own: one JSON-RPC message per text message, nothing around it. [`Envelope`] and
//! [`ToolCall`] are older than that binding, and still spoken. A form of your own is a [`Framing`] too:
//! `examples/broadcast.rs` has one.

mod envelope;
mod first;
mod json_rpc;
mod parts;
mod properties;
mod tool_call;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use rmcp::{
    ErrorData,
    model::RequestId,
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};

use serde_json::{Value, json};

pub use self::{
    envelope::Envelope,
    first::FirstMessage,
    json_rpc::{BinaryPolicy, JsonRpc},
    properties::{FramingProperties, InBandAuth},
    tool_call::ToolCall,
};
use crate::{
    decode::{Malformed, MalformedKind, McpRole, PendingMethods, method_of_call},
    error::{CloseReason, MessageError},
    message::Message,
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
    /// Where answers have an order of their own it is kept until it is the [next](Self::next_reply).
    fn enqueue_in_order(&mut self, message: Message) -> Option<Message> {
        Some(message)
    }

    /// Returns the next message that this framing sends by itself: the answer to a sign of life, an
    /// answer whose turn has come. Called after each message in either direction until there is none.
    fn next_reply(&mut self) -> Option<Message> {
        None
    }

    /// Notes that the request of ours with this id, which was encoded, is not sent after all.
    fn on_withdrawn(&mut self, id: &RequestId) {
        let _ = id;
    }

    /// Notes that the request of ours with this id was answered by a refusal, and is sent again as
    /// it was encoded.
    fn on_resent(&mut self, id: &RequestId) {
        let _ = id;
    }

    /// Notes that the peer is another from now on, and awaits no answer to what was asked before.
    fn on_new_peer(&mut self) {}

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

/// The longest name of a session, in bytes.
const MAX_SESSION_NAME: usize = 1024;

/// The name of the session that a connection carries, as its [`Framing`] and whoever makes the
/// connection both know it: a cheap handle. The name does not show in `Debug`.
#[derive(Clone, Default)]
pub struct SessionIdCell(Arc<Mutex<Option<Arc<str>>>>);

impl SessionIdCell {
    /// The name, if there is one.
    #[must_use]
    pub fn get(&self) -> Option<Arc<str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sets the name. One of more than 1,024 bytes counts as none: it would be in every message.
    pub fn set(&self, name: Option<String>) {
        let name = name.filter(|name| name.len() <= MAX_SESSION_NAME);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = name.map(Arc::from);
    }
}

impl fmt::Debug for SessionIdCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionIdCell(..)")
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

    fn on_new_peer(&mut self) {
        (**self).on_new_peer();
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

/// A message that a [`Framing`] could not decode, and what becomes of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum DecodeError {
    /// It asked for something: the peer is answered with this error, under its id if that could be
    /// read (JSON-RPC 2.0, section 5).
    Request {
        /// The id, where there was a readable one.
        id: Option<RequestId>,
        /// The answer.
        error: ErrorData,
    },
    /// It answered something: the request with this id, if one is in flight, ends with this error.
    /// Without an id the error goes up as a JSON-RPC error without one, and
    /// [`Correlation`](crate::layer::Correlation) decides whose it is.
    /// The peer is not answered, or two ends could trade errors for ever.
    Response {
        /// The id, where there was a readable one.
        id: Option<RequestId>,
        /// What the caller is told.
        error: ErrorData,
    },
    /// A message that answers several requests at once: each that is in flight ends with this
    /// error.
    Responses {
        /// The ids.
        ids: Vec<RequestId>,
        /// The error for the callers.
        error: ErrorData,
    },
    /// A notification, or an answer that nobody awaits any more: no one is answered, whatever is
    /// wrong with it.
    Dropped {
        /// The fault of the message.
        error: ErrorData,
    },
    /// Its kind is not accepted at all: the link is closed with this reason.
    Unacceptable(CloseReason),
}

impl DecodeError {
    /// The cause in the crate's own words, which hold nothing of the peer's.
    pub(crate) fn cause(&self) -> &str {
        match self {
            Self::Request { error, .. }
            | Self::Response { error, .. }
            | Self::Responses { error, .. }
            | Self::Dropped { error } => &error.message,
            Self::Unacceptable(reason) => &reason.reason,
        }
    }
}

impl DecodeError {
    /// Judges a malformed message of JSON-RPC that a role `R` has received.
    pub(crate) fn of<R: McpRole>(malformed: Malformed, calls: &dyn PendingMethods) -> Self {
        use MalformedKind as K;
        let in_flight = |id: &RequestId| method_of_call(calls, id).is_some();
        match malformed {
            // What has the id of a request in flight and no method can only be meant as its answer.
            Malformed { kind: K::Other | K::Fragment, id: Some(id), error, .. }
                if in_flight(&id) =>
            {
                Self::Response { id: Some(id), error: unreadable_answer(error) }
            }
            // A server hardly says anything else that begins so.
            Malformed { kind: K::Fragment, error, .. } if R::IS_CLIENT => {
                Self::Response { id: None, error: unreadable_answer(error) }
            }
            other => other.into(),
        }
    }
}

impl From<Malformed> for DecodeError {
    fn from(malformed: Malformed) -> Self {
        use MalformedKind as K;
        let Malformed { error, id, kind, answers } = malformed;
        if !answers.is_empty() {
            return Self::Responses { ids: answers, error: unreadable_answer(error) };
        }
        match kind {
            K::Response => Self::Response { id, error: unreadable_answer(error) },
            K::Notification => Self::Dropped { error },
            // Whether that is all of the id, nobody knows.
            K::Fragment => Self::Request { id: None, error },
            _ => Self::Request { id, error },
        }
    }
}

/// Makes the error with which a call ends whose answer has this `error`: `data.reason` is
/// `unreadable`, and `data.outcome` says that the call may have run.
pub(crate) fn unreadable_answer(error: ErrorData) -> ErrorData {
    let mut data = json!({ "reason": "unreadable", "outcome": "outcome_unknown" });
    if let (Some(data), Some(Value::Object(more))) = (data.as_object_mut(), error.data) {
        data.extend(more);
    }
    let message = format!("the answer to this call could not be read: {}", error.message);
    ErrorData::new(error.code, message, Some(data))
}
