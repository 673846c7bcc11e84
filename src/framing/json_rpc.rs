//! [`JsonRpc`]: one JSON-RPC 2.0 message per WebSocket message, the subprotocol `mcp`.

use rmcp::{
    ErrorData,
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};
use serde_json::json;

use super::{
    Framing,
    decode_error::DecodeError,
    json::text_of,
    properties::{FramingProperties, InBandAuth},
    sep1288::SessionIdMembers,
    unauthenticated::{self, UnauthenticatedMessage, error_text},
};
use crate::{
    close::{CloseCode, CloseReason},
    decode::{PendingMethods, malformed::Malformed},
    error::MessageError,
    message::{Message, Text},
    role::{AUTHENTICATE, McpRole},
};

/// MCP's form for custom transports: the JSON-RPC message as text, without an envelope or batches.
#[derive(Debug, Clone, Default)]
pub struct JsonRpc {
    binary: BinaryPolicy,
    session_id: Option<SessionIdMembers>,
}

/// Treatment of a binary message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum BinaryPolicy {
    /// Reads it as if it were text: the default.
    #[default]
    Accept,
    /// Closes the link with 1003, as SEP-1288 has it.
    Reject,
}

impl JsonRpc {
    /// Sets the treatment of binary messages: [`BinaryPolicy::Accept`].
    #[must_use]
    pub fn binary(mut self, policy: BinaryPolicy) -> Self {
        self.binary = policy;
        self
    }

    /// Puts the session id into the messages too, as SEP-1288 has it. Off by default: MCP itself
    /// has no such members.
    ///
    /// A server adds `mcpSessionId` to the result of `initialize`, where the session has an id (see
    /// [`SessionIdPolicy`](crate::server::SessionIdPolicy)). A request whose `params.mcpSessionId`
    /// is another is answered with `-32602`, and such a notification dropped; those without are
    /// served.
    ///
    /// A client puts the id that it was told into the params of all that it sends from then on,
    /// and when it dials again it offers it as the subprotocol `mcp.session-id.<id>`. What waits in
    /// its queue meanwhile keeps the id that it has.
    #[must_use]
    pub fn session_fields(mut self) -> Self {
        self.session_id = Some(SessionIdMembers::default());
        self
    }
}

impl<R: McpRole> Framing<R> for JsonRpc {
    fn encode(&mut self, message: &TxJsonRpcMessage<R>) -> Result<Option<Message>, MessageError> {
        let mut json = R::encode(message).map_err(|error| MessageError::Encode(error.into()))?;
        if let Some(session_id) = &self.session_id {
            let mut with_id = Vec::from(json);
            session_id.write::<R>(message, &mut with_id);
            json = with_id.into();
        }
        Ok(Some(Message::Text(Text::from_validated(json))))
    }

    fn decode(
        &mut self,
        message: Message,
        calls: &dyn PendingMethods,
    ) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
        let decoded = match &message {
            Message::Text(text) => R::decode(text.as_bytes(), calls),
            Message::Binary(bytes) if self.binary == BinaryPolicy::Accept => {
                R::decode(bytes, calls)
            }
            Message::Binary(_) => return Err(no_binary()),
            _ => return Ok(None),
        };
        let decoded = decoded.map_err(|malformed| DecodeError::of::<R>(malformed, calls))?;
        match (&self.session_id, &message) {
            (Some(session_id), Message::Text(json)) => {
                session_id.read::<R>(decoded, json.as_bytes())
            }
            (Some(session_id), Message::Binary(json)) => session_id.read::<R>(decoded, json),
            _ => Ok(Some(decoded)),
        }
    }

    fn attribute_error(
        &mut self,
        message: &Message,
        calls: &dyn PendingMethods,
        error: ErrorData,
    ) -> DecodeError {
        let json = match message {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
            _ => &[],
        };
        DecodeError::of::<R>(Malformed::refused(json, error), calls)
    }

    fn decode_unauthenticated(
        &mut self,
        message: &Message,
    ) -> Option<Result<UnauthenticatedMessage, DecodeError>> {
        if matches!(message, Message::Binary(_)) && self.binary == BinaryPolicy::Reject {
            return Some(Err(no_binary()));
        }
        let json = text_of(message)?;
        Some(json.and_then(unauthenticated::Request::read))
    }

    fn properties(&self) -> FramingProperties {
        FramingProperties::default()
            .in_band_auth(InBandAuth::new(auth_request, parse_auth_reply))
            .session_id(self.session_id.as_ref().map(SessionIdMembers::property))
    }
}

fn no_binary() -> DecodeError {
    let reason = CloseReason::new(CloseCode::Unsupported, "binary messages are not accepted");
    DecodeError::Unacceptable(reason)
}

/// Id of the request that authenticates.
const AUTH_ID: &str = "authenticate";

fn auth_request(token: &str) -> Message {
    let params = json!({ "token": token });
    let request = json!({
        "jsonrpc": "2.0", "id": AUTH_ID, "method": AUTHENTICATE, "params": params,
    });
    Message::text(request.to_string())
}

fn parse_auth_reply(message: &Message) -> Option<Result<(), String>> {
    let reply = unauthenticated::parse_reply(message).filter(|reply| reply["id"] == AUTH_ID)?;
    Some(match reply.get("error") {
        Some(error) => Err(error_text(error)),
        None => Ok(()),
    })
}
