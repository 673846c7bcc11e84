//! The envelope of SEP-1288's first revision: `{"type":"mcp","mcpSessionId":…,"payload":…}`.

use rmcp::{ErrorData, model::JsonRpcMessage, service::RxJsonRpcMessage};
use serde_json::Value;

use super::wire::Opened;
use crate::{
    decode::{PendingMethods, json::Raw},
    framing::{
        decode_error::DecodeError,
        parts::{self, Members as _, invalid},
        session_id::SessionIdCell,
    },
    message::Message,
    role::McpRole,
};

/// Puts JSON-RPC into an envelope that names the session.
pub(super) fn seal(json: &str, session: &SessionIdCell) -> Message {
    let name = session.get().map(|name| Value::from(&*name).to_string());
    let sealed = parts::Object::new().raw("type", Some("\"mcp\""));
    parts::message(sealed.raw("mcpSessionId", name.as_deref()).raw("payload", Some(json)).end())
}

/// Names the present session in a `message` of a former one.
pub(super) fn reencode(message: Message, session: &SessionIdCell) -> Message {
    let renamed = match &message {
        Message::Text(text) => {
            Opened::read(text.as_str()).0.payload.map(|payload| seal(payload.get(), session))
        }
        _ => None,
    };
    renamed.unwrap_or(message)
}

/// Takes JSON-RPC out of its envelope.
pub(super) fn open<R: McpRole>(
    opened: &Opened<'_>,
    session: &SessionIdCell,
    calls: &dyn PendingMethods,
) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
    let Some(payload) = opened.payload else { return Err(invalid(None, "`payload` is missing")) };
    let message = parts::assemble::<R>(payload.get(), calls)?;
    // Of the wrong type it is the name of no session.
    let named = opened.session_id.map(Raw::parse::<Option<String>>);
    let (is_none, named) = (named == Some(None), named.flatten().flatten());
    if R::IS_CLIENT {
        if let Some(name) = named.filter(|name| !name.is_empty()) {
            session.set(Some(name));
        }
        return Ok(Some(message));
    }
    let is_wrong = match (session.get(), &named) {
        (Some(name), Some(named)) => !named.is_empty() && *named != *name,
        (Some(_), None) => is_none,
        _ => false,
    };
    match message {
        JsonRpcMessage::Request(request) if is_wrong => {
            let error = ErrorData::invalid_params("Invalid mcpSessionId", None);
            Err(DecodeError::Request { id: Some(request.id), error })
        }
        JsonRpcMessage::Notification(_) if is_wrong => {
            tracing::debug!("notification dropped: it is for another session");
            Ok(None)
        }
        message => Ok(Some(message)),
    }
}
