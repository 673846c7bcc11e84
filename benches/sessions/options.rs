//! The command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};

use crate::{
    common::{machine::Pin, parse_args},
    contender::Contender,
    heartbeat,
};

/// Cost of a session: the memory of one that idles, the time until one is there, and the cost of
/// many that receive something, or nothing.
#[derive(Parser, Debug, Default)]
#[command(name = "cargo bench --bench sessions --")]
pub(crate) struct Options {
    /// Number of sessions while memory or a broadcast is measured
    #[arg(long, default_value_t = 5000)]
    sessions: usize,
    /// Seconds that they idle before it is
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    idle: f64,
    /// Number of sessions that idle while their heartbeats are measured
    #[arg(long, default_value_t = 10_000)]
    beating: usize,
    /// Number of sessions that are opened for each median time
    #[arg(long, default_value_t = 500)]
    openings: usize,
    /// Number of times that each contender is measured
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// The core on which both processes run (Linux only): a number, `last`, or `off`
    #[arg(long, default_value = "last")]
    pub(crate) pin: Pin,
    /// Only these contenders
    #[arg(long, value_delimiter = ',')]
    only: Vec<Contender>,
    /// Only these questions
    #[arg(long, value_delimiter = ',')]
    part: Vec<Part>,
    /// The server built in benches/tower_mcp; without it, tower-mcp is left out
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) tower_mcp: Option<PathBuf>,
    /// A smoke run: few sessions and one round, whose figures mean little
    #[arg(long)]
    quick: bool,
    /// Write what was measured to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Hold sessions by the client of this contender
    #[arg(long, hide = true, requires = "of")]
    pub(crate) hold: Option<Contender>,
    /// The server of which they are
    #[arg(long, hide = true)]
    pub(crate) of: Option<SocketAddr>,
    /// Be a server that can tell all of its clients
    #[arg(long, hide = true)]
    pub(crate) tells: bool,
    /// Be the server of this contender
    #[arg(long, hide = true)]
    pub(crate) serve: Option<Contender>,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The memory of idle sessions, of the server and of the client (Linux only)
    Memory,
    /// The time of upgrade and `initialize`
    Time,
    /// The time until all clients have got one notification
    Broadcast,
    /// The CPU time of idle sessions, whose heartbeats go on (Linux only)
    Heartbeats,
}

impl Options {
    pub(crate) fn from_args() -> Self {
        parse_args(Self { quick: true, ..Self::default() })
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

    pub(crate) fn measures(&self, part: Part) -> bool {
        self.part.is_empty() || self.part.contains(&part)
    }

    /// Connections that this process, or one that it starts, has at once.
    pub(crate) fn most(&self) -> usize {
        // Of those that broadcast, all are there at once.
        let broadcasts = self.contenders().filter(|contender| contender.broadcasts()).count();
        let each = [
            (Part::Memory, self.sessions()),
            (Part::Broadcast, broadcasts * self.sessions()),
            (Part::Heartbeats, self.beating()),
        ];
        let measured = each.into_iter().filter(|(part, _)| self.measures(*part));
        measured.map(|(_, connections)| connections).max().unwrap_or_default()
    }

    pub(crate) fn beating(&self) -> usize {
        if self.quick { 300 } else { self.beating.max(1) }
    }

    /// Returns the time over which the CPU time of idle sessions is measured.
    pub(crate) fn window(&self) -> Duration {
        if self.quick { Duration::from_millis(200) } else { heartbeat::WINDOW }
    }

    /// Returns those that are named, or else all that there are.
    pub(crate) fn contenders(&self) -> impl Iterator<Item = Contender> {
        let all = Contender::value_variants().iter().copied();
        all.filter(|contender| match contender {
            Contender::TowerMcp if self.only.is_empty() => self.tower_mcp.is_some(),
            contender => self.only.is_empty() || self.only.contains(contender),
        })
    }
}
