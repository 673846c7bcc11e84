//! The table: what is promised, and what was reached of it.

use std::fmt::Write;

use crate::common::{
    Threads::{self, All, One},
    figures::{median, or_dash},
    record::Records,
};

/// Goal of a figure.
#[derive(Debug, Clone, Copy)]
enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// Shown, with nothing promised.
    None,
}

/// Way in which the figure of a line is made of those of contenders.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Through the sum of those of others.
    Through(&'static [&'static str]),
    /// Through the sum of those of others, with one that is in both.
    ThroughWith(&'static str, &'static [&'static str]),
    /// The least of those of others, through it.
    Under(&'static [&'static str]),
    /// Percentage by which it is below another.
    PercentBelow(&'static str),
    /// The figure, in a unit.
    Of(&'static str),
}

/// The case, its runtimes, and the figure.
type Measured = (&'static str, Threads, &'static str);

#[derive(Debug, Clone, Copy)]
struct Line(&'static str, &'static str, Measured, Kind, Goal);

use Goal::{AtLeast, AtMost};
use Kind::{Of, PercentBelow, Through, ThroughWith, Under};

const OURS: &str = "ours";
const BEST: &[&str] = &["stock-best"];
/// The form that is best for small messages is not the best for large ones.
const BOTH: &[&str] = &["stock", "stock-best"];

const MEAN: &str = "mean_us";
const P50: &str = "p50_us";
const RATE: &str = "calls_per_second";

/// Lines in the order of the table.
#[rustfmt::skip]
const LINES: &[Line] = &[
    Line("one in flight: mean, against raw echo + rmcp alone",
        OURS, ("in-flight-1", One, MEAN), Through(&["raw", "rmcp"]), AtMost(1.40)),
    Line("the same, of raw echo + rmcp alone through JSON: the floor",
        "rmcp-json", ("in-flight-1", One, MEAN), ThroughWith("raw", &["rmcp"]), Goal::None),
    Line("64 in flight: time of a call, against rmcp alone in memory",
        OURS, ("in-flight-64", One, RATE), Under(&["rmcp"]), AtMost(1.75)),
    Line("the same, of JSON alone: the floor",
        "rmcp-json", ("in-flight-64", One, RATE), Under(&["rmcp"]), Goal::None),
    Line("64 in flight, multi-thread: calls/s, against the stock adaptor's best form",
        OURS, ("in-flight-64", All, RATE), Through(BEST), AtLeast(1.8)),
    Line("64 connections, multi-thread: likewise",
        OURS, ("connections-64", All, RATE), Through(BEST), AtLeast(1.35)),
    Line("server under a raw client, 64 in flight: calls/s, against tower-mcp",
        OURS, ("server", One, RATE), Through(&["tower-mcp"]), AtLeast(4.5)),
    Line("64 KiB there and back: speed, against the stock adaptor",
        OURS, ("echo-64k", One, P50), Under(BOTH), AtLeast(1.1)),
    Line("1 MB there and back: likewise",
        OURS, ("echo-1m", One, P50), Under(BOTH), AtLeast(1.25)),
    Line("progress, then the result: p50, against the stock adaptor with TCP_NODELAY",
        OURS, ("progress", One, P50), Through(BEST), AtMost(0.8)),
    Line("connect and initialize, bare client: against the stock adaptor's best form",
        OURS, ("open-bare-client", One, P50), Through(BEST), AtMost(1.2)),
    Line("the same of streamable HTTP, whose server is hyper too",
        "http", ("open-bare-client", One, P50), Through(BEST), Goal::None),
    Line("an idle authenticated session: server",
        OURS, ("idle-server", One, "kib"), Of("KiB"), AtMost(31.0)),
    Line("the same of the stock adaptor's best form, which has neither sessions nor limits",
        "stock-best", ("idle-server", One, "kib"), Of("KiB"), Goal::None),
    Line("a session without a connection: server",
        OURS, ("detached-server", One, "kib"), Of("KiB"), AtMost(27.0)),
    Line("an idle session: client",
        OURS, ("idle-client", One, "kib"), Of("KiB"), AtMost(32.0)),
    Line("the same of the stock adaptor's best form",
        "stock-best", ("idle-client", One, "kib"), Of("KiB"), Goal::None),
    Line("resume's own cost, 64 in flight",
        OURS, ("in-flight-64", One, RATE), PercentBelow("plain"), AtMost(3.0)),
    Line("10,000 idle sessions with heartbeats (--quick: 2,000): server",
        OURS, ("heartbeats", One, "server_core_percent"), Of("% of a core"), AtMost(1.5)),
    Line("a call after a cut, the session resumed: p99",
        OURS, ("reconnect", One, "p99_us"), Of("µs"), AtMost(20_000.0)),

    Line("1,024 in flight: calls/s, against the stock adaptor's best form",
        OURS, ("in-flight-1024", One, RATE), Through(BEST), Goal::None),
    Line("1,000 connections: likewise",
        OURS, ("connections-1000", One, RATE), Through(BEST), Goal::None),
    Line("64 in flight: calls/s, against streamable HTTP's best form",
        OURS, ("in-flight-64", One, RATE), Through(&["http-best"]), Goal::None),
    Line("64 in flight: calls/s, against jsonrpsee, which has no MCP",
        OURS, ("in-flight-64", One, RATE), Through(&["jsonrpsee"]), Goal::None),
    Line("the same on multi-thread runtimes",
        OURS, ("in-flight-64", All, RATE), Through(&["jsonrpsee"]), Goal::None),
    Line("100 progress reports through a relay: against the stock adaptor's best form",
        OURS, ("relay", One, P50), Through(BEST), Goal::None),
    Line("broadcast to 5,000, until the last is told: against the stock adaptor's best form",
        OURS, ("broadcast", One, "last_us"), Through(BEST), Goal::None),
    Line("broadcast, CPU of the server for each: against raw tungstenite",
        OURS, ("broadcast", One, "server_cpu_us"), Through(&["raw"]), Goal::None),
];

impl Kind {
    /// Returns the figure in each round.
    fn rounds(self, of: &[f64], rounds: impl Fn(&str) -> Vec<f64>) -> Vec<f64> {
        let all = |others: &[&str]| others.iter().map(|other| rounds(other)).collect::<Vec<_>>();
        let at = |others: &[Vec<f64>], round: usize| {
            others.iter().map(|other| other.get(round).copied()).collect::<Option<Vec<_>>>()
        };
        let zip = |others: Vec<Vec<f64>>, ratio: fn(f64, &[f64]) -> f64| {
            let ratios = of.iter().enumerate();
            ratios.filter_map(|(round, of)| Some(ratio(*of, &at(&others, round)?))).collect()
        };
        match self {
            Self::Through(others) => zip(all(others), |of, others| of / others.iter().sum::<f64>()),
            Self::ThroughWith(one, others) => zip(all(&[&[one], others].concat()), |of, all| {
                (of + all[0]) / all.iter().sum::<f64>()
            }),
            Self::Under(others) => {
                zip(all(others), |of, others| others.iter().copied().fold(f64::MAX, f64::min) / of)
            }
            Self::PercentBelow(other) => {
                zip(all(&[other]), |of, others| 100.0 * (1.0 - of / others[0]))
            }
            Self::Of(_) => of.to_vec(),
        }
    }

    fn show(self, figure: f64) -> String {
        match self {
            Self::Through(_) | Self::ThroughWith(..) | Self::Under(_) => match figure {
                small if small < 10.0 => format!("{small:.2} ×"),
                large => format!("{large:.0} ×"),
            },
            Self::PercentBelow(_) => format!("{figure:.1} %"),
            Self::Of(unit) if figure < 10.0 => format!("{figure:.2} {unit}"),
            Self::Of(unit) if figure < 1000.0 => format!("{figure:.1} {unit}"),
            Self::Of(unit) => format!("{figure:.0} {unit}"),
        }
    }
}

impl Goal {
    fn is_met(self, figure: f64) -> Option<bool> {
        match self {
            Self::AtMost(most) => Some(figure <= most),
            Self::AtLeast(least) => Some(figure >= least),
            Self::None => None,
        }
    }

    fn show(self, kind: Kind) -> String {
        match self {
            Self::AtMost(most) => format!("≤ {}", kind.show(most)),
            Self::AtLeast(least) => format!("≥ {}", kind.show(least)),
            Self::None => String::new(),
        }
    }
}

impl Line {
    /// Returns the figure in each round.
    fn rounds(&self, records: &Records) -> Vec<f64> {
        let Self(_, of, (case, threads, figure), kind, _) = self;
        let measured = |contender: &str| records.rounds(case, contender, *threads, figure);
        kind.rounds(measured(of), |other| measured(other).to_vec())
    }

    /// Returns `true` if all of its contenders were measured in one case or another.
    fn is_possible(&self, records: &Records) -> bool {
        let Self(_, of, _, kind, _) = self;
        let others = match kind {
            Kind::Through(others) | Kind::ThroughWith(_, others) | Kind::Under(others) => others,
            Kind::PercentBelow(other) => std::slice::from_ref(other),
            Kind::Of(_) => &[],
        };
        let is_there =
            |name: &&str| records.records.iter().any(|record| record.contender == **name);
        is_there(of) && others.iter().all(is_there)
    }
}

/// The lines that have no figure, although their contenders were measured. Elsewhere than on Linux
/// some cannot be.
pub(crate) fn unmeasured(records: &Records) -> Vec<&'static str> {
    let missing = LINES.iter().filter(|line| line.rounds(records).is_empty());
    let missing = missing.filter(|line| cfg!(target_os = "linux") && line.is_possible(records));
    missing.map(|line| line.0).collect()
}

/// Formats the table as Markdown. What was not measured has dashes.
pub(crate) fn table(records: &Records) -> String {
    let mut table = String::from("| | goal | reached | from … to | |\n|---|--:|--:|--:|---|\n");
    for line in LINES {
        let (rounds, Line(text, _, _, kind, goal)) = (line.rounds(records), line);
        let reached = median(rounds.iter().copied());
        let verdict = match reached.and_then(|reached| goal.is_met(reached)) {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        let range = range(&rounds).map(|[low, high]| format!("{low:.2} … {high:.2}"));
        let _ = writeln!(
            table,
            "| {text} | {} | {} | {} | {verdict} |",
            goal.show(*kind),
            or_dash(reached, |reached| kind.show(reached)),
            range.unwrap_or_default(),
        );
    }
    table
}

fn range(rounds: &[f64]) -> Option<[f64; 2]> {
    let low = rounds.iter().copied().min_by(f64::total_cmp)?;
    Some([low, rounds.iter().copied().max_by(f64::total_cmp)?])
}
