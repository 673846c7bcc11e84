//! tower-mcp, as a client and as a server.

use async_trait::async_trait;
use peers::{Reports, Result, Role, cut, step, tell};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, from_value, json};
use tokio::net::TcpListener;
use tower_mcp::{
    CallToolResult, McpRouter, ToolBuilder, WebSocketTransport,
    client::{
        ClientHandler, McpClient, McpClientBuilder, ServerNotification, WebSocketClientConfig,
        WebSocketClientTransport,
    },
    extract::{Context, Json, State},
    protocol::{ElicitRequestParams, ElicitResult},
};

#[derive(Debug, Deserialize, JsonSchema)]
struct Summands {
    a: i64,
    b: i64,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Numbers {
    numbers: Vec<i64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Nothing {}

async fn serve() -> Result {
    let add = ToolBuilder::new("add")
        .description("Adds two numbers")
        .handler(|Summands { a, b }| async move { Ok(CallToolResult::text((a + b).to_string())) })
        .build();
    let sum =
        ToolBuilder::new("sum")
            .description("Adds numbers, and reports on the way")
            .extractor_handler(
                (),
                |State(()): State<()>,
                 context: Context,
                 Json(Numbers { numbers }): Json<Numbers>| async move {
                    for done in 1..=numbers.len() {
                        context
                            .report_progress(done as f64, Some(numbers.len() as f64), None)
                            .await;
                    }
                    Ok::<_, tower_mcp::Error>(CallToolResult::text(
                        numbers.iter().sum::<i64>().to_string(),
                    ))
                },
            )
            .build();
    let ask = ToolBuilder::new("ask")
        .description("Asks the client")
        .extractor_handler(
            (),
            |State(()): State<()>, context: Context, Json(Nothing {}): Json<Nothing>| async move {
                let is_confirmed = context.confirm("Are you sure?").await?;
                Ok::<_, tower_mcp::Error>(CallToolResult::text(is_confirmed.to_string()))
            },
        )
        .build();
    let mcp = McpRouter::new().server_info("tower-mcp", "1.0.0").tool(add).tool(sum).tool(ask);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on ws://{}/", listener.local_addr()?);
    // Or else no tool can ask anything.
    let transport = WebSocketTransport::new(mcp).with_sampling();
    Ok(axum::serve(listener, transport.into_router()).await?)
}

struct Handler(Reports);

#[async_trait]
impl ClientHandler for Handler {
    async fn handle_elicit(
        &self,
        _params: ElicitRequestParams,
    ) -> std::result::Result<ElicitResult, tower_mcp::JsonRpcError> {
        Ok(from_value(json!({ "action": "accept", "content": { "confirm": true } }))
            .expect("an answer"))
    }

    async fn on_notification(&self, notification: ServerNotification) {
        if let ServerNotification::Progress(report) = notification {
            self.0.lock().expect("reports").push(report.progress);
        }
    }
}

async fn connect(url: &str, reports: &Reports) -> Result<McpClient> {
    let config = WebSocketClientConfig {
        protocol_version: Some("2025-11-25".into()),
        ..WebSocketClientConfig::default()
    };
    let transport = WebSocketClientTransport::connect_with_config(url, config).await?;
    let builder = McpClientBuilder::new().with_elicitation().request_progress();
    let client = builder.connect(transport, Handler(reports.clone())).await?;
    client.initialize("tower-mcp", "1.0.0").await?;
    Ok(client)
}

async fn add(client: &McpClient, a: i64, b: i64) -> Result<Value> {
    let result = client.call_tool("add", json!({ "a": a, "b": b })).await?;
    Ok(result.structured_content.ok_or("nothing structured")?["result"].clone())
}

async fn call(math: &str, asks: &str) -> Result {
    let reports = Reports::default();
    let client = connect(math, &reports).await?;
    tell("initialize", true);
    step("tools", client.list_tools().await.map(|list| list.tools.len()));
    step("add", add(&client, 5, 3).await);
    reports.lock().expect("reports").clear();
    client.call_tool("sum", json!({ "numbers": [1, 2, 3] })).await?;
    tell("progress", reports.lock().expect("reports").clone());
    cut()?;
    step("after", add(&client, 20, 22).await);
    step("asked", connect(asks, &reports).await?.call_tool_text("ask", json!({})).await);
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result {
    match Role::from_arguments() {
        Role::Serve => serve().await,
        Role::Call { math, asks } => call(&math, &asks).await,
    }
}
