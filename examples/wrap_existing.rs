//! An MCP server that was written for standard input and output, put on WebSockets as it is.
//!
//! `cargo run --example wrap_existing`
//!
//! serves it and calls it once. With the argument `stdio` it is the program that it was before.

use std::error::Error;

use rmcp::{
    ServerHandler, ServiceExt,
    handler::server::wrapper::Parameters,
    model::{CallToolRequestParams, ServerCapabilities, ServerConfig},
    tool, tool_handler, tool_router,
};

/// The server, with nothing in it about transports.
#[derive(Clone, Default)]
struct Greeter;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Name {
    name: String,
}

#[tool_router]
impl Greeter {
    /// Greets by name
    #[tool]
    async fn greet(&self, Parameters(Name { name }): Parameters<Name>) -> String {
        format!("Hello, {name}!")
    }
}

#[tool_handler]
impl ServerHandler for Greeter {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).as_deref() == Some("stdio") {
        let stdio = (tokio::io::stdin(), tokio::io::stdout());
        Greeter.serve(stdio).await?.waiting().await?;
        return Ok(());
    }

    // This is all that it takes: a service of its own for each connection.
    let server = mcp_ws_transport::serve("127.0.0.1:0", Greeter::default).await?;
    let url = format!("ws://{}/mcp", server.local_addr());
    println!("listening on {url}");

    let client = ().serve(mcp_ws_transport::connect(&url).await?).await?;
    let arguments = serde_json::Map::from_iter([("name".to_owned(), "WebSocket".into())]);
    let greeting = CallToolRequestParams::new("greet").with_arguments(arguments);
    let result = client.call_tool(greeting).await?;
    println!("{}", result.content[0].as_text().map_or("", |text| &text.text));
    client.cancel().await?;
    server.shutdown().await;
    Ok(())
}
