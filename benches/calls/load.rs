//! What is done to a contender, and what is measured of it.

use std::{
    process,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use tokio::task::JoinSet;

use crate::{
    common::{Result, machine::cpu_time},
    options::Options,
    service::{self, Client, Tool},
};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Case {
    /// The next call is made when the last one has returned
    #[value(name = "in-flight-1")]
    InFlight1,
    /// So many calls are in flight at any time, on one connection
    #[value(name = "in-flight-64")]
    InFlight64,
    #[value(name = "in-flight-1024")]
    InFlight1024,
    /// The same on the server alone: its client is a raw one
    Server,
    /// So many connections, with one call in flight on each
    #[value(name = "connections-64")]
    Connections64,
    #[value(name = "connections-1000")]
    Connections1000,
    /// A large request, and a small answer
    #[value(name = "request-64k")]
    Request64K,
    /// A small request, and a large answer
    #[value(name = "answer-64k")]
    Answer64K,
    /// As much there as back
    #[value(name = "echo-64k")]
    Echo64K,
    #[value(name = "request-1m")]
    Request1M,
    #[value(name = "answer-1m")]
    Answer1M,
    #[value(name = "echo-1m")]
    Echo1M,
    /// One report of progress, and then the result
    Progress,
    /// A stream of 100 reports, and then the result, all through a relay
    Relay,
}

impl Case {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|name| name.get_name().to_owned()).unwrap_or_default()
    }

    pub(crate) fn heading(self) -> &'static str {
        match self {
            Self::InFlight1 => "one call in flight",
            Self::InFlight64 => "64 calls in flight, one connection",
            Self::InFlight1024 => "1,024 calls in flight, one connection",
            Self::Server => "64 in flight, server under a raw client",
            Self::Connections64 => "64 connections, one call on each",
            Self::Connections1000 => "1,000 connections, one call on each",
            Self::Request64K => "request of 64 KiB, small answer",
            Self::Answer64K => "small request, answer of 64 KiB",
            Self::Echo64K => "64 KiB there and back",
            Self::Request1M => "request of 1 MB, small answer",
            Self::Answer1M => "small request, answer of 1 MB",
            Self::Echo1M => "1 MB there and back",
            Self::Progress => "a progress report, then the result",
            Self::Relay => "100 progress reports through a relay",
        }
    }

    /// Whether calls/s are what counts, and not the time of one call.
    pub(crate) fn is_throughput(self) -> bool {
        let (connections, in_flight) = self.crowd();
        connections * in_flight > 1
    }

    /// How many connections there are, and how many calls are in flight on each.
    fn crowd(self) -> (usize, usize) {
        match self {
            Self::InFlight64 | Self::Server => (1, 64),
            Self::InFlight1024 => (1, 1024),
            Self::Connections64 => (64, 1),
            Self::Connections1000 => (1000, 1),
            _ => (1, 1),
        }
    }

    pub(crate) fn tool(self) -> Tool {
        const SMALL: usize = 16;
        match self {
            Self::Request64K => Tool::Text { sent: 64 * KIB, answered: SMALL },
            Self::Answer64K => Tool::Text { sent: SMALL, answered: 64 * KIB },
            Self::Echo64K => Tool::Text { sent: 64 * KIB, answered: 64 * KIB },
            Self::Request1M => Tool::Text { sent: MIB, answered: SMALL },
            Self::Answer1M => Tool::Text { sent: SMALL, answered: MIB },
            Self::Echo1M => Tool::Text { sent: MIB, answered: MIB },
            Self::Progress => Tool::Report,
            Self::Relay => Tool::Relay,
            _ => Tool::Add,
        }
    }
}

/// One measurement to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) case: Case,
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    pub(crate) duration: Duration,
}

/// One measurement. Times are in µs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// The mean time of a call.
    pub(crate) mean: f64,
    /// The median time of a call.
    pub(crate) p50: f64,
    /// Calls per second.
    pub(crate) rate: f64,
    /// The CPU time for each call, of the server and of the client, where it can be told.
    pub(crate) cpu: Option<[f64; 2]>,
}

impl Sample {
    /// Of calls that took `times`, side by side, in `elapsed` altogether.
    fn new(mut times: Vec<Duration>, elapsed: Duration, cpu: Option<[Duration; 2]>) -> Self {
        times.sort_unstable();
        let calls = times.len() as f64;
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        Self {
            mean: micros(times.iter().sum()) / calls,
            p50: times.get(times.len() / 2).copied().map(micros).unwrap_or_default(),
            rate: calls / elapsed.as_secs_f64(),
            cpu: cpu.map(|cpu| cpu.map(|time| micros(time) / calls)),
        }
    }
}

impl Load {
    pub(crate) fn new(case: Case, options: &Options) -> Self {
        let (connections, in_flight) = case.crowd();
        let connections = connections.min(options.most_connections());
        // Long enough for a few calls on each connection.
        let duration = if connections > 500 { 3 } else { 1 } * options.duration();
        Self { case, connections, in_flight, duration }
    }

    /// Of what `calls` does for a given time, after a warm-up of a fifth. The server's CPU time is that
    /// of process `server`.
    pub(crate) async fn sample(
        self,
        server: Option<u32>,
        mut calls: impl AsyncFnMut(Duration) -> Result<Vec<Duration>>,
    ) -> Result<Sample> {
        let cpu = || {
            let server = server.map_or(Some(Duration::ZERO), cpu_time)?;
            Some([server, cpu_time(process::id())?])
        };
        calls(self.duration / 5).await?;
        let (before, start) = (cpu(), Instant::now());
        let times = calls(self.duration).await?;
        let (elapsed, after) = (start.elapsed(), cpu());
        let cpu = before.zip(after).map(|([server, client], after)| {
            [after[0].saturating_sub(server), after[1].saturating_sub(client)]
        });
        Ok(Sample::new(times, elapsed, cpu))
    }

    pub(crate) async fn measure(
        self,
        server: Option<u32>,
        clients: &[Arc<Client>],
    ) -> Result<Sample> {
        let mut made = 0;
        let sample = self
            .sample(server, async |duration| {
                let times = self.run(clients, duration).await?;
                made += times.len();
                Ok(times)
            })
            .await?;
        for client in clients {
            service::check_reports(client, (made * self.case.tool().reports()) as u64).await?;
        }
        Ok(sample)
    }

    async fn run(self, clients: &[Arc<Client>], duration: Duration) -> Result<Vec<Duration>> {
        let end = Instant::now() + duration;
        let callers = clients.iter().flat_map(|client| {
            (0..self.in_flight).map(|_| calls(client.clone(), self.case.tool(), end))
        });
        let callers: JoinSet<_> = callers.collect();
        let times = callers.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
        Ok(times.concat())
    }
}

/// Calls until `end`, one after the other, at least one; how long each took.
async fn calls(client: Arc<Client>, tool: Tool, end: Instant) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(1 << 10);
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
