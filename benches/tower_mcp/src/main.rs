//! The WebSocket server of tower-mcp, with the tool that rmcp's servers have.

use std::{env, io, process, thread};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, runtime::Builder};
use tower_mcp::{BoxError, CallToolResult, McpRouter, ToolBuilder, WebSocketTransport};

#[derive(Debug, Deserialize, JsonSchema)]
struct Summands {
    a: i64,
    b: i64,
}

#[derive(Debug, Serialize)]
struct Sum {
    sum: i64,
}

/// Serves on a current-thread runtime, or on a multi-thread one if the argument is `all`.
fn main() -> Result<(), BoxError> {
    let mut builder = match env::args().nth(1).as_deref() {
        Some("all") => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    builder.enable_all().build()?.block_on(serve())
}

/// Writes the address that it serves on, and serves until its standard input ends.
async fn serve() -> Result<(), BoxError> {
    let add = ToolBuilder::new("add")
        .description("Adds two numbers")
        .handler(
            |Summands { a, b }| async move { CallToolResult::from_serialize(&Sum { sum: a + b }) },
        )
        .build();
    let mcp = McpRouter::new().server_info("adder", "1.0.0").tool(add);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        process::exit(0);
    });
    Ok(axum::serve(listener, WebSocketTransport::new(mcp).into_router()).await?)
}
