//! [`JsonRpc`]: one JSON-RPC 2.0 message per WebSocket message, the subprotocol `mcp`.

mod fields;

use rmcp::{
    ErrorData,
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};
use serde_json::json;

use self::fields::Fields;
use super::{
    Framing,
    decode_error::DecodeError,
    first::{self, FirstMessage},
    parts,
    properties::{FramingProperties, InBandAuth},
    session_id::SessionIdCell,
};
use crate::{
    decode::{self, PendingMethods, malformed::Malformed},
    encode,
    error::{CloseCode, CloseReason, MessageError},
    message::{Message, Text},
    role::McpRole,
};

/// MCP's custom-transport form: the JSON-RPC message itself, as text, without an envelope or
/// batches.
#[derive(Debug, Clone, Default)]
pub struct JsonRpc {
    binary: BinaryPolicy,
    fields: Option<Fields>,
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

    /// Names the session in the messages too, as SEP-1288 has it. Off by default: MCP itself knows
    /// no such members.
    ///
    /// A server adds `mcpSessionId` to the result of `initialize`, where the session has a name (see
    /// [`SessionIdPolicy`](crate::server::SessionIdPolicy)). A request whose `params.mcpSessionId` is another is
    /// answered with `-32602`, and such a notification dropped; those without are served.
    ///
    /// A client puts the name that it was told into the params of all that it sends from then on,
    /// and when it dials again it offers it as the subprotocol `mcp.session-id.<id>`. What waits in
    /// its queue meanwhile keeps the name that it has.
    #[must_use]
    pub fn session_fields(mut self) -> Self {
        self.fields = Some(Fields::default());
        self
    }
}

impl<R: McpRole> Framing<R> for JsonRpc {
    fn encode(&mut self, message: &TxJsonRpcMessage<R>) -> Result<Option<Message>, MessageError> {
        match encode::encode::<R>(message) {
            Ok(mut json) => {
                if let Some(fields) = &self.fields {
                    fields.write::<R>(message, &mut json);
                }
                Ok(Some(Message::Text(Text::from_validated(json.into()))))
            }
            Err(error) => Err(MessageError::Encode(error.into())),
        }
    }

    fn decode(
        &mut self,
        message: Message,
        calls: &dyn PendingMethods,
    ) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
        let decoded = match &message {
            Message::Text(text) => decode::decode::<R>(text.as_bytes(), calls),
            Message::Binary(bytes) if self.binary == BinaryPolicy::Accept => {
                decode::decode::<R>(bytes, calls)
            }
            Message::Binary(_) => return Err(no_binary()),
            _ => return Ok(None),
        };
        let decoded = decoded.map_err(|malformed| DecodeError::of::<R>(malformed, calls))?;
        match (&self.fields, &message) {
            (Some(fields), Message::Text(json)) => fields.read::<R>(decoded, json.as_bytes()),
            (Some(fields), Message::Binary(json)) => fields.read::<R>(decoded, json),
            _ => Ok(Some(decoded)),
        }
    }

    fn refuse(
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

    fn first_message(&mut self, message: &Message) -> Option<Result<FirstMessage, DecodeError>> {
        if matches!(message, Message::Binary(_)) && self.binary == BinaryPolicy::Reject {
            return Some(Err(no_binary()));
        }
        let json = parts::data(message)?;
        Some(json.and_then(first::Request::read))
    }

    fn properties(&self) -> FramingProperties {
        FramingProperties::default().in_band_auth(InBandAuth::new(ask, verdict))
    }

    fn session_id(&self) -> Option<SessionIdCell> {
        self.fields.as_ref().map(|fields| fields.session.clone())
    }

    fn reencode(&self, message: Message) -> Message {
        match (&self.fields, message) {
            (Some(fields), Message::Text(json)) => {
                let json = fields.rename(json.as_bytes().to_vec());
                Message::Text(Text::from_validated(json.into()))
            }
            (_, message) => message,
        }
    }
}

fn no_binary() -> DecodeError {
    let reason = CloseReason::new(CloseCode::Unsupported, "binary messages are not accepted");
    DecodeError::Unacceptable(reason)
}

/// The id of what a client asks before it is let in.
const AUTHENTICATE: &str = "authenticate";

fn ask(token: &str) -> Message {
    let params = json!({ "token": token });
    let ask = json!({
        "jsonrpc": "2.0", "id": AUTHENTICATE, "method": "authenticate", "params": params,
    });
    Message::text(ask.to_string())
}

fn verdict(message: &Message) -> Option<Result<(), String>> {
    let answer = parts::verdict(message).filter(|answer| answer["id"] == AUTHENTICATE)?;
    Some(match answer.get("error") {
        Some(error) => Err(parts::words_of(error)),
        None => Ok(()),
    })
}
