//! The table, and the verdicts.

use std::{collections::BTreeMap, fmt};

use crate::{
    common::figures::{self, median, or_dash, percent, ratio, time, verdict},
    contender::Contender,
    load::{Case, Sample},
    options::Options,
};

#[derive(Debug)]
pub(crate) struct Report {
    in_flight: usize,
    samples: BTreeMap<(Case, Contender), Vec<Sample>>,
}

/// What of a sample counts.
type Figure = fn(&Sample) -> f64;

fn micros(sample: &Sample) -> f64 {
    sample.p50.as_secs_f64() * 1e6
}

fn rate(sample: &Sample) -> f64 {
    sample.rate
}

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        Self { in_flight: options.in_flight, samples: BTreeMap::new() }
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

    /// The median over the rounds of the ratio to the stock adaptor in the same round.
    fn ratio(&self, case: Case, contender: Contender, figure: Figure) -> Option<f64> {
        self.ratio_to(Contender::Stock, case, contender, figure)
    }

    fn ratio_to(
        &self,
        other: Contender,
        case: Case,
        contender: Contender,
        figure: Figure,
    ) -> Option<f64> {
        let rounds = self.samples(case, contender).iter().zip(self.samples(case, other));
        median(rounds.map(|(sample, other)| figure(sample) / figure(other)))
    }

    /// From the lowest to the highest round, as a share of the median.
    fn spread(&self, case: Case, contender: Contender) -> Option<f64> {
        let figure = if case == Case::Many { rate } else { micros };
        figures::spread(self.samples(case, contender).iter().map(figure))
    }

    fn heading(&self, case: Case) -> String {
        match case {
            Case::One => "one call in flight".into(),
            Case::Many => format!("{} calls in flight, one connection", self.in_flight),
            Case::Progress => "a progress report, then the result".into(),
        }
    }

    /// What was reached of what this crate promises, one line each.
    pub(crate) fn verdicts(&self) -> String {
        let many = self.ratio(Case::Many, Contender::Ours, rate);
        let one = self.ratio(Case::One, Contender::Ours, micros);
        let progress = self.figure(Case::Progress, Contender::Ours, micros);
        let resume = self.ratio_to(Contender::Plain, Case::Many, Contender::Ours, rate);
        let times = |ratio| format!("{ratio:.2} ×");
        [
            verdict(
                &format!(
                    "{} in flight, at least 2.2 × the stock adaptor's calls/s",
                    self.in_flight
                ),
                many,
                times,
                |ratio| ratio >= 2.2,
            ),
            verdict("one in flight, at most 0.8 × the stock adaptor's time", one, times, |ratio| {
                ratio <= 0.8
            }),
            verdict(
                &format!(
                    "{} in flight, at least 0.97 × the calls/s without resume",
                    self.in_flight
                ),
                resume,
                times,
                |ratio| ratio >= 0.97,
            ),
            verdict("a progress report and the result, below 1 ms", progress, time, |micros| {
                micros < 1000.0
            }),
        ]
        .concat()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut above = None;
        for (case, contender) in self.samples.keys().copied() {
            if above.replace(case) != Some(case) {
                writeln!(
                    f,
                    "{:<36} {:>10} {:>10} {:>8} {:>8} {:>8}",
                    self.heading(case),
                    "p50",
                    "calls/s",
                    "spread",
                    "time ×",
                    "calls ×",
                )?;
            }
            writeln!(
                f,
                "  {contender:<34} {:>10} {:>10} {:>8} {:>8} {:>8}",
                or_dash(self.figure(case, contender, micros), time),
                or_dash(self.figure(case, contender, rate), |rate| format!("{rate:.0}")),
                or_dash(self.spread(case, contender), percent),
                or_dash(self.ratio(case, contender, micros), ratio),
                or_dash(self.ratio(case, contender, rate), ratio),
            )?;
        }
        writeln!(f, "medians over the rounds; × is against the stock adaptor in the same round;")?;
        writeln!(
            f,
            "spread is from the lowest to the highest round, of calls/s where many are in flight, else of p50"
        )
    }
}
