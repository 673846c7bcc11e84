//! The command line.

use std::path::PathBuf;

use clap::Parser;

use crate::common::parse_args;

/// All that this crate promises of its speed and size, beside what else there is.
#[derive(Parser, Debug, Default)]
#[command(name = "cargo bench --bench table --")]
pub(crate) struct Options {
    /// Number of times that each contender is measured in each case
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Fewer and shorter rounds, and fewer sessions
    #[arg(long)]
    pub(crate) quick: bool,
    /// A smoke run, whose figures mean little
    #[arg(long)]
    pub(crate) smoke: bool,
    /// Neither build nor measure those that are packages of their own
    #[arg(long)]
    pub(crate) without_packages: bool,
    /// Write what was measured to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Measure nothing, and show what --json has written
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// Draw a chart of it: an SVG file
    #[arg(long, value_name = "FILE")]
    pub(crate) chart: Option<PathBuf>,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
    /// Run by `cargo test`
    #[arg(skip)]
    pub(crate) is_test: bool,
}

impl Options {
    pub(crate) fn from_args() -> Self {
        parse_args(Self { is_test: true, ..Self::default() })
    }

    pub(crate) fn rounds(&self) -> usize {
        if self.quick { 3 } else { self.rounds.max(1) }
    }
}
