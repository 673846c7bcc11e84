//! Puts MCP servers that speak stdio on WebSockets, and brings MCP servers on WebSockets to hosts
//! that speak stdio. `mcp-ws --help` tells the rest.
#![allow(rustdoc::bare_urls, reason = "the help of the command line is plain text")]

mod child;
mod config;
mod connect;
mod conversation;
mod deadline;
mod dial;
mod failure;
mod group;
mod guard;
mod health;
mod options;
mod output;
mod ping;
mod progress;
mod restart;
mod serve;
mod stop;
mod tools;

use std::{
    env,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use tracing_subscriber::{
    filter::Targets, fmt::layer, layer::SubscriberExt, registry, util::SubscriberInitExt,
};

use crate::failure::{Failure, exit_codes};

/// MCP over WebSockets, for servers and hosts that speak stdio
#[derive(Parser)]
#[command(version, after_help = exit_codes())]
struct Cli {
    /// Tell more on the standard error: -v of processes and connections, -vv everything. RUST_LOG
    /// takes the place of both
    #[arg(short, long, action = clap::ArgAction::Count, global = true, display_order = 100)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Put a stdio server on WebSockets: one process for each session
    #[command(after_help = serve::help())]
    Serve(serve::Args),
    /// Bring a server on WebSockets to a host that speaks stdio
    #[command(after_help = connect::help())]
    Connect(connect::Args),
    /// Have a stdio server dial out to its client, as devices do
    #[command(after_help = dial::help())]
    Dial(dial::Args),
    /// List the tools of a server
    #[command(after_help = example("mcp-ws tools ws://127.0.0.1:8080/mcp"))]
    Tools(tools::ToolsArgs),
    /// Call a tool of a server
    #[command(after_help = example("mcp-ws call ws://127.0.0.1:8080/mcp echo message=hello"))]
    Call(tools::CallArgs),
    /// Tell how fast a server answers, and what it speaks: versions, capabilities, resuming
    #[command(after_help = example("mcp-ws ping wss://example.com/mcp --bearer-file token.txt"))]
    Ping(ping::Args),
    /// Ends the children of a process that has ended
    #[command(name = guard::COMMAND, hide = true)]
    Guard,
}

/// Returns the end of a command's `--help`, with an example.
pub(crate) fn example(command_line: &str) -> String {
    format!("Example: {command_line}\n\n`mcp-ws --help` has the exit codes.")
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Guard = cli.command {
        guard::run();
        return ExitCode::SUCCESS;
    }
    log(cli.verbose, &cli.command);
    let outcome = tokio::runtime::Runtime::new().map_err(Failure::from).and_then(|runtime| {
        let outcome = runtime.block_on(run(cli.command));
        // The standard input may be read still, which nothing ends.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Whoever reads the standard error may have left.
            let _ = writeln!(io::stderr(), "mcp-ws: {failure}");
            failure.exit_code()
        }
    }
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => serve::run(args).await,
        Command::Connect(args) => connect::run(args).await,
        Command::Dial(args) => dial::run(args).await,
        Command::Tools(args) => tools::list(args).await,
        Command::Call(args) => tools::call(args).await,
        Command::Ping(args) => ping::run(args).await,
        Command::Guard => Ok(()),
    }
}

/// Logs to the standard error; the standard output is for MCP, and for what was asked for.
fn log(verbose: u8, command: &Command) {
    let is_short = matches!(command, Command::Tools(_) | Command::Call(_) | Command::Ping(_));
    let level = match verbose {
        // What these end with says it all.
        0 if is_short => "error",
        0 => "warn",
        1 => "info",
        _ => "mcp_ws=debug,mcp_ws_transport=debug,info",
    };
    let named = env::var("RUST_LOG").ok().and_then(|levels| levels.parse::<Targets>().ok());
    let filter = named.unwrap_or_else(|| level.parse().unwrap_or_default());
    let lines = layer()
        .with_ansi(io::stderr().is_terminal())
        .with_target(verbose > 1)
        .with_writer(io::stderr)
        // They would be told on the standard error too, and panic where that is closed.
        .log_internal_errors(false);
    registry().with(filter).with(lines).init();
}
