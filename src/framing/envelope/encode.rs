//! Envelopes of this side's messages.

use rmcp::{ErrorData, model::RequestId};
use serde_json::Value;

use super::{
    Envelope, Form,
    requests::PeerRequest,
    wire::{CANCELLED, CallParams, Content, Kind, wire_id},
};
use crate::{
    decode::{json::Raw, method::Method},
    error::MessageError,
    framing::{
        json::{JsonRpcMembers, Object, read_object, text_message, to_json},
        timestamp::iso_8601,
        tool_result::ToolOutcome,
    },
    message::Message,
    rpc_code::UNAVAILABLE,
};

impl Envelope {
    /// Puts the content of a message into an envelope.
    pub(super) fn seal(
        &self,
        kind: Kind,
        content: Option<&str>,
        request_id: Option<&RequestId>,
    ) -> Message {
        let name = match kind {
            Kind::McpRequest if self.form == Form::Named => "request",
            Kind::McpResponse if self.form == Form::Named => "result",
            // As a `payload` it would not be recognised as one.
            Kind::Error => "error",
            _ => "payload",
        };
        let sealed = Object::new().string("type", kind.name()).raw(name, content);
        text_message(sealed.id("requestId", request_id).string("timestamp", &iso_8601()).end())
    }

    /// Encodes a request, whose id is a string on the wire.
    pub(super) fn encode_request(&self, id: &RequestId, members: &JsonRpcMembers<'_>) -> Message {
        let method = members.method.and_then(Raw::parse::<String>).unwrap_or_default();
        let call = members.params.and_then(read_object::<CallParams<'_>>);
        let name = call.as_ref().and_then(|call| call.name?.parse::<String>());
        let request = match (call, name) {
            (Some(call), Some(name)) if self.bare_tools && method == Method::CallTool.name() => {
                Content::write(&name, call.arguments)
            }
            _ => Content::write(&method, members.params),
        };
        self.seal(Kind::McpRequest, Some(&request), Some(&wire_id(id)))
    }

    /// Encodes a notification. The id of a cancelled request is a string on the wire.
    pub(super) fn encode_notification(&self, members: &JsonRpcMembers<'_>) -> Message {
        let method = members.method.and_then(Raw::parse::<String>).unwrap_or_default();
        let params = members.params.filter(|_| method == CANCELLED).and_then(Raw::parse::<Value>);
        let content = match params {
            Some(mut params) => {
                if let Some(number) = params.get("requestId").and_then(Value::as_i64) {
                    params["requestId"] = number.to_string().into();
                }
                let params = params.to_string();
                Object::new().string("method", &method).raw("params", Some(&params)).end()
            }
            None => Content::write(&method, members.params),
        };
        self.seal(Kind::Notification, Some(&content), None)
    }

    /// Encodes the response to a request of the peer.
    pub(super) fn encode_response(
        &self,
        request: &PeerRequest,
        result: Raw<'_>,
    ) -> Result<Message, MessageError> {
        let request_id = request.request_id.as_ref();
        Ok(match request.is_bare.then(|| ToolOutcome::of(result)) {
            None => self.seal(Kind::McpResponse, Some(result.get()), request_id),
            Some(ToolOutcome::Result(content)) => {
                self.seal(Kind::McpResponse, Some(content.get()), request_id)
            }
            Some(ToolOutcome::Failed(message)) => {
                let error = to_json(&ErrorData::new(UNAVAILABLE, message, None))?;
                self.seal(Kind::Error, Some(&error), request_id)
            }
        })
    }
}
