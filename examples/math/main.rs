//! Calculations over WebSockets: an MCP server and its client.
//!
//! ```sh
//! cargo run --example math                                          # both, in one process
//! cargo run --example math -- serve --listen 127.0.0.1:8080         # the server
//! cargo run --example math -- call ws://127.0.0.1:8080/mcp add 5 3  # the client
//! ```
//!
//! `call` calls a tool of this server or of any other. With `--repeat 100000 --watch` it goes on while you stop
//! and start the server, and says what became of every call. A server for others than yourself:
//!
//! ```sh
//! cargo run --example math -- serve --listen 0.0.0.0:8443 --token s3cr3t --max-connections 500 \
//!     --allow-host math.example.com:8443 --allow-origin https://app.example.com \
//!     --tls-cert chain.pem --tls-key key.pem
//! cargo run --example math -- call wss://math.example.com:8443/mcp add 5 3 --bearer s3cr3t --ca ca.pem
//! curl https://math.example.com:8443/health --cacert ca.pem -H 'Authorization: Bearer s3cr3t'
//! ```

mod agents;
mod call;
mod demo;
mod page;
mod repeat;
mod serve;
mod service;
#[path = "../common/stop.rs"]
mod stop;
mod web;

use std::{
    error::Error,
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use tracing_subscriber::filter::{EnvFilter, LevelFilter};

type Result<T = ()> = std::result::Result<T, Box<dyn Error>>;

/// Calculations over WebSockets; without a command, a demonstration of all tools
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the tools until SIGINT or SIGTERM; a second one waits for no client
    Serve(serve::Args),
    /// Call a tool of any MCP server and print its result, or list its tools
    Call(call::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let warnings = "mcp_ws_transport=warn".parse().unwrap_or(LevelFilter::WARN.into());
    let filter = EnvFilter::builder().with_default_directive(warnings);
    tracing_subscriber::fmt()
        .with_env_filter(filter.from_env_lossy())
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();

    let outcome = match cli.command {
        None => demo::run().await,
        Some(Command::Serve(args)) => serve::run(args).await,
        Some(Command::Call(args)) => call::run(args).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", one_line(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}

/// Returns `text` without line breaks and other control characters.
fn one_line(text: &str) -> String {
    let parts = text.split(char::is_control).map(str::trim).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(" ")
}
