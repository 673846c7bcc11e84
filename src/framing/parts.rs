//! What the forms that are not JSON-RPC's have in common: messages of theirs are taken apart into
//! members, and put together again as JSON-RPC, which the typed decoder reads.

use chrono::{SecondsFormat, Utc};
use rmcp::{
    ErrorData,
    model::RequestId,
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};
use serde::{Deserialize, Serialize};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

use super::Unreadable;
use crate::{
    decode::{self, Calls, Role},
    encode,
    error::MessageError,
    message::{Message, Text},
};

/// The members of a JSON-RPC message that is on its way out.
#[derive(Deserialize)]
pub(super) struct Parts<'a> {
    #[serde(borrow)]
    pub(super) method: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) params: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) result: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
}

/// `message` as JSON-RPC.
pub(super) fn json_rpc<R: Role>(message: &TxJsonRpcMessage<R>) -> Result<Vec<u8>, MessageError> {
    encode::encode::<R>(message).map_err(unsaid)
}

/// The members of a JSON-RPC message.
pub(super) fn parts(json: &[u8]) -> Result<Parts<'_>, MessageError> {
    serde_json::from_slice(json).map_err(unsaid)
}

/// `value` as a text message.
pub(super) fn text(value: &impl Serialize) -> Result<Message, MessageError> {
    let json = serde_json::to_vec(value).map_err(unsaid)?;
    Ok(Message::Text(Text::trusted(json.into())))
}

/// `value` as a part of a message.
pub(super) fn raw(value: &impl Serialize) -> Result<Box<RawValue>, MessageError> {
    to_raw_value(value).map_err(unsaid)
}

fn unsaid(error: serde_json::Error) -> MessageError {
    MessageError::Encode(error.into())
}

/// What the peer has sent, an object.
pub(super) fn read<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, Unreadable> {
    let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
    // A list would be taken for the members of a struct, one after the other.
    let is_list = json.trim_ascii_start().starts_with(b"[");
    match serde_json::from_slice(json) {
        Ok(value) if !is_list => Ok(value),
        Err(error) if !error.is_data() => {
            let error = ErrorData::parse_error(format!("not JSON: {error}"), None);
            Err(Unreadable::Request { id: None, error })
        }
        _ => Err(invalid(None, "no object, or a member appears twice")),
    }
}

/// A part of it, if it is an object like that.
pub(super) fn object<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    raw.get().starts_with('{').then(|| parse(raw)).flatten()
}

/// A part of it, if it is of that type.
pub(super) fn parse<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

/// The id of the request of ours that was called so on the wire, where all are strings.
pub(super) fn own(id: RequestId, calls: &dyn Calls) -> RequestId {
    let number = id.to_string().parse().ok().map(RequestId::Number);
    number.filter(|number| calls.method(number).is_some()).unwrap_or(id)
}

pub(super) fn invalid(id: Option<RequestId>, what: &'static str) -> Unreadable {
    Unreadable::Request { id, error: ErrorData::invalid_request(what, None) }
}

/// A JSON-RPC message of these members, decoded.
pub(super) fn assemble<R: Role>(
    message: &impl Serialize,
    calls: &dyn Calls,
) -> Result<RxJsonRpcMessage<R>, Unreadable> {
    let json = serde_json::to_vec(message).map_err(|error| Unreadable::Request {
        id: None,
        error: ErrorData::internal_error(error.to_string(), None),
    })?;
    Ok(decode::decode::<R>(&json, calls)?)
}

/// A request of JSON-RPC.
#[derive(Serialize)]
pub(super) struct Request<'a, P: Serialize> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a RequestId>,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<P>,
}

impl<'a, P: Serialize> Request<'a, P> {
    pub(super) fn new(id: &'a RequestId, method: &'a str, params: Option<P>) -> Self {
        Self { jsonrpc: "2.0", id: Some(id), method, params }
    }

    pub(super) fn notification(method: &'a str, params: Option<P>) -> Self {
        Self { jsonrpc: "2.0", id: None, method, params }
    }
}

/// A response of JSON-RPC.
#[derive(Serialize)]
pub(super) struct Response<'a> {
    jsonrpc: &'static str,
    id: &'a RequestId,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RawValue>,
}

impl<'a> Response<'a> {
    pub(super) fn result(id: &'a RequestId, result: &'a RawValue) -> Self {
        Self { jsonrpc: "2.0", id, result: Some(result), error: None }
    }

    pub(super) fn error(id: &'a RequestId, error: &'a RawValue) -> Self {
        Self { jsonrpc: "2.0", id, result: None, error: Some(error) }
    }
}

/// The params of `tools/call`.
#[derive(Serialize)]
pub(super) struct Call<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<&'a RawValue>,
}

impl<'a> Call<'a> {
    /// Of a tool, where the arguments are some.
    pub(super) fn new(name: &'a str, arguments: Option<&'a RawValue>) -> Result<Self, ErrorData> {
        match arguments.map(RawValue::get) {
            None | Some("null") => Ok(Self { name, arguments: None }),
            Some(object) if object.starts_with('{') => Ok(Self { name, arguments }),
            Some(_) => {
                Err(ErrorData::invalid_params("the arguments of a tool are an object", None))
            }
        }
    }
}

/// What a tool has answered, as those see it who know nothing of MCP.
pub(super) enum Outcome {
    /// The structured content; without such, the whole result.
    Result(Box<RawValue>),
    /// What is to be said of its failure.
    Failed(String),
}

impl Outcome {
    /// Of the result of `tools/call`.
    pub(super) fn of(result: &RawValue) -> Self {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer<'a> {
            #[serde(borrow)]
            structured_content: Option<&'a RawValue>,
            #[serde(default)]
            is_error: Option<bool>,
            #[serde(borrow)]
            content: Option<&'a RawValue>,
        }
        let Ok(answer) = serde_json::from_str::<Answer<'_>>(result.get()) else {
            return Self::Result(result.to_owned());
        };
        match answer {
            Answer { is_error: Some(true), content, .. } => Self::Failed(words(content)),
            Answer { structured_content: Some(content), .. } => Self::Result(content.to_owned()),
            _ => Self::Result(result.to_owned()),
        }
    }
}

/// The text in the content of a result.
fn words(content: Option<&RawValue>) -> String {
    let content = content.and_then(|content| serde_json::from_str(content.get()).ok());
    let Some(Value::Array(blocks)) = content else { return "the tool failed".to_owned() };
    let texts: Vec<_> = blocks.iter().filter_map(|block| block.get("text")?.as_str()).collect();
    match texts.is_empty() {
        true => "the tool failed".to_owned(),
        false => texts.join("\n"),
    }
}

/// What stands for a tool's answer of those who know nothing of MCP: the result of `tools/call`.
pub(super) fn tool_result(content: &RawValue) -> Value {
    let text = content.get();
    let structured = serde_json::from_str::<Value>(text).ok().filter(Value::is_object);
    let mut result = serde_json::json!({ "content": [{ "type": "text", "text": text }] });
    if let Some(structured) = structured {
        result["structuredContent"] = structured;
    }
    result
}

/// What is in a message that may hold JSON.
pub(super) fn data(message: &Message) -> Option<&[u8]> {
    match message {
        Message::Text(text) => Some(text.as_bytes()),
        Message::Binary(bytes) => Some(bytes),
        _ => None,
    }
}

/// A message as JSON, if it is some.
pub(super) fn value(message: &Message) -> Option<Value> {
    serde_json::from_slice(data(message)?).ok()
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
