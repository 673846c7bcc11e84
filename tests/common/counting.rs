//! A server that knows how often each call was executed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ServerCapabilities,
        ServerConfig,
    },
    service::RequestContext,
};

/// A service whose tool `count` returns its argument `number`, after `ms` milliseconds if it has
/// that.
#[derive(Debug, Clone, Default)]
pub struct Counting(pub Arc<Mutex<HashMap<i64, usize>>>);

impl Counting {
    /// Returns the number of times that the call with this number was executed.
    pub fn times(&self, number: i64) -> usize {
        self.0.lock().unwrap().get(&number).copied().unwrap_or(0)
    }
}

impl ServerHandler for Counting {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        let number = arguments["number"].as_i64().unwrap();
        *self.0.lock().unwrap().entry(number).or_default() += 1;
        if let Some(ms) = arguments.get("ms").and_then(|ms| ms.as_u64()) {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        let number = ContentBlock::text(number.to_string());
        Ok(CallToolResult::success(vec![number]).into())
    }
}
