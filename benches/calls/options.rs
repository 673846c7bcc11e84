//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};

use crate::{
    cases::{Case, Contender},
    common::{Threads, machine::Pin, parse_args},
};

/// Cost of a call over this crate's transport, beside other transports.
#[derive(Parser, Debug, Default)]
#[command(name = "cargo bench --bench calls --")]
pub(crate) struct Options {
    /// Number of rounds, in each of which each contender is measured in each case
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Seconds that each measurement takes, after a warm-up of a fifth of that
    #[arg(long, default_value_t = 0.3)]
    seconds: f64,
    /// The runtimes of client and server
    #[arg(long, default_value = "one")]
    pub(crate) threads: Threads,
    /// The core on which both processes run (Linux only): a number, `last`, or `off`; by default
    /// `last`, and `off` with --threads all
    #[arg(long)]
    pin: Option<Pin>,
    /// Only these contenders
    #[arg(long, value_delimiter = ',')]
    only: Vec<Contender>,
    /// Only these cases
    #[arg(long, value_delimiter = ',')]
    case: Vec<Case>,
    /// The server built in benches/tower_mcp; without it, tower-mcp is left out
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) tower_mcp: Option<PathBuf>,
    /// The program built in benches/jsonrpsee; without it, jsonrpsee is left out
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) jsonrpsee: Option<PathBuf>,
    /// A smoke run: few and short rounds, whose figures mean little
    #[arg(long)]
    quick: bool,
    /// Write what was measured to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Be the server of this contender
    #[arg(long, hide = true)]
    pub(crate) serve: Option<Contender>,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub(crate) fn from_args() -> Self {
        parse_args(Self { quick: true, ..Self::default() })
    }

    pub(crate) fn rounds(&self) -> usize {
        if self.quick { 1 } else { self.rounds.max(1) }
    }

    pub(crate) fn duration(&self) -> Duration {
        let seconds = if self.quick { 0.02 } else { self.seconds };
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }

    pub(crate) fn most_connections(&self) -> usize {
        if self.quick { 64 } else { usize::MAX }
    }

    pub(crate) fn pin(&self) -> Pin {
        self.pin.unwrap_or(match self.threads {
            Threads::One => Pin::Last,
            Threads::All => Pin::Off,
        })
    }

    /// Returns those that are named, or else all that there are.
    pub(crate) fn contenders(&self) -> Vec<Contender> {
        let all = chosen(&self.only);
        let there = all.filter(|contender| match contender {
            Contender::TowerMcp if self.only.is_empty() => self.tower_mcp.is_some(),
            Contender::Jsonrpsee if self.only.is_empty() => self.jsonrpsee.is_some(),
            _ => true,
        });
        there.collect()
    }

    pub(crate) fn cases(&self) -> impl Iterator<Item = Case> {
        chosen(&self.case)
    }
}

/// Returns what is named, or else everything.
fn chosen<T: ValueEnum + PartialEq + Copy>(named: &[T]) -> impl Iterator<Item = T> {
    let all = T::value_variants().iter().copied();
    all.filter(|one| named.is_empty() || named.contains(one))
}
