//! The table, and what was measured.

use std::{collections::BTreeMap, fmt};

use crate::{
    cases::{Case, Contender},
    common::{
        Threads,
        figures::{self, median, or_dash, percent, ratio, time},
        record::{Record, Records},
    },
    load::Sample,
};

#[derive(Debug)]
pub(crate) struct Report {
    threads: Threads,
    samples: BTreeMap<(Case, Contender), Vec<Sample>>,
}

/// The figure of a sample that counts.
type Figure = fn(&Sample) -> f64;

fn p50(sample: &Sample) -> f64 {
    sample.p50
}

fn rate(sample: &Sample) -> f64 {
    sample.rate
}

fn cpu(sample: &Sample) -> Option<f64> {
    sample.cpu.map(|[server, client]| server + client)
}

impl Report {
    pub(crate) fn new(threads: Threads) -> Self {
        Self { threads, samples: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, contender: Contender, case: Case, sample: Sample) {
        self.samples.entry((case, contender)).or_default().push(sample);
    }

    fn samples(&self, case: Case, contender: Contender) -> &[Sample] {
        self.samples.get(&(case, contender)).map_or(&[], Vec::as_slice)
    }

    /// The median over the rounds.
    fn figure(&self, case: Case, contender: Contender, figure: Figure) -> Option<f64> {
        median(self.samples(case, contender).iter().map(figure))
    }

    /// The median over the rounds of the ratio to another contender in the same round.
    fn ratio(
        &self,
        other: Contender,
        case: Case,
        contender: Contender,
        figure: Figure,
    ) -> Option<f64> {
        let rounds = self.samples(case, contender).iter().zip(self.samples(case, other));
        median(rounds.map(|(sample, other)| figure(sample) / figure(other)))
    }

    /// Returns the spread from the lowest to the highest round, as a share of the median.
    fn spread(&self, case: Case, contender: Contender) -> Option<f64> {
        let figure = if case.is_throughput() { rate } else { p50 };
        figures::spread(self.samples(case, contender).iter().map(figure))
    }

    pub(crate) fn records(&self, machine: String) -> Records {
        type Part = fn(&Sample) -> Option<f64>;
        let parts: [(&str, Part); 5] = [
            ("mean_us", |sample| Some(sample.mean)),
            ("p50_us", |sample| Some(sample.p50)),
            ("calls_per_second", |sample| Some(sample.rate)),
            ("server_cpu_us", |sample| sample.cpu.map(|[server, _]| server)),
            ("client_cpu_us", |sample| sample.cpu.map(|[_, client]| client)),
        ];
        let mut records = Vec::new();
        for ((case, contender), samples) in &self.samples {
            for (figure, part) in parts {
                let rounds = samples.iter().filter_map(part);
                let (case, contender) = (case.name(), contender.name());
                records.push(Record::new(&case, &contender, self.threads, figure, rounds));
            }
        }
        Records { machine, records }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut above = None;
        for (case, contender) in self.samples.keys().copied() {
            if above.replace(case) != Some(case) {
                writeln!(
                    f,
                    "{:<38} {:>10} {:>10} {:>10} {:>10} {:>8} {:>8} {:>8}",
                    case.heading(),
                    "mean",
                    "p50",
                    "CPU",
                    "calls/s",
                    "spread",
                    "p50 ×",
                    "calls ×",
                )?;
            }
            let cpu = self.samples(case, contender).iter().filter_map(cpu);
            let to_stock = |figure| self.ratio(Contender::Stock, case, contender, figure);
            writeln!(
                f,
                "  {contender:<36} {:>10} {:>10} {:>10} {:>10} {:>8} {:>8} {:>8}",
                or_dash(self.figure(case, contender, |sample| sample.mean), time),
                or_dash(self.figure(case, contender, p50), time),
                or_dash(median(cpu), time),
                or_dash(self.figure(case, contender, rate), |rate| format!("{rate:.0}")),
                or_dash(self.spread(case, contender), percent),
                or_dash(to_stock(p50), ratio),
                or_dash(to_stock(rate), ratio),
            )?;
        }
        writeln!(
            f,
            "medians over the rounds; CPU is what client and server together need for a call;\n\
             × is against the stock adaptor in the same round; spread is from the lowest to the highest\n\
             round, of calls/s where many are in flight, else of p50"
        )
    }
}
