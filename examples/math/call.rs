//! `math call`: one call of a tool, or a list of all tools, at any MCP server.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use mcp_ws_transport::{State, client::ClientTls, layer::socket, transport};
use rmcp::{
    ClientLifecycleMode, ClientServiceExt, Peer, RoleClient, ServiceError,
    model::{CallToolRequestParams, CallToolResult, JsonObject, ProtocolVersion, Tool},
    service::RunningService,
};
use serde_json::{Number, Value, json};
use tokio::{sync::watch, time::timeout};

use crate::repeat::{self, Reconnects};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The server, such as ws://127.0.0.1:8080/mcp
    url: String,
    /// The name of the tool; without one, the tools of the server are listed
    tool: Option<String>,
    /// Passed as `a` and `b`; for the tool `sum`, or if more than two, as `numbers`
    #[arg(value_name = "NUMBER", allow_negative_numbers = true, value_parser = number)]
    numbers: Vec<Number>,
    /// A token for the server, sent as `Authorization: Bearer`
    #[arg(long, value_name = "TOKEN")]
    bearer: Option<String>,
    /// The authorities to trust on wss://, in PEM form, in place of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Tell on the standard error what becomes of the connection
    #[arg(long)]
    watch: bool,
    /// Number of calls, with A, A + 1, … and B; each answer is checked, and one line sums them up
    #[arg(long, value_name = "N", requires = "tool")]
    repeat: Option<usize>,
    /// How many of these at once
    #[arg(long, value_name = "K", default_value_t = 1, requires = "repeat")]
    in_flight: usize,
    /// Offer to compress messages, which the server may decline
    #[cfg(feature = "deflate")]
    #[arg(long)]
    deflate: bool,
}

fn number(text: &str) -> Result<Number, &'static str> {
    let integer = text.parse().ok().and_then(Number::from_i128);
    let real = || text.parse().ok().and_then(Number::from_f64);
    integer.or_else(real).ok_or("not a number")
}

pub(crate) async fn run(args: Args) -> crate::Result {
    let (client, reconnects) = connect(&args).await?;
    let Some(tool) = &args.tool else {
        let tools = client.list_all_tools().await;
        client.cancel().await?;
        return list(&tools?);
    };
    if let Some(repeat) = args.repeat {
        let summary = repeat::run(&client, tool, &args.numbers, (repeat, args.in_flight)).await;
        let unknown = match &summary {
            Ok(summary) if summary.is_hopeless() => unknown(&client, tool).await,
            _ => None,
        };
        client.cancel().await?;
        let mut summary = summary?;
        reconnects.add_to(&mut summary).await;
        return match unknown {
            Some(unknown) => Err(unknown.into()),
            None => summary.report(),
        };
    }
    let request = CallToolRequestParams::new(tool.clone());
    let outcome = client.call_tool(request.with_arguments(arguments(tool, &args.numbers))).await;
    let failed = match &outcome {
        Ok(result) => result.is_error == Some(true),
        Err(error) => matches!(error, ServiceError::McpError(_)),
    };
    let unknown = if failed { unknown(&client, tool).await } else { None };
    client.cancel().await?;
    if let Some(unknown) = unknown {
        return Err(unknown.into());
    }

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

/// Prints a line for each tool: its name, what it takes, and what it does.
fn list(tools: &[Tool]) -> crate::Result {
    let usage = |tool: &Tool| {
        let properties = tool.input_schema.get("properties").and_then(Value::as_object);
        let names = properties.into_iter().flat_map(|properties| properties.keys());
        crate::one_line(&format!("{} {}", tool.name, names.cloned().collect::<Vec<_>>().join(" ")))
    };
    let usages: Vec<_> = tools.iter().map(usage).collect();
    let width = usages.iter().map(|usage| usage.chars().count()).max().unwrap_or_default().min(40);
    let mut stdout = io::stdout();
    for (tool, usage) in tools.iter().zip(usages) {
        let title = || tool.title.clone().unwrap_or_default();
        let what = tool.description.as_deref().map_or_else(title, str::to_owned);
        writeln!(stdout, "{}", format!("{usage:width$}  {}", crate::one_line(&what)).trim_end())?;
    }
    if tools.is_empty() {
        eprintln!("the server has no tools");
    }
    Ok(())
}

/// Returns the error for a `tool` that the server does not list, with those that it does.
async fn unknown(client: &Peer<RoleClient>, tool: &str) -> Option<String> {
    let tools = timeout(HANDSHAKE_TIMEOUT, client.list_all_tools()).await.ok()?.ok()?;
    if tools.iter().any(|known| known.name == tool) {
        return None;
    }
    let names: Vec<_> = tools.iter().map(|tool| &*tool.name).collect();
    Some(match names.is_empty() {
        true => format!("no tool {tool:?}: the server has none"),
        false => format!("no tool {tool:?}; the server has {}", names.join(", ")),
    })
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

/// Returns the content as text; blocks of other kinds as JSON.
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
async fn connect(args: &Args) -> crate::Result<(RunningService<RoleClient, ()>, Reconnects)> {
    let initialize = ClientLifecycleMode::Initialize;
    let discover =
        ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };

    let read = |file: &PathBuf| {
        fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
    };
    let authorities = args.ca.as_ref().map(read).transpose()?;

    let mut failures = Vec::new();
    for (name, lifecycle) in [("initialize", initialize), ("server/discover", discover)] {
        let mut connect = mcp_ws_transport::connect(&args.url)
            .transport(transport::Config::default().socket(socket(args)));
        if let Some(token) = &args.bearer {
            connect = connect.bearer(token);
        }
        if let Some(pem) = &authorities {
            connect = connect.tls(ClientTls::authorities(pem.clone()));
        }
        let reconnects = Reconnects::count(connect.events());
        if args.watch {
            tokio::spawn(watch(connect.state()));
        }
        let transport = connect.await.map_err(|error| in_options(&error.to_string()))?;
        let handshake = ().serve_with_lifecycle(transport, lifecycle);
        match timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(client)) => return Ok((client, reconnects)),
            Ok(Err(error)) => failures.push(format!("{name}: {error}")),
            Err(_) => failures.push(format!("{name}: no answer within {HANDSHAKE_TIMEOUT:?}")),
        }
    }
    Err(failures.join("; ").into())
}

/// Returns `error` with the options of this program in place of the functions of the library.
fn in_options(error: &str) -> String {
    error
        .replace("`client::ClientTls::authorities`", "the option `--ca`")
        .replace("`Connect::bearer`", "the option `--bearer`")
}

#[cfg(feature = "deflate")]
fn socket(args: &Args) -> socket::Config {
    socket::Config::default().deflate(args.deflate.then(socket::deflate::Config::default))
}

#[cfg(not(feature = "deflate"))]
fn socket(_: &Args) -> socket::Config {
    socket::Config::default()
}

/// Tells every state of the connection.
async fn watch(mut state: watch::Receiver<State>) {
    loop {
        let now = state.borrow_and_update().clone();
        match &now {
            State::Connecting => eprintln!("connecting"),
            State::Connected => eprintln!("connected"),
            State::Reconnecting { attempt, next } if next.is_zero() => {
                eprintln!("reconnecting, attempt {attempt}");
            }
            State::Reconnecting { next, .. } => eprintln!("disconnected, trying in {next:.1?}"),
            State::Closed(reason) => eprintln!("closed: {reason}"),
            _ => eprintln!("{now:?}"),
        }
        if matches!(now, State::Closed(_)) || state.changed().await.is_err() {
            return;
        }
    }
}
