//! JSON by members. Messages of a framing of its own are taken apart into members, and put together
//! again as JSON-RPC, which the typed decoder reads.

use rmcp::{
    ErrorData,
    model::RequestId,
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};
use serde::Serialize;
use serde_json::Value;

use super::decode_error::DecodeError;
use crate::{
    decode::{
        PendingMethods,
        json::{Raw, Reader, has_reserved_name, not_json, without_bom},
        typed::reserved_name,
    },
    error::MessageError,
    message::{Message, Text},
    role::McpRole,
};

/// Declares a struct of the members that a message may have. A member that is `null` counts as
/// absent.
macro_rules! members {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $($member:literal)|+,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub(super) struct $name<'a> {
            $(pub(super) $field: Option<$crate::decode::json::Raw<'a>>,)*
        }

        impl<'a> $crate::framing::json::Members<'a> for $name<'a> {
            fn member(
                &mut self,
                name: &str,
            ) -> Option<&mut Option<$crate::decode::json::Raw<'a>>> {
                match name {
                    $($($member)|+ => Some(&mut self.$field),)*
                    _ => None,
                }
            }

            fn without_nulls(mut self) -> Self {
                $(self.$field = self.$field.filter(|raw| !raw.is_null());)*
                self
            }
        }
    };
}
pub(super) use members;

/// A struct declared by [`members!`].
pub(super) trait Members<'a>: Default {
    /// Returns the field for the member of this name.
    fn member(&mut self, name: &str) -> Option<&mut Option<Raw<'a>>>;

    /// Clears the members that are `null`.
    fn without_nulls(self) -> Self;

    /// Takes an object apart, as far as it goes. A member that appears twice counts as absent.
    fn read(text: &'a str) -> (Self, Shape) {
        let mut members = Self::default();
        let mut is_repeated = false;
        let is_closed = Reader::new(text).object(|name, value| {
            let (Some(field), Some(value)) = (members.member(name), value) else { return };
            is_repeated |= field.is_some();
            *field = Some(if field.is_some() { Raw::NULL } else { value });
        });
        let shape = match (is_closed, is_repeated) {
            (false, _) => Shape::Open,
            (true, true) => Shape::Repeated,
            (true, false) => Shape::Object,
        };
        (members.without_nulls(), shape)
    }
}

/// Form of a text that [`Members::read`] has taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// An object.
    Object,
    /// An object in which a member appears twice.
    Repeated,
    /// An object that breaks off, or no object.
    Open,
}

members! {
    /// Members of a JSON-RPC message of this side.
    JsonRpcMembers { method: "method", params: "params", result: "result", error: "error", }
}

/// Encodes `message` as JSON-RPC.
pub(super) fn encode_json_rpc<R: McpRole>(
    message: &TxJsonRpcMessage<R>,
) -> Result<String, MessageError> {
    let json = R::encode(message).map_err(encode_error)?;
    String::from_utf8(json.into()).map_err(|error| encode_error(serde::ser::Error::custom(error)))
}

/// Encodes `value` as a text message.
pub(super) fn encode_text(value: &impl Serialize) -> Result<Message, MessageError> {
    to_json(value).map(text_message)
}

/// Encodes `value` as JSON.
pub(super) fn to_json(value: &impl Serialize) -> Result<String, MessageError> {
    serde_json::to_string(value).map_err(encode_error)
}

/// Converts `json` to a text message.
pub(super) fn text_message(json: String) -> Message {
    Message::Text(Text::from_validated(json.into()))
}

fn encode_error(error: serde_json::Error) -> MessageError {
    MessageError::Encode(error.into())
}

/// Writer of an object whose members are JSON already.
#[derive(Debug)]
pub(super) struct Object(String);

impl Object {
    pub(super) fn new() -> Self {
        Self("{".to_owned())
    }

    /// Adds a member, unless it is absent.
    pub(super) fn raw(mut self, name: &'static str, json: Option<&str>) -> Self {
        if let Some(json) = json {
            if self.0.len() > 1 {
                self.0.push(',');
            }
            self.0.push('"');
            self.0.push_str(name);
            self.0.push_str("\":");
            self.0.push_str(json);
        }
        self
    }

    pub(super) fn string(self, name: &'static str, value: &str) -> Self {
        let value = Value::from(value).to_string();
        self.raw(name, Some(&value))
    }

    pub(super) fn id(self, name: &'static str, id: Option<&RequestId>) -> Self {
        let id = id.map(|id| id.clone().into_json_value().to_string());
        self.raw(name, id.as_deref())
    }

    pub(super) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// Takes a message of the peer apart. Returns its fault too, if it has one.
///
/// Text that is not JSON is read as far as it goes, since it may name the request that its fault
/// concerns.
pub(super) fn read<'a, T: Members<'a>>(text: &'a str) -> (T, Shape, Option<ErrorData>) {
    let (members, shape) = T::read(text);
    let error = if has_reserved_name(text.as_bytes()) {
        Some(reserved_name())
    } else if let Some(error) = not_json(text.as_bytes()) {
        Some(ErrorData::parse_error(error, None))
    } else {
        let why = match shape {
            Shape::Object => None,
            Shape::Repeated => Some("a member appears twice"),
            Shape::Open => Some("not a JSON object"),
        };
        why.map(|why| ErrorData::invalid_request(why, None))
    };
    (members, shape, error)
}

/// Takes a member of a message apart; `None` if it is no object.
pub(super) fn read_object<'a, T: Members<'a>>(raw: Raw<'a>) -> Option<T> {
    let (members, shape) = T::read(raw.get());
    (shape == Shape::Object).then_some(members)
}

/// Returns the text of a data message, without a byte order mark; an error if it is not UTF-8.
pub(super) fn text_of(message: &Message) -> Option<Result<&str, DecodeError>> {
    let json = match message {
        Message::Text(text) => text.as_bytes(),
        Message::Binary(bytes) => bytes,
        _ => return None,
    };
    Some(str::from_utf8(without_bom(json)).map_err(|error| {
        let error = ErrorData::parse_error(format!("not JSON: {error}"), None);
        DecodeError::Request { id: None, error }
    }))
}

/// Returns the id of the request of ours that is called `id` on the wire, where all are strings.
pub(super) fn own_id(id: RequestId, calls: &dyn PendingMethods) -> RequestId {
    let number = id.to_string().parse().ok().map(RequestId::Number);
    number.filter(|number| calls.method(number).is_some()).unwrap_or(id)
}

/// Returns the error `-32600` for the request with this id.
pub(super) fn invalid_request(id: Option<RequestId>, what: &'static str) -> DecodeError {
    DecodeError::Request { id, error: ErrorData::invalid_request(what, None) }
}

/// Decodes a JSON-RPC message.
pub(super) fn decode_json_rpc<R: McpRole>(
    json: &str,
    calls: &dyn PendingMethods,
) -> Result<RxJsonRpcMessage<R>, DecodeError> {
    R::decode(json.as_bytes(), calls).map_err(|malformed| DecodeError::of::<R>(malformed, calls))
}

/// Writes a JSON-RPC request; without an id, a notification.
pub(super) fn request(id: Option<&RequestId>, method: &str, params: Option<&str>) -> String {
    let request = Object::new().raw("jsonrpc", Some("\"2.0\"")).id("id", id);
    request.string("method", method).raw("params", params).end()
}

/// Writes a JSON-RPC response, whose `member` is `result` or `error`.
pub(super) fn response(id: &RequestId, member: &'static str, json: &str) -> String {
    let response = Object::new().raw("jsonrpc", Some("\"2.0\"")).id("id", Some(id));
    response.raw(member, Some(json)).end()
}
