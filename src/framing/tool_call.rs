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
    first::{self, FirstMessage, Member, NO_ID, Scalar},
    parts::{self, Members as _, Object, Outcome, Parts, invalid, members},
    properties::{FramingProperties, InBandAuth},
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
    role::McpRole,
    rpc_code::UNAVAILABLE,
};

/// The id of the first message.
const AUTH: &str = "auth";

/// The form of an integration guide for web pages, which call tools and do nothing else:
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
/// - **`results`** is the structured content of the tool's result or, where it has none, the whole result.
///   A failure of the tool and an error of JSON-RPC are the same here.
/// - **The first message** is for servers that let clients
///   [authenticate within the connection](crate::server::Config::in_band_authentication): the token goes to the
///   authenticator, for which `anonymous` is a token like others. A refusal is
///   `{"id":"auth","success":false,"error":{"message":…}}`, and then the connection is closed with 1008. Any other message
///   before it is answered with an error. A second one is refused, and harms nothing.
/// - **Nothing is initialized**, and there are no notifications: those of a service are not sent.
/// - **Signs of life**: a `ping` is answered by a `pong`, and a client of this crate sends one in place of
///   WebSocket's own.
/// - **What cannot be read** is answered with an error, whose `id` is `null` where none could be read.
///
/// No subprotocol is offered for it, no session resumed. A client has nothing but rmcp's
/// [`serve_directly`](rmcp::service::serve_directly) and `call_tool`; every other request ends with an error at once.
/// A client sends the first message by
/// [`Connect::authenticate_in_band`](crate::client::Connect::authenticate_in_band).
#[derive(Debug, Default)]
pub struct ToolCall {
    auth: Auth,
    replies: VecDeque<Message>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Auth {
    #[default]
    None,
    Asked,
    Done,
}

/// A clone is for another connection.
impl Clone for ToolCall {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl ToolCall {
    /// Whether an answer under this id says who may enter.
    fn is_verdict(&self, id: Option<&RequestId>) -> bool {
        self.auth == Auth::Asked && matches!(id, Some(RequestId::String(id)) if **id == *AUTH)
    }

    /// The answer to the first message, or to another of its kind.
    fn verdict(&mut self, error: Option<&ErrorData>) -> Result<Message, MessageError> {
        match error {
            None => {
                self.auth = Auth::Done;
                parts::text(&json!({ "id": AUTH, "success": true }))
            }
            Some(error) => {
                self.auth = Auth::None;
                parts::text(&refusal(&error.message))
            }
        }
    }

    fn refuse(&mut self, why: &str) {
        self.replies.extend(parts::text(&refusal(why)));
    }

    fn pong(&mut self) {
        let pong = json!({ "messageType": "pong", "timestamp": parts::millis() });
        self.replies.extend(parts::text(&pong));
    }

    /// A message of a peer that has not authenticated.
    fn first(&mut self, json: &str) -> Result<FirstMessage, DecodeError> {
        let First { kind, id, token, name } = first::read(json)?;
        match kind.string().as_deref() {
            Some("ping") => {
                self.pong();
                return Ok(FirstMessage::Other);
            }
            Some("pong") => return Ok(FirstMessage::Other),
            Some(_) => return Err(invalid(None, "no such `messageType`")),
            None => {}
        }
        let id = id.id().map_err(|()| invalid(None, NO_ID))?;
        match (id, name) {
            (Some(RequestId::String(id)), Member::Absent) if *id == *AUTH => {
                let Some(token) = token.string() else {
                    self.refuse("`token` is missing, or no string");
                    return Ok(FirstMessage::Other);
                };
                self.auth = Auth::Asked;
                let id = RequestId::String(AUTH.into());
                Ok(FirstMessage::Authenticate { id, token: Some(token) })
            }
            (Some(id), Member::There(Scalar::String(_))) => Ok(FirstMessage::Request { id }),
            (None, Member::There(_)) => Err(invalid(None, "`id` is missing")),
            (id, _) => Err(invalid(id, "`name` is missing or no string")),
        }
    }

    /// A message of the peer that has a token, or should have one.
    fn authenticate<R: McpRole>(
        &mut self,
        token: Option<Raw<'_>>,
        calls: &dyn PendingMethods,
    ) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
        let id = RequestId::String(AUTH.into());
        if self.auth == Auth::Done {
            self.refuse("already authenticated");
            return Ok(None);
        }
        let Some(token) = token.and_then(Raw::parse::<String>) else {
            self.refuse("`token` is missing, or no string");
            return Ok(None);
        };
        self.auth = Auth::Asked;
        let params = json!({ "token": token }).to_string();
        let request = parts::request(Some(&id), "authenticate", Some(&params));
        parts::assemble::<R>(&request, calls).map(Some)
    }
}

impl<R: McpRole> Framing<R> for ToolCall {
    fn encode(&mut self, message: &TxJsonRpcMessage<R>) -> Result<Option<Message>, MessageError> {
        let json = parts::json_rpc::<R>(message)?;
        let parts = parts::parts(&json);
        let encoded = match message {
            JsonRpcMessage::Notification(_) => return Ok(None),
            JsonRpcMessage::Request(request) => ask::<R>(request, &parts),
            JsonRpcMessage::Response(response) if self.is_verdict(Some(&response.id)) => {
                self.verdict(None)
            }
            JsonRpcMessage::Error(error) if self.is_verdict(error.id.as_ref()) => {
                self.verdict(Some(&error.error))
            }
            JsonRpcMessage::Response(response) => {
                match Outcome::of(parts.result.unwrap_or(Raw::NULL)) {
                    Outcome::Result(results) => {
                        let answer = Object::new().id("id", Some(&response.id));
                        Ok(parts::message(answer.raw("results", Some(results.get())).end()))
                    }
                    Outcome::Failed(message) => parts::text(&failure(Some(&response.id), &message)),
                }
            }
            JsonRpcMessage::Error(error) => {
                parts::text(&failure(error.id.as_ref(), &error.error.message))
            }
        };
        encoded.map(Some)
    }

    fn decode(
        &mut self,
        message: Message,
        calls: &dyn PendingMethods,
    ) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
        let Some(json) = parts::data(&message) else { return Ok(None) };
        let (read, _, error) = parts::read::<Read<'_>>(json?);
        if let Some(error) = error {
            return Err(read.turn_down::<R>(calls, error));
        }
        match read.kind.and_then(Raw::parse::<&str>) {
            Some("ping") => {
                self.pong();
                return Ok(None);
            }
            Some("pong") => return Ok(None),
            Some(_) => return Err(invalid(None, "no such `messageType`")),
            None => {}
        }
        let id = match read.id.map(|id| Id::of(Some(id))) {
            None => None,
            Some(Id::Valid(id)) => Some(id),
            Some(id) => {
                let what = id.fault("id").unwrap_or_default();
                let error = ErrorData::invalid_request(what, None);
                return Err(read.turn_down::<R>(calls, error));
            }
        };
        match (id, read.name.map(Raw::parse::<String>)) {
            (id, _) if R::IS_CLIENT => read.answer::<R>(id, calls).map(Some),
            (Some(RequestId::String(id)), None) if *id == *AUTH => {
                self.authenticate::<R>(read.token, calls)
            }
            (Some(id), Some(Some(name))) => {
                let call = parts::call(&name, read.parameters)
                    .map_err(|error| DecodeError::Request { id: Some(id.clone()), error })?;
                let request = parts::request(Some(&id), Method::CallTool.name(), Some(&call));
                parts::assemble::<R>(&request, calls).map(Some)
            }
            (None, Some(_)) => Err(invalid(None, "`id` is missing")),
            (id, _) => Err(invalid(id, "`name` is missing or no string")),
        }
    }

    fn refuse(
        &mut self,
        message: &Message,
        calls: &dyn PendingMethods,
        error: ErrorData,
    ) -> DecodeError {
        match parts::data(message) {
            Some(Ok(json)) => Read::read(json).0.turn_down::<R>(calls, error),
            _ => DecodeError::Request { id: None, error },
        }
    }

    fn first_message(&mut self, message: &Message) -> Option<Result<FirstMessage, DecodeError>> {
        let json = parts::data(message)?;
        Some(json.and_then(|json| self.first(json)))
    }

    fn next_reply(&mut self) -> Option<Message> {
        self.replies.pop_front()
    }

    fn properties(&self) -> FramingProperties {
        let properties =
            FramingProperties::default().has_initialize(false).uses_subprotocols(false);
        let properties = properties.unauthorized_code(CloseCode::Policy);
        let properties = properties.in_band_auth(InBandAuth::new(greet, verdict));
        if R::IS_CLIENT { properties.ping_message(ping) } else { properties }
    }
}

fn ping() -> Message {
    Message::text(format!(r#"{{"messageType":"ping","timestamp":{}}}"#, parts::millis()))
}

fn greet(token: &str) -> Message {
    Message::text(json!({ "id": AUTH, "token": token }).to_string())
}

fn verdict(message: &Message) -> Option<Result<(), String>> {
    let answer = parts::verdict(message).filter(|answer| answer["id"] == AUTH)?;
    Some(match &answer["success"] {
        Value::Bool(true) => Ok(()),
        _ => Err(parts::words_of(&answer["error"])),
    })
}

/// A call of ours.
fn ask<R: McpRole>(
    request: &JsonRpcRequest<R::Req>,
    parts: &Parts<'_>,
) -> Result<Message, MessageError> {
    let params = parts.params.and_then(parts::object::<Params<'_>>).unwrap_or_default();
    match params.name.filter(|_| R::method_of(&request.request) == Method::CallTool) {
        Some(name) => {
            let ask = Object::new().string("id", &request.id.to_string());
            let parameters = params.arguments.map_or("{}", Raw::get);
            let ask = ask.raw("name", Some(name.get())).raw("parameters", Some(parameters));
            Ok(parts::message(ask.end()))
        }
        None => Err(MessageError::Unsupported("a request other than tools/call")),
    }
}

members! {
    /// The params of `tools/call`.
    Params { name: "name", arguments: "arguments", }
}

/// Who may not enter, or need not ask.
fn refusal(why: &str) -> Value {
    json!({ "id": AUTH, "success": false, "error": { "message": why } })
}

fn failure(id: Option<&RequestId>, message: &str) -> Value {
    json!({ "id": id, "error": { "message": message } })
}

/// A message of a peer that has not authenticated.
#[derive(Deserialize)]
struct First {
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
    /// A message that has come in.
    Read {
        kind: "messageType",
        id: "id",
        token: "token",
        name: "name",
        parameters: "parameters",
        results: "results",
        error: "error",
    }
}

impl Read<'_> {
    /// The answer to a call of ours.
    fn answer<R: McpRole>(
        &self,
        id: Option<RequestId>,
        calls: &dyn PendingMethods,
    ) -> Result<RxJsonRpcMessage<R>, DecodeError> {
        let failed = |message: String| ErrorData::new(UNAVAILABLE, message, None);
        let result = match (self.error, self.results) {
            (None, Some(results)) => Ok(results),
            (Some(error), _) => Err(failed(parts::words_of(&error.parse().unwrap_or_default()))),
            (None, None) => Err(failed("neither `results` nor `error`".to_owned())),
        };
        match (id.map(|id| parts::own(id, calls)), result) {
            (Some(id), Ok(results)) => {
                let response = parts::response(&id, "result", &parts::tool_result(results));
                parts::assemble::<R>(&response, calls)
            }
            (id, Err(error)) => Ok(JsonRpcMessage::error(error, id)),
            (None, Ok(_)) => {
                let error = ErrorData::invalid_request("`results` without `id`", None);
                Err(DecodeError::Response { id: None, error: unreadable_answer(error) })
            }
        }
    }

    /// Says whom the `error` concerns with which a message is turned down.
    fn turn_down<R: McpRole>(&self, calls: &dyn PendingMethods, error: ErrorData) -> DecodeError {
        let id = self.id.and_then(Raw::parse::<RequestId>);
        if self.kind.is_some() {
            DecodeError::Dropped { error }
        } else if R::IS_CLIENT && (id.is_some() || self.results.is_some() || self.error.is_some()) {
            let id = id.map(|id| parts::own(id, calls));
            DecodeError::Response { id, error: unreadable_answer(error) }
        } else {
            DecodeError::Request { id, error }
        }
    }
}

#[cfg(test)]
mod tests;
