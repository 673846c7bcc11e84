//! turbomcp, as a client and as a server.

use peers::{Reports, Result, Role, cut, step, tell};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use turbomcp::{
    LegacySessionAdapter,
    client::{Client, ClientBuilder, ClientHandler, async_trait},
    prelude::*,
    ws,
};

#[derive(Clone)]
struct Calculator;

#[server(name = "turbomcp", version = "1.0.0")]
impl Calculator {
    #[tool(description = "Adds two numbers")]
    async fn add(&self, a: i64, b: i64) -> i64 {
        a + b
    }

    #[tool(description = "Adds numbers, and reports on the way")]
    async fn sum(&self, ctx: &CallToolContext, numbers: Vec<i64>) -> i64 {
        for done in 1..=numbers.len() {
            ctx.progress.report(done as f64, Some(numbers.len() as f64), None).await;
        }
        numbers.iter().sum()
    }

    #[tool(description = "Asks the client")]
    async fn ask(&self, ctx: &CallToolContext) -> McpResult<bool> {
        let properties = json!({ "confirm": { "type": "boolean" } });
        let schema = json!({ "type": "object", "properties": properties, "required": ["confirm"] });
        let question = neutral::ElicitParams::new("Are you sure?", schema);
        Ok(ctx.client.elicit("confirm", question).await?.accepted())
    }
}

async fn serve() -> Result {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on ws://{}/", listener.local_addr()?);
    let dispatcher = Calculator.into_server().build();
    // Each connection has a session of its own.
    let service = move || LegacySessionAdapter::new(dispatcher.clone());
    Ok(ws::serve_websocket(listener, service).await?)
}

struct Handler(Reports);

#[async_trait]
impl ClientHandler for Handler {
    async fn elicit(&self, _request: neutral::ElicitParams) -> neutral::ElicitOutcome {
        let content = Map::from_iter([("confirm".to_owned(), Value::Bool(true))]);
        neutral::ElicitOutcome::new(neutral::ElicitAction::Accept, content)
    }

    async fn on_notification(&self, method: String, params: Option<Value>) {
        let progress = params.and_then(|params| params["progress"].as_f64());
        if method == "notifications/progress" {
            self.0.lock().expect("reports").extend(progress);
        }
    }
}

async fn connect(url: &str, reports: &Reports) -> Result<Client> {
    let builder = ClientBuilder::new("turbomcp", "1.0.0")
        .with_capabilities(json!({ "elicitation": {} }))
        .with_handler(Handler(reports.clone()));
    Ok(builder.connect(ws::connect(url).await?).await?)
}

async fn add(client: &Client, a: i64, b: i64) -> Result<Value> {
    let arguments = Map::from_iter([("a".to_owned(), a.into()), ("b".to_owned(), b.into())]);
    let result = client.call_tool("add", arguments).await?;
    Ok(result.structured_content.ok_or("nothing structured")?["result"].clone())
}

async fn call(math: &str, asks: &str) -> Result {
    let reports = Reports::default();
    let client = connect(math, &reports).await?;
    tell("initialize", true);
    step("tools", client.list_all_tools().await.map(|tools| tools.len()));
    step("add", add(&client, 5, 3).await);
    // By hand, for its calls ask for no progress.
    let meta = json!({ "progressToken": "sum" });
    let params = json!({ "name": "sum", "arguments": { "numbers": [1, 2, 3] }, "_meta": meta });
    let params = params.as_object().cloned().unwrap_or_default();
    match client.request("tools/call", params).await {
        Ok(_) => tell("progress", reports.lock().expect("reports").clone()),
        Err(error) => tell("progress", json!({ "error": error.to_string() })),
    }
    cut()?;
    step("after", add(&client, 20, 22).await);
    let result = connect(asks, &reports).await?.call_tool("ask", Map::new()).await;
    step("asked", result.map(|result| format!("{:?}", result.content.first())));
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result {
    match Role::from_arguments() {
        Role::Serve => serve().await,
        Role::Call { math, asks } => call(&math, &asks).await,
    }
}
