//! What a call costs over this crate's transport, beside what else there is.
//!
//! ```text
//! cargo bench --bench calls                    # all of it, under a minute
//! cargo bench --bench calls -- --goals         # and a verdict against the goals
//! cargo bench --bench calls -- --pin off       # options: --help
//! ```
//!
//! | contender | is |
//! |---|---|
//! | `mcp-ws-transport` | this crate's `serve` and `connect`, all settings at their defaults |
//! | `…, no resume` | the same, and no session outlives its connection |
//! | `stock adaptor` | rmcp's `SinkStreamTransport` over tokio-tungstenite, as in rmcp's example |
//! | `streamable HTTP` | rmcp's own HTTP server under hyper, and its reqwest client |
//! | `raw tungstenite` | tokio-tungstenite with the same bytes and no rmcp: the floor |
//!
//! All but the last run the same rmcp service and the same client code. Client and server are two
//! processes on one core, each with a current-thread runtime: what is measured is the CPU time of a
//! call, and nothing depends on where a scheduler puts whom. The rounds are interleaved, so that a
//! slow moment of the machine meets every contender; the table has the medians over the rounds. A
//! ratio is the median of the ratios of each round. Where other programs compete for the core, calls/s
//! suffer and p50 hardly does; `nice -n -20` helps.
//!
//! The exit code says whether the benchmark ran, never how fast.

#[path = "../common/mod.rs"]
mod common;
mod contender;
mod load;
mod options;
mod raw;
mod report;
mod service;

use std::io::{self, IsTerminal};

use self::{
    common::{
        Result, machine, runtime,
        server::{self, Server},
    },
    load::Load,
    options::Options,
    report::Report,
};

fn main() -> Result<()> {
    let options = Options::from_args();
    if let Some(contender) = options.serve {
        return runtime()?.block_on(async { server::run(contender.serve().await?).await });
    }
    let core = machine::pin(options.pin)?;
    let mut report = Report::new(&options);
    println!("{}\n", machine::describe(core));

    let servers = options
        .contenders()
        .map(|contender| Ok((contender, Server::start(contender)?)))
        .collect::<Result<Vec<_>>>()?;
    let runtime = runtime()?;
    for round in 1..=options.rounds() {
        if io::stderr().is_terminal() {
            eprint!("round {round} of {}\r", options.rounds());
        }
        for (contender, server) in &servers {
            for case in options.cases() {
                let load = Load::new(case, &options);
                if let Some(sample) = runtime.block_on(contender.measure(server, load))? {
                    report.add(*contender, case, sample);
                }
            }
        }
    }
    print!("{report}");
    if options.goals {
        print!("\n{}", report.verdicts());
    }
    Ok(())
}
