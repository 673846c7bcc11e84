//! What `cargo test` runs: a small round of each scenario, and the verdict by itself.

use std::process::ExitCode;

use clap::Parser;

use crate::{run, verdict};

/// Names of the two tests.
const ROUNDS: &str = "in_chaos_every_call_ends_once_and_truly";
const VERDICT: &str = "the_verdict_finds_what_is_wrong";

/// Arguments of libtest, which `cargo test` passes to all tests alike.
#[derive(Debug, clap::Parser)]
#[command(ignore_errors = true)]
struct Arguments {
    filters: Vec<String>,
    #[arg(long)]
    skip: Vec<String>,
    #[arg(long)]
    exact: bool,
    #[arg(long)]
    ignored: bool,
    #[arg(long)]
    list: bool,
    // Their values are no filters.
    #[arg(long)]
    test_threads: Option<String>,
    #[arg(long)]
    format: Option<String>,
    #[arg(long)]
    color: Option<String>,
}

impl Arguments {
    /// Returns `true` if the test of this name is to run.
    fn selects(&self, name: &str) -> bool {
        let is_in = |filters: &[String]| {
            let is_it = |filter: &String| {
                if self.exact { filter == name } else { name.contains(&**filter) }
            };
            filters.iter().any(is_it)
        };
        !self.ignored && !is_in(&self.skip) && (self.filters.is_empty() || is_in(&self.filters))
    }
}

pub async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        println!("{ROUNDS}: test\n{VERDICT}: test");
        return ExitCode::SUCCESS;
    }
    if arguments.selects(VERDICT) {
        verdict::test::run();
        println!("test {VERDICT} ... ok");
    }
    if !arguments.selects(ROUNDS) {
        return ExitCode::SUCCESS;
    }
    println!("test {ROUNDS} ...");
    if std::env::var_os("MCP_WS_FULL").is_some() {
        return run::main(&run::Arguments::of(&["run"])).await;
    }
    let small = ["run", "--seeds=1", "--calls=400", "--delay=20"];
    run::all_at_once(&run::Arguments::of(&small)).await
}
