//! [`ToolCall`]: calls of tools by name, after a first message that says who calls.

use std::collections::VecDeque;

use rmcp::{
    ErrorData,
    model::{JsonRpcMessage, JsonRpcRequest, RequestId},
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Framing,
    decode_error::{DecodeError, unreadable_answer},
    json::{
        JsonRpcMembers, Members as _, Object, decode_json_rpc, encode_json_rpc, encode_text,
        invalid_request, members, own_id, read, read_object, request, response, text_message,
        text_of,
    },
    properties::{FramingProperties, InBandAuth},
    timestamp::unix_millis,
    tool_result::{ToolOutcome, call_params, call_result},
    unauthenticated::{
        self, INVALID_ID, Member, Scalar, UnauthenticatedMessage, error_text, parse_reply,
    },
};
use crate::{
    close::CloseCode,
    decode::{
        PendingMethods,
        json::{Id, Raw},
        method::Method,
    },
    error::MessageError,
    message::Message,
    role::{AUTHENTICATE, McpRole},
    rpc_code::UNAVAILABLE,
};

/// Id of the message that authenticates.
const AUTH_ID: &str = "auth";

/// Calls of tools by name, as an integration guide for web pages has them:
///
/// ```json
/// {"id":"auth","token":"s3cr3t"}
/// {"id":"auth","success":true}
/// {"id":"req_1","name":"add","parameters":{"a":5,"b":3}}
/// {"id":"req_1","results":{"result":8}}
/// {"id":"req_2","name":"divide","parameters":{"a":1,"b":0}}
/// {"id":"req_2","error":{"message":"division by zero"}}
/// {"messageType":"ping","timestamp":1682944496789}
/// {"messageType":"pong","timestamp":1682944496790}
/// ```
///
/// - **`results`** is the structured content of the tool's result or, where it has none, the whole
///   result. A failure of the tool and an error of JSON-RPC are the same here.
/// - **The first message** is for servers that let clients [authenticate within the
///   connection](crate::server::Config::in_band_authentication): the token goes to the
///   authenticator, for which `anonymous` is a token like others. A rejection is
///   `{"id":"auth","success":false,"error":{"message":…}}`, and then the connection is closed with
///   1008. Any other message before it is answered with an error. A second one is refused, and
///   harms nothing.
/// - **There is no `initialize`**, and there are no notifications: those of a service are not sent.
/// - **Pings**: a `ping` is answered by a `pong`, and a client of this crate sends one in place of
///   WebSocket's own.
/// - **What cannot be read** is answered with an error, whose `id` is `null` where none could be
///   read.
///
/// No subprotocol is offered for it, no session resumed. A client has nothing but rmcp's
/// [`serve_directly`](rmcp::service::serve_directly) and `call_tool`; every other request ends with
/// an error at once. A client sends the first message by
/// [`Connect::authenticate_in_band`](crate::client::Connect::authenticate_in_band).
#[derive(Debug, Default)]
pub struct ToolCall {
    auth: Auth,
    replies: VecDeque<Message>,
}

/// Authentication of the peer within the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Auth {
    #[default]
    None,
    Requested,
    Done,
}

/// Returns a framing for another connection.
impl Clone for ToolCall {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl ToolCall {
    /// Returns `true` if the response with this id is that to the token.
    fn is_auth_reply(&self, id: Option<&RequestId>) -> bool {
        self.auth == Auth::Requested
            && matches!(id, Some(RequestId::String(id)) if **id == *AUTH_ID)
    }

    /// Encodes the reply to a message that authenticates.
    fn encode_auth_reply(&mut self, error: Option<&ErrorData>) -> Result<Message, MessageError> {
        match error {
            None => {
                self.auth = Auth::Done;
                encode_text(&json!({ "id": AUTH_ID, "success": true }))
            }
            Some(error) => {
                self.auth = Auth::None;
                encode_text(&auth_failure(&error.message))
            }
        }
    }

    fn refuse_auth(&mut self, why: &str) {
        self.replies.extend(encode_text(&auth_failure(why)));
    }

    fn pong(&mut self) {
        let pong = json!({ "messageType": "pong", "timestamp": unix_millis() });
        self.replies.extend(encode_text(&pong));
    }

    /// Decodes a message of a peer that has yet to authenticate.
    fn read_unauthenticated(&mut self, json: &str) -> Result<UnauthenticatedMessage, DecodeError> {
        let Unauthenticated { kind, id, token, name } = unauthenticated::read(json)?;
        match kind.string().as_deref() {
            Some("ping") => {
                self.pong();
                return Ok(UnauthenticatedMessage::Other);
            }
            Some("pong") => return Ok(UnauthenticatedMessage::Other),
            Some(_) => return Err(invalid_request(None, "no such `messageType`")),
            None => {}
        }
        let id = id.id().map_err(|()| invalid_request(None, INVALID_ID))?;
        match (id, name) {
            (Some(RequestId::String(id)), Member::Absent) if *id == *AUTH_ID => {
                let Some(token) = token.string() else {
                    self.refuse_auth("`token` is missing, or no string");
                    return Ok(UnauthenticatedMessage::Other);
                };
                self.auth = Auth::Requested;
                let id = RequestId::String(AUTH_ID.into());
                Ok(UnauthenticatedMessage::Authenticate { id, token: Some(token) })
            }
            (Some(id), Member::Present(Scalar::String(_))) => {
                Ok(UnauthenticatedMessage::Request { id })
            }
            (None, Member::Present(_)) => Err(invalid_request(None, "`id` is missing")),
            (id, _) => Err(invalid_request(id, "`name` is missing or no string")),
        }
    }

    /// Decodes a message that authenticates.
    fn decode_auth<R: McpRole>(
        &mut self,
        token: Option<Raw<'_>>,
        calls: &dyn PendingMethods,
    ) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
        let id = RequestId::String(AUTH_ID.into());
        if self.auth == Auth::Done {
            self.refuse_auth("already authenticated");
            return Ok(None);
        }
        let Some(token) = token.and_then(Raw::parse::<String>) else {
            self.refuse_auth("`token` is missing, or no string");
            return Ok(None);
        };
        self.auth = Auth::Requested;
        let params = json!({ "token": token }).to_string();
        decode_json_rpc::<R>(&request(Some(&id), AUTHENTICATE, Some(&params)), calls).map(Some)
    }
}

impl<R: McpRole> Framing<R> for ToolCall {
    fn encode(&mut self, message: &TxJsonRpcMessage<R>) -> Result<Option<Message>, MessageError> {
        let json = encode_json_rpc::<R>(message)?;
        let members = JsonRpcMembers::read(&json).0;
        let encoded = match message {
            JsonRpcMessage::Notification(_) => return Ok(None),
            JsonRpcMessage::Request(request) => encode_request::<R>(request, &members),
            JsonRpcMessage::Response(response) if self.is_auth_reply(Some(&response.id)) => {
                self.encode_auth_reply(None)
            }
            JsonRpcMessage::Error(error) if self.is_auth_reply(error.id.as_ref()) => {
                self.encode_auth_reply(Some(&error.error))
            }
            JsonRpcMessage::Response(response) => {
                match ToolOutcome::of(members.result.unwrap_or(Raw::NULL)) {
                    ToolOutcome::Result(results) => {
                        let answer = Object::new().id("id", Some(&response.id));
                        Ok(text_message(answer.raw("results", Some(results.get())).end()))
                    }
                    ToolOutcome::Failed(message) => {
                        encode_text(&failure(Some(&response.id), &message))
                    }
                }
            }
            JsonRpcMessage::Error(error) => {
                encode_text(&failure(error.id.as_ref(), &error.error.message))
            }
        };
        encoded.map(Some)
    }

    fn decode(
        &mut self,
        message: Message,
        calls: &dyn PendingMethods,
    ) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
        let Some(json) = text_of(&message) else { return Ok(None) };
        let (inbound, _, error) = read::<Inbound<'_>>(json?);
        if let Some(error) = error {
            return Err(inbound.attribute_error::<R>(calls, error));
        }
        match inbound.kind.and_then(Raw::parse::<&str>) {
            Some("ping") => {
                self.pong();
                return Ok(None);
            }
            Some("pong") => return Ok(None),
            Some(_) => return Err(invalid_request(None, "no such `messageType`")),
            None => {}
        }
        let id = match inbound.id.map(|id| Id::of(Some(id))) {
            None => None,
            Some(Id::Valid(id)) => Some(id),
            Some(id) => {
                let what = id.fault("id").unwrap_or_default();
                let error = ErrorData::invalid_request(what, None);
                return Err(inbound.attribute_error::<R>(calls, error));
            }
        };
        match (id, inbound.name.map(Raw::parse::<String>)) {
            (id, _) if R::IS_CLIENT => inbound.decode_response::<R>(id, calls).map(Some),
            (Some(RequestId::String(id)), None) if *id == *AUTH_ID => {
                self.decode_auth::<R>(inbound.token, calls)
            }
            (Some(id), Some(Some(name))) => {
                let call = call_params(&name, inbound.parameters)
                    .map_err(|error| DecodeError::Request { id: Some(id.clone()), error })?;
                let request = request(Some(&id), Method::CallTool.name(), Some(&call));
                decode_json_rpc::<R>(&request, calls).map(Some)
            }
            (None, Some(_)) => Err(invalid_request(None, "`id` is missing")),
            (id, _) => Err(invalid_request(id, "`name` is missing or no string")),
        }
    }

    fn attribute_error(
        &mut self,
        message: &Message,
        calls: &dyn PendingMethods,
        error: ErrorData,
    ) -> DecodeError {
        match text_of(message) {
            Some(Ok(json)) => Inbound::read(json).0.attribute_error::<R>(calls, error),
            _ => DecodeError::Request { id: None, error },
        }
    }

    fn decode_unauthenticated(
        &mut self,
        message: &Message,
    ) -> Option<Result<UnauthenticatedMessage, DecodeError>> {
        text_of(message).map(|json| self.read_unauthenticated(json?))
    }

    fn next_reply(&mut self) -> Option<Message> {
        self.replies.pop_front()
    }

    fn properties(&self) -> FramingProperties {
        let properties =
            FramingProperties::default().has_initialize(false).uses_subprotocols(false);
        let properties = properties.unauthorized_code(CloseCode::Policy);
        let properties = properties.in_band_auth(InBandAuth::new(auth_request, parse_auth_reply));
        if R::IS_CLIENT { properties.ping_message(ping) } else { properties }
    }
}

fn ping() -> Message {
    Message::text(format!(r#"{{"messageType":"ping","timestamp":{}}}"#, unix_millis()))
}

fn auth_request(token: &str) -> Message {
    Message::text(json!({ "id": AUTH_ID, "token": token }).to_string())
}

fn parse_auth_reply(message: &Message) -> Option<Result<(), String>> {
    let reply = parse_reply(message).filter(|reply| reply["id"] == AUTH_ID)?;
    Some(match &reply["success"] {
        Value::Bool(true) => Ok(()),
        _ => Err(error_text(&reply["error"])),
    })
}

/// Encodes a call of this side.
fn encode_request<R: McpRole>(
    request: &JsonRpcRequest<R::Req>,
    members: &JsonRpcMembers<'_>,
) -> Result<Message, MessageError> {
    let params = members.params.and_then(read_object::<Params<'_>>).unwrap_or_default();
    match params.name.filter(|_| R::method_of(&request.request) == Method::CallTool) {
        Some(name) => {
            let call = Object::new().string("id", &request.id.to_string());
            let parameters = params.arguments.map_or("{}", Raw::get);
            let call = call.raw("name", Some(name.get())).raw("parameters", Some(parameters));
            Ok(text_message(call.end()))
        }
        None => Err(MessageError::Unsupported("a request other than tools/call")),
    }
}

members! {
    /// The params of `tools/call`.
    Params { name: "name", arguments: "arguments", }
}

/// Builds the reply to a message that does not authenticate, or need not.
fn auth_failure(why: &str) -> Value {
    json!({ "id": AUTH_ID, "success": false, "error": { "message": why } })
}

fn failure(id: Option<&RequestId>, message: &str) -> Value {
    json!({ "id": id, "error": { "message": message } })
}

/// Message of a peer that has yet to authenticate.
#[derive(Deserialize)]
struct Unauthenticated {
    #[serde(rename = "messageType", default)]
    kind: Scalar,
    #[serde(default)]
    id: Member<Scalar>,
    #[serde(default)]
    token: Scalar,
    #[serde(default)]
    name: Member<Scalar>,
}

members! {
    /// Members of an inbound message.
    Inbound {
        kind: "messageType",
        id: "id",
        token: "token",
        name: "name",
        parameters: "parameters",
        results: "results",
        error: "error",
    }
}

impl Inbound<'_> {
    /// Decodes the response to a call of this side.
    fn decode_response<R: McpRole>(
        &self,
        id: Option<RequestId>,
        calls: &dyn PendingMethods,
    ) -> Result<RxJsonRpcMessage<R>, DecodeError> {
        let failed = |message: String| ErrorData::new(UNAVAILABLE, message, None);
        let result = match (self.error, self.results) {
            (None, Some(results)) => Ok(results),
            (Some(error), _) => Err(failed(error_text(&error.parse().unwrap_or_default()))),
            (None, None) => Err(failed("neither `results` nor `error`".to_owned())),
        };
        match (id.map(|id| own_id(id, calls)), result) {
            (Some(id), Ok(results)) => {
                let response = response(&id, "result", &call_result(results));
                decode_json_rpc::<R>(&response, calls)
            }
            (id, Err(error)) => Ok(JsonRpcMessage::error(error, id)),
            (None, Ok(_)) => {
                let error = ErrorData::invalid_request("`results` without `id`", None);
                Err(DecodeError::Response { id: None, error: unreadable_answer(error) })
            }
        }
    }

    /// Attributes `error` to the request or the call that the message concerns.
    fn attribute_error<R: McpRole>(
        &self,
        calls: &dyn PendingMethods,
        error: ErrorData,
    ) -> DecodeError {
        let id = self.id.and_then(Raw::parse::<RequestId>);
        if self.kind.is_some() {
            DecodeError::Dropped { error }
        } else if R::IS_CLIENT && (id.is_some() || self.results.is_some() || self.error.is_some()) {
            let id = id.map(|id| own_id(id, calls));
            DecodeError::Response { id, error: unreadable_answer(error) }
        } else {
            DecodeError::Request { id, error }
        }
    }
}

#[cfg(test)]
mod tests;
