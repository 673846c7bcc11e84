//! Calls of tools by peers that know nothing of `tools/call`: bare arguments and bare results.

use rmcp::ErrorData;
use serde_json::Value;

use super::json::{Object, members, read_object};
use crate::decode::json::{Raw, fault};

/// Builds the params of `tools/call`.
///
/// # Errors
/// `-32602` unless `arguments` is an object or absent.
pub(super) fn call_params(name: &str, arguments: Option<Raw<'_>>) -> Result<String, ErrorData> {
    if arguments.is_some_and(|arguments| !arguments.is_object()) {
        return Err(ErrorData::invalid_params("the arguments of a tool are an object", None));
    }
    let arguments = arguments.map(Raw::get);
    Ok(Object::new().string("name", name).raw("arguments", arguments).end())
}

/// Bare result of a tool.
pub(super) enum ToolOutcome<'a> {
    /// The structured content or, where there is none, the whole result.
    Result(Raw<'a>),
    /// The text of a failure.
    Failed(String),
}

members! {
    /// Members of the result of `tools/call`.
    CallResult {
        structured_content: "structuredContent",
        is_error: "isError",
        content: "content",
    }
}

impl<'a> ToolOutcome<'a> {
    /// Reads the result of `tools/call`.
    pub(super) fn of(result: Raw<'a>) -> Self {
        let Some(read) = read_object::<CallResult<'_>>(result) else { return Self::Result(result) };
        match (read.is_error.and_then(Raw::parse), read.structured_content) {
            (Some(true), _) => Self::Failed(failure_text(read.content)),
            (_, Some(content)) => Self::Result(content),
            _ => Self::Result(result),
        }
    }
}

/// Returns the text in the content of a failed result.
fn failure_text(content: Option<Raw<'_>>) -> String {
    let content = content.and_then(Raw::parse);
    let Some(Value::Array(blocks)) = content else { return "the tool failed".to_owned() };
    let texts: Vec<_> = blocks.iter().filter_map(|block| block.get("text")?.as_str()).collect();
    match texts.is_empty() {
        true => "the tool failed".to_owned(),
        false => texts.join("\n"),
    }
}

/// Builds the result of `tools/call` from a bare one.
pub(super) fn call_result(content: Raw<'_>) -> String {
    let text = Object::new().string("type", "text").string("text", content.get()).end();
    let is_structured = content.is_object() && fault(content.get()).is_none();
    let structured = is_structured.then_some(content.get());
    let result = Object::new().raw("content", Some(&format!("[{text}]")));
    result.raw("structuredContent", structured).end()
}
