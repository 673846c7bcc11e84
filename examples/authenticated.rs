//! A server that asks who comes, and a tool that knows who calls it.
//!
//! `cargo run --example authenticated`

use std::error::Error;

use mcp_ws_transport::{
    connect, serve,
    server::{BearerTokens, Config, Identity},
};
use rmcp::{
    ErrorData, RoleServer, ServerHandler, ServiceExt,
    model::{CallToolRequestParams, CallToolResult, ContentBlock},
    service::RequestContext,
    tool, tool_handler, tool_router,
};

/// Claims of a client besides its name.
struct Scopes(&'static [&'static str]);

#[derive(Clone)]
struct Vault;

#[tool_router]
impl Vault {
    /// Says who is calling
    #[tool]
    fn whoami(context: RequestContext<RoleServer>) -> Result<CallToolResult, ErrorData> {
        let name = identity(&context)?.subject().to_owned();
        Ok(CallToolResult::success(vec![ContentBlock::text(name)]))
    }

    /// Opens the vault, for those who may
    #[tool]
    fn open(context: RequestContext<RoleServer>) -> Result<CallToolResult, ErrorData> {
        let scopes = identity(&context)?.claims::<Scopes>();
        if scopes.is_some_and(|scopes| scopes.0.contains(&"open")) {
            Ok(CallToolResult::success(vec![ContentBlock::text("it is empty")]))
        } else {
            Err(ErrorData::invalid_request("the scope \"open\" is missing", None))
        }
    }
}

fn identity(context: &RequestContext<RoleServer>) -> Result<&Identity, ErrorData> {
    Identity::of(&context.extensions)
        .ok_or_else(|| ErrorData::internal_error("nobody was asked who they are", None))
}

#[tool_handler]
impl ServerHandler for Vault {}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let tokens = BearerTokens::default()
        .token("alice's", Identity::new("alice").with_claims(Scopes(&["open"])))
        .token("bob's", Identity::new("bob"));
    let config = Config::default().authenticator(tokens);
    let server = serve("127.0.0.1:0", || Vault).config(config).await?;
    let url = format!("ws://{}/mcp", server.local_addr());

    for token in ["alice's", "bob's"] {
        let client = ().serve(connect(&url).bearer(token).await?).await?;
        for tool in ["whoami", "open"] {
            let outcome = client.call_tool(CallToolRequestParams::new(tool)).await;
            let outcome = outcome.map(|result| result.content[0].as_text().map(|t| t.text.clone()));
            println!("{token:8} {tool}: {outcome:?}");
        }
        client.cancel().await?;
    }
    for refused in [connect(&url).await, connect(&url).bearer("mallory's").await] {
        let error = refused.map(|_: mcp_ws_transport::WebSocketTransport<rmcp::RoleClient>| ());
        println!("{:?}", error.map_err(|error| error.to_string()));
    }
    server.shutdown().await;
    Ok(())
}
