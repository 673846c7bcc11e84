//! `math call`: one call of a tool, at any MCP server.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use mcp_ws_transport::{State, client::Tls};
use rmcp::{
    ClientLifecycleMode, ClientServiceExt, RoleClient,
    model::{CallToolRequestParams, CallToolResult, JsonObject, ProtocolVersion},
    service::RunningService,
};
use serde_json::{Number, json};
use tokio::{sync::watch, time::timeout};

use crate::repeat::{self, Reconnects};

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
    /// Tell on the standard error what becomes of the connection
    #[arg(long)]
    watch: bool,
    /// So many calls, with A, A + 1, … and B; each answer is checked, and one line sums them up
    #[arg(long, value_name = "N")]
    repeat: Option<usize>,
    /// How many of these at once
    #[arg(long, value_name = "K", default_value_t = 1, requires = "repeat")]
    in_flight: usize,
}

fn number(text: &str) -> Result<Number, &'static str> {
    let integer = text.parse().ok().and_then(Number::from_i128);
    let real = || text.parse().ok().and_then(Number::from_f64);
    integer.or_else(real).ok_or("not a number")
}

pub(crate) async fn run(args: Args) -> crate::Result {
    let (client, reconnects) = connect(&args).await?;
    if let Some(repeat) = args.repeat {
        let tally = repeat::run(&client, &args.tool, &args.numbers, (repeat, args.in_flight)).await;
        client.cancel().await?;
        let mut tally = tally?;
        reconnects.add_to(&mut tally).await;
        return tally.report();
    }
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
        let mut connect = mcp_ws_transport::connect(&args.url);
        if let Some(token) = &args.bearer {
            connect = connect.bearer(token);
        }
        if let Some(pem) = &authorities {
            connect = connect.tls(Tls::authorities(pem.clone()));
        }
        let reconnects = Reconnects::count(connect.events());
        if args.watch {
            tokio::spawn(watch(connect.state()));
        }
        let handshake = ().serve_with_lifecycle(connect.await?, lifecycle);
        match timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(client)) => return Ok((client, reconnects)),
            Ok(Err(error)) => failures.push(format!("{name}: {error}")),
            Err(_) => failures.push(format!("{name}: no answer within {HANDSHAKE_TIMEOUT:?}")),
        }
    }
    Err(failures.join("; ").into())
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
