//! Load on a contender, and what is measured of it.

use std::{
    process,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    cases::Case,
    common::{Result, machine::cpu_time},
    service::{self, Client, Tool},
};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

impl Case {
    /// Returns `true` if calls/s count, and not the time of one call.
    pub(crate) fn is_throughput(self) -> bool {
        let (connections, in_flight) = self.concurrency();
        connections * in_flight > 1
    }

    /// Returns the number of connections, and of calls in flight on each.
    fn concurrency(self) -> (usize, usize) {
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
    /// Creates the figures of calls that took `times`, side by side, in `elapsed` altogether.
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
    /// Creates the load of `case`, with at most `connections` connections; most take `duration`.
    pub(crate) fn new(case: Case, most_connections: usize, duration: Duration) -> Self {
        let (connections, in_flight) = case.concurrency();
        let connections = connections.min(most_connections);
        // Long enough for a few calls on each connection.
        let duration = if connections > 500 { 3 } else { 1 } * duration;
        Self { case, connections, in_flight, duration }
    }

    /// Measures what `calls` does for a given time, after a warm-up of a fifth. The server's CPU
    /// time is that of process `server`.
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
