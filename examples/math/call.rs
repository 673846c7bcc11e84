//! `math call`: one call of a tool, at any MCP server.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use mcp_ws_transport::client::Tls;
use rmcp::{
    ClientLifecycleMode, ClientServiceExt, RoleClient,
    model::{CallToolRequestParams, CallToolResult, JsonObject, ProtocolVersion},
    service::RunningService,
};
use serde_json::{Number, json};
use tokio::time::timeout;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The server, such as ws://127.0.0.1:8080/mcp
    url: String,
    /// The name of the tool
    tool: String,
    /// Passed as `a` and `b`; for the tool `sum`, or if more than two, as `numbers`
    #[arg(value_name = "NUMBER", allow_negative_numbers = true, value_parser = number)]
    numbers: Vec<Number>,
    /// A token for the server, sent as `Authorization: Bearer`
    #[arg(long, value_name = "TOKEN")]
    bearer: Option<String>,
    /// The authorities to trust on wss://, in PEM form, in place of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

fn number(text: &str) -> Result<Number, &'static str> {
    let integer = text.parse().ok().and_then(Number::from_i128);
    let real = || text.parse().ok().and_then(Number::from_f64);
    integer.or_else(real).ok_or("not a number")
}

pub(crate) async fn run(args: Args) -> crate::Result {
    let client = connect(&args).await?;
    let arguments = arguments(&args.tool, &args.numbers);
    let request = CallToolRequestParams::new(args.tool).with_arguments(arguments);
    let outcome = client.call_tool(request).await;
    client.cancel().await?;

    let result = outcome?;
    if result.is_error == Some(true) {
        return Err(text(&result).into());
    }
    let line = match &result.structured_content {
        Some(content) => content.to_string(),
        None => crate::one_line(&text(&result)),
    };
    writeln!(io::stdout(), "{line}")?;
    Ok(())
}

fn arguments(tool: &str, numbers: &[Number]) -> JsonObject {
    let named = |name: &str, value| (name.to_owned(), value);
    match (tool, numbers) {
        ("sum", _) | (_, [_, _, _, ..]) => {
            JsonObject::from_iter([named("numbers", json!(numbers))])
        }
        _ => ["a", "b"].into_iter().zip(numbers).map(|(name, n)| named(name, json!(n))).collect(),
    }
}

/// The content as text; blocks of other kinds as JSON.
fn text(result: &CallToolResult) -> String {
    let blocks = result.content.iter().map(|block| match block.as_text() {
        Some(content) => content.text.clone(),
        None => json!(block).to_string(),
    });
    blocks.collect::<Vec<_>>().join("\n")
}

/// Connects to a server of either era.
///
/// `initialize` goes first, since servers of both eras answer it at once, whereas a server that
/// knows no `server/discover` may close the connection on it (as rmcp 1 does) or stay silent; a
/// server that refuses `initialize` is asked for `server/discover` on a fresh connection.
async fn connect(args: &Args) -> crate::Result<RunningService<RoleClient, ()>> {
    let initialize = ClientLifecycleMode::Initialize;
    let discover =
        ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };

    let read = |file: &PathBuf| {
        fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
    };
    let authorities = args.ca.as_ref().map(read).transpose()?;

    let mut failures = Vec::new();
    for (name, lifecycle) in [("initialize", initialize), ("server/discover", discover)] {
        let mut connect = mcp_ws_transport::connect(&args.url);
        if let Some(token) = &args.bearer {
            connect = connect.bearer(token);
        }
        if let Some(pem) = &authorities {
            connect = connect.tls(Tls::authorities(pem.clone()));
        }
        let handshake = ().serve_with_lifecycle(connect.await?, lifecycle);
        match timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(error)) => failures.push(format!("{name}: {error}")),
            Err(_) => failures.push(format!("{name}: no answer within {HANDSHAKE_TIMEOUT:?}")),
        }
    }
    Err(failures.join("; ").into())
}
