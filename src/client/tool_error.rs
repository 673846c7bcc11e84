//! Why there is no result of a tool.

use std::sync::Arc;

use rmcp::{ErrorData, ServiceError, model::CallToolResult, service::ClientInitializeError};

use crate::error::Error;

/// Why there is no [`Toolbox`](super::Toolbox), or no result of a call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ToolError {
    /// No connection came about.
    #[error(transparent)]
    Connect(#[from] Error),
    /// The server did not initialize MCP.
    #[error("not initialized: {0}")]
    Initialize(#[from] Box<ClientInitializeError>),
    /// The list of tools could not be had. Nothing was called.
    #[error("no list of tools: {0}")]
    List(#[source] Arc<ServiceError>),
    /// The server has no tool of this name. Nothing was called.
    #[error("there is no tool {0:?}")]
    Unknown(String),
    /// The arguments are no JSON object. Nothing was called.
    #[error("arguments that cannot be sent: {0}")]
    Arguments(#[source] serde_json::Error),
    /// The tool says that it has failed, and this is what it says.
    #[error("the tool has failed: {}", text_of(.0).unwrap_or_default())]
    Failed(Box<CallToolResult>),
    /// The call never left this side, as the error's `data` tells: the tool has not run. A server that passes
    /// calls on may say the same of its own.
    #[error("not sent: {}", .0.message)]
    NotSent(ErrorData),
    /// The call was sent, and no answer arrived: the tool may have run, or still run.
    #[error("outcome unknown: {}", .0.message)]
    OutcomeUnknown(ErrorData),
    /// The server answers with a JSON-RPC error.
    #[error("error {}: {}", .0.code.0, .0.message)]
    Rpc(ErrorData),
    /// The tool has run, and what it returns is not what was asked for.
    #[error("the tool returned {}, which is not of the type asked for: {error}", excerpt(.result))]
    #[non_exhaustive]
    Result {
        /// Why it is not.
        #[source]
        error: serde_json::Error,
        /// What it returns.
        result: Box<CallToolResult>,
    },
    /// Anything else that rmcp says, such as that the service is closed.
    #[error(transparent)]
    Service(ServiceError),
}

impl ToolError {
    /// The text with which the tool says that it has [failed](Self::Failed), or which is not
    /// [what was asked for](Self::Result).
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

/// The beginning of what a tool returns, to be shown.
fn excerpt(result: &CallToolResult) -> String {
    const MOST: usize = 200;
    let shown = match &result.structured_content {
        Some(value) => value.to_string(),
        None => text_of(result).map_or_else(|| "nothing".into(), |text| format!("{text:?}")),
    };
    match shown.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown,
    }
}

/// The blocks of text that a tool returns, one to a line. `None` where it returns nothing else either.
pub(super) fn text_of(result: &CallToolResult) -> Option<String> {
    let texts = result.content.iter().filter_map(|block| block.as_text());
    let texts: Vec<_> = texts.map(|block| block.text.as_str()).collect();
    (!result.content.is_empty()).then(|| texts.join("\n"))
}
