//! The table, and the verdicts.

use std::{collections::BTreeMap, fmt, time::Duration};

use crate::{
    common::figures::{self, median, or_dash, percent, ratio, time, verdict},
    contender::Contender,
};

#[derive(Debug)]
pub(crate) struct Report {
    sessions: usize,
    /// The median and the 99th percentile of each round, in µs.
    rounds: BTreeMap<Contender, Vec<[f64; 2]>>,
    memory: Option<f64>,
}

impl Report {
    pub(crate) fn new(sessions: usize) -> Self {
        Self { sessions, rounds: BTreeMap::new(), memory: None }
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
        self.memory = kib;
    }

    fn figures(&self, contender: Contender, which: usize) -> impl Iterator<Item = f64> + Clone {
        self.rounds.get(&contender).into_iter().flatten().map(move |round| round[which])
    }

    /// The median over the rounds of the ratio to the stock adaptor's median in the same round.
    fn ratio(&self, contender: Contender) -> Option<f64> {
        let stock = self.figures(Contender::Stock, 0);
        median(self.figures(contender, 0).zip(stock).map(|(own, stock)| own / stock))
    }

    /// What was reached of what this crate promises, one line each.
    pub(crate) fn verdicts(&self) -> String {
        let goal = "a call after a cut is answered, resumed, p99 below 20 ms";
        let p99 = median(self.figures(Contender::Ours, 1));
        verdict(goal, p99, time, |micros| micros < 20_000.0)
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
        let held = or_dash(self.memory, |kib| format!("{kib:.1} KiB"));
        writeln!(
            f,
            "a session without a connection, of {}: {held} of the server's RSS",
            self.sessions
        )?;
        writeln!(f, "medians over the rounds; × is against the stock adaptor in the same round;")?;
        writeln!(f, "spread is from the lowest to the highest round, of p50")
    }
}
