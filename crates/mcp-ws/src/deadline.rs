//! [`Deadline`]: the time that a server has to answer a command of a person.

use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use tokio::time::{Instant, timeout_at};

use crate::failure::{Failure, Kind};

/// Seconds that a server has to answer where `--timeout` is not given.
pub(crate) const DEFAULT: u64 = 30;

/// Returns the parser of the seconds of `--timeout`, a day at most.
pub(crate) fn seconds() -> RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(1..=86_400)
}

/// Step of a command that a server may keep waiting.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Connect,
    Initialize,
    ListTools,
    Ping,
}

impl Step {
    /// Returns what has not happened, and what to look at.
    fn told(self) -> (&'static str, &'static str) {
        match self {
            Self::Connect => ("not connected", "is a WebSocket server at this URL?"),
            Self::Initialize => (
                "connected, but no answer to `initialize`",
                "is it a server of MCP, and does what stands behind it run?",
            ),
            Self::ListTools => {
                ("no answer to `tools/list`", "the server is initialized, but busy or stuck.")
            }
            Self::Ping => ("no answer to `ping`", "the server is initialized, but busy or stuck."),
        }
    }
}

/// Time by which a command has to be done with its steps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    pub(crate) time: Duration,
    at: Instant,
}

impl Deadline {
    /// Begins with the time of `--timeout`.
    pub(crate) fn new(seconds: u64) -> Self {
        let time = Duration::from_secs(seconds);
        Self { time, at: Instant::now() + time }
    }

    /// Runs a step, which fails if the time is over before.
    pub(crate) async fn keep<T, E: Into<Failure>>(
        self,
        step: Step,
        running: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        match timeout_at(self.at, running).await {
            Ok(done) => done.map_err(Into::into),
            Err(_) => {
                let ((what, advice), seconds) = (step.told(), self.time.as_secs());
                Err(Failure::new(
                    Kind::Connection,
                    format!("{what} within {seconds} s: {advice} --timeout SECONDS waits longer"),
                ))
            }
        }
    }
}
