//! `math`: a server and a client in one process, and what they say to each other.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use mcp_ws_transport::CatchPanic;
use rmcp::{
    ClientHandler, RoleClient, ServiceError, ServiceExt,
    model::{
        CallToolRequestParams, CallToolResult, ContentBlock, JsonObject, ProgressNotificationParam,
    },
    object,
    service::NotificationContext,
};
use serde_json::json;
use tokio::{
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    time::timeout,
};

use crate::service::Math;

pub(crate) async fn run() -> crate::Result {
    let math = Math::new();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let service = math.clone();
    let server = mcp_ws_transport::serve(address, move || service.clone()).await?;
    let url = format!("ws://{}/mcp", server.local_addr());

    let (sender, mut progress) = mpsc::unbounded_channel();
    let transport = mcp_ws_transport::connect(&url).await?;
    let client = CatchPanic::new(Watcher(sender)).serve(transport).await?;

    let tools = client.list_all_tools().await?;
    let names: Vec<_> = tools.iter().map(|tool| &*tool.name).collect();
    println!("{url} has the tools {}\n", names.join(", "));

    row("CALL", "RESULT", "TIME");
    for (tool, arguments) in calls() {
        let call = format!("{tool} {}", json!(arguments));
        let request = CallToolRequestParams::new(tool).with_arguments(arguments);
        let start = Instant::now();
        let outcome = client.call_tool(request).await;
        let time = format!("{:.1?}", start.elapsed());
        row(&call, &describe(outcome)?, &time);
    }

    let reports = timeout(Duration::from_secs(5), collect(&mut progress, 4)).await?;
    println!("\nprogress of the sum: {}", reports.join(", "));

    client.cancel().await?;
    server.shutdown().await;
    println!("closed after {} executed calls", math.calls());
    Ok(())
}

/// Returns one call per tool, one that a tool refuses, and one that none understands.
fn calls() -> [(&'static str, JsonObject); 9] {
    [
        ("add", object!({"a": 5, "b": 3})),
        ("subtract", object!({"a": 5, "b": 8})),
        ("multiply", object!({"a": 2.5, "b": 4})),
        ("divide", object!({"a": 1, "b": 8})),
        ("power", object!({"a": 2, "b": 10})),
        ("sqrt", object!({"a": 2})),
        ("sum", object!({"numbers": [1, 2, 3, 4]})),
        ("divide", object!({"a": 1, "b": 0})),
        ("add", object!({"a": 5})),
    ]
}

fn row(call: &str, result: &str, time: &str) {
    println!("{call:<28} {result:<64} {time:>8}");
}

/// Tells a result from a tool's error and from a JSON-RPC error; anything else ends the demo.
fn describe(outcome: Result<CallToolResult, ServiceError>) -> Result<String, ServiceError> {
    match outcome {
        Ok(CallToolResult { structured_content: Some(content), .. }) => {
            Ok(content["result"].to_string())
        }
        Ok(result) => {
            let text = result.content.first().and_then(ContentBlock::as_text);
            Ok(format!("tool error: {}", text.map_or("", |text| &text.text)))
        }
        Err(ServiceError::McpError(error)) => Ok(format!("error {error}")),
        Err(error) => Err(error),
    }
}

/// A client that passes every progress report on.
struct Watcher(UnboundedSender<ProgressNotificationParam>);

impl ClientHandler for Watcher {
    async fn on_progress(
        &self,
        report: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.0.send(report).ok();
    }
}

/// Returns the next `count` reports, sorted, since each notification is handled in a task of its
/// own.
async fn collect(
    progress: &mut UnboundedReceiver<ProgressNotificationParam>,
    count: usize,
) -> Vec<String> {
    let mut reports = Vec::new();
    while reports.len() < count && progress.recv_many(&mut reports, count).await > 0 {}
    reports.sort_by(|a, b| a.progress.total_cmp(&b.progress));
    let describe = |report: &ProgressNotificationParam| match report.total {
        Some(total) => format!("{} of {total}", report.progress),
        None => report.progress.to_string(),
    };
    reports.iter().map(describe).collect()
}
