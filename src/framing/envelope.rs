//! [`Envelope`]: each message in an object that says by `type` what it is.

mod inbound;
mod wire;
mod wrapped;

use std::collections::VecDeque;

use rmcp::{
    ErrorData,
    model::{JsonRpcMessage, RequestId},
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use self::{
    inbound::{Inbound, Open},
    wire::{Kind, Opened, Sealed},
};
use super::{
    Framing, Greeting, Manners, SessionName, Unreadable,
    parts::{self, Call, Outcome, Parts, Request, Response, object, parse},
};
use crate::{
    decode::{Calls, Method, Role},
    error::MessageError,
    layer::correlation::UNAVAILABLE,
    message::Message,
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
/// Both sides may send each of them. What is received may carry its content as `payload` in place of
/// `request`, `result` or `error`; of the `timestamp` no notice is taken.
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
/// No subprotocol is offered for it, no session resumed. Subscriptions (`subscriptions/listen`) are not possible
/// with it, since they are told apart by the ids of JSON-RPC.
///
/// A client for a server that has no `initialize` is rmcp's [`serve_directly`](rmcp::service::serve_directly):
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
    session: SessionName,
    inbound: Inbound,
    /// Our own requests in the order in which they were sent, for a peer that does not return their ids.
    asked: VecDeque<RequestId>,
    /// The request of ours that was encoded last, and has not been sent.
    asking: Option<RequestId>,
    /// The peer has returned an id.
    returns_ids: bool,
    /// The peer is another, and has not answered yet.
    restarted: bool,
    owed: VecDeque<Message>,
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

    /// Another envelope: that of SEP-1288 in its first revision, which has JSON-RPC in it and names the session, `{"type":"mcp","mcpSessionId":…,"payload":{"jsonrpc":"2.0",…}}`.
    ///
    /// MCP is initialized as ever. A server names the session where that has a
    /// [name](crate::server::SessionIds), and answers what is for another with `-32602`; a client returns
    /// the name that it was told. `session_id` is understood for `mcpSessionId`.
    #[must_use]
    pub fn sep_1288(mut self) -> Self {
        self.form = Form::Wrapped;
        self
    }

    /// A client calls tools by their bare names, for servers that know nothing of `tools/call`.
    #[must_use]
    pub fn bare_tools(mut self) -> Self {
        self.bare_tools = true;
        self
    }

    /// A message of ours in this envelope.
    fn seal(
        &self,
        kind: Kind,
        content: Option<&RawValue>,
        request_id: Option<&RequestId>,
    ) -> Result<Message, MessageError> {
        let timestamp = parts::now();
        let mut sealed = Sealed { kind, request_id, timestamp, ..Sealed::default() };
        match kind {
            Kind::McpRequest if self.form == Form::Named => sealed.request = content,
            Kind::McpResponse if self.form == Form::Named => sealed.result = content,
            // An error that nobody sees as one would be none.
            Kind::Error => sealed.error = content,
            _ => sealed.payload = content,
        }
        parts::text(&sealed)
    }

    /// A request of ours, whose id is a string on the wire.
    fn ask(&mut self, id: &RequestId, parts: &Parts<'_>) -> Result<Message, MessageError> {
        let method: String = parts.method.and_then(parse).unwrap_or_default();
        let call = parts.params.and_then(parse::<Named<'_>>);
        let request = match call {
            Some(call) if self.bare_tools && method == Method::CallTool.name() => {
                parts::raw(&Content { method: call.name, params: call.arguments })?
            }
            _ => parts::raw(&Content { method, params: parts.params })?,
        };
        self.asking = Some(id.clone());
        self.seal(Kind::McpRequest, Some(&request), Some(&text(id)))
    }

    /// A notification of ours. The id of what it cancels is a string on the wire.
    fn tell(&self, parts: &Parts<'_>) -> Result<Message, MessageError> {
        let method: String = parts.method.and_then(parse).unwrap_or_default();
        let content = match parts.params.filter(|_| method == CANCELLED).and_then(parse::<Value>) {
            Some(mut params) => {
                if let Some(number) = params.get("requestId").and_then(Value::as_i64) {
                    params["requestId"] = number.to_string().into();
                }
                parts::raw(&Content { method, params: Some(params) })?
            }
            None => parts::raw(&Content { method, params: parts.params })?,
        };
        self.seal(Kind::Notification, Some(&content), None)
    }

    /// The result of a request of the peer.
    fn answer(&self, open: &Open, result: &RawValue) -> Result<Message, MessageError> {
        let request_id = open.request_id.as_ref();
        match open.is_bare.then(|| Outcome::of(result)) {
            None => self.seal(Kind::McpResponse, Some(result), request_id),
            Some(Outcome::Result(content)) => {
                self.seal(Kind::McpResponse, Some(&content), request_id)
            }
            Some(Outcome::Failed(message)) => {
                let error = parts::raw(&ErrorData::new(UNAVAILABLE, message, None))?;
                self.seal(Kind::Error, Some(&error), request_id)
            }
        }
    }

    /// Which request of ours the peer answers by this id.
    fn answered(&mut self, request_id: Option<RequestId>, calls: &dyn Calls) -> Option<RequestId> {
        if std::mem::take(&mut self.restarted) {
            // What the former peer was asked is not answered by this one.
            self.asked.retain(|id| calls.method(id).is_some());
        }
        let Some(id) = request_id else {
            // It may be one that nobody awaits any more.
            return self.asked.pop_front().filter(|id| calls.method(id).is_some());
        };
        self.returns_ids = true;
        self.asked.clear();
        Some(parts::own(id, calls))
    }

    /// A request of the peer.
    fn asked_by_peer<R: Role>(
        &mut self,
        content: Option<&RawValue>,
        request_id: Option<RequestId>,
        calls: &dyn Calls,
    ) -> Result<Option<RxJsonRpcMessage<R>>, Unreadable> {
        let Some(Content { method, params }) = content.and_then(object::<Content<&RawValue>>)
        else {
            let what = "`request` is no object with a `method`";
            let error = ErrorData::invalid_request(what, None);
            return Err(self.inbound.refuse_request(request_id, error));
        };
        let known = Method::from_name(&method);
        let is_tool = known == Method::Other && !method.contains('/') && method != "authenticate";
        let id = self.inbound.begin(request_id, is_tool)?;
        let refuse = |error| Unreadable::Request { id: Some(id.clone()), error };
        let request = match is_tool {
            true => Call::new(&method, params).map_err(refuse).and_then(|call| {
                let call = Request::new(&id, Method::CallTool.name(), Some(call));
                parts::assemble::<R>(&call, calls)
            }),
            false => parts::assemble::<R>(&Request::new(&id, &method, params), calls),
        };
        request.map(Some).map_err(|unreadable| match unreadable {
            // Its answer has to find it.
            Unreadable::Request { error, .. } => refuse(error),
            other => other,
        })
    }

    /// A notification of the peer. A malformed one is not answered.
    fn told_by_peer<R: Role>(
        &mut self,
        content: Option<&RawValue>,
        calls: &dyn Calls,
    ) -> Result<Option<RxJsonRpcMessage<R>>, Unreadable> {
        let told = content.and_then(object::<Content<&RawValue>>);
        // A server of its own kind says whatever it likes.
        let Content { method, params } =
            told.unwrap_or_else(|| Content { method: "notification".to_owned(), params: content });
        let notification = match params.filter(|_| method == CANCELLED).and_then(parse::<Value>) {
            Some(mut params) => {
                let named = params.get("requestId").map(RequestId::deserialize);
                if let Some(Ok(named)) = named {
                    let Some(id) = self.inbound.cancelled(&named) else { return Ok(None) };
                    params["requestId"] = id.into_json_value();
                }
                parts::assemble::<R>(&Request::notification(&method, Some(params)), calls)
            }
            None => parts::assemble::<R>(&Request::notification(&method, params), calls),
        };
        notification.map(Some).map_err(|unreadable| match unreadable {
            Unreadable::Request { error, .. } => Unreadable::Response { id: None, error },
            other => other,
        })
    }

    /// An answer of the peer.
    fn answered_by_peer<R: Role>(
        &mut self,
        opened: &Opened<'_>,
        request_id: Option<RequestId>,
        calls: &dyn Calls,
    ) -> Result<Option<RxJsonRpcMessage<R>>, Unreadable> {
        let is_error = opened.kind() == Some("error");
        let Some(id) = self.answered(request_id, calls) else {
            let error = ErrorData::invalid_request("an answer to nothing", None);
            return Err(Unreadable::Response { id: None, error });
        };
        let nothing = RawValue::NULL;
        let content = opened.content().unwrap_or(nothing);
        if is_error {
            return match parse::<ErrorData>(content) {
                Some(_) => parts::assemble::<R>(&Response::error(&id, content), calls).map(Some),
                None => {
                    let message = parse::<String>(content);
                    let message = message.unwrap_or_else(|| "an error without words".to_owned());
                    let error = ErrorData::internal_error(message, None);
                    Err(Unreadable::Response { id: Some(id), error })
                }
            };
        }
        let result = match self.bare_tools && calls.method(&id) == Some(Method::CallTool) {
            true => serde_json::value::to_raw_value(&parts::tool_result(content)).ok(),
            false => None,
        };
        let response = Response::result(&id, result.as_deref().unwrap_or(content));
        parts::assemble::<R>(&response, calls).map(Some).map_err(|unreadable| match unreadable {
            Unreadable::Request { error, .. } | Unreadable::Response { error, .. } => {
                Unreadable::Response { id: Some(id), error }
            }
            other => other,
        })
    }
}

impl<R: Role> Framing<R> for Envelope {
    fn encode(&mut self, message: &TxJsonRpcMessage<R>) -> Result<Option<Message>, MessageError> {
        let json = parts::json_rpc::<R>(message)?;
        if self.form == Form::Wrapped {
            return wrapped::seal(&json, &self.session).map(Some);
        }
        let parts = parts::parts(&json)?;
        let nothing = RawValue::NULL;
        self.inbound.nothing_answered();
        self.asking = None;
        let encoded = match message {
            JsonRpcMessage::Request(request) => self.ask(&request.id, &parts),
            JsonRpcMessage::Notification(_) => self.tell(&parts),
            JsonRpcMessage::Response(response) => match self.inbound.answer(&response.id) {
                Some(open) => self.answer(&open, parts.result.unwrap_or(nothing)),
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
                self.seal(Kind::Error, Some(parts.error.unwrap_or(nothing)), request_id)
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
        let opened = Opened::read(json)?;
        let request_id = match opened.request_id.map(parse::<RequestId>) {
            None => None,
            Some(Some(id)) => Some(id),
            Some(None) => {
                let what = "`requestId` is neither a string nor an integer";
                let error = ErrorData::invalid_request(what, None);
                return Err(match opened.kind() {
                    Some("mcp_request") => self.inbound.refuse_request(None, error),
                    _ => self.inbound.refuse(None, error),
                });
            }
        };
        let refuse = |inbound: &mut Inbound, what| {
            inbound.refuse(request_id.clone(), ErrorData::invalid_request(what, None))
        };
        match (opened.kind(), self.form) {
            (Some("ping"), _) => {
                self.owed.extend(self.seal(Kind::Pong, None, request_id.as_ref()));
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

    fn in_turn(&mut self, message: Message) -> Option<Message> {
        self.asked.extend(self.asking.take().filter(|_| !self.returns_ids));
        self.inbound.in_turn(message)
    }

    fn owed(&mut self) -> Option<Message> {
        self.owed.pop_front().or_else(|| self.inbound.next_in_turn())
    }

    fn withdraw(&mut self, id: &RequestId) {
        self.asked.retain(|asked| asked != id);
    }

    fn restart(&mut self) {
        self.inbound.restart();
        (self.returns_ids, self.restarted) = (false, true);
    }

    fn manners(&self) -> Manners {
        let manners = Manners::default().negotiates(false);
        let manners = match self.form {
            Form::Wrapped => return manners,
            _ => manners.greeting(Greeting::new(greet, verdict)),
        };
        let manners = manners.initializes(false);
        if R::IS_CLIENT { manners.probe(ping) } else { manners }
    }

    fn session(&self) -> Option<SessionName> {
        (self.form == Form::Wrapped).then(|| self.session.clone())
    }

    fn again(&self, message: Message) -> Message {
        match self.form {
            Form::Wrapped => wrapped::again(message, &self.session),
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
    let answer = parts::value(message).filter(|answer| answer["requestId"] == AUTHENTICATE)?;
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

/// What is asked or told.
#[derive(Serialize, Deserialize)]
struct Content<P> {
    method: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<P>,
}

/// The params of `tools/call`.
#[derive(Deserialize)]
struct Named<'a> {
    name: String,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

#[cfg(test)]
mod tests;
