//! The command line.

use std::{env, time::Duration};

use clap::{Parser, ValueEnum};

use crate::{common::machine::Pin, contender::Contender, load::Case};

/// What a call costs over this crate's transport, beside what else there is.
#[derive(Parser, Debug, Default)]
#[command(name = "cargo bench --bench calls --")]
pub(crate) struct Options {
    /// How often each contender is measured in each case
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// How long each measurement takes, after a warm-up of a fifth of that
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// How many calls are in flight in the case of many
    #[arg(long, default_value_t = 64)]
    pub(crate) in_flight: usize,
    /// The core on which both processes run (Linux only): a number, `last`, or `off`
    #[arg(long, default_value = "last")]
    pub(crate) pin: Pin,
    /// Only these contenders
    #[arg(long, value_delimiter = ',')]
    only: Vec<Contender>,
    /// Only these cases
    #[arg(long, value_delimiter = ',')]
    case: Vec<Case>,
    /// A smoke run: few and short rounds, whose figures mean little
    #[arg(long)]
    quick: bool,
    /// A verdict against the goals, below the table
    #[arg(long)]
    pub(crate) goals: bool,
    /// Be the server of this contender
    #[arg(long, hide = true)]
    pub(crate) serve: Option<Contender>,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// Without `--bench` this is run by `cargo test`, whose arguments are meant for others: then it
    /// is a smoke run.
    pub(crate) fn from_args() -> Self {
        if env::args().any(|argument| argument == "--bench") {
            Self::parse()
        } else {
            Self { quick: true, in_flight: 64, ..Self::default() }
        }
    }

    pub(crate) fn rounds(&self) -> usize {
        if self.quick { 2 } else { self.rounds.max(1) }
    }

    pub(crate) fn duration(&self) -> Duration {
        let seconds = if self.quick { 0.05 } else { self.seconds };
        Duration::try_from_secs_f64(seconds).unwrap_or_default()
    }

    pub(crate) fn contenders(&self) -> impl Iterator<Item = Contender> {
        chosen(&self.only)
    }

    pub(crate) fn cases(&self) -> impl Iterator<Item = Case> {
        chosen(&self.case)
    }
}

/// What is named, or else everything.
fn chosen<T: ValueEnum + PartialEq + Copy>(named: &[T]) -> impl Iterator<Item = T> {
    let all = T::value_variants().iter().copied();
    all.filter(|one| named.is_empty() || named.contains(one))
}
