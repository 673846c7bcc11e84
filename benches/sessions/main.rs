//! Cost of a session: the memory of one that idles, at both ends, the time until one is there, and
//! the cost of many that receive something, or nothing.
//!
//! ```text
//! cargo bench --bench sessions                   # all of it, ten minutes
//! cargo bench --bench sessions -- --part memory  # options: --help
//! ```
//!
//! | contender | is | of it, an idle session holds |
//! |---|---|---|
//! | `mcp-ws-transport` | this crate's `serve`, all settings at their defaults | a WebSocket |
//! | `stock adaptor` | rmcp's `SinkStreamTransport` over tokio-tungstenite, as in rmcp's example | a WebSocket |
//! | `…, best form` | the same with `TCP_NODELAY` and a read buffer of 4 KiB | a WebSocket |
//! | `streamable HTTP` | rmcp's own HTTP server under hyper | the session, and one TCP connection: the two POSTs went over it, and then the GET whose event stream stays open. A client that keeps another connection for the next POST makes the server hold that too |
//! | `tower-mcp` | tower-mcp's WebSocket server under axum | a WebSocket |
//! | `raw tungstenite` | tokio-tungstenite without rmcp, with this crate's buffers of 8 KiB: the floor | a WebSocket |
//!
//! All but the last two serve one tool, by the same rmcp service, which has no state of its own; so
//! does tower-mcp. Client and server are two processes on one core, each with a current-thread
//! runtime and the system's allocator. The rounds are interleaved; the tables have the medians over
//! them, and a ratio is the median of the ratios of each round.
//!
//! **Memory.** A new server gets the connections, one after the other. On each but those of
//! `raw tungstenite`, which are only upgraded, a client of few bytes says `initialize` and
//! `notifications/initialized`; to this crate it says `Authorization: Bearer …` too. Then all is
//! left idle, and what the resident set of the server process has grown by is divided by their
//! number. Afterwards every session must still answer. The kernel's own buffers do not count. For
//! the memory of a client, a process of its own opens as many by the contender's own client.
//!
//! **Time.** From before the TCP connection is made until the response to `initialize` is read, one
//! after the other. `own client` is the client's half of the same transport: this crate's
//! `connect`, or the stock adaptor. `bare client` is the same to every server: `client_async` of
//! tokio-tungstenite (hyper for streamable HTTP), and the request as text. For `raw tungstenite` it
//! is the handshake and an echo of as many bytes as the request and the response have.
//!
//! **Broadcast.** From the word to the server until the last of the clients of few bytes has read
//! its notification, and the CPU time of the server for each: by this crate's registry; by a
//! service over the stock adaptor that keeps its peers and tells all at once; by raw tungstenite,
//! whose message is made beforehand.
//!
//! **Heartbeats.** The share of one core that the server takes, and that its clients take, while
//! this crate's clients hold these idle sessions in a process of their own.
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

mod broadcast;
#[path = "../common/mod.rs"]
mod common;
mod contender;
mod heartbeat;
mod hold;
mod http;
mod limit;
mod memory;
mod opening;
mod options;
mod raw;
mod report;
mod session;

use std::io::{self, IsTerminal};

use tokio::runtime::Runtime;

use self::{
    broadcast::Listeners,
    common::{Result, Threads, machine, runtime, server},
    contender::Contender,
    opening::Client,
    options::{Options, Part},
    report::{Question, Report},
};

fn main() -> Result<()> {
    let options = Options::from_args();
    let runtime = runtime()?;
    if let Some(contender) = options.serve {
        return runtime.block_on(async {
            if options.tells {
                let (addr, tell) = broadcast::serve(contender).await?;
                return server::run(addr, tell).await;
            }
            server::run(contender.serve().await?, || {}).await
        });
    }
    if let Some((contender, addr)) = options.hold.zip(options.of) {
        let held = hold::run(contender, addr, options.sessions(), options.idle());
        return runtime.block_on(held);
    }
    let core = machine::pin(options.pin)?;
    let machine = machine::describe(core, Threads::One);
    println!("{machine}\n");
    let mut report = Report::new(&options);
    limit::raise(options.most())?;
    let parts: [(Part, Measure); 4] = [
        (Part::Memory, measure_memory),
        (Part::Time, measure_time),
        (Part::Broadcast, measure_broadcast),
        (Part::Heartbeats, measure_heartbeats),
    ];
    for (part, measure) in parts {
        if options.measures(part) {
            measure(&options, &runtime, &mut report)?;
        }
    }
    print!("{report}");
    if let Some(file) = &options.json {
        report.records(machine).write(file)?;
    }
    Ok(())
}

type Measure = fn(&Options, &Runtime, &mut Report) -> Result<()>;

fn measure_memory(options: &Options, runtime: &Runtime, report: &mut Report) -> Result<()> {
    for round in 1..=options.rounds() {
        tell(round, options.rounds());
        for contender in options.contenders() {
            let server = contender.start(options.tower_mcp.as_deref())?;
            let held = runtime.block_on(memory::measure(contender, &server, options))?;
            report.add(Question::ServerMemory, contender, held);
            if contender.has_client() {
                let clients = contender.hold(&server, options.sessions(), options.idle())?;
                let held = clients.line().parse::<f64>()?;
                report.add(Question::ClientMemory, contender, held.is_finite().then_some(held));
            }
        }
    }
    Ok(())
}

fn measure_time(options: &Options, runtime: &Runtime, report: &mut Report) -> Result<()> {
    let servers = options
        .contenders()
        .map(|contender| Ok((contender, contender.start(options.tower_mcp.as_deref())?)))
        .collect::<Result<Vec<_>>>()?;
    for round in 1..=options.rounds() {
        tell(round, options.rounds());
        for client in [Client::Own, Client::Bare] {
            for (contender, server) in &servers {
                let measured = client.measure(*contender, server.addr(), options.openings());
                if let Some(p50) = runtime.block_on(measured)? {
                    report.add(client.question(), *contender, Some(p50));
                }
            }
        }
    }
    Ok(())
}

fn measure_broadcast(options: &Options, runtime: &Runtime, report: &mut Report) -> Result<()> {
    let mut all = Vec::new();
    for contender in options.contenders().filter(|contender| contender.broadcasts()) {
        all.push(runtime.block_on(Listeners::new(contender, options.sessions()))?);
    }
    for _ in 0..options.rounds() {
        for listeners in &mut all {
            let [last, cpu] = runtime.block_on(listeners.measure())?;
            report.add(Question::Broadcast, listeners.contender, last);
            report.add(Question::BroadcastCpu, listeners.contender, cpu);
        }
    }
    Ok(())
}

fn measure_heartbeats(options: &Options, runtime: &Runtime, report: &mut Report) -> Result<()> {
    if !options.contenders().any(|contender| contender == Contender::Ours) {
        return Ok(());
    }
    let server = Contender::Ours.start(options.tower_mcp.as_deref())?;
    let clients = Contender::Ours.hold(&server, options.beating(), options.idle())?;
    for round in 1..=options.rounds() {
        tell(round, options.rounds());
        let measured = heartbeat::measure(&server, &clients, options.window());
        if let Some([server, clients]) = runtime.block_on(measured)? {
            report.add(Question::ServerHeartbeats, Contender::Ours, Some(server * 100.0));
            report.add(Question::ClientHeartbeats, Contender::Ours, Some(clients * 100.0));
        }
    }
    Ok(())
}

fn tell(round: usize, rounds: usize) {
    if io::stderr().is_terminal() {
        eprint!("round {round} of {rounds}\r");
    }
}
