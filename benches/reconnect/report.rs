//! The table, and what was measured.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::{
    common::{
        Threads,
        figures::{self, median, or_dash, percent, ratio, time},
        record::{Record, Records},
    },
    contender::Contender,
};

#[derive(Debug)]
pub(crate) struct Report {
    sessions: usize,
    /// The median and the 99th percentile of each round, in µs.
    rounds: BTreeMap<Contender, Vec<[f64; 2]>>,
    /// KiB for each session without a connection, from each round where it can be told.
    memory: Vec<f64>,
}

impl Report {
    pub(crate) fn new(sessions: usize) -> Self {
        Self { sessions, rounds: BTreeMap::new(), memory: Vec::new() }
    }

    pub(crate) fn add(&mut self, contender: Contender, mut times: Vec<Duration>) {
        times.sort_unstable();
        let at = |share: usize| {
            let time = times.get(times.len() * share / 100).copied().unwrap_or_default();
            time.as_secs_f64() * 1e6
        };
        self.rounds.entry(contender).or_default().push([at(50), at(99)]);
    }

    pub(crate) fn memory(&mut self, kib: Option<f64>) {
        self.memory.extend(kib);
    }

    fn figures(&self, contender: Contender, which: usize) -> impl Iterator<Item = f64> + Clone {
        self.rounds.get(&contender).into_iter().flatten().map(move |round| round[which])
    }

    /// The median over the rounds of the ratio to the stock adaptor's median in the same round.
    fn ratio(&self, contender: Contender) -> Option<f64> {
        let stock = self.figures(Contender::Stock, 0);
        median(self.figures(contender, 0).zip(stock).map(|(own, stock)| own / stock))
    }

    pub(crate) fn records(&self, machine: String) -> Records {
        let mut records = Vec::new();
        for contender in self.rounds.keys().copied() {
            for (which, figure) in ["p50_us", "p99_us"].into_iter().enumerate() {
                let (name, rounds) = (contender.name(), self.figures(contender, which));
                records.push(Record::new("reconnect", &name, Threads::One, figure, rounds));
            }
        }
        let (name, rounds) = (Contender::Ours.name(), self.memory.iter().copied());
        records.push(Record::new("detached-server", &name, Threads::One, "kib", rounds));
        Records { machine, records }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading = "from a cut to the next answered call";
        writeln!(f, "{heading:<38} {:>10} {:>10} {:>8} {:>8}", "p50", "p99", "spread", "p50 ×")?;
        for contender in self.rounds.keys().copied() {
            let [p50, p99] = [0, 1].map(|which| self.figures(contender, which));
            writeln!(
                f,
                "  {contender:<36} {:>10} {:>10} {:>8} {:>8}",
                or_dash(median(p50.clone()), time),
                or_dash(median(p99), time),
                or_dash(figures::spread(p50), percent),
                or_dash(self.ratio(contender), ratio),
            )?;
        }
        let held = or_dash(median(self.memory.iter().copied()), |kib| format!("{kib:.1} KiB"));
        writeln!(
            f,
            "a session without a connection, of {}: {held} of the server's RSS",
            self.sessions
        )?;
        writeln!(f, "medians over the rounds; × is against the stock adaptor in the same round;")?;
        writeln!(f, "spread is from the lowest to the highest round, of p50")
    }
}
