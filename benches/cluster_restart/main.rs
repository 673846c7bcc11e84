//! A rolling restart of many instances of a server, in virtual time.
//!
//! ```text
//! cargo bench --features cluster --bench cluster_restart                  # 100 instances, 100,000 sessions
//! cargo bench --features cluster --bench cluster_restart -- --quick       # 10 instances, 1,000 sessions
//! ```
//!
//! Servers, clients, sessions, the cluster and its relays are those of the crate with their default
//! settings, in one process on tokio's paused clock. Only what lies between them is modelled:
//!
//! | | as |
//! |---|---|
//! | the network | a pipe in memory for each connection, which takes 1 to 20 ms to be made, and none to carry |
//! | the balancer | one that knows no sessions, and leads each new connection to an instance at random, but to none that stops or is away |
//! | the bus | [`Local`](mcp_ws_transport::cluster::Local), where each message takes 0.2 to 2 ms |
//! | the work of a processor | takes no time |
//! | the sessions | idle, without pings of the WebSocket |
//!
//! Some sessions are relayed when the restart begins. Each instance is told to stop, drains, is
//! away for a while, and joins again under another tag; then the next is told. The random choices
//! of balancer and bus follow the seed; those of the clients, when to come back, do not.
//!
//! A second of virtual time has to take less than five of real time, or clients notice that the two
//! clocks differ, take the machine for one that was asleep, and come back at once. Then the program
//! fails.

mod bus;
mod client;
mod clock;
mod fleet;
mod report;

use std::{sync::Arc, time::Duration};

use clap::Parser;
use tokio::{
    runtime::Builder,
    time::{Instant, sleep},
};

use self::{
    client::Clients,
    clock::SlowestSecond,
    fleet::{Fleet, Result},
    report::Report,
};

/// A rolling restart of many instances of a server, in virtual time
#[derive(Parser, Debug)]
#[command(name = "cargo bench --features cluster --bench cluster_restart --")]
struct Options {
    /// Number of instances
    #[arg(long, default_value_t = 100)]
    instances: usize,
    /// Number of sessions
    #[arg(long, default_value_t = 100_000)]
    sessions: usize,
    /// Number of sessions whose clients come back to a random instance before the restart
    #[arg(long, default_value_t = 1000)]
    moved: usize,
    /// Seconds for which each instance is away
    #[arg(long, default_value_t = 5)]
    away: u64,
    /// Seed of the balancer and the bus
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A small run: 10 instances, 1,000 sessions, of which 100 are moved
    #[arg(long)]
    quick: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let mut options = Options::parse();
    if options.quick {
        options = Options { instances: 10, sessions: 1000, moved: 100, ..options };
    }
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build()?;
    let began = std::time::Instant::now();
    let report = runtime.block_on(simulate(&options))?;
    print!("{report}");
    println!("simulated in {:.0?} with at most {} MiB", began.elapsed(), report::peak_mib());
    // Without a drain of 100,000 sessions, whose figures are printed already.
    runtime.shutdown_background();
    Ok(())
}

async fn simulate(options: &Options) -> Result<Report> {
    println!(
        "{} instances, {} sessions, {} of them moved, each instance {} s away; seed {}",
        options.instances, options.sessions, options.moved, options.away, options.seed
    );
    let fleet = Arc::new(Fleet::start(options.instances, options.seed).await?);
    let clients = Clients::connect(&fleet, options.sessions).await?;
    clients.move_some(options.moved).await;
    let (relayed, _) = fleet.relayed();

    let (start, before) = (Instant::now(), fleet.counts());
    let slowest = SlowestSecond::watch();
    fleet.forget_dials();
    clients.forget_outages();
    for number in 0..options.instances {
        fleet.restart(number, Duration::from_secs(options.away)).await?;
    }
    let restarted = Instant::now();
    clients.all_back().await;
    let back = Instant::now();
    // What the last sessions publish counts too.
    sleep(Duration::from_secs(1)).await;
    slowest.check()?;
    Ok(Report {
        sessions: fleet.sessions(),
        relayed_before: relayed,
        restart: restarted - start,
        back: back - restarted,
        dials: fleet.dials_per_second(start, back),
        bus: fleet.counts() - before,
        outages: clients.outages(),
    })
}
