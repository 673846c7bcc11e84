//! [`parse`]: reads what a message is, and leaves its text alone.

use std::ops::Range;

use bytes::Bytes;
use rmcp::model::{
    Extensions, JsonRpcMessage, NotificationMetaObject, ProgressToken, ProtocolVersion, RequestId,
    RequestMetaObject,
};
use serde::de::IgnoredAny;

use super::{
    id,
    message::{About, RawMessage, RawNotification, RawRequest, RawResponse, Source},
};
use crate::decode::{
    PendingMethods,
    json::{Raw, Reader, without_bom},
    malformed::Malformed,
    message::method_of_call,
    method::Method,
};

/// Member of `_meta` that names the subscription.
pub(super) const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// Reads `json` as one JSON-RPC message, whose text is kept without a copy.
///
/// # Errors
/// [`Malformed`] for what is not JSON or not one message of JSON-RPC 2.0.
pub(super) fn parse(json: &Bytes, calls: &dyn PendingMethods) -> Result<RawMessage, Malformed> {
    let malformed = || Malformed::of(without_bom(json));
    let text = str::from_utf8(without_bom(json)).map_err(|_| malformed())?.trim_ascii();
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return Err(malformed());
    }
    let members = Members::read(text).ok_or_else(malformed)?;
    let shared = json.slice_ref(text.as_bytes());
    members.into_message(text, shared, calls).ok_or_else(malformed)
}

/// Members of a message that mean something here.
#[derive(Default)]
struct Members<'a> {
    version: Option<Raw<'a>>,
    id: Option<Raw<'a>>,
    method: Option<Raw<'a>>,
    params: Option<Raw<'a>>,
    result: Option<Raw<'a>>,
    error: Option<Raw<'a>>,
}

impl<'a> Members<'a> {
    /// Takes a message apart; `None` if it is no object, or one of these members appears twice.
    fn read(text: &'a str) -> Option<Self> {
        let mut members = Self::default();
        let mut is_repeated = false;
        let is_closed = Reader::new(text).object(|name, value| {
            let member = match name {
                "jsonrpc" => &mut members.version,
                "id" => &mut members.id,
                "method" => &mut members.method,
                "params" => &mut members.params,
                "result" => &mut members.result,
                "error" => &mut members.error,
                _ => return,
            };
            is_repeated |= member.is_some();
            *member = value;
        });
        let is_current = members.version.is_some_and(|version| version.get() == "\"2.0\"");
        (is_closed && !is_repeated && is_current).then_some(members)
    }

    fn into_message(
        self,
        text: &str,
        shared: Bytes,
        calls: &dyn PendingMethods,
    ) -> Option<RawMessage> {
        let place = |raw: Option<Raw<'_>>| raw.map(|raw| place_of(raw, text)).unwrap_or_default();
        let body = self.params.or(self.result).or(self.error);
        let source = Source {
            text: shared,
            id: place(self.id),
            method: place(self.method),
            body: place(body),
        };
        match (self.method, self.result, self.error) {
            (Some(method), None, None) => {
                let name: String = method.parse()?;
                let params = Params::of(self.params, text);
                let Some(id) = self.id else {
                    return Some(JsonRpcMessage::notification(notification(source, &name, params)));
                };
                let id = id::of_request(id)?;
                Some(JsonRpcMessage::request(request(source, &name, params), id))
            }
            (None, Some(result), None) => {
                let id = id::of_answer(self.id?)?;
                let is_initialize = method_of_call(calls, &id) == Some(Method::Initialize);
                let initialize = if is_initialize { result.parse().map(Box::new) } else { None };
                Some(JsonRpcMessage::response(
                    RawResponse { source, is_error: false, initialize },
                    id,
                ))
            }
            (None, None, Some(error)) => match self.id.filter(|id| !id.is_null()) {
                Some(id) => {
                    let response = RawResponse { source, is_error: true, initialize: None };
                    Some(JsonRpcMessage::response(response, id::of_answer(id)?))
                }
                // It gets the id of the request that it can only be meant for.
                None => Some(JsonRpcMessage::error(error.parse()?, None)),
            },
            _ => None,
        }
    }
}

/// Members of params that mean something here.
#[derive(Default)]
struct Params<'a> {
    request_id: Option<Raw<'a>>,
    progress_token: Option<Raw<'a>>,
    /// Members of `_meta`.
    meta_token: Option<Raw<'a>>,
    meta_version: Option<Raw<'a>>,
    meta_subscription: Option<Raw<'a>>,
    text: &'a str,
}

impl<'a> Params<'a> {
    fn of(params: Option<Raw<'a>>, text: &'a str) -> Self {
        let mut found = Self { text, ..Self::default() };
        // Most have none of these, and to look for a word costs less than to take them apart.
        let Some(params) = params.filter(|params| {
            ["_meta", "requestId", "progressToken", "\\u"]
                .iter()
                .any(|name| contains(*params, name))
        }) else {
            return found;
        };
        let mut meta = None;
        Reader::new(params.get()).object(|name, value| match name {
            "requestId" => found.request_id = value,
            "progressToken" => found.progress_token = value,
            "_meta" => meta = value,
            _ => {}
        });
        if let Some(meta) = meta {
            Reader::new(meta.get()).object(|name, value| match name {
                "progressToken" => found.meta_token = value,
                "io.modelcontextprotocol/protocolVersion" => found.meta_version = value,
                SUBSCRIPTION_ID => found.meta_subscription = value,
                _ => {}
            });
        }
        found
    }

    fn place(&self, raw: Option<Raw<'_>>) -> Range<usize> {
        raw.map(|raw| place_of(raw, self.text)).unwrap_or_default()
    }
}

fn contains(raw: Raw<'_>, word: &str) -> bool {
    memchr::memmem::find(raw.get().as_bytes(), word.as_bytes()).is_some()
}

/// Returns the place of a value in the text that it was read from.
fn place_of(raw: Raw<'_>, text: &str) -> Range<usize> {
    let start = raw.get().as_ptr() as usize - text.as_ptr() as usize;
    start..start + raw.get().len()
}

fn request(source: Source, name: &str, params: Params<'_>) -> RawRequest {
    let mut meta = RequestMetaObject::new();
    let token: Option<ProgressToken> = params.meta_token.and_then(Raw::parse);
    let token = token.map(|token| {
        meta.set_progress_token(token);
        params.place(params.meta_token)
    });
    if let Some(version) = params.meta_version.and_then(Raw::parse::<ProtocolVersion>) {
        meta.set_protocol_version(version);
    }
    let token = token.unwrap_or_default();
    RawRequest {
        source,
        method: Method::from_name(name),
        token,
        meta,
        extensions: Extensions::new(),
    }
}

fn notification(source: Source, name: &str, params: Params<'_>) -> RawNotification {
    let about = match name {
        "notifications/initialized" => About::Initialized,
        "notifications/cancelled" => match params.request_id.and_then(id::of_request) {
            Some(id) => About::Cancelled(id, params.place(params.request_id)),
            None => About::Other,
        },
        "notifications/progress" => match params.progress_token.and_then(Raw::parse) {
            Some(token) => About::Progress(token, params.place(params.progress_token)),
            None => About::Other,
        },
        _ => About::Other,
    };
    let mut meta = NotificationMetaObject::new();
    let subscription: Option<RequestId> = params.meta_subscription.and_then(id::of_answer);
    let subscription = subscription.map(|id| {
        meta.set_subscription_id(id);
        params.place(params.meta_subscription)
    });
    RawNotification {
        source,
        about,
        meta,
        subscription: subscription.unwrap_or_default(),
        extensions: Extensions::new(),
    }
}
