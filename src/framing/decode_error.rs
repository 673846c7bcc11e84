//! [`DecodeError`]: what becomes of a message that cannot be decoded.

use rmcp::{ErrorData, model::RequestId};
use serde_json::{Value, json};

use crate::{
    close::CloseReason,
    decode::{
        PendingMethods,
        malformed::{Malformed, MalformedKind},
        message::method_of_call,
    },
    role::McpRole,
};

/// Fault of a message that a [`Framing`](super::Framing) could not decode, which says what becomes
/// of it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum DecodeError {
    /// Fault of a request: the peer is answered with this error (JSON-RPC 2.0, section 5).
    Request {
        /// The id, where there was a readable one.
        id: Option<RequestId>,
        /// The answer.
        error: ErrorData,
    },
    /// Fault of a response: the request with this id, if one is in flight, ends with this error.
    /// Without an id the error goes up as a JSON-RPC error without one, and
    /// [`Correlation`](crate::layer::Correlation) decides whose it is.
    /// The peer is not answered, or two ends could trade errors for ever.
    Response {
        /// The id, where there was a readable one.
        id: Option<RequestId>,
        /// Error for the caller.
        error: ErrorData,
    },
    /// Fault of several responses in one message: each request in flight ends with this error.
    Responses {
        /// The ids.
        ids: Vec<RequestId>,
        /// The error for the callers.
        error: ErrorData,
        /// The answer to requests that came in the same message, if there were any.
        reply: Option<Box<ErrorData>>,
    },
    /// Fault of a notification, or of a response that nobody awaits any more: nobody is answered.
    Dropped {
        /// The fault of the message.
        error: ErrorData,
    },
    /// Message of a kind that is not accepted at all: the link is closed with this reason.
    Unacceptable(CloseReason),
}

impl DecodeError {
    /// Returns the cause in the crate's own words, which hold nothing of the peer's.
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
            // A message with the id of a request in flight and no method can only be meant as its
            // answer.
            Malformed { kind: K::Other | K::Fragment, id: Some(id), error, .. }
                if in_flight(&id) =>
            {
                Self::Response { id: Some(id), error: unreadable_answer(error) }
            }
            // Hardly any other message of a server begins like a response.
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
        let Malformed { error, id, kind, answers, has_requests } = malformed;
        if !answers.is_empty() {
            let reply = has_requests.then(|| Box::new(error.clone()));
            return Self::Responses { ids: answers, error: unreadable_answer(error), reply };
        }
        match kind {
            K::Response => Self::Response { id, error: unreadable_answer(error) },
            K::Notification => Self::Dropped { error },
            // The id may be cut short.
            K::Fragment => Self::Request { id: None, error },
            _ => Self::Request { id, error },
        }
    }
}

/// Builds the error that ends a call whose answer has this `error`. `data.reason` is `unreadable`,
/// and `data.outcome` says that the call may have run.
pub(crate) fn unreadable_answer(error: ErrorData) -> ErrorData {
    let mut data = json!({ "reason": "unreadable", "outcome": "outcome_unknown" });
    if let (Some(data), Some(Value::Object(more))) = (data.as_object_mut(), error.data) {
        data.extend(more);
    }
    let message = format!("the answer to this call could not be read: {}", error.message);
    ErrorData::new(error.code, message, Some(data))
}
