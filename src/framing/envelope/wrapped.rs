//! The envelope of SEP-1288's first revision: `{"type":"mcp","mcpSessionId":…,"payload":…}`.

use rmcp::{ErrorData, model::JsonRpcMessage, service::RxJsonRpcMessage};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Opened;
use crate::{
    decode::{self, Calls, Malformed, MalformedKind, Role},
    error::MessageError,
    framing::{
        SessionName, Unreadable,
        parts::{self, invalid, parse},
    },
    message::Message,
};

#[derive(Serialize)]
struct Wrapped<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "mcpSessionId", skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    payload: &'a RawValue,
}

/// Puts JSON-RPC into an envelope that names the session.
pub(super) fn seal(json: &[u8], session: &SessionName) -> Result<Message, MessageError> {
    let payload =
        serde_json::from_slice(json).map_err(|error| MessageError::Encode(error.into()))?;
    let name = session.get();
    parts::text(&Wrapped { kind: "mcp", session_id: name.as_deref(), payload })
}

/// Names the present session in a `message` of a former one.
pub(super) fn again(message: Message, session: &SessionName) -> Message {
    let renamed = match &message {
        Message::Text(text) => Opened::read(text.as_bytes()).ok().and_then(|opened| {
            let payload = opened.payload?;
            seal(payload.get().as_bytes(), session).ok()
        }),
        _ => None,
    };
    renamed.unwrap_or(message)
}

/// Takes JSON-RPC out of its envelope.
pub(super) fn open<R: Role>(
    opened: &Opened<'_>,
    session: &SessionName,
    calls: &dyn Calls,
) -> Result<Option<RxJsonRpcMessage<R>>, Unreadable> {
    let Some(payload) = opened.payload else { return Err(invalid(None, "`payload` is missing")) };
    let message =
        decode::decode::<R>(payload.get().as_bytes(), calls).map_err(
            |malformed| match malformed {
                Malformed { kind: MalformedKind::Other, id: Some(id), error }
                    if calls.method(&id).is_some() =>
                {
                    Unreadable::Response { id: Some(id), error }
                }
                other => other.into(),
            },
        )?;
    // Of the wrong type it is the name of no session.
    let named = opened.session_id.map(parse::<Option<String>>);
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
            Err(Unreadable::Request { id: Some(request.id), error })
        }
        JsonRpcMessage::Notification(_) if is_wrong => {
            tracing::debug!("notification dropped: it is for another session");
            Ok(None)
        }
        message => Ok(Some(message)),
    }
}
