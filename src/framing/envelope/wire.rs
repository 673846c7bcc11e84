//! Envelopes as they go over the wire.

use crate::{decode::json::Raw, framing::parts::members};

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
    /// An envelope that has come in.
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
