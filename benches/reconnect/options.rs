//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::{
    common::{machine::Pin, parse_args},
    contender::Contender,
};

/// Cost of a lost connection: the time until the next call is answered, and the memory of a session
/// without a connection.
#[derive(Parser, Debug, Default)]
#[command(name = "cargo bench --bench reconnect --")]
pub(crate) struct Options {
    /// Number of connections that each contender loses in a round
    #[arg(long, default_value_t = 500)]
    cuts: usize,
    /// Number of rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Number of sessions without a connection that a server holds while its memory is measured
    #[arg(long, default_value_t = 10_000)]
    sessions: usize,
    /// The core on which both processes run (Linux only): a number, `last`, or `off`
    #[arg(long, default_value = "last")]
    pub(crate) pin: Pin,
    /// A smoke run, whose figures mean little
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

    pub(crate) fn cuts(&self) -> usize {
        if self.quick { 20 } else { self.cuts.max(1) }
    }

    pub(crate) fn rounds(&self) -> usize {
        if self.quick { 1 } else { self.rounds.max(1) }
    }

    pub(crate) fn sessions(&self) -> usize {
        if self.quick { 200 } else { self.sessions.max(1) }
    }

    pub(crate) fn contenders(&self) -> impl Iterator<Item = Contender> {
        Contender::value_variants().iter().copied()
    }
}
