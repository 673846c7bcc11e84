//! Runs scenarios under seeds.

use std::{env, process::ExitCode, time::Duration};

use clap::ValueEnum as _;
use futures::future::join_all;

use crate::{
    scenario::{Network, Scenario},
    setup::{Deflate, Round},
    table::{self, Row},
};

#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    /// Scenarios to run; all by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub scenario: Vec<Scenario>,
    /// Rounds of each scenario.
    #[arg(long, default_value_t = 10)]
    pub seeds: u64,
    /// Seed of the first round; those of the others follow.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Calls of each round [default: 10000, or 50000 in flight at once]
    #[arg(long)]
    pub calls: Option<u64>,
    /// Calls that each client has in flight [default: 10, or all]
    #[arg(long)]
    pub in_flight: Option<usize>,
    /// Milliseconds that everything takes each way where the server is far away.
    #[arg(long, default_value_t = 100)]
    pub delay: u64,
    /// Clients that offer permessage-deflate.
    #[arg(long, value_enum, default_value_t = default_deflate())]
    pub deflate: Deflate,
    /// Seconds after which a call counts as hung.
    #[arg(long, default_value_t = 120)]
    pub patience: u64,
    /// Command line of the server, split at its blanks; this program by default.
    #[arg(long)]
    pub server: Option<String>,
    /// Command line of a client, split at its blanks; this program by default.
    #[arg(long)]
    pub client: Option<String>,
}

fn default_deflate() -> Deflate {
    if cfg!(feature = "deflate") { Deflate::Half } else { Deflate::None }
}

impl Arguments {
    /// Parses a command line, which begins with the name of the command.
    pub fn of(arguments: &[&str]) -> Self {
        #[derive(clap::Parser)]
        struct CommandLine {
            #[command(flatten)]
            arguments: Arguments,
        }
        <CommandLine as clap::Parser>::parse_from(arguments).arguments
    }

    fn scenarios(&self) -> impl Iterator<Item = Scenario> {
        let all = match &*self.scenario {
            [] => Scenario::value_variants(),
            some => some,
        };
        all.iter().copied()
    }
}

/// Runs the scenarios one after the other. Returns success if nothing was wrong.
pub async fn main(arguments: &Arguments) -> ExitCode {
    let mut rows = Vec::new();
    for scenario in arguments.scenarios() {
        rows.push(run(arguments, scenario).await);
    }
    conclude(&rows)
}

/// Runs all scenarios at once.
pub async fn all_at_once(arguments: &Arguments) -> ExitCode {
    conclude(&join_all(arguments.scenarios().map(|scenario| run(arguments, scenario))).await)
}

fn conclude(rows: &[Row]) -> ExitCode {
    table::print(rows);
    if rows.iter().all(|row| row.verdict.is_good()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(arguments: &Arguments, scenario: Scenario) -> Row {
    let mut plan = scenario.plan();
    if let Network::Far { latency, .. } = &mut plan.network {
        *latency = Duration::from_millis(arguments.delay);
    }
    plan.calls = arguments.calls.unwrap_or(plan.calls);
    plan.in_flight = arguments.in_flight.unwrap_or(plan.in_flight);
    let last = arguments.seed + arguments.seeds - 1;
    let seeds = format!("{} to {last}", arguments.seed);
    let mut sum = Row { scenario: scenario.name(), seeds, ..Row::default() };
    for seed in arguments.seed..=last {
        let name = format!("mcp-ws-chaos-{}-{}-{seed}", std::process::id(), sum.scenario);
        let round = Round {
            server: command(&arguments.server),
            client: command(&arguments.client),
            plan,
            seed,
            deflate: arguments.deflate,
            patience: Duration::from_secs(arguments.patience),
            folder: env::temp_dir().join(name),
        };
        let (verdict, done) = round.run().await;
        let (scenario, seeds) = (sum.scenario.clone(), seed.to_string());
        let row = Row { scenario, seeds, verdict, done };
        eprintln!("{row}");
        sum.verdict += row.verdict;
        sum.done += row.done;
    }
    sum
}

fn command(given: &Option<String>) -> Vec<String> {
    match given {
        Some(line) => line.split_whitespace().map(str::to_owned).collect(),
        None => vec![env::current_exe().unwrap().into_os_string().into_string().unwrap()],
    }
}
