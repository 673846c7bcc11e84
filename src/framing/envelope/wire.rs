//! Envelopes as they go over the wire.

use rmcp::model::RequestId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::framing::{
    Unreadable,
    parts::{self, parse},
};

#[derive(Debug, Clone, Copy, Serialize, Default)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    #[default]
    McpRequest,
    McpResponse,
    Error,
    Notification,
    Pong,
}

/// An envelope on its way out.
#[derive(Serialize, Default)]
pub(super) struct Sealed<'a> {
    #[serde(rename = "type")]
    pub(super) kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) payload: Option<&'a RawValue>,
    #[serde(rename = "requestId", skip_serializing_if = "Option::is_none")]
    pub(super) request_id: Option<&'a RequestId>,
    pub(super) timestamp: String,
}

/// An envelope that has come in.
#[derive(Deserialize)]
pub(super) struct Opened<'a> {
    #[serde(rename = "type", borrow)]
    pub(super) kind: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) request: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) result: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) payload: Option<&'a RawValue>,
    #[serde(rename = "requestId", borrow)]
    pub(super) request_id: Option<&'a RawValue>,
    #[serde(rename = "mcpSessionId", alias = "session_id", borrow)]
    pub(super) session_id: Option<&'a RawValue>,
}

impl<'a> Opened<'a> {
    pub(super) fn read(json: &'a [u8]) -> Result<Self, Unreadable> {
        parts::read(json)
    }

    pub(super) fn kind(&self) -> Option<&'a str> {
        self.kind.and_then(parse)
    }

    pub(super) fn content(&self) -> Option<&'a RawValue> {
        match self.kind() {
            Some("mcp_request") => self.request.or(self.payload),
            Some("mcp_response") => self.result.or(self.payload),
            Some("error") => self.error.or(self.payload),
            _ => self.payload,
        }
    }
}
