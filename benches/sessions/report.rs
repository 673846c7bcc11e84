//! The tables, and the verdicts.

use std::{collections::BTreeMap, fmt};

use clap::ValueEnum;

use crate::{
    common::figures::{self, median, or_dash, percent, ratio, time, verdict},
    contender::Contender,
    opening::Client,
    options::Options,
};

#[derive(Debug)]
pub(crate) struct Report {
    sessions: usize,
    /// KiB for each session, where it can be told.
    memory: BTreeMap<Contender, Vec<Option<f64>>>,
    /// In µs.
    times: BTreeMap<(Contender, Client), Vec<f64>>,
}

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        Self { sessions: options.sessions(), memory: BTreeMap::new(), times: BTreeMap::new() }
    }

    pub(crate) fn add_memory(&mut self, contender: Contender, held: Option<f64>) {
        self.memory.entry(contender).or_default().push(held);
    }

    pub(crate) fn add_time(&mut self, contender: Contender, client: Client, p50: f64) {
        self.times.entry((contender, client)).or_default().push(p50);
    }

    fn memory(&self, contender: Contender) -> impl Iterator<Item = f64> + Clone {
        self.memory.get(&contender).into_iter().flatten().filter_map(|held| *held)
    }

    fn times(&self, contender: Contender, client: Client) -> impl Iterator<Item = f64> + Clone {
        self.times.get(&(contender, client)).into_iter().flatten().copied()
    }

    /// The median over the rounds of the ratio to raw tungstenite in the same round.
    fn time_ratio(&self, contender: Contender, client: Client) -> Option<f64> {
        let raw = self.times(Contender::Raw, Client::Raw);
        median(self.times(contender, client).zip(raw).map(|(time, raw)| time / raw))
    }

    fn memory_ratio(&self, contender: Contender) -> Option<f64> {
        let raw = self.memory(Contender::Raw);
        median(self.memory(contender).zip(raw).map(|(held, raw)| held / raw))
    }

    /// What was reached of what this crate promises, one line each.
    pub(crate) fn verdicts(&self) -> String {
        let ours = Contender::Ours;
        let held = median(self.memory(ours));
        let times = |ratio| format!("{ratio:.2} ×");
        [
            verdict("an idle session, at most 36 KiB", held, kib, |held| held <= 36.0),
            verdict(
                "upgrade and initialize, at most 1.3 × the raw time",
                self.time_ratio(ours, Client::Own),
                times,
                |ratio| ratio <= 1.3,
            ),
            verdict(
                "the same by the raw client, at most 1.3 × the raw time",
                self.time_ratio(ours, Client::Raw),
                times,
                |ratio| ratio <= 1.3,
            ),
        ]
        .concat()
    }

    fn write_memory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading = format!("an idle session, of {}", self.sessions);
        writeln!(f, "{heading:<36} {:>12} {:>8} {:>8}", "server RSS", "spread", "× raw")?;
        for contender in self.memory.keys().copied() {
            writeln!(
                f,
                "  {contender:<34} {:>12} {:>8} {:>8}",
                or_dash(median(self.memory(contender)), kib),
                or_dash(figures::spread(self.memory(contender)), percent),
                or_dash(self.memory_ratio(contender), ratio),
            )?;
        }
        if self.memory.values().flatten().any(Option::is_none) {
            writeln!(f, "the memory of another process can be read on Linux only")?;
        }
        Ok(())
    }

    fn write_times(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<36}", "upgrade and initialize, p50")?;
        writeln!(f, " {:>12} {:>8} {:>12} {:>8}", "own client", "× raw", "raw client", "× raw")?;
        for contender in Contender::value_variants().iter().copied() {
            if self.times(contender, Client::Raw).next().is_none() {
                continue;
            }
            write!(f, "  {contender:<34}")?;
            for client in [Client::Own, Client::Raw] {
                write!(
                    f,
                    " {:>12} {:>8}",
                    or_dash(median(self.times(contender, client)), time),
                    or_dash(self.time_ratio(contender, client), ratio),
                )?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.memory.is_empty() {
            self.write_memory(f)?;
        }
        if !self.times.is_empty() {
            self.write_times(f)?;
        }
        writeln!(
            f,
            "medians over the rounds; × raw is against raw tungstenite in the same round;"
        )?;
        writeln!(f, "spread is from the lowest to the highest round")
    }
}

fn kib(kib: f64) -> String {
    format!("{kib:.1} KiB")
}
