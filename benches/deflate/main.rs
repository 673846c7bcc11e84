//! Savings of permessage-deflate on the wire, and its cost.
//!
//! ```text
//! cargo bench --bench deflate --features deflate
//! ```
//!
//! Client and server of this crate, over loopback, in one process of one thread: its CPU time for a
//! call is that of both ends. Bytes are those of a request and its answer as the client's counters
//! have them. The rounds are interleaved, and the table has the medians over them.
//!
//! | contender | is |
//! |---|---|
//! | `off` | not asked for |
//! | `default` | `deflate::Config::default()` on both ends |
//! | `level 6` | the same with the level that most implementations begin with |
//! | `takeover` | the default with context takeover |

#[path = "../common/mod.rs"]
mod common;
mod service;

use std::{env, time::Duration};

use mcp_ws_transport::{
    WebSocketTransport, connect,
    layer::socket::{self, deflate},
    serve, server,
    stats::Stats,
    transport,
};
use rmcp::{
    RoleClient, ServiceExt,
    model::CallToolRequestParams,
    service::{Peer, RunningService},
};
use serde_json::json;
use tokio::time::Instant;

use self::{
    common::{
        Result, Threads,
        figures::{median, or_dash, time},
        machine::{self, Pin},
        runtime,
    },
    service::LargeAnswers,
};

const CASES: [Case; 4] = [Case::Tools, Case::Rows(1), Case::Rows(16), Case::Rows(256)];

/// Kind of request.
#[derive(Clone, Copy)]
enum Case {
    /// `tools/list`, of 40 tools.
    Tools,
    /// A result of JSON text, of this size in KiB.
    Rows(usize),
}

impl Case {
    fn name(self) -> String {
        match self {
            Self::Tools => "`tools/list`, 40 tools".into(),
            Self::Rows(kib) => format!("a result of {kib} KiB"),
        }
    }

    async fn call(self, client: &Peer<RoleClient>) -> Result<()> {
        match self {
            Self::Tools => drop(client.list_tools(None).await?),
            Self::Rows(kib) => {
                let arguments = json!({ "bytes": kib << 10 }).as_object().cloned();
                let request = CallToolRequestParams::new("rows");
                let request = request.with_arguments(arguments.unwrap_or_default());
                drop(client.call_tool(request).await?);
            }
        }
        Ok(())
    }
}

/// One call, on average.
#[derive(Clone, Copy, Default)]
struct Sample {
    bytes: f64,
    micros: f64,
}

struct Contender {
    name: &'static str,
    client: RunningService<RoleClient, ()>,
    stats: Stats,
    _server: server::Server,
}

impl Contender {
    async fn new(name: &'static str, config: Option<deflate::Config>) -> Result<Self> {
        let layers = transport::Config::default().socket(socket::Config::default().deflate(config));
        let config = server::Config::default().transport(layers.clone());
        let server = serve("127.0.0.1:0", || LargeAnswers).config(config).await?;
        let url = format!("ws://{}/mcp", server.local_addr());
        let transport: WebSocketTransport<RoleClient> = connect(url).transport(layers).await?;
        let stats = transport.stats();
        Ok(Self { name, client: ().serve(transport).await?, stats, _server: server })
    }

    async fn measure(&self, case: Case, duration: Duration) -> Result<Sample> {
        let crossed = || {
            let stats = self.stats.snapshot();
            stats.bytes_sent + stats.bytes_received
        };
        case.call(&self.client).await?;
        let (bytes, cpu, end) = (crossed(), cpu_time()?, Instant::now() + duration);
        let mut calls = 0.0;
        while Instant::now() < end {
            case.call(&self.client).await?;
            calls += 1.0;
        }
        let micros = (cpu_time()? - cpu).as_secs_f64() * 1e6;
        Ok(Sample { bytes: (crossed() - bytes) as f64 / calls, micros: micros / calls })
    }
}

/// Returns the processor time of this thread.
#[cfg(target_os = "linux")]
fn cpu_time() -> Result<Duration> {
    let figures = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = figures.split_whitespace().next().ok_or("no figures")?.parse()?;
    Ok(Duration::from_nanos(nanos))
}

/// Elsewhere, what time it has taken.
#[cfg(not(target_os = "linux"))]
fn cpu_time() -> Result<Duration> {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    Ok(START.elapsed())
}

async fn run(rounds: usize, duration: Duration) -> Result<()> {
    let on = deflate::Config::default();
    let contenders = [
        Contender::new("off", None).await?,
        Contender::new("default", Some(on)).await?,
        Contender::new("level 6", Some(on.level(6))).await?,
        Contender::new("takeover", Some(on.context_takeover(true))).await?,
    ];
    let mut samples = [const { [const { Vec::new() }; 4] }; CASES.len()];
    for _ in 0..rounds {
        for (case, samples) in CASES.iter().zip(&mut samples) {
            for (contender, samples) in contenders.iter().zip(samples) {
                samples.push(contender.measure(*case, duration).await?);
            }
        }
    }
    print!("| bytes per call, CPU time of both ends |");
    for contender in &contenders {
        print!(" {} |", contender.name);
    }
    println!("\n|---|{}", "--:|".repeat(contenders.len()));
    for (case, samples) in CASES.iter().zip(&samples) {
        print!("| {} |", case.name());
        for samples in samples {
            let of = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure));
            let bytes = or_dash(of(|sample| sample.bytes), |bytes| format!("{bytes:.0}"));
            let micros = or_dash(of(|sample| sample.micros), time);
            print!(" {bytes}, {micros} |");
        }
        println!();
    }
    Ok(())
}

fn main() -> Result<()> {
    let quick = env::args().any(|argument| argument == "--quick");
    let core = machine::pin(Pin::default())?;
    println!("{}\n", machine::describe(core, Threads::One).lines().next().unwrap_or_default());
    let (rounds, duration) = if quick { (2, 50) } else { (7, 300) };
    runtime()?.block_on(run(rounds, Duration::from_millis(duration)))
}
