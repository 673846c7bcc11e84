//! [`Envelope`]: each message in an object that says by `type` what it is.

mod first;
mod inbound;
mod wire;
mod wrapped;

use std::collections::VecDeque;

use rmcp::{
    ErrorData,
    model::{JsonRpcMessage, RequestId},
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};

use serde::Deserialize;
use serde_json::{Value, json};

use self::{
    inbound::{Inbound, Open},
    wire::{Kind, Opened},
};
use super::{
    Framing,
    decode_error::{DecodeError, unreadable_answer},
    first::FirstMessage,
    parts::{self, Members as _, Object, Outcome, Parts, Shape, members, object},
    properties::{FramingProperties, InBandAuth},
    session_id::SessionIdCell,
};
use crate::{
    close::CloseReason,
    decode::{
        PendingMethods,
        json::{Id, Raw, parse},
        malformed::Malformed,
        method::Method,
    },
    error::MessageError,
    message::Message,
    role::McpRole,
    rpc_code::UNAVAILABLE,
};

/// The envelope of the first demonstrations of MCP over WebSockets:
///
/// ```json
/// {"type":"mcp_request","request":{"method":"add","params":{"a":5,"b":3}},"requestId":"7f"}
/// {"type":"mcp_response","result":{"result":8},"requestId":"7f","timestamp":"2023-05-01T12:34:56.789Z"}
/// {"type":"error","error":{"code":-32602,"message":"tool not found"},"requestId":"7f","timestamp":"…"}
/// {"type":"notification","payload":{"method":"notifications/progress","params":{}},"timestamp":"…"}
/// {"type":"ping"}
/// {"type":"pong","timestamp":"…"}
/// ```
///
/// Both sides may send each of them. What is received may carry its content as `payload` in place
/// of `request`, `result` or `error`; of the `timestamp` no notice is taken.
///
/// - **`method`** is one of MCP's, or the bare name of a tool: then `params` are the tool's arguments, and
///   `result` is its structured content or, where it has none, its whole result. A failure of the tool is an
///   `error` with the code -32000. What holds a `/` is no tool, nor is `authenticate`.
/// - **`requestId`** is any string, or an integer. A request without one is answered without; such answers
///   come in the order of their requests, of which 1,024 may be open, one more is refused. When more than
///   4,096 or 4 MiB of answers wait for another, the connection is closed with 1008.
/// - **Nothing needs to be initialized.** A client may all the same.
/// - **Signs of life**: a `ping` is answered by a `pong`, and a client of this crate sends one in place of
///   WebSocket's own.
/// - **Errors**: those that JSON-RPC has, in an `error`; without `requestId` where none could be read. What is
///   wrong with a `notification` is told to nobody.
///
/// No subprotocol is offered for it, no session resumed. Subscriptions (`subscriptions/listen`) are
/// not possible with it, since they are told apart by the ids of JSON-RPC.
///
/// A client for a server that has no `initialize` is rmcp's
/// [`serve_directly`](rmcp::service::serve_directly):
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use mcp_ws_transport::framing::Envelope;
/// use rmcp::{RoleClient, model::CallToolRequestParams, service::serve_directly};
///
/// let connect = mcp_ws_transport::connect("ws://127.0.0.1:8080/agent/7f/websocket");
/// let transport = connect.framing(Envelope::default().bare_tools()).await?;
/// let client = serve_directly::<RoleClient, _, _, _, _>((), transport, None);
/// let sum = client.call_tool(CallToolRequestParams::new("add")).await?;
/// # drop(sum); Ok(()) }
/// ```
#[derive(Debug, Default)]
pub struct Envelope {
    form: Form,
    bare_tools: bool,
    session: SessionIdCell,
    inbound: Inbound,
    /// Our own requests in the order in which they were sent, for a peer that does not return their
    /// ids.
    asked: VecDeque<RequestId>,
    /// The request of ours that was encoded last, and has not been sent.
    asking: Option<RequestId>,
    /// The peer has returned an id.
    returns_ids: bool,
    replies: VecDeque<Message>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Form {
    /// The content is the member `request`, `result` or `error`.
    #[default]
    Named,
    /// It is always `payload`.
    General,
    /// It is JSON-RPC.
    Wrapped,
}

/// The request of ours that a message answers.
enum Answered {
    Request(RequestId),
    /// A request that nobody awaits any more.
    Late,
    /// Any of those in flight, or none.
    Unknown,
}

/// A clone is for another connection.
impl Clone for Envelope {
    fn clone(&self) -> Self {
        Self { form: self.form, bare_tools: self.bare_tools, ..Self::default() }
    }
}

impl Envelope {
    /// Sends the content as `payload` whatever it is: `{"type","payload","timestamp"}`.
    #[must_use]
    pub fn general(mut self) -> Self {
        self.form = Form::General;
        self
    }

    /// Uses another envelope: that of SEP-1288 in its first revision, which has JSON-RPC in it and names
    /// the session, `{"type":"mcp","mcpSessionId":…,"payload":{"jsonrpc":"2.0",…}}`.
    ///
    /// MCP is initialized as ever. A server names the session where that has a
    /// [name](crate::server::SessionIdPolicy), and answers what is for another with `-32602`; a client returns
    /// the name that it was told. `session_id` is understood for `mcpSessionId`.
    #[must_use]
    pub fn sep_1288(mut self) -> Self {
        self.form = Form::Wrapped;
        self
    }

    /// Calls tools by their bare names, for servers that know nothing of `tools/call`.
    #[must_use]
    pub fn bare_tools(mut self) -> Self {
        self.bare_tools = true;
        self
    }

    /// A message of ours in this envelope.
    fn seal(&self, kind: Kind, content: Option<&str>, request_id: Option<&RequestId>) -> Message {
        let name = match kind {
            Kind::McpRequest if self.form == Form::Named => "request",
            Kind::McpResponse if self.form == Form::Named => "result",
            // An error that nobody sees as one would be none.
            Kind::Error => "error",
            _ => "payload",
        };
        let sealed = Object::new().string("type", kind.name()).raw(name, content);
        parts::message(sealed.id("requestId", request_id).string("timestamp", &parts::now()).end())
    }

    /// A request of ours, whose id is a string on the wire.
    fn ask(&mut self, id: &RequestId, parts: &Parts<'_>) -> Message {
        let method = parts.method.and_then(Raw::parse::<String>).unwrap_or_default();
        let call = parts.params.and_then(object::<Named<'_>>);
        let name = call.as_ref().and_then(|call| call.name?.parse::<String>());
        let request = match (call, name) {
            (Some(call), Some(name)) if self.bare_tools && method == Method::CallTool.name() => {
                content(&name, call.arguments)
            }
            _ => content(&method, parts.params),
        };
        self.asking = Some(id.clone());
        self.seal(Kind::McpRequest, Some(&request), Some(&text(id)))
    }

    /// A notification of ours. The id of what it cancels is a string on the wire.
    fn tell(&self, parts: &Parts<'_>) -> Message {
        let method = parts.method.and_then(Raw::parse::<String>).unwrap_or_default();
        let params = parts.params.filter(|_| method == CANCELLED).and_then(Raw::parse::<Value>);
        let content = match params {
            Some(mut params) => {
                if let Some(number) = params.get("requestId").and_then(Value::as_i64) {
                    params["requestId"] = number.to_string().into();
                }
                let params = params.to_string();
                Object::new().string("method", &method).raw("params", Some(&params)).end()
            }
            None => content(&method, parts.params),
        };
        self.seal(Kind::Notification, Some(&content), None)
    }

    /// The result of a request of the peer.
    fn answer(&self, open: &Open, result: Raw<'_>) -> Result<Message, MessageError> {
        let request_id = open.request_id.as_ref();
        Ok(match open.is_bare.then(|| Outcome::of(result)) {
            None => self.seal(Kind::McpResponse, Some(result.get()), request_id),
            Some(Outcome::Result(content)) => {
                self.seal(Kind::McpResponse, Some(content.get()), request_id)
            }
            Some(Outcome::Failed(message)) => {
                let error = parts::json(&ErrorData::new(UNAVAILABLE, message, None))?;
                self.seal(Kind::Error, Some(&error), request_id)
            }
        })
    }

    /// Which request of ours the peer answers by this id.
    fn answered(&mut self, request_id: Option<RequestId>, calls: &dyn PendingMethods) -> Answered {
        let Some(id) = request_id else {
            return match self.asked.pop_front() {
                Some(id) if calls.method(&id).is_some() => Answered::Request(id),
                Some(_) => Answered::Late,
                None => Answered::Unknown,
            };
        };
        self.returns_ids = true;
        self.asked.clear();
        Answered::Request(parts::own(id, calls))
    }

    /// A request of the peer.
    fn asked_by_peer<R: McpRole>(
        &mut self,
        content: Option<Raw<'_>>,
        request_id: Option<RequestId>,
        calls: &dyn PendingMethods,
    ) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
        let content = content.and_then(object::<Content<'_>>);
        let method = content.as_ref().and_then(|content| content.method?.parse::<String>());
        let (Some(Content { params, .. }), Some(method)) = (content, method) else {
            let what = "`request` is no object with a `method`";
            let error = ErrorData::invalid_request(what, None);
            return Err(self.inbound.refuse_request(request_id, error));
        };
        let known = Method::from_name(&method);
        let is_tool = known == Method::Other && !method.contains('/') && method != "authenticate";
        let id = self.inbound.begin(request_id, is_tool)?;
        let refuse = |error| DecodeError::Request { id: Some(id.clone()), error };
        let request = match is_tool {
            true => parts::call(&method, params).map_err(refuse).and_then(|call| {
                let call = parts::request(Some(&id), Method::CallTool.name(), Some(&call));
                parts::assemble::<R>(&call, calls)
            }),
            false => {
                let request = parts::request(Some(&id), &method, params.map(Raw::get));
                parts::assemble::<R>(&request, calls)
            }
        };
        request.map(Some).map_err(|unreadable| match unreadable {
            // Its answer has to find it.
            DecodeError::Request { error, .. } => refuse(error),
            other => other,
        })
    }

    /// A notification of the peer. A malformed one is not answered.
    fn told_by_peer<R: McpRole>(
        &mut self,
        content: Option<Raw<'_>>,
        calls: &dyn PendingMethods,
    ) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
        let told = content.and_then(object::<Content<'_>>);
        let method = told.as_ref().and_then(|told| told.method?.parse::<String>());
        let (method, params) = match (told, method) {
            (Some(told), Some(method)) => (method, told.params),
            // A server of its own kind says whatever it likes.
            _ => ("notification".to_owned(), content),
        };
        let mut params = params.map(|params| params.get().to_owned());
        let cancels = params.as_deref().filter(|_| method == CANCELLED);
        if let Some(mut changed) = cancels.and_then(|params| parse::<Value>(params).ok())
            && let Some(Ok(named)) = changed.get("requestId").map(RequestId::deserialize)
        {
            let Some(id) = self.inbound.cancelled(&named) else { return Ok(None) };
            changed["requestId"] = id.into_json_value();
            params = Some(changed.to_string());
        }
        let notification = parts::request(None, &method, params.as_deref());
        parts::assemble::<R>(&notification, calls).map(Some).map_err(
            |unreadable| match unreadable {
                DecodeError::Request { error, .. } => DecodeError::Dropped { error },
                other => other,
            },
        )
    }

    /// An answer of the peer.
    fn answered_by_peer<R: McpRole>(
        &mut self,
        opened: &Opened<'_>,
        request_id: Option<RequestId>,
        calls: &dyn PendingMethods,
    ) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
        let is_error = opened.kind() == Some("error");
        let content = opened.content().unwrap_or(Raw::NULL);
        let id = match self.answered(request_id, calls) {
            Answered::Request(id) => id,
            Answered::Late => {
                let error = ErrorData::invalid_request("an answer that comes too late", None);
                return Err(DecodeError::Dropped { error });
            }
            Answered::Unknown => {
                let nameless = || ErrorData::invalid_request("`requestId` is missing", None);
                let error = content.parse().filter(|_| is_error);
                let error = error.unwrap_or_else(|| unreadable_answer(nameless()));
                return Err(DecodeError::Response { id: None, error });
            }
        };
        if is_error {
            if content.parse::<ErrorData>().is_some() {
                let response = parts::response(&id, "error", content.get());
                return parts::assemble::<R>(&response, calls).map(Some);
            }
            let message = content.parse::<String>();
            let message = message.unwrap_or_else(|| "an error without words".to_owned());
            let error = ErrorData::internal_error(message, None);
            return Ok(Some(JsonRpcMessage::error(error, Some(id))));
        }
        let is_bare = self.bare_tools && calls.method(&id) == Some(Method::CallTool);
        let result = is_bare.then(|| parts::tool_result(content));
        let result = result.as_deref().unwrap_or(content.get());
        let response = parts::response(&id, "result", result);
        parts::assemble::<R>(&response, calls).map(Some).map_err(|unreadable| match unreadable {
            DecodeError::Request { error, .. } | DecodeError::Response { error, .. } => {
                DecodeError::Response { id: Some(id), error }
            }
            other => other,
        })
    }

    /// Says whom the `error` concerns with which a message is turned down.
    fn turn_down<R: McpRole>(
        &mut self,
        (opened, shape): (&Opened<'_>, Shape),
        calls: &dyn PendingMethods,
        error: ErrorData,
    ) -> DecodeError {
        let request_id = opened.request_id.and_then(Raw::parse::<RequestId>);
        let unreadable = unreadable_answer;
        match (opened.kind(), self.form) {
            (Some("mcp"), Form::Wrapped) if opened.payload.is_some() => {
                let payload = opened.payload.unwrap_or(Raw::NULL).get();
                DecodeError::of::<R>(Malformed::refused(payload.as_bytes(), error), calls)
            }
            (_, Form::Wrapped) if R::IS_CLIENT && shape == Shape::Open && opened.kind.is_some() => {
                DecodeError::Response { id: None, error: unreadable(error) }
            }
            (_, Form::Wrapped) => DecodeError::Request { id: None, error },
            (Some("mcp_response" | "error"), _) => {
                // Its `requestId` may be where nothing can be read any more.
                let id = match (&request_id, shape) {
                    (None, Shape::Open) => None,
                    _ => match self.answered(request_id, calls) {
                        Answered::Request(id) => Some(id),
                        Answered::Late => return DecodeError::Dropped { error },
                        Answered::Unknown => None,
                    },
                };
                DecodeError::Response { id, error: unreadable(error) }
            }
            (Some("notification" | "ping" | "pong"), _) => DecodeError::Dropped { error },
            (Some("mcp_request"), _) if shape == Shape::Object => {
                self.inbound.refuse_request(request_id, error)
            }
            _ => self.inbound.refuse(request_id, error),
        }
    }
}

impl<R: McpRole> Framing<R> for Envelope {
    fn encode(&mut self, message: &TxJsonRpcMessage<R>) -> Result<Option<Message>, MessageError> {
        let json = parts::json_rpc::<R>(message)?;
        if self.form == Form::Wrapped {
            return Ok(Some(wrapped::seal(&json, &self.session)));
        }
        let parts = parts::parts(&json);
        self.inbound.nothing_answered();
        self.asking = None;
        let encoded = match message {
            JsonRpcMessage::Request(request) => self.ask(&request.id, &parts),
            JsonRpcMessage::Notification(_) => self.tell(&parts),
            JsonRpcMessage::Response(response) => match self.inbound.answer(&response.id) {
                Some(open) => self.answer(&open, parts.result.unwrap_or(Raw::NULL))?,
                None => return Ok(None),
            },
            JsonRpcMessage::Error(error) => {
                let open = match &error.id {
                    Some(id) => match self.inbound.answer(id) {
                        Some(open) => Some(open),
                        None => return Ok(None),
                    },
                    None => None,
                };
                let request_id = open.as_ref().and_then(|open| open.request_id.as_ref());
                self.seal(Kind::Error, Some(parts.error.unwrap_or(Raw::NULL).get()), request_id)
            }
        };
        Ok(Some(encoded))
    }

    fn decode(
        &mut self,
        message: Message,
        calls: &dyn PendingMethods,
    ) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
        let Some(json) = parts::data(&message) else { return Ok(None) };
        let (opened, shape, error) = parts::read::<Opened<'_>>(json?);
        if let Some(error) = error {
            return Err(self.turn_down::<R>((&opened, shape), calls, error));
        }
        let request_id = match opened.request_id.map(|id| Id::of(Some(id))) {
            None => None,
            Some(Id::Valid(id)) => Some(id),
            Some(id) => {
                let what = id.fault("requestId").unwrap_or_default();
                let error = ErrorData::invalid_request(what, None);
                return Err(match opened.kind() {
                    Some("mcp_request") => self.inbound.refuse_request(None, error),
                    Some("notification" | "ping" | "pong") => DecodeError::Dropped { error },
                    Some("mcp_response" | "error") => {
                        DecodeError::Response { id: None, error: unreadable_answer(error) }
                    }
                    _ => self.inbound.refuse(None, error),
                });
            }
        };
        let refuse = |inbound: &mut Inbound, what| {
            inbound.refuse(request_id.clone(), ErrorData::invalid_request(what, None))
        };
        match (opened.kind(), self.form) {
            (Some("ping"), _) => {
                self.replies.push_back(self.seal(Kind::Pong, None, request_id.as_ref()));
                Ok(None)
            }
            (Some("pong"), _) => Ok(None),
            (Some("mcp"), Form::Wrapped) => wrapped::open::<R>(&opened, &self.session, calls),
            (_, Form::Wrapped) => Err(parts::invalid(None, "`type` is missing, or not `mcp`")),
            (None, _) => Err(refuse(&mut self.inbound, "`type` is missing, or no string")),
            (Some("mcp_request"), _) => {
                self.asked_by_peer::<R>(opened.content(), request_id, calls)
            }
            (Some("notification"), _) => self.told_by_peer::<R>(opened.content(), calls),
            (Some("mcp_response" | "error"), _) => {
                self.answered_by_peer::<R>(&opened, request_id, calls)
            }
            (Some(_), _) => Err(refuse(&mut self.inbound, "no such `type`")),
        }
    }

    fn refuse(
        &mut self,
        message: &Message,
        calls: &dyn PendingMethods,
        error: ErrorData,
    ) -> DecodeError {
        match parts::data(message) {
            Some(Ok(json)) => {
                let (opened, shape) = Opened::read(json);
                self.turn_down::<R>((&opened, shape), calls, error)
            }
            _ => DecodeError::Request { id: None, error },
        }
    }

    fn first_message(&mut self, message: &Message) -> Option<Result<FirstMessage, DecodeError>> {
        let json = parts::data(message)?;
        Some(json.and_then(|json| self.first(json)))
    }

    fn enqueue_in_order(&mut self, message: Message) -> Option<Message> {
        self.asked.extend(self.asking.take().filter(|_| !self.returns_ids));
        self.inbound.enqueue_in_order(message)
    }

    fn next_reply(&mut self) -> Option<Message> {
        self.replies.pop_front().or_else(|| self.inbound.next_in_order())
    }

    fn on_withdrawn(&mut self, id: &RequestId) {
        self.asked.retain(|asked| asked != id);
    }

    fn on_resent(&mut self, id: &RequestId) {
        if !self.returns_ids {
            // It is behind all that has been encoded since, and may not have been sent.
            self.asked.retain(|asked| asked != id);
            self.asked.push_back(id.clone());
        }
    }

    fn on_unanswered(&mut self, id: &RequestId) -> Result<(), CloseReason> {
        self.inbound.forget(id)
    }

    fn on_new_peer(&mut self, calls: &dyn PendingMethods) {
        self.inbound.on_new_peer();
        self.returns_ids = false;
        // What the former peer was asked is not answered by this one.
        self.asked.retain(|id| calls.method(id).is_some());
    }

    fn properties(&self) -> FramingProperties {
        let properties = FramingProperties::default().uses_subprotocols(false);
        let properties = match self.form {
            Form::Wrapped => return properties,
            _ => properties.in_band_auth(InBandAuth::new(greet, verdict)),
        };
        let properties = properties.has_initialize(false);
        if R::IS_CLIENT { properties.ping_message(ping) } else { properties }
    }

    fn session_id(&self) -> Option<SessionIdCell> {
        (self.form == Form::Wrapped).then(|| self.session.clone())
    }

    fn reencode(&self, message: Message) -> Message {
        match self.form {
            Form::Wrapped => wrapped::reencode(message, &self.session),
            _ => message,
        }
    }
}

const CANCELLED: &str = "notifications/cancelled";

/// The id of what a client asks before it is let in.
const AUTHENTICATE: &str = "authenticate";

fn greet(token: &str) -> Message {
    let request = json!({ "method": "authenticate", "params": { "token": token } });
    let ask = json!({
        "type": "mcp_request", "request": request, "requestId": AUTHENTICATE,
        "timestamp": parts::now(),
    });
    Message::text(ask.to_string())
}

fn verdict(message: &Message) -> Option<Result<(), String>> {
    let answer = parts::verdict(message).filter(|answer| answer["requestId"] == AUTHENTICATE)?;
    Some(match answer["type"].as_str() {
        Some("mcp_response") => Ok(()),
        _ => Err(parts::words_of(&answer["error"])),
    })
}

fn ping() -> Message {
    Message::text(format!(r#"{{"type":"ping","timestamp":"{}"}}"#, parts::now()))
}

/// As it goes over the wire.
fn text(id: &RequestId) -> RequestId {
    RequestId::String(id.to_string().into())
}

members! {
    /// The content of a request or notification.
    Content { method: "method", params: "params", }
}

members! {
    /// The params of `tools/call`.
    Named { name: "name", arguments: "arguments", }
}

/// Writes the content of a request or notification.
fn content(method: &str, params: Option<Raw<'_>>) -> String {
    Object::new().string("method", method).raw("params", params.map(Raw::get)).end()
}

#[cfg(test)]
mod tests;
