//! Errors of tool calls.

use std::sync::Arc;

use rmcp::{ErrorData, ServiceError, model::CallToolResult, service::ClientInitializeError};

use crate::error::Error;

/// Error of creating a [`ToolClient`](super::ToolClient), or of calling a tool.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// The connection could not be made.
    #[error(transparent)]
    Connect(#[from] Error),
    /// The server did not initialize MCP.
    #[error("not initialized: {0}")]
    Initialize(#[from] Box<ClientInitializeError>),
    /// The list of tools could not be fetched. Nothing was called.
    #[error("no list of tools: {0}")]
    List(#[source] Arc<ServiceError>),
    /// The server has no tool of this name. Nothing was called.
    #[error("there is no tool {0:?}")]
    Unknown(String),
    /// The arguments do not serialise to a JSON object. Nothing was called.
    #[error("arguments that cannot be sent: {0}")]
    Arguments(#[source] serde_json::Error),
    /// The tool reported a failure (`isError`), with this result.
    #[error("the tool has failed: {}", text_of(.0).unwrap_or_default())]
    Failed(Box<CallToolResult>),
    /// The call was not sent, as the error's `data` tells, so the tool has not run. A server that
    /// forwards calls may report the same of its own.
    #[error("not sent: {}", .0.message)]
    NotSent(ErrorData),
    /// The call was sent, and no response arrived: the tool may have run, or may still run.
    #[error("outcome unknown: {}", .0.message)]
    OutcomeUnknown(ErrorData),
    /// The server answers with a JSON-RPC error.
    #[error("error {}: {}", .0.code.0, .0.message)]
    Rpc(ErrorData),
    /// The tool has run, but its result does not have the type asked for.
    #[error("the tool returned {}, which is not of the type asked for: {error}", excerpt(.result))]
    #[non_exhaustive]
    Result {
        /// Description of the mismatch.
        #[source]
        error: serde_json::Error,
        /// The result that the tool returned.
        result: Box<CallToolResult>,
    },
    /// Any other error of rmcp, such as a closed service.
    #[error(transparent)]
    Service(ServiceError),
}

impl ToolError {
    /// Returns the text of a result that has [failed](Self::Failed) or has the [wrong
    /// type](Self::Result).
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Failed(result) | Self::Result { result, .. } => text_of(result),
            _ => None,
        }
    }
}

impl From<ServiceError> for ToolError {
    fn from(error: ServiceError) -> Self {
        let ServiceError::McpError(error) = error else { return Self::Service(error) };
        let said = error.data.as_ref().and_then(|data| match data["reason"].as_str() {
            Some("timed_out") => data["outcome"].as_str(),
            reason => reason,
        });
        match said {
            Some("not_sent") => Self::NotSent(error),
            Some("outcome_unknown") => Self::OutcomeUnknown(error),
            _ => Self::Rpc(error),
        }
    }
}

/// Returns the beginning of a result, for an error message.
fn excerpt(result: &CallToolResult) -> String {
    const MAX_CHARS: usize = 200;
    let shown = match &result.structured_content {
        Some(value) => value.to_string(),
        None => text_of(result).map_or_else(|| "nothing".into(), |text| format!("{text:?}")),
    };
    match shown.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown,
    }
}

/// Joins the text blocks of a result, one per line. `None` if the result has no content at all.
pub(super) fn text_of(result: &CallToolResult) -> Option<String> {
    let texts = result.content.iter().filter_map(|block| block.as_text());
    let texts: Vec<_> = texts.map(|block| block.text.as_str()).collect();
    (!result.content.is_empty()).then(|| texts.join("\n"))
}
