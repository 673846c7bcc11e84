//! Parts that the benchmarks share: server processes, the machine, the other transports, figures.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

pub(crate) mod adder;
pub(crate) mod figures;
pub(crate) mod http;
pub(crate) mod machine;
pub(crate) mod record;
pub(crate) mod script;
pub(crate) mod server;
pub(crate) mod stock;

use std::{env, error::Error};

use clap::{Parser, ValueEnum};
use tokio::runtime::{Builder, Runtime};

pub(crate) type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Parses the command line. Without `--bench` the benchmark is run by `cargo test`, whose arguments
/// are meant for others: then its options are those of a `smoke` run.
pub(crate) fn parse_args<O: Parser>(smoke: O) -> O {
    let is_bench = env::args().any(|argument| argument == "--bench");
    if is_bench { O::parse() } else { smoke }
}

/// The form of another transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The settings of its documentation.
    Stock,
    /// The settings that make it fastest.
    Best,
}

/// The runtimes of client and server.
#[derive(ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Threads {
    /// Current-thread runtimes, both processes on one core
    #[default]
    One,
    /// Default multi-thread runtimes, on all cores
    All,
}

impl Threads {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::All => "all",
        }
    }

    pub(crate) fn runtime(self) -> Result<Runtime> {
        let mut builder = match self {
            Self::One => Builder::new_current_thread(),
            Self::All => Builder::new_multi_thread(),
        };
        Ok(builder.enable_all().build()?)
    }
}

pub(crate) fn runtime() -> Result<Runtime> {
    Threads::One.runtime()
}
