//! The rmcp service and the rmcp client that every contender runs.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use rmcp::{
    ClientHandler, ErrorData, Json, Peer, RoleClient, RoleServer, ServerHandler,
    handler::server::{router::tool::ToolRouter, wrapper::Parameters},
    model::{CallToolRequestParams, ProgressNotificationParam, RequestMetaObject},
    service::{NotificationContext, RunningService},
    tool, tool_handler, tool_router,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::common::Result;

#[derive(Debug, Clone)]
pub(crate) struct Adder {
    tool_router: ToolRouter<Self>,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Summands {
    a: i64,
    b: i64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Sum {
    sum: i64,
}

#[tool_router]
impl Adder {
    pub(crate) fn new() -> Self {
        Self { tool_router: Self::tool_router() }
    }

    #[tool(description = "Adds two numbers")]
    async fn add(&self, Parameters(Summands { a, b }): Parameters<Summands>) -> Json<Sum> {
        Json(Sum { sum: a + b })
    }

    #[tool(description = "Adds two numbers and reports progress once before it answers")]
    async fn add_slowly(
        &self,
        Parameters(Summands { a, b }): Parameters<Summands>,
        meta: RequestMetaObject,
        client: Peer<RoleServer>,
    ) -> Result<Json<Sum>, ErrorData> {
        let token = meta
            .get_progress_token()
            .ok_or_else(|| ErrorData::invalid_params("no progress token", None))?;
        client
            .notify_progress(ProgressNotificationParam::new(token, 1.0).with_total(2.0))
            .await
            .map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        Ok(Json(Sum { sum: a + b }))
    }
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Adder {}

/// Counts the progress reports.
#[derive(Debug, Default)]
pub(crate) struct Handler {
    reports: AtomicU64,
}

impl ClientHandler for Handler {
    async fn on_progress(
        &self,
        _report: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.reports.fetch_add(1, Relaxed);
    }
}

pub(crate) type Client = RunningService<RoleClient, Handler>;

/// Which of the two tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Add,
    AddSlowly,
}

/// The call number `n`.
pub(crate) fn request(tool: Tool, n: u64) -> CallToolRequestParams {
    let name = match tool {
        Tool::Add => "add",
        Tool::AddSlowly => "add_slowly",
    };
    let mut arguments = serde_json::Map::new();
    arguments.insert("a".into(), n.into());
    arguments.insert("b".into(), 1.into());
    CallToolRequestParams::new(name).with_arguments(arguments)
}

/// One call, whose result is looked at.
pub(crate) async fn call(client: &Client, tool: Tool, n: u64) -> Result<()> {
    let result = client.call_tool(request(tool, n)).await?;
    if result.structured_content != Some(json!({ "sum": n + 1 })) {
        return Err(format!("{tool:?} answered {result:?}").into());
    }
    Ok(())
}

/// Fails unless there were as many progress reports as `calls`.
pub(crate) async fn check_reports(client: &Client, calls: u64) -> Result<()> {
    let reports = || client.service().reports.load(Relaxed);
    for _ in 0..100 {
        if reports() == calls {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(format!("{} progress reports in {calls} calls", reports()).into())
}
