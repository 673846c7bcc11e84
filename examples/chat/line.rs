//! The lines of the chat, and the arguments of the tools.

use std::collections::VecDeque;

use rmcp::schemars::{self, JsonSchema};
use serde::{Deserialize, Serialize};

pub(crate) type Error = Box<dyn std::error::Error>;

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Line {
    /// When it was said, in milliseconds since 1970; no two have the same
    pub(crate) at: u64,
    pub(crate) from: String,
    pub(crate) text: String,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Lines {
    pub(crate) lines: VecDeque<Line>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Say {
    pub(crate) text: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct After {
    /// The time of the last line that is known
    pub(crate) after: u64,
}
