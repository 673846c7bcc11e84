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
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use tracing_subscriber::filter::EnvFilter;

use crate::failure::{EXIT_CODES, Failure};

/// MCP over WebSockets, for servers and hosts that speak stdio
#[derive(Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Cli {
    /// Tell more on the standard error: -v of processes and connections, -vv everything. RUST_LOG
    /// takes the place of both
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Put a stdio server on WebSockets: one process for each session
    #[command(
        after_help = "Example: mcp-ws serve -- npx -y @modelcontextprotocol/server-everything"
    )]
    Serve(serve::Args),
    /// Bring a server on WebSockets to a host that speaks stdio
    #[command(
        after_help = "Example, as the command of a host: mcp-ws connect wss://example.com/mcp"
    )]
    Connect(connect::Args),
    /// Have a stdio server dial out to its client, as devices do
    #[command(after_help = "Example: mcp-ws dial wss://example.com/mcp -- ./server")]
    Dial(dial::Args),
    /// List the tools of a server
    Tools(tools::ToolsArgs),
    /// Call a tool of a server
    #[command(after_help = "Example: mcp-ws call ws://127.0.0.1:8080/mcp echo message=hello")]
    Call(tools::CallArgs),
    /// Tell how fast a server answers, and what it speaks: versions, capabilities, resuming
    Ping(ping::Args),
    /// Ends the children of a process that has ended
    #[command(name = guard::COMMAND, hide = true)]
    Guard,
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
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_target(verbose > 1)
        .with_writer(io::stderr)
        // They would be told on the standard error too, and panic where that is closed.
        .log_internal_errors(false)
        .init();
}
