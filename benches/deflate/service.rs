//! Something to list, and something to fetch.

use std::{borrow::Cow, fmt::Write};

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ListToolsResult,
        PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
    },
    service::RequestContext,
};
use serde_json::{Value, json};

/// Number of tools.
const TOOLS: usize = 40;

#[derive(Debug, Clone, Copy)]
pub(crate) struct LargeAnswers;

const VERBS: [&str; 8] = ["list", "read", "create", "update", "delete", "search", "move", "watch"];
const NOUNS: [&str; 5] = ["file", "issue", "message", "calendar entry", "customer"];

fn tool(at: usize) -> Tool {
    let (verb, noun) = (VERBS[at % VERBS.len()], NOUNS[at / VERBS.len()]);
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("{verb} {noun}"),
        "type": "object",
        "properties": {
            "id": { "type": "string", "description": format!("Which {noun} to {verb}") },
            "limit": { "type": "integer", "minimum": 1, "maximum": at + 10, "default": 10 },
            "fields": { "type": "array", "items": { "type": "string" } },
        },
        "required": ["id"],
    });
    let Value::Object(schema) = schema else { unreachable!("it is an object") };
    let name = format!("{verb}_{}", noun.replace(' ', "_"));
    let what = format!("Use this to {verb} a {noun}; it answers with what there is of it then.");
    Tool::new(Cow::Owned(name), Cow::Owned(what), schema)
}

/// JSON as tools answer it: the same keys again and again, and values that differ.
fn rows(bytes: usize) -> String {
    let mut text = String::from("[");
    let mut seed = 1_u64;
    while text.len() < bytes {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (id, amount) = (seed >> 40, seed >> 52);
        let noun = NOUNS[(seed >> 33) as usize % NOUNS.len()];
        let _ = write!(
            text,
            "{{\"id\":\"{id:08x}\",\"kind\":\"{noun}\",\"amount\":{amount},\"active\":{}}},",
            seed >> 63 == 0
        );
    }
    text.truncate(bytes);
    text
}

impl ServerHandler for LargeAnswers {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items((0..TOOLS).map(tool).collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = Value::from(request.arguments.unwrap_or_default());
        let bytes = arguments["bytes"].as_u64().unwrap_or_default();
        let text = rows(usize::try_from(bytes).unwrap_or_default());
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}
