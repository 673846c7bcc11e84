//! The session id in messages, as SEP-1288 has it.
//!
//! `mcpSessionId` stands in the result of `initialize` and in the params of what the client sends
//! from then on; in the first revision, in an envelope around each message:
//! `{"type":"mcp","mcpSessionId":…,"payload":…}`.

use std::any::Any;

use rmcp::{
    ErrorData,
    model::{JsonRpcMessage, ServerResult},
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    decode_error::DecodeError,
    json::{Members as _, Object, decode_json_rpc, invalid_request, members, text_message},
    properties::SessionIdField,
    session_id::SessionIdCell,
};
use crate::{
    decode::{
        PendingMethods,
        json::{Raw, Reader, without_bom},
        method::Method,
    },
    message::{Message, Text},
    role::McpRole,
};

const MEMBER: &str = "mcpSessionId";

/// Writer and reader of the members of one connection.
#[derive(Debug, Default)]
pub(super) struct SessionIdMembers {
    session: SessionIdCell,
}

/// Returns members for another connection.
impl Clone for SessionIdMembers {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl SessionIdMembers {
    /// Returns the property of a framing with these members.
    pub(super) fn property(&self) -> SessionIdField {
        SessionIdField::new(self.session.clone(), rename_in_params)
    }

    /// Adds the session id to the `json` of `message`, if it belongs there.
    pub(super) fn write<R: McpRole>(&self, message: &TxJsonRpcMessage<R>, json: &mut Vec<u8>) {
        let write = match message {
            JsonRpcMessage::Request(request)
                if R::IS_CLIENT && R::method_of(&request.request) != Method::Initialize =>
            {
                write_params
            }
            JsonRpcMessage::Notification(_) if R::IS_CLIENT => write_params,
            JsonRpcMessage::Response(response) if is_initialize_result(&response.result) => {
                write_result
            }
            _ => return,
        };
        if let Some(id) = self.session.get()
            && let Ok(id) = serde_json::to_string(&*id)
        {
            write(json, &id);
        }
    }

    /// Reads the session id in the `json` of an inbound `message`. Returns the message unless it is
    /// for another session.
    pub(super) fn read<R: McpRole>(
        &self,
        message: RxJsonRpcMessage<R>,
        json: &[u8],
    ) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
        match message {
            JsonRpcMessage::Response(response) if R::IS_CLIENT => {
                if R::initialize_result(&response.result).is_some() {
                    let answer = parse::<InitializeResponse>(json);
                    self.session.set(answer.and_then(|answer| answer.result.id));
                }
                Ok(Some(JsonRpcMessage::Response(response)))
            }
            JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_)
                if !R::IS_CLIENT && self.is_wrong(json) =>
            {
                reject::<R>(message)
            }
            message => Ok(Some(message)),
        }
    }

    /// Returns `true` if the message has the id of another session.
    fn is_wrong(&self, json: &[u8]) -> bool {
        // Cheaper than to parse, and most have none.
        if !str::from_utf8(json).is_ok_and(|json| json.contains(MEMBER)) {
            return false;
        }
        let Some(id) = self.session.get() else { return false };
        match parse::<RequestWithParams>(json) {
            Some(RequestWithParams { params: Some(WithSessionId { id: Some(found) }) }) => {
                *found != *id
            }
            Some(_) => false,
            None => true,
        }
    }
}

#[derive(Deserialize)]
struct InitializeResponse {
    result: WithSessionId,
}

#[derive(Deserialize)]
struct RequestWithParams {
    params: Option<WithSessionId>,
}

#[derive(Deserialize)]
struct WithSessionId {
    #[serde(rename = "mcpSessionId")]
    id: Option<String>,
}

/// Returns the params of a message of this side, also if they are `null`; `None` if it is no
/// object.
fn params(json: &[u8]) -> Option<Option<Raw<'_>>> {
    let mut params = None;
    let text = str::from_utf8(json).ok()?;
    let is_closed = Reader::new(text).object(|name, value| {
        if name == "params" {
            params = value;
        }
    });
    is_closed.then_some(params)
}

fn parse<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Option<T> {
    serde_json::from_slice(without_bom(json)).ok()
}

fn is_initialize_result(result: &dyn Any) -> bool {
    matches!(result.downcast_ref(), Some(ServerResult::InitializeResult(_)))
}

/// Appends `id` to the members of the result of `initialize`, of which there are some.
fn write_result(json: &mut Vec<u8>, id: &str) {
    if json.ends_with(b"}}") {
        json.truncate(json.len() - 2);
        json.extend_from_slice(format!(",\"{MEMBER}\":{id}}}}}").as_bytes());
    }
}

/// Inserts `id` before the other params, if there are any, unless they have one or are a list.
fn write_params(json: &mut Vec<u8>, id: &str) {
    let Some(params) = params(json) else { return };
    let Some(params) = params else {
        json.pop();
        json.extend_from_slice(format!(",\"params\":{{\"{MEMBER}\":{id}}}}}").as_bytes());
        return;
    };
    let start = params.get().as_ptr() as usize - json.as_ptr() as usize;
    if params.get() == "null" {
        json.splice(start..start + 4, format!("{{\"{MEMBER}\":{id}}}").into_bytes());
        return;
    }
    let Some(members) = params.get().strip_prefix('{') else { return };
    if params.get().contains(MEMBER)
        && serde_json::from_str(params.get())
            .map_or(true, |found: WithSessionId| found.id.is_some())
    {
        return;
    }
    let comma = if members.trim_start() == "}" { "" } else { "," };
    json.splice(start + 1..start + 1, format!("\"{MEMBER}\":{id}{comma}").into_bytes());
}

/// Removes what [`write_params`] has inserted.
fn remove_from_params(json: &mut Vec<u8>) {
    let Some(Some(params)) = params(json) else { return };
    let Some(value) = params.get().strip_prefix(&format!("{{\"{MEMBER}\":")) else { return };
    let mut reader = Reader::new(value);
    if reader.value().is_none() {
        return;
    }
    let rest = &value[reader.position()..];
    let rest = rest.strip_prefix(',').unwrap_or(rest);
    let base = json.as_ptr() as usize;
    let (start, end) = (params.get().as_ptr() as usize + 1 - base, rest.as_ptr() as usize - base);
    json.drain(start..end);
}

/// Replaces the session id in the params of a `message` of this side.
fn rename_in_params(message: Message, id: Option<&str>) -> Message {
    let Message::Text(json) = message else { return message };
    let mut json = json.as_bytes().to_vec();
    remove_from_params(&mut json);
    if let Some(id) = id {
        write_params(&mut json, &Value::from(id).to_string());
    }
    Message::Text(Text::from_validated(json.into()))
}

/// Refuses a `message` for another session. A request is answered with `-32602`, a notification
/// dropped.
fn reject<R: McpRole>(
    message: RxJsonRpcMessage<R>,
) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
    if let JsonRpcMessage::Request(request) = message {
        let error = ErrorData::invalid_params("Invalid mcpSessionId", None);
        return Err(DecodeError::Request { id: Some(request.id), error });
    }
    tracing::debug!("notification dropped: it is for another session");
    Ok(None)
}

members! {
    /// Members of an envelope that are replaced.
    Envelope { payload: "payload", }
}

/// Returns the property of a framing with an envelope that has the id of `session`.
pub(super) fn envelope_property(session: &SessionIdCell) -> SessionIdField {
    SessionIdField::new(session.clone(), rename_in_envelope)
}

/// Puts a JSON-RPC message into an envelope with the session id.
pub(super) fn seal(json: &str, id: Option<&str>) -> Message {
    let id = id.map(|id| Value::from(id).to_string());
    let sealed = Object::new().raw("type", Some("\"mcp\"")).raw(MEMBER, id.as_deref());
    text_message(sealed.raw("payload", Some(json)).end())
}

/// Replaces the session id in the envelope of a `message` of this side.
fn rename_in_envelope(message: Message, id: Option<&str>) -> Message {
    let renamed = match &message {
        Message::Text(text) => {
            Envelope::read(text.as_str()).0.payload.map(|payload| seal(payload.get(), id))
        }
        _ => None,
    };
    renamed.unwrap_or(message)
}

/// Takes a JSON-RPC message out of its envelope, which has these members.
pub(super) fn open<R: McpRole>(
    payload: Option<Raw<'_>>,
    session_id: Option<Raw<'_>>,
    session: &SessionIdCell,
    calls: &dyn PendingMethods,
) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
    let Some(payload) = payload else {
        return Err(invalid_request(None, "`payload` is missing"));
    };
    let message = decode_json_rpc::<R>(payload.get(), calls)?;
    // A value that is no string is the id of no session.
    let read = session_id.map(Raw::parse::<Option<String>>);
    let (is_invalid, id) = (read == Some(None), read.flatten().flatten());
    if R::IS_CLIENT {
        if let Some(id) = id.filter(|id| !id.is_empty()) {
            session.set(Some(id));
        }
        return Ok(Some(message));
    }
    let is_wrong = match (session.get(), &id) {
        (Some(own), Some(id)) => !id.is_empty() && *id != *own,
        (Some(_), None) => is_invalid,
        _ => false,
    };
    match message {
        JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) if is_wrong => {
            reject::<R>(message)
        }
        message => Ok(Some(message)),
    }
}

#[cfg(test)]
mod tests;
