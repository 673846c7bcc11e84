//! Encoding of the messages of rmcp's own roles.
//!
//! rmcp serialises the params of a request or notification by way of a `Value`, in order to merge
//! the metadata that may be kept in three places. Where there is at most one of them, the params
//! of the frequent messages are written here directly; everything else is left to rmcp.

use std::{any::Any, ops::Deref};

use rmcp::{
    model::{
        ClientNotification, ClientRequest, ConstString, Extensions, JsonRpcMessage, MetaObject,
        Notification, NotificationMetaObject, Request, RequestId, RequestMetaObject,
        RequestParamsMeta, ServerNotification,
    },
    service::{ServiceRole, TxJsonRpcMessage},
};
use serde::Serialize;

use super::json;

/// Room for a request, in bytes. rmcp puts what describes the client into the metadata of each.
const REQUEST: usize = 512;

/// Room for any other message, in bytes.
const OTHER: usize = 256;

/// Form in which rmcp writes absent params.
const NO_PARAMS: &[u8] = br#","params":null}"#;

/// Encodes one message that a role `R` sends, as [`encode`](super::encode) says.
pub(crate) fn encode<R: ServiceRole>(
    message: &TxJsonRpcMessage<R>,
) -> Result<Vec<u8>, serde_json::Error> {
    let room = if matches!(message, JsonRpcMessage::Request(_)) { REQUEST } else { OTHER };
    let mut out = Vec::with_capacity(room);
    let done = match message {
        JsonRpcMessage::Request(message) => write_request(&mut out, &message.id, &message.request)?,
        JsonRpcMessage::Notification(message) => {
            write_notification(&mut out, &message.notification)?
        }
        JsonRpcMessage::Response(message) => {
            write_answer(&mut out, Some(&message.id), br#","result":"#, &message.result)?
        }
        JsonRpcMessage::Error(message) => {
            write_answer(&mut out, message.id.as_ref(), br#","error":"#, &message.error)?
        }
    };
    if !done {
        json::write(&mut out, message)?;
        // At the end this is a member of the message itself: two braces follow one of an inner
        // object.
        if out.ends_with(NO_PARAMS) {
            out.truncate(out.len() - NO_PARAMS.len());
            out.push(b'}');
        }
    }
    Ok(out)
}

/// Returns the number of bytes of a request as JSON, with an id of one digit; 0 if it has none.
pub(crate) fn size_of<M: Serialize + 'static>(request: &M) -> usize {
    let mut out = Vec::with_capacity(REQUEST);
    let done = write_request(&mut out, &RequestId::Number(0), request);
    match done.and_then(|done| if done { Ok(()) } else { json::write(&mut out, request) }) {
        Ok(()) => out.len(),
        Err(_) => 0,
    }
}

/// Writes a request unless it is one for rmcp's own `Serialize`; says whether it has.
fn write_request(
    out: &mut Vec<u8>,
    id: &RequestId,
    request: &dyn Any,
) -> Result<bool, serde_json::Error> {
    match request.downcast_ref() {
        Some(ClientRequest::CallToolRequest(call)) => write_params(out, id, call),
        Some(ClientRequest::GetPromptRequest(get)) => write_params(out, id, get),
        Some(ClientRequest::ReadResourceRequest(read)) => write_params(out, id, read),
        _ => Ok(false),
    }
}

fn write_params<M: ConstString, P: Serialize + RequestParamsMeta>(
    out: &mut Vec<u8>,
    id: &RequestId,
    Request { method, params, extensions, .. }: &Request<M, P>,
) -> Result<bool, serde_json::Error> {
    let meta = Meta::of::<RequestMetaObject>(params.meta().is_some(), extensions);
    write(out, Some(id), method, params, meta)
}

/// Writes a notification unless it is one for rmcp's own `Serialize`; says whether it has.
#[expect(deprecated, reason = "logging is still on the wire")]
fn write_notification(
    out: &mut Vec<u8>,
    notification: &dyn Any,
) -> Result<bool, serde_json::Error> {
    use ClientNotification as C;
    use ServerNotification as S;
    match (notification.downcast_ref(), notification.downcast_ref()) {
        (Some(C::ProgressNotification(progress)), _)
        | (_, Some(S::ProgressNotification(progress))) => {
            write_notice(out, progress, progress.params.meta.is_some())
        }
        (Some(C::CancelledNotification(cancelled)), _)
        | (_, Some(S::CancelledNotification(cancelled))) => {
            write_notice(out, cancelled, cancelled.params.meta.is_some())
        }
        (_, Some(S::LoggingMessageNotification(log))) => {
            write_notice(out, log, log.params.meta.is_some())
        }
        _ => Ok(false),
    }
}

fn write_notice<M: ConstString, P: Serialize>(
    out: &mut Vec<u8>,
    Notification { method, params, extensions, .. }: &Notification<M, P>,
    meta_in_params: bool,
) -> Result<bool, serde_json::Error> {
    let meta = Meta::of::<NotificationMetaObject>(meta_in_params, extensions);
    write(out, None, method, params, meta)
}

/// Writes a response; always says that it has.
fn write_answer(
    out: &mut Vec<u8>,
    id: Option<&RequestId>,
    member: &[u8],
    answer: &impl Serialize,
) -> Result<bool, serde_json::Error> {
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    json::write(out, &id)?;
    out.extend_from_slice(member);
    json::write(out, answer)?;
    out.push(b'}');
    Ok(true)
}

/// Place of the metadata of a message.
enum Meta<'a> {
    /// The params themselves; or there is none.
    InParams,
    /// The extensions alone.
    InExtensions(&'a MetaObject),
    /// Several places: rmcp merges it.
    Scattered,
}

impl<'a> Meta<'a> {
    fn of<T>(in_params: bool, extensions: &'a Extensions) -> Self
    where
        T: Deref<Target = MetaObject> + Send + Sync + 'static,
    {
        let typed = extensions.get::<T>().map(Deref::deref);
        match (in_params, typed, extensions.get::<MetaObject>()) {
            (_, None, None) => Self::InParams,
            (false, Some(meta), None) | (false, None, Some(meta)) => Self::InExtensions(meta),
            _ => Self::Scattered,
        }
    }
}

fn write<M: ConstString, P: Serialize>(
    out: &mut Vec<u8>,
    id: Option<&RequestId>,
    method: &M,
    params: &P,
    meta: Meta<'_>,
) -> Result<bool, serde_json::Error> {
    let meta = match meta {
        Meta::InParams => None,
        Meta::InExtensions(meta) => Some(meta),
        Meta::Scattered => return Ok(false),
    };
    out.extend_from_slice(br#"{"jsonrpc":"2.0","#);
    if let Some(id) = id {
        out.extend_from_slice(br#""id":"#);
        json::write(out, id)?;
        out.push(b',');
    }
    out.extend_from_slice(br#""method":"#);
    json::write(out, method.as_str())?;
    out.extend_from_slice(br#","params":"#);
    match meta {
        None => json::write(out, params)?,
        Some(meta) => write_with_meta(out, params, meta)?,
    }
    out.push(b'}');
    Ok(true)
}

/// Writes `_meta`, then the members of params that have none.
fn write_with_meta<P: Serialize>(
    out: &mut Vec<u8>,
    params: &P,
    meta: &MetaObject,
) -> Result<(), serde_json::Error> {
    out.extend_from_slice(br#"{"_meta":"#);
    json::write(out, meta)?;
    let start = out.len();
    json::write(out, params)?;
    if out.ends_with(b"{}") && out.len() == start + 2 {
        out.truncate(start);
        out.push(b'}');
    } else if let Some(open) = out.get_mut(start) {
        *open = b',';
    }
    Ok(())
}
