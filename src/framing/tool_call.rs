//! [`ToolCall`]: calls of tools by name, after a first message that says who calls.

use std::collections::VecDeque;

use rmcp::{
    ErrorData,
    model::{JsonRpcMessage, JsonRpcRequest, RequestId},
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use super::{
    Framing, Greeting, Manners, Unreadable,
    parts::{self, Call, Outcome, Parts, Request, Response, invalid, parse},
};
use crate::{
    decode::{Calls, Method, Role},
    error::{CloseCode, MessageError},
    layer::correlation::UNAVAILABLE,
    message::Message,
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
/// Its first message is up to [`Connect::authenticate_in_band`](crate::client::Connect::authenticate_in_band).
#[derive(Debug, Default)]
pub struct ToolCall {
    auth: Auth,
    owed: VecDeque<Message>,
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
        self.owed.extend(parts::text(&refusal(why)));
    }

    /// A message of the peer that has a token, or should have one.
    fn authenticate<R: Role>(
        &mut self,
        token: Option<&RawValue>,
        calls: &dyn Calls,
    ) -> Result<Option<RxJsonRpcMessage<R>>, Unreadable> {
        let id = RequestId::String(AUTH.into());
        if self.auth == Auth::Done {
            self.refuse("already authenticated");
            return Ok(None);
        }
        let Some(token) = token.and_then(parse::<String>) else {
            self.refuse("`token` is missing, or no string");
            return Ok(None);
        };
        self.auth = Auth::Asked;
        let request = Request::new(&id, "authenticate", Some(json!({ "token": token })));
        parts::assemble::<R>(&request, calls).map(Some)
    }
}

impl<R: Role> Framing<R> for ToolCall {
    fn encode(&mut self, message: &TxJsonRpcMessage<R>) -> Result<Option<Message>, MessageError> {
        let json = parts::json_rpc::<R>(message)?;
        let parts = parts::parts(&json)?;
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
                let outcome = Outcome::of(parts.result.unwrap_or(RawValue::NULL));
                match outcome {
                    Outcome::Result(results) => {
                        parts::text(&Answer { id: &response.id, results: &results })
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
        calls: &dyn Calls,
    ) -> Result<Option<RxJsonRpcMessage<R>>, Unreadable> {
        let Some(json) = parts::data(&message) else { return Ok(None) };
        let read: Read<'_> = parts::read(json)?;
        match read.kind.and_then(parse::<&str>) {
            Some("ping") => {
                let pong = json!({ "messageType": "pong", "timestamp": parts::millis() });
                self.owed.extend(parts::text(&pong));
                return Ok(None);
            }
            Some("pong") => return Ok(None),
            Some(_) => return Err(invalid(None, "no such `messageType`")),
            None => {}
        }
        let id = match read.id.map(parse::<RequestId>) {
            None => None,
            Some(Some(id)) => Some(id),
            Some(None) => return Err(invalid(None, "`id` is neither a string nor an integer")),
        };
        match (id, read.name.map(parse::<String>)) {
            (id, _) if R::IS_CLIENT => read.answer::<R>(id, calls).map(Some),
            (Some(RequestId::String(id)), None) if *id == *AUTH => {
                self.authenticate::<R>(read.token, calls)
            }
            (Some(id), Some(Some(name))) => {
                let call = Call::new(&name, read.parameters)
                    .map_err(|error| Unreadable::Request { id: Some(id.clone()), error })?;
                let request = Request::new(&id, Method::CallTool.name(), Some(call));
                parts::assemble::<R>(&request, calls).map(Some)
            }
            (None, Some(_)) => Err(invalid(None, "`id` is missing")),
            (id, _) => Err(invalid(id, "`name` is missing or no string")),
        }
    }

    fn owed(&mut self) -> Option<Message> {
        self.owed.pop_front()
    }

    fn manners(&self) -> Manners {
        let manners = Manners::default().initializes(false).negotiates(false);
        let manners = manners.unauthorized(CloseCode::Policy);
        let manners = manners.greeting(Greeting::new(greet, verdict));
        if R::IS_CLIENT { manners.probe(ping) } else { manners }
    }
}

fn ping() -> Message {
    Message::text(format!(r#"{{"messageType":"ping","timestamp":{}}}"#, parts::millis()))
}

fn greet(token: &str) -> Message {
    Message::text(json!({ "id": AUTH, "token": token }).to_string())
}

fn verdict(message: &Message) -> Option<Result<(), String>> {
    let answer = parts::value(message).filter(|answer| answer["id"] == AUTH)?;
    Some(match &answer["success"] {
        Value::Bool(true) => Ok(()),
        _ => Err(parts::words_of(&answer["error"])),
    })
}

/// A call of ours.
fn ask<R: Role>(
    request: &JsonRpcRequest<R::Req>,
    parts: &Parts<'_>,
) -> Result<Message, MessageError> {
    #[derive(Deserialize)]
    struct Params<'a> {
        name: String,
        #[serde(borrow)]
        arguments: Option<&'a RawValue>,
    }
    match parts.params.and_then(parse::<Params<'_>>) {
        Some(Params { name, arguments }) if R::method_of(&request.request) == Method::CallTool => {
            let id = request.id.to_string();
            match arguments {
                Some(parameters) => parts::text(&Ask { id, name, parameters }),
                None => parts::text(&json!({ "id": id, "name": name, "parameters": {} })),
            }
        }
        _ => Err(MessageError::NoForm("a request other than tools/call")),
    }
}

/// A call. `json!` is not for what a peer or a tool has written: not all of it is a `Value`.
#[derive(Serialize)]
struct Ask<'a> {
    id: String,
    name: String,
    parameters: &'a RawValue,
}

/// Its result.
#[derive(Serialize)]
struct Answer<'a> {
    id: &'a RequestId,
    results: &'a RawValue,
}

/// Who may not enter, or need not ask.
fn refusal(why: &str) -> Value {
    json!({ "id": AUTH, "success": false, "error": { "message": why } })
}

fn failure(id: Option<&RequestId>, message: &str) -> Value {
    json!({ "id": id, "error": { "message": message } })
}

/// A message that has come in.
#[derive(Deserialize)]
struct Read<'a> {
    #[serde(rename = "messageType", borrow)]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    token: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
    #[serde(borrow)]
    results: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

impl<'a> Read<'a> {
    /// The answer to a call of ours.
    fn answer<R: Role>(
        &self,
        id: Option<RequestId>,
        calls: &dyn Calls,
    ) -> Result<RxJsonRpcMessage<R>, Unreadable> {
        let id = id.map(|id| parts::own(id, calls));
        let nothing = || ErrorData::invalid_request("an answer to nothing", None);
        let Some(id) = id else { return Err(Unreadable::Response { id: None, error: nothing() }) };
        let result = match (self.error, self.results) {
            (None, Some(results)) => Ok(parts::tool_result(results)),
            (Some(error), _) => Err(parts::words_of(&parse(error).unwrap_or_default())),
            (None, None) => Err("neither `results` nor `error`".to_owned()),
        };
        let raw = |value: &Value| serde_json::value::to_raw_value(value).ok();
        let assembled = match result {
            Ok(result) => raw(&result)
                .map(|result| parts::assemble::<R>(&Response::result(&id, &result), calls)),
            Err(message) => raw(&json!({ "code": UNAVAILABLE.0, "message": message }))
                .map(|error| parts::assemble::<R>(&Response::error(&id, &error), calls)),
        };
        match assembled {
            Some(Ok(message)) => Ok(message),
            _ => Err(Unreadable::Response { id: Some(id), error: nothing() }),
        }
    }
}

#[cfg(test)]
mod tests;
