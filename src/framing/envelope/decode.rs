//! Envelopes of the peer's messages.

use rmcp::{
    ErrorData,
    model::{JsonRpcMessage, RequestId},
    service::RxJsonRpcMessage,
};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Envelope, Form,
    requests::Answered,
    wire::{CANCELLED, Content, Opened},
};
use crate::{
    decode::{
        PendingMethods,
        json::{Raw, parse},
        malformed::Malformed,
        method::Method,
    },
    framing::{
        decode_error::{DecodeError, unreadable_answer},
        json::{Shape, decode_json_rpc, read_object, request, response},
        tool_result::{call_params, call_result},
    },
    role::{AUTHENTICATE, McpRole},
};

impl Envelope {
    /// Decodes a request.
    pub(super) fn decode_request<R: McpRole>(
        &mut self,
        content: Option<Raw<'_>>,
        request_id: Option<RequestId>,
        calls: &dyn PendingMethods,
    ) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
        let content = content.and_then(read_object::<Content<'_>>);
        let method = content.as_ref().and_then(|content| content.method?.parse::<String>());
        let (Some(Content { params, .. }), Some(method)) = (content, method) else {
            let what = "`request` is no object with a `method`";
            let error = ErrorData::invalid_request(what, None);
            return Err(self.peer_requests.refuse_request(request_id, error));
        };
        let known = Method::from_name(&method);
        let is_tool = known == Method::Other && !method.contains('/') && method != AUTHENTICATE;
        let id = self.peer_requests.begin(request_id, is_tool)?;
        let refuse = |error| DecodeError::Request { id: Some(id.clone()), error };
        let decoded = match is_tool {
            true => call_params(&method, params).map_err(refuse).and_then(|params| {
                let call = request(Some(&id), Method::CallTool.name(), Some(&params));
                decode_json_rpc::<R>(&call, calls)
            }),
            false => {
                let request = request(Some(&id), &method, params.map(Raw::get));
                decode_json_rpc::<R>(&request, calls)
            }
        };
        decoded.map(Some).map_err(|unreadable| match unreadable {
            // By its number: the id on the wire is not known here.
            DecodeError::Request { error, .. } => refuse(error),
            other => other,
        })
    }

    /// Decodes a notification. A malformed one is not answered.
    pub(super) fn decode_notification<R: McpRole>(
        &mut self,
        content: Option<Raw<'_>>,
        calls: &dyn PendingMethods,
    ) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
        let read = content.and_then(read_object::<Content<'_>>);
        let method = read.as_ref().and_then(|read| read.method?.parse::<String>());
        let (method, params) = match (read, method) {
            (Some(read), Some(method)) => (method, read.params),
            // Some servers send notifications of any form.
            _ => ("notification".to_owned(), content),
        };
        let mut params = params.map(|params| params.get().to_owned());
        let cancels = params.as_deref().filter(|_| method == CANCELLED);
        if let Some(mut changed) = cancels.and_then(|params| parse::<Value>(params).ok())
            && let Some(Ok(named)) = changed.get("requestId").map(RequestId::deserialize)
        {
            let Some(id) = self.peer_requests.cancel(&named) else { return Ok(None) };
            changed["requestId"] = id.into_json_value();
            params = Some(changed.to_string());
        }
        let notification = request(None, &method, params.as_deref());
        decode_json_rpc::<R>(&notification, calls).map(Some).map_err(
            |unreadable| match unreadable {
                DecodeError::Request { error, .. } => DecodeError::Dropped { error },
                other => other,
            },
        )
    }

    /// Decodes a response or an error.
    pub(super) fn decode_response<R: McpRole>(
        &mut self,
        opened: &Opened<'_>,
        request_id: Option<RequestId>,
        calls: &dyn PendingMethods,
    ) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
        let is_error = opened.kind() == Some("error");
        let content = opened.content().unwrap_or(Raw::NULL);
        let id = match self.own_requests.answered(request_id, calls) {
            Answered::Request(id) => id,
            Answered::Late => {
                let error = ErrorData::invalid_request("an answer that comes too late", None);
                return Err(DecodeError::Dropped { error });
            }
            Answered::Unknown => {
                let missing = || ErrorData::invalid_request("`requestId` is missing", None);
                let error = content.parse().filter(|_| is_error);
                let error = error.unwrap_or_else(|| unreadable_answer(missing()));
                return Err(DecodeError::Response { id: None, error });
            }
        };
        if is_error {
            if content.parse::<ErrorData>().is_some() {
                let response = response(&id, "error", content.get());
                return decode_json_rpc::<R>(&response, calls).map(Some);
            }
            let message = content.parse::<String>();
            let message = message.unwrap_or_else(|| "an error without words".to_owned());
            let error = ErrorData::internal_error(message, None);
            return Ok(Some(JsonRpcMessage::error(error, Some(id))));
        }
        let is_bare = self.bare_tools && calls.method(&id) == Some(Method::CallTool);
        let result = is_bare.then(|| call_result(content));
        let result = result.as_deref().unwrap_or(content.get());
        let response = response(&id, "result", result);
        decode_json_rpc::<R>(&response, calls).map(Some).map_err(|unreadable| match unreadable {
            DecodeError::Request { error, .. } | DecodeError::Response { error, .. } => {
                DecodeError::Response { id: Some(id), error }
            }
            other => other,
        })
    }

    /// Attributes `error` to the request or the call that the message concerns.
    pub(super) fn attribute<R: McpRole>(
        &mut self,
        (opened, shape): (&Opened<'_>, Shape),
        calls: &dyn PendingMethods,
        error: ErrorData,
    ) -> DecodeError {
        let request_id = opened.request_id.and_then(Raw::parse::<RequestId>);
        match (opened.kind(), self.form) {
            (Some("mcp"), Form::Wrapped) if opened.payload.is_some() => {
                let payload = opened.payload.unwrap_or(Raw::NULL).get();
                DecodeError::of::<R>(Malformed::refused(payload.as_bytes(), error), calls)
            }
            (_, Form::Wrapped) if R::IS_CLIENT && shape == Shape::Open && opened.kind.is_some() => {
                DecodeError::Response { id: None, error: unreadable_answer(error) }
            }
            (_, Form::Wrapped) => DecodeError::Request { id: None, error },
            (Some("mcp_response" | "error"), _) => {
                // Its `requestId` may be behind the fault, where nothing can be read.
                let id = match (&request_id, shape) {
                    (None, Shape::Open) => None,
                    _ => match self.own_requests.answered(request_id, calls) {
                        Answered::Request(id) => Some(id),
                        Answered::Late => return DecodeError::Dropped { error },
                        Answered::Unknown => None,
                    },
                };
                DecodeError::Response { id, error: unreadable_answer(error) }
            }
            (Some("notification" | "ping" | "pong"), _) => DecodeError::Dropped { error },
            (Some("mcp_request"), _) if shape == Shape::Object => {
                self.peer_requests.refuse_request(request_id, error)
            }
            _ => self.peer_requests.refuse(request_id, error),
        }
    }
}
