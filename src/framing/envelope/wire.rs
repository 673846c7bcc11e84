//! Envelopes on the wire.

use rmcp::model::RequestId;

use crate::{
    decode::json::Raw,
    framing::json::{Object, members},
};

/// Method of the notification that cancels a request.
pub(super) const CANCELLED: &str = "notifications/cancelled";

/// Member `type` of an outbound envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    McpRequest,
    McpResponse,
    Error,
    Notification,
    Pong,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::McpRequest => "mcp_request",
            Self::McpResponse => "mcp_response",
            Self::Error => "error",
            Self::Notification => "notification",
            Self::Pong => "pong",
        }
    }
}

members! {
    /// Members of an inbound envelope.
    Opened {
        kind: "type",
        request: "request",
        result: "result",
        error: "error",
        payload: "payload",
        request_id: "requestId",
        session_id: "mcpSessionId" | "session_id",
    }
}

impl<'a> Opened<'a> {
    pub(super) fn kind(&self) -> Option<&'a str> {
        self.kind.and_then(Raw::parse)
    }

    pub(super) fn content(&self) -> Option<Raw<'a>> {
        match self.kind() {
            Some("mcp_request") => self.request.or(self.payload),
            Some("mcp_response") => self.result.or(self.payload),
            Some("error") => self.error.or(self.payload),
            _ => self.payload,
        }
    }
}

members! {
    /// Members of the content of a request or notification.
    Content { method: "method", params: "params", }
}

impl Content<'_> {
    /// Writes the content of a request or notification.
    pub(super) fn write(method: &str, params: Option<Raw<'_>>) -> String {
        Object::new().string("method", method).raw("params", params.map(Raw::get)).end()
    }
}

members! {
    /// Members of the params of `tools/call`.
    CallParams { name: "name", arguments: "arguments", }
}

/// Returns the id of a request of this side on the wire, where all are strings.
pub(super) fn wire_id(id: &RequestId) -> RequestId {
    RequestId::String(id.to_string().into())
}
