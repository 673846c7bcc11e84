//! Everything at once, between processes: connections are cut, half open, stalled, slow and far
//! away, servers are killed, drained and started again, clients are killed. Every call ends once,
//! with its own answer or with an error that is true, and none is lost without need.
//!
//! ```sh
//! cargo test --test chaos                       # a small round of each scenario
//! cargo test --test chaos -- run --help         # any number of rounds, with any server and client
//! ```
//!
//! `tests/README.md` says what a server and a client of one's own have to do, and has the figures
//! of a whole run.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "nobody else can reach a test")]

mod child;
mod client;
mod faults;
mod harness;
mod journal;
#[path = "../common/proxy.rs"]
#[allow(dead_code, reason = "others use the rest")]
mod proxy;
mod round;
mod run;
mod scenario;
mod server;
mod setup;
mod table;
mod verdict;

use std::process::ExitCode;

use clap::Parser;

/// Breaks everything between a client and a server of MCP over WebSockets, and counts how their
/// calls end.
#[derive(Debug, Parser)]
#[command(name = "chaos")]
enum Command {
    /// Runs scenarios and prints a table; the exit code is 1 if anything is wrong in it.
    Run(run::Arguments),
    /// Runs the server of one round.
    Server(server::Arguments),
    /// Runs a client of one round.
    Client(client::Arguments),
}

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let is_command = |word: &str| ["run", "server", "client", "help"].contains(&word);
    if !std::env::args().nth(1).is_some_and(|word| is_command(&word)) {
        return harness::main().await;
    }
    match Command::parse() {
        Command::Run(arguments) => run::main(&arguments).await,
        Command::Server(arguments) => server::main(arguments).await,
        Command::Client(arguments) => client::main(&arguments).await,
    }
}
