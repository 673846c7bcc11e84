//! What the forms that are not JSON-RPC's have in common: messages of theirs are taken apart into
//! members, and put together again as JSON-RPC, which the typed decoder reads.

use chrono::{SecondsFormat, Utc};
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
        self, PendingMethods,
        json::{Raw, Reader, fault, has_reserved_name, not_json, parse, without_bom},
    },
    encode,
    error::MessageError,
    message::{Message, Text},
    role::McpRole,
};

/// Declares a struct of the members that a message of some form may have. A member that is `null`
/// is none.
macro_rules! members {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $($member:literal)|+,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub(super) struct $name<'a> {
            $(pub(super) $field: Option<$crate::decode::json::Raw<'a>>,)*
        }

        impl<'a> $crate::framing::parts::Members<'a> for $name<'a> {
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

/// The members of a message.
pub(super) trait Members<'a>: Default {
    /// The place for a member of this name.
    fn member(&mut self, name: &str) -> Option<&mut Option<Raw<'a>>>;

    /// Takes out the members that are `null`.
    fn without_nulls(self) -> Self;

    /// Takes an object apart, as far as it goes. What appears twice is not there.
    fn read(text: &'a str) -> (Self, Shape) {
        let mut members = Self::default();
        let mut is_repeated = false;
        let is_closed = Reader::new(text).object(|name, value| {
            let (Some(place), Some(value)) = (members.member(name), value) else { return };
            is_repeated |= place.is_some();
            *place = Some(if place.is_some() { Raw::NULL } else { value });
        });
        let shape = match (is_closed, is_repeated) {
            (false, _) => Shape::Open,
            (true, true) => Shape::Repeated,
            (true, false) => Shape::Object,
        };
        (members.without_nulls(), shape)
    }
}

/// The form of what [`Members::read`] has taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// An object.
    Object,
    /// An object in which a member appears twice.
    Repeated,
    /// No object, or one that breaks off.
    Open,
}

members! {
    /// The members of a JSON-RPC message that is on its way out.
    Parts { method: "method", params: "params", result: "result", error: "error", }
}

/// `message` as JSON-RPC.
pub(super) fn json_rpc<R: McpRole>(message: &TxJsonRpcMessage<R>) -> Result<String, MessageError> {
    let json = encode::encode::<R>(message).map_err(unsaid)?;
    String::from_utf8(json).map_err(|error| unsaid(serde::ser::Error::custom(error)))
}

/// The members of a JSON-RPC message of ours.
pub(super) fn parts(json: &str) -> Parts<'_> {
    Parts::read(json).0
}

/// `value` as a text message.
pub(super) fn text(value: &impl Serialize) -> Result<Message, MessageError> {
    json(value).map(message)
}

/// `json` as a text message.
pub(super) fn message(json: String) -> Message {
    Message::Text(Text::from_validated(json.into()))
}

/// `value` as a part of a message.
pub(super) fn json(value: &impl Serialize) -> Result<String, MessageError> {
    serde_json::to_string(value).map_err(unsaid)
}

fn unsaid(error: serde_json::Error) -> MessageError {
    MessageError::Encode(error.into())
}

/// Writes an object of members that are JSON already.
#[derive(Debug)]
pub(super) struct Object(String);

impl Object {
    pub(super) fn new() -> Self {
        Self("{".to_owned())
    }

    /// Adds a member, if it is there.
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

/// Takes apart what the peer has sent, and says what is wrong with it.
///
/// Text that is not JSON is read all the same, as far as it goes: it may say whom its fault
/// concerns.
pub(super) fn read<'a, T: Members<'a>>(text: &'a str) -> (T, Shape, Option<ErrorData>) {
    let (members, shape) = T::read(text);
    let error = if has_reserved_name(text.as_bytes()) {
        Some(decode::reserved_name())
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

/// A part of it, taken apart, if it is an object.
pub(super) fn object<'a, T: Members<'a>>(raw: Raw<'a>) -> Option<T> {
    let (members, shape) = T::read(raw.get());
    (shape == Shape::Object).then_some(members)
}

/// The id of the request of ours that was called so on the wire, where all are strings.
pub(super) fn own(id: RequestId, calls: &dyn PendingMethods) -> RequestId {
    let number = id.to_string().parse().ok().map(RequestId::Number);
    number.filter(|number| calls.method(number).is_some()).unwrap_or(id)
}

pub(super) fn invalid(id: Option<RequestId>, what: &'static str) -> DecodeError {
    DecodeError::Request { id, error: ErrorData::invalid_request(what, None) }
}

/// A JSON-RPC message, decoded.
pub(super) fn assemble<R: McpRole>(
    json: &str,
    calls: &dyn PendingMethods,
) -> Result<RxJsonRpcMessage<R>, DecodeError> {
    decode::decode::<R>(json.as_bytes(), calls)
        .map_err(|malformed| DecodeError::of::<R>(malformed, calls))
}

/// A request of JSON-RPC; without an id, a notification.
pub(super) fn request(id: Option<&RequestId>, method: &str, params: Option<&str>) -> String {
    let request = Object::new().raw("jsonrpc", Some("\"2.0\"")).id("id", id);
    request.string("method", method).raw("params", params).end()
}

/// A response of JSON-RPC, whose `member` is `result` or `error`.
pub(super) fn response(id: &RequestId, member: &'static str, json: &str) -> String {
    let response = Object::new().raw("jsonrpc", Some("\"2.0\"")).id("id", Some(id));
    response.raw(member, Some(json)).end()
}

/// The params of `tools/call` of a tool, where the arguments are some.
pub(super) fn call(name: &str, arguments: Option<Raw<'_>>) -> Result<String, ErrorData> {
    if arguments.is_some_and(|arguments| !arguments.is_object()) {
        return Err(ErrorData::invalid_params("the arguments of a tool are an object", None));
    }
    let arguments = arguments.map(Raw::get);
    Ok(Object::new().string("name", name).raw("arguments", arguments).end())
}

/// What a tool has answered, as those see it who know nothing of MCP.
pub(super) enum Outcome<'a> {
    /// The structured content; without such, the whole result.
    Result(Raw<'a>),
    /// What is to be said of its failure.
    Failed(String),
}

members! {
    Answer { structured_content: "structuredContent", is_error: "isError", content: "content", }
}

impl<'a> Outcome<'a> {
    /// Of the result of `tools/call`.
    pub(super) fn of(result: Raw<'a>) -> Self {
        let Some(answer) = object::<Answer<'_>>(result) else { return Self::Result(result) };
        match (answer.is_error.and_then(Raw::parse), answer.structured_content) {
            (Some(true), _) => Self::Failed(words(answer.content)),
            (_, Some(content)) => Self::Result(content),
            _ => Self::Result(result),
        }
    }
}

/// The text in the content of a result.
fn words(content: Option<Raw<'_>>) -> String {
    let content = content.and_then(Raw::parse);
    let Some(Value::Array(blocks)) = content else { return "the tool failed".to_owned() };
    let texts: Vec<_> = blocks.iter().filter_map(|block| block.get("text")?.as_str()).collect();
    match texts.is_empty() {
        true => "the tool failed".to_owned(),
        false => texts.join("\n"),
    }
}

/// What stands for a tool's answer of those who know nothing of MCP: the result of `tools/call`.
pub(super) fn tool_result(content: Raw<'_>) -> String {
    let text = Object::new().string("type", "text").string("text", content.get()).end();
    let is_structured = content.is_object() && fault(content.get()).is_none();
    let structured = is_structured.then_some(content.get());
    let result = Object::new().raw("content", Some(&format!("[{text}]")));
    result.raw("structuredContent", structured).end()
}

/// The text of a message that may hold JSON, without a byte order mark; an error where it is not
/// UTF-8.
pub(super) fn data(message: &Message) -> Option<Result<&str, DecodeError>> {
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

/// Largest message that may be the verdict on a token, in bytes.
const MAX_VERDICT: usize = 64 << 10;

/// Decodes a message that may be the verdict on a token. A larger one cannot be, and is not decoded,
/// since that may take a hundred times its size.
pub(super) fn verdict(message: &Message) -> Option<Value> {
    if message.len() > MAX_VERDICT {
        return None;
    }
    parse(data(message)?.ok()?).ok()
}

/// The words of an error: its `message`, or what it is itself.
pub(super) fn words_of(error: &Value) -> String {
    let message = error.get("message").unwrap_or(error);
    message.as_str().map_or_else(|| message.to_string(), str::to_owned)
}

/// The present moment in UTC, by the millisecond (ISO 8601, as JavaScript has it).
pub(super) fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The present moment in milliseconds since 1970.
pub(super) fn millis() -> i64 {
    Utc::now().timestamp_millis()
}
