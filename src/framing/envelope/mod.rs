//! [`Envelope`]: each message in an object that says by `type` what it is.

mod decode;
mod encode;
mod requests;
mod unauthenticated;
mod wire;

use std::collections::VecDeque;

use rmcp::{
    ErrorData,
    model::{JsonRpcMessage, RequestId},
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};
use serde_json::json;

use self::{
    requests::{OwnRequests, PeerRequests},
    wire::{Kind, Opened},
};
use super::{
    Framing,
    decode_error::{DecodeError, unreadable_answer},
    json::{JsonRpcMembers, Members as _, encode_json_rpc, invalid_request, read, text_of},
    properties::{FramingProperties, InBandAuth},
    sep1288,
    session_id::SessionIdCell,
    timestamp::iso_8601,
    unauthenticated::{UnauthenticatedMessage, error_text, parse_reply},
};
use crate::{
    close::CloseReason,
    decode::{
        PendingMethods,
        json::{Id, Raw},
    },
    error::MessageError,
    message::Message,
    role::{AUTHENTICATE, McpRole},
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
/// Both sides may send each of them. An inbound message may carry its content as `payload` in place
/// of `request`, `result` or `error`; its `timestamp` is ignored.
///
/// - **`method`** is one of MCP's, or the bare name of a tool: then `params` are the tool's
///   arguments, and `result` is its structured content or, where it has none, its whole result. A
///   failure of the tool is an `error` with the code -32000. What holds a `/` is no tool, nor is
///   `authenticate`.
/// - **`requestId`** is any string, or an integer. A request without one is answered without; such
///   answers come in the order of their requests, of which 1,024 may be open, one more is refused.
///   More than 4,096 answers, or 4 MiB of them, that wait for another close the connection with 1008.
/// - **`initialize`** may be left out.
/// - **Pings**: a `ping` is answered by a `pong`, and a client of this crate sends one in place of
///   WebSocket's own.
/// - **Errors**: those that JSON-RPC has, in an `error`; without `requestId` where none could be
///   read. What is wrong with a `notification` is told to nobody.
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
    own_requests: OwnRequests,
    peer_requests: PeerRequests,
    replies: VecDeque<Message>,
}

/// Members of the envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Form {
    /// The content is the member `request`, `result` or `error`.
    #[default]
    Named,
    /// The content is always `payload`.
    General,
    /// The content is a JSON-RPC message, as SEP-1288 has it.
    Wrapped,
}

/// Returns a framing for another connection.
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

    /// Uses the envelope of SEP-1288's first revision, which holds JSON-RPC and the session id. It
    /// is `{"type":"mcp","mcpSessionId":…,"payload":{"jsonrpc":"2.0",…}}`.
    ///
    /// MCP is initialized as ever. A server adds the id of a session that has
    /// [one](crate::server::SessionIdPolicy), and answers a message for another with `-32602`; a
    /// client returns the id that it was told. `session_id` is understood for `mcpSessionId`.
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
}

impl<R: McpRole> Framing<R> for Envelope {
    fn encode(&mut self, message: &TxJsonRpcMessage<R>) -> Result<Option<Message>, MessageError> {
        let json = encode_json_rpc::<R>(message)?;
        if self.form == Form::Wrapped {
            return Ok(Some(sep1288::seal(&json, self.session.get().as_deref())));
        }
        let members = JsonRpcMembers::read(&json).0;
        self.peer_requests.on_encoding();
        self.own_requests.on_encoded(match message {
            JsonRpcMessage::Request(request) => Some(&request.id),
            _ => None,
        });
        let encoded = match message {
            JsonRpcMessage::Request(request) => self.encode_request(&request.id, &members),
            JsonRpcMessage::Notification(_) => self.encode_notification(&members),
            JsonRpcMessage::Response(response) => match self.peer_requests.answer(&response.id) {
                Some(request) => {
                    self.encode_response(&request, members.result.unwrap_or(Raw::NULL))?
                }
                None => return Ok(None),
            },
            JsonRpcMessage::Error(error) => {
                let request = match &error.id {
                    Some(id) => match self.peer_requests.answer(id) {
                        Some(request) => Some(request),
                        None => return Ok(None),
                    },
                    None => None,
                };
                let request_id = request.as_ref().and_then(|request| request.request_id.as_ref());
                self.seal(Kind::Error, Some(members.error.unwrap_or(Raw::NULL).get()), request_id)
            }
        };
        Ok(Some(encoded))
    }

    fn decode(
        &mut self,
        message: Message,
        calls: &dyn PendingMethods,
    ) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
        let Some(json) = text_of(&message) else { return Ok(None) };
        let (opened, shape, error) = read::<Opened<'_>>(json?);
        if let Some(error) = error {
            return Err(self.attribute::<R>((&opened, shape), calls, error));
        }
        let request_id = match opened.request_id.map(|id| Id::of(Some(id))) {
            None => None,
            Some(Id::Valid(id)) => Some(id),
            Some(id) => {
                let what = id.fault("requestId").unwrap_or_default();
                let error = ErrorData::invalid_request(what, None);
                return Err(match opened.kind() {
                    Some("mcp_request") => self.peer_requests.refuse_request(None, error),
                    Some("notification" | "ping" | "pong") => DecodeError::Dropped { error },
                    Some("mcp_response" | "error") => {
                        DecodeError::Response { id: None, error: unreadable_answer(error) }
                    }
                    _ => self.peer_requests.refuse(None, error),
                });
            }
        };
        let refuse = |requests: &mut PeerRequests, what| {
            requests.refuse(request_id.clone(), ErrorData::invalid_request(what, None))
        };
        match (opened.kind(), self.form) {
            (Some("ping"), _) => {
                self.replies.push_back(self.seal(Kind::Pong, None, request_id.as_ref()));
                Ok(None)
            }
            (Some("pong"), _) => Ok(None),
            (Some("mcp"), Form::Wrapped) => {
                sep1288::open::<R>(opened.payload, opened.session_id, &self.session, calls)
            }
            (_, Form::Wrapped) => Err(invalid_request(None, "`type` is missing, or not `mcp`")),
            (None, _) => Err(refuse(&mut self.peer_requests, "`type` is missing, or no string")),
            (Some("mcp_request"), _) => {
                self.decode_request::<R>(opened.content(), request_id, calls)
            }
            (Some("notification"), _) => self.decode_notification::<R>(opened.content(), calls),
            (Some("mcp_response" | "error"), _) => {
                self.decode_response::<R>(&opened, request_id, calls)
            }
            (Some(_), _) => Err(refuse(&mut self.peer_requests, "no such `type`")),
        }
    }

    fn attribute_error(
        &mut self,
        message: &Message,
        calls: &dyn PendingMethods,
        error: ErrorData,
    ) -> DecodeError {
        match text_of(message) {
            Some(Ok(json)) => {
                let (opened, shape) = Opened::read(json);
                self.attribute::<R>((&opened, shape), calls, error)
            }
            _ => DecodeError::Request { id: None, error },
        }
    }

    fn decode_unauthenticated(
        &mut self,
        message: &Message,
    ) -> Option<Result<UnauthenticatedMessage, DecodeError>> {
        text_of(message).map(|json| self.read_unauthenticated(json?))
    }

    fn enqueue_in_order(&mut self, message: Message) -> Option<Message> {
        self.own_requests.on_sent();
        self.peer_requests.enqueue_in_order(message)
    }

    fn next_reply(&mut self) -> Option<Message> {
        self.replies.pop_front().or_else(|| self.peer_requests.next_in_order())
    }

    fn on_withdrawn(&mut self, id: &RequestId) {
        self.own_requests.on_withdrawn(id);
    }

    fn on_resent(&mut self, id: &RequestId) {
        self.own_requests.on_resent(id);
    }

    fn on_unanswered(&mut self, id: &RequestId) -> Result<(), CloseReason> {
        self.peer_requests.on_unanswered(id)
    }

    fn on_new_peer(&mut self, calls: &dyn PendingMethods) {
        self.peer_requests.on_new_peer();
        self.own_requests.on_new_peer(calls);
    }

    fn properties(&self) -> FramingProperties {
        let properties = FramingProperties::default().uses_subprotocols(false);
        let properties = match self.form {
            Form::Wrapped => {
                return properties.session_id(sep1288::envelope_property(&self.session));
            }
            _ => properties.in_band_auth(InBandAuth::new(auth_request, parse_auth_reply)),
        };
        let properties = properties.has_initialize(false);
        if R::IS_CLIENT { properties.ping_message(ping) } else { properties }
    }
}

/// Id of the request that authenticates.
const AUTH_ID: &str = "authenticate";

fn auth_request(token: &str) -> Message {
    let request = json!({ "method": AUTHENTICATE, "params": { "token": token } });
    let envelope = json!({
        "type": "mcp_request", "request": request, "requestId": AUTH_ID,
        "timestamp": iso_8601(),
    });
    Message::text(envelope.to_string())
}

fn parse_auth_reply(message: &Message) -> Option<Result<(), String>> {
    let reply = parse_reply(message).filter(|reply| reply["requestId"] == AUTH_ID)?;
    Some(match reply["type"].as_str() {
        Some("mcp_response") => Ok(()),
        _ => Err(error_text(&reply["error"])),
    })
}

fn ping() -> Message {
    Message::text(format!(r#"{{"type":"ping","timestamp":"{}"}}"#, iso_8601()))
}

#[cfg(test)]
mod tests;
