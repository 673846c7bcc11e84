//! What a session costs: the memory of one that idles, and the time until one is there.
//!
//! ```text
//! cargo bench --bench sessions                   # all of it, a minute or two
//! cargo bench --bench sessions -- --goals        # and a verdict against the goals
//! cargo bench --bench sessions -- --quick        # options: --help
//! ```
//!
//! | contender | is | of it, an idle session holds |
//! |---|---|---|
//! | `mcp-ws-transport` | this crate's `serve`, all settings at their defaults | a WebSocket |
//! | `stock adaptor` | rmcp's `SinkStreamTransport` over tokio-tungstenite, as in rmcp's example | a WebSocket |
//! | `streamable HTTP` | rmcp's own HTTP server under hyper | the session, and one TCP connection: the two POSTs went over it, and then the GET whose event stream stays open. A client that keeps another connection for the next POST makes the server hold that too |
//! | `tower-mcp` | tower-mcp's WebSocket server under axum | a WebSocket |
//! | `raw tungstenite` | tokio-tungstenite without rmcp, with this crate's buffers of 8 KiB: the floor | a WebSocket |
//!
//! All but the last serve one tool; the first three run the same rmcp service, which has no state of
//! its own. Client and server are two processes on one core, each with a current-thread runtime and
//! the system's allocator. The rounds are interleaved; the tables have the medians over them, and a
//! ratio is the median of the ratios of each round.
//!
//! **Memory.** A fresh server gets so many connections, one after the other. On each but those of
//! `raw tungstenite`, which are only upgraded, a client of few bytes says `initialize` and
//! `notifications/initialized`; to this crate it says `Authorization: Bearer …` too. Then all is left
//! idle, and what the resident set of the server process has grown by is divided by their number.
//! Afterwards every session must still answer. The kernel's own buffers do not count.
//!
//! **Time.** From before the TCP connection is made until the response to `initialize` is read, one
//! after the other. `own client` is the client's half of the same transport: this crate's `connect`,
//! or the stock adaptor. `raw client` is the same to every server: `client_async` of
//! tokio-tungstenite (hyper for streamable HTTP), and the request as text. For `raw tungstenite` it is
//! the handshake and an echo of as many bytes as the request and the response have.
//!
//! tower-mcp needs a newer Rust than this crate, and brings an older tungstenite through axum: its
//! server is a package of its own, `benches/tower_mcp`, and measured where `--tower-mcp` names what
//! was built of it:
//!
//! ```text
//! cargo build --release --manifest-path benches/tower_mcp/Cargo.toml
//! cargo bench --bench sessions -- --tower-mcp benches/tower_mcp/target/release/tower-mcp-server
//! ```
//!
//! The exit code says whether the benchmark ran, never how well.

#[path = "../common/mod.rs"]
mod common;
mod contender;
mod http;
mod limit;
mod memory;
mod opening;
mod options;
mod raw;
mod report;
mod service;
mod session;

use std::io::{self, IsTerminal};

use self::{
    common::{Result, machine, runtime, server},
    opening::Client,
    options::Options,
    report::Report,
};

fn main() -> Result<()> {
    let options = Options::from_args();
    if let Some(contender) = options.serve {
        return runtime()?.block_on(async { server::run(contender.serve().await?).await });
    }
    let core = machine::pin(options.pin)?;
    println!("{}\n", machine::describe(core));
    let mut report = Report::new(&options);
    let runtime = runtime()?;

    if options.measures_memory() {
        limit::raise(options.sessions())?;
        for round in 1..=options.rounds() {
            tell(round, options.rounds());
            for contender in options.contenders() {
                let server = contender.start(&options)?;
                let held = runtime.block_on(memory::measure(contender, &server, &options))?;
                report.add_memory(contender, held);
            }
        }
    }
    if options.measures_time() {
        let servers = options
            .contenders()
            .map(|contender| Ok((contender, contender.start(&options)?)))
            .collect::<Result<Vec<_>>>()?;
        for round in 1..=options.rounds() {
            tell(round, options.rounds());
            for (contender, server) in &servers {
                for client in [Client::Own, Client::Raw] {
                    let measured = client.measure(*contender, server.addr(), options.openings());
                    if let Some(p50) = runtime.block_on(measured)? {
                        report.add_time(*contender, client, p50);
                    }
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

fn tell(round: usize, rounds: usize) {
    if io::stderr().is_terminal() {
        eprint!("round {round} of {rounds}\r");
    }
}
