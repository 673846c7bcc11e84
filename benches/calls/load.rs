//! What is done to a contender, and what is measured of it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use tokio::task::JoinSet;

use crate::{
    common::Result,
    options::Options,
    service::{self, Client, Tool},
};

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Case {
    /// The next call is made when the last one has returned
    One,
    /// So many calls are in flight at any time, on one connection
    Many,
    /// One in flight, to a tool that reports progress once and then answers
    Progress,
}

/// One measurement to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) case: Case,
    pub(crate) in_flight: usize,
    pub(crate) duration: Duration,
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// The median time of a call.
    pub(crate) p50: Duration,
    /// Calls per second.
    pub(crate) rate: f64,
}

impl Sample {
    /// Of calls that took `times`, side by side, in `elapsed` altogether.
    pub(crate) fn new(mut times: Vec<Duration>, elapsed: Duration) -> Self {
        let rate = times.len() as f64 / elapsed.as_secs_f64();
        times.sort_unstable();
        Self { p50: times.get(times.len() / 2).copied().unwrap_or_default(), rate }
    }
}

impl Load {
    pub(crate) fn new(case: Case, options: &Options) -> Self {
        Self { case, in_flight: options.in_flight.max(1), duration: options.duration() }
    }

    /// The same, to warm up.
    pub(crate) fn warm_up(self) -> Self {
        Self { duration: self.duration / 5, ..self }
    }

    pub(crate) async fn measure(self, client: &Arc<Client>) -> Result<Sample> {
        let warm_up = self.warm_up().run(client).await?;
        let start = Instant::now();
        let times = self.run(client).await?;
        let elapsed = start.elapsed();
        if self.case == Case::Progress {
            service::check_reports(client, (warm_up.len() + times.len()) as u64).await?;
        }
        Ok(Sample::new(times, elapsed))
    }

    async fn run(self, client: &Arc<Client>) -> Result<Vec<Duration>> {
        let end = Instant::now() + self.duration;
        let (callers, tool) = match self.case {
            Case::One => (1, Tool::Add),
            Case::Many => (self.in_flight, Tool::Add),
            Case::Progress => (1, Tool::AddSlowly),
        };
        let callers: JoinSet<_> = (0..callers).map(|_| calls(client.clone(), tool, end)).collect();
        let times = callers.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(times.concat())
    }
}

/// Calls until `end`, one after the other, at least one; how long each took.
async fn calls(client: Arc<Client>, tool: Tool, end: Instant) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(1 << 12);
    let mut last = Instant::now();
    loop {
        service::call(&client, tool, times.len() as u64).await?;
        let now = Instant::now();
        times.push(now - last);
        last = now;
        if now >= end {
            return Ok(times);
        }
    }
}
