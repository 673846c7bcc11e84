//! Cost of a call over this crate's transport, beside other transports.
//!
//! ```text
//! cargo bench --bench calls                       # all of it, five minutes
//! cargo bench --bench calls -- --threads all      # on default multi-thread runtimes
//! cargo bench --bench calls -- --case echo-1m     # options: --help
//! ```
//!
//! | contender | is |
//! |---|---|
//! | `mcp-ws-transport` | this crate's `serve` and `connect`, all settings at their defaults |
//! | `…, no resume` | the same, and no session outlives its connection |
//! | `stock adaptor` | rmcp's `SinkStreamTransport` over tokio-tungstenite, as in rmcp's example |
//! | `…, best form` | the same with `TCP_NODELAY` and a read buffer of 4 KiB |
//! | `streamable HTTP` | rmcp's own HTTP server under hyper, and its reqwest client |
//! | `…, best form` | the same without sessions, with answers in JSON and as many POSTs at once as there are calls |
//! | `rmcp alone` | client and server in one process, a queue of messages between them: what no transport goes below |
//! | `…, through JSON` | the same, and each message is encoded and decoded by this crate's codec |
//! | `raw tungstenite` | tokio-tungstenite with the same bytes and no rmcp |
//! | `jsonrpsee` | its WebSocket server and client, with the tools as plain methods: no MCP |
//! | `tower-mcp` | its WebSocket server under axum |
//!
//! All but the last three run the same rmcp service and the same client code. Client and server are
//! two processes on one core, each with a current-thread runtime: what is measured is the CPU time
//! of a call, and nothing depends on where a scheduler puts whom. With `--threads all` they are as
//! most programs are, with a multi-thread runtime each on all cores. The rounds are interleaved,
//! and within a round the contenders of a case follow one another, so that a slow moment of the
//! machine meets every contender; the table has the medians over the rounds. A ratio is the median
//! of the ratios of each round. Where other programs compete for the core, calls/s suffer and p50
//! hardly does; `nice -n -20` helps.
//!
//! `server under a raw client` has one client for all, of few bytes: `initialize`, and then
//! requests that were made beforehand, but for their ids. A relay is a server whose tool calls a
//! tool of another server (itself, over the same transport) and passes its progress on.
//!
//! jsonrpsee and tower-mcp are packages of their own, measured where they are built and named:
//!
//! ```text
//! cargo build --release --manifest-path benches/jsonrpsee/Cargo.toml
//! cargo build --release --manifest-path benches/tower_mcp/Cargo.toml
//! cargo bench --bench calls -- --jsonrpsee benches/jsonrpsee/target/release/jsonrpsee-add \
//!     --tower-mcp benches/tower_mcp/target/release/tower-mcp-server
//! ```
//!
//! The exit code says whether the benchmark ran, never how fast.

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod contender;
mod jsonrpsee;
mod load;
mod memory;
mod options;
mod raw;
mod report;
mod service;

use std::io::{self, IsTerminal};

use self::{
    common::{Result, machine, server},
    load::Load,
    options::Options,
    report::Report,
};

fn main() -> Result<()> {
    let options = Options::from_args();
    let runtime = options.threads.runtime()?;
    if let Some(contender) = options.serve {
        return runtime.block_on(async { server::run(contender.serve().await?, || {}).await });
    }
    drop(runtime);
    let core = machine::pin(options.pin())?;
    // Its threads run where this one may.
    let runtime = options.threads.runtime()?;
    let mut report = Report::new(options.threads);
    let machine = machine::describe(core, options.threads);
    println!("{machine}\n");

    let contenders = options.contenders().into_iter().map(|contender| contender.start(&options));
    let mut contenders = contenders.collect::<Result<Vec<_>>>()?;
    for round in 1..=options.rounds() {
        if io::stderr().is_terminal() {
            eprint!("round {round} of {}\r", options.rounds());
        }
        for case in options.cases() {
            for running in &contenders {
                let load = Load::new(case, options.most_connections(), options.duration());
                let sample = runtime.block_on(running.measure(load));
                let sample = sample
                    .map_err(|error| format!("{}, {}: {error}", running.contender, case.name()));
                if let Some(sample) = sample? {
                    report.add(running.contender, case, sample);
                }
            }
        }
        // Nobody always follows the same one.
        contenders.rotate_left(1);
    }
    print!("{report}");
    if let Some(file) = &options.json {
        report.records(machine).write(file)?;
    }
    Ok(())
}
