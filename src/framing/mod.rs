//! The forms that JSON-RPC messages take inside WebSocket messages.
//!
//! [`JsonRpc`] is MCP's own: one JSON-RPC message per text message, nothing around it. [`Envelope`] and
//! [`ToolCall`] are older than that binding, and still spoken. A form of your own is a [`Framing`] too:
//! `examples/broadcast.rs` has one.

mod envelope;
mod first;
mod json_rpc;
mod manners;
mod parts;
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
    manners::{Greeting, Manners},
    tool_call::ToolCall,
};
use crate::{
    decode::{Malformed, MalformedKind, PendingMethods, Role, method_of_call},
    error::{CloseReason, MessageError},
    message::Message,
};

/// Translates between rmcp's messages of role `R` and WebSocket messages.
pub trait Framing<R: Role>: Send {
    /// The WebSocket message that stands for `message`; `None` when this form has nothing to say of
    /// it.
    ///
    /// # Errors
    /// [`MessageError::Encode`] when it cannot be said. The link lives on.
    fn encode(&mut self, message: &TxJsonRpcMessage<R>) -> Result<Option<Message>, MessageError>;

    /// What a text or binary message stands for; `None` when it means nothing to the service.
    ///
    /// `calls` knows the method of each request in flight, by which a response is decoded.
    ///
    /// # Errors
    /// [`Unreadable`] when it is not a message of this form.
    fn decode(
        &mut self,
        message: Message,
        calls: &dyn PendingMethods,
    ) -> Result<Option<RxJsonRpcMessage<R>>, Unreadable>;

    /// Says whom the `error` concerns for which a `message` is not decoded: it would take more
    /// memory than it may. By default the peer, without an id.
    fn refuse(
        &mut self,
        message: &Message,
        calls: &dyn PendingMethods,
        error: ErrorData,
    ) -> Unreadable {
        let _ = (message, calls);
        Unreadable::Request { id: None, error }
    }

    /// Reads a message of a peer that has yet to [authenticate within the
    /// connection](crate::server::Config::in_band_authentication): its token, and nothing else that
    /// would take memory. `None`, the default, has it [decoded](Self::decode) as any other; it is
    /// small.
    ///
    /// # Errors
    /// [`Unreadable`] when it is not a message of this form.
    fn first_message(&mut self, message: &Message) -> Option<Result<FirstMessage, Unreadable>> {
        let _ = message;
        None
    }

    /// What is sent now that `message`, the last that was encoded, may be: by default itself. Where
    /// answers have an order of their own it is kept until it is [owed](Self::owed).
    fn in_turn(&mut self, message: Message) -> Option<Message> {
        Some(message)
    }

    /// What this form has to say by itself: the answer to a sign of life, an answer whose turn has
    /// come. Asked after each message in either direction until there is no more. What an inbound
    /// message makes it say is dropped while too much waits to be sent.
    fn owed(&mut self) -> Option<Message> {
        None
    }

    /// The request of ours with this id, which was encoded, is not sent after all.
    fn withdraw(&mut self, id: &RequestId) {
        let _ = id;
    }

    /// The request of ours with this id was answered by a refusal, or has not been read, and is sent
    /// again as it was encoded, behind all others.
    fn asked_again(&mut self, id: &RequestId) {
        let _ = id;
    }

    /// The request of the peer with this id, which was refused, is not answered.
    ///
    /// # Errors
    /// The reason with which the connection is closed, where the answers to other requests would be
    /// taken for this one's.
    fn on_unanswered(&mut self, id: &RequestId) -> Result<(), CloseReason> {
        let _ = id;
        Ok(())
    }

    /// The peer is another from now on, and awaits no answer to what was asked before. `calls` knows
    /// the requests of ours that it is sent, or has yet to be sent again.
    fn restart(&mut self, calls: &dyn PendingMethods) {
        let _ = calls;
    }

    /// How connections of this form behave. By default as MCP has it.
    fn manners(&self) -> Manners {
        Manners::default()
    }

    /// The name of the session, where messages of this form say it: a server sets it when the
    /// session begins, and a client comes back by what it has read. By default they do not.
    fn session(&self) -> Option<SessionName> {
        None
    }

    /// Returns a `message` that was encoded for a former session as the present one needs it: by
    /// default unchanged.
    fn again(&self, message: Message) -> Message {
        message
    }
}

/// The longest name of a session, in bytes.
const MAX_SESSION_NAME: usize = 1024;

/// The name of the session that a connection carries, as its [`Framing`] and whoever makes the
/// connection both know it: a cheap handle. The name does not show in `Debug`.
#[derive(Clone, Default)]
pub struct SessionName(Arc<Mutex<Option<Arc<str>>>>);

impl SessionName {
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

impl fmt::Debug for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionName(..)")
    }
}

impl<R: Role, F: Framing<R> + ?Sized> Framing<R> for Box<F> {
    fn encode(&mut self, message: &TxJsonRpcMessage<R>) -> Result<Option<Message>, MessageError> {
        (**self).encode(message)
    }

    fn decode(
        &mut self,
        message: Message,
        calls: &dyn PendingMethods,
    ) -> Result<Option<RxJsonRpcMessage<R>>, Unreadable> {
        (**self).decode(message, calls)
    }

    fn refuse(
        &mut self,
        message: &Message,
        calls: &dyn PendingMethods,
        error: ErrorData,
    ) -> Unreadable {
        (**self).refuse(message, calls, error)
    }

    fn first_message(&mut self, message: &Message) -> Option<Result<FirstMessage, Unreadable>> {
        (**self).first_message(message)
    }

    fn in_turn(&mut self, message: Message) -> Option<Message> {
        (**self).in_turn(message)
    }

    fn owed(&mut self) -> Option<Message> {
        (**self).owed()
    }

    fn withdraw(&mut self, id: &RequestId) {
        (**self).withdraw(id);
    }

    fn asked_again(&mut self, id: &RequestId) {
        (**self).asked_again(id);
    }

    fn on_unanswered(&mut self, id: &RequestId) -> Result<(), CloseReason> {
        (**self).on_unanswered(id)
    }

    fn restart(&mut self, calls: &dyn PendingMethods) {
        (**self).restart(calls);
    }

    fn manners(&self) -> Manners {
        (**self).manners()
    }

    fn session(&self) -> Option<SessionName> {
        (**self).session()
    }

    fn again(&self, message: Message) -> Message {
        (**self).again(message)
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

impl Unreadable {
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

impl Unreadable {
    /// Judges a malformed message of JSON-RPC that a role `R` has received.
    pub(crate) fn of<R: Role>(malformed: Malformed, calls: &dyn PendingMethods) -> Self {
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

impl From<Malformed> for Unreadable {
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
