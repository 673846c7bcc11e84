//! The command line.

use std::{env, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};

use crate::{common::machine::Pin, contender::Contender};

/// What a session costs: the memory of one that idles, and the time until one is there.
#[derive(Parser, Debug, Default)]
#[command(name = "cargo bench --bench sessions --")]
pub(crate) struct Options {
    /// How many sessions a server holds while its memory is measured
    #[arg(long, default_value_t = 5000)]
    sessions: usize,
    /// How long they idle before it is
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    idle: f64,
    /// How many sessions are opened for each median time
    #[arg(long, default_value_t = 500)]
    openings: usize,
    /// How often each contender is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The core on which both processes run (Linux only): a number, `last`, or `off`
    #[arg(long, default_value = "last")]
    pub(crate) pin: Pin,
    /// Only these contenders
    #[arg(long, value_delimiter = ',')]
    only: Vec<Contender>,
    /// Only this question
    #[arg(long)]
    part: Option<Part>,
    /// The server built in benches/tower_mcp; without it, tower-mcp is left out
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) tower_mcp: Option<PathBuf>,
    /// A smoke run: few sessions and one round, whose figures mean little
    #[arg(long)]
    quick: bool,
    /// A verdict against the goals, below the tables
    #[arg(long)]
    pub(crate) goals: bool,
    /// Be the server of this contender
    #[arg(long, hide = true)]
    pub(crate) serve: Option<Contender>,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// The memory of idle sessions (Linux only)
    Memory,
    /// The time of upgrade and `initialize`
    Time,
}

impl Options {
    /// Without `--bench` this is run by `cargo test`, whose arguments are meant for others: then it
    /// is a smoke run.
    pub(crate) fn from_args() -> Self {
        if env::args().any(|argument| argument == "--bench") {
            Self::parse()
        } else {
            Self { quick: true, ..Self::default() }
        }
    }

    pub(crate) fn sessions(&self) -> usize {
        if self.quick { 300 } else { self.sessions.max(1) }
    }

    pub(crate) fn idle(&self) -> Duration {
        let seconds = if self.quick { 0.2 } else { self.idle };
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }

    pub(crate) fn openings(&self) -> usize {
        if self.quick { 20 } else { self.openings.max(1) }
    }

    pub(crate) fn rounds(&self) -> usize {
        if self.quick { 1 } else { self.rounds.max(1) }
    }

    pub(crate) fn measures_memory(&self) -> bool {
        self.part != Some(Part::Time)
    }

    pub(crate) fn measures_time(&self) -> bool {
        self.part != Some(Part::Memory)
    }

    /// Those that are named, or else all that there are.
    pub(crate) fn contenders(&self) -> impl Iterator<Item = Contender> {
        let all = Contender::value_variants().iter().copied();
        all.filter(|contender| match contender {
            Contender::TowerMcp if self.only.is_empty() => self.tower_mcp.is_some(),
            contender => self.only.is_empty() || self.only.contains(contender),
        })
    }
}
