//! The tables, and what was measured.

use std::{collections::BTreeMap, fmt};

use crate::{
    common::{
        Threads,
        figures::{self, median, or_dash, percent, ratio, time},
        record::{Record, Records},
    },
    contender::Contender,
    options::Options,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Question {
    ServerMemory,
    ClientMemory,
    OpeningOwn,
    OpeningBare,
    Broadcast,
    BroadcastCpu,
    ServerHeartbeats,
    ClientHeartbeats,
}

impl Question {
    /// The name of the case and of the figure.
    fn name(self) -> (&'static str, &'static str) {
        match self {
            Self::ServerMemory => ("idle-server", "kib"),
            Self::ClientMemory => ("idle-client", "kib"),
            Self::OpeningOwn => ("open-own-client", "p50_us"),
            Self::OpeningBare => ("open-bare-client", "p50_us"),
            Self::Broadcast => ("broadcast", "last_us"),
            Self::BroadcastCpu => ("broadcast", "server_cpu_us"),
            Self::ServerHeartbeats => ("heartbeats", "server_core_percent"),
            Self::ClientHeartbeats => ("heartbeats", "client_core_percent"),
        }
    }

    fn show(self, figure: f64) -> String {
        match self {
            Self::ServerMemory | Self::ClientMemory => kib(figure),
            Self::ServerHeartbeats | Self::ClientHeartbeats => format!("{figure:.2} %"),
            _ => time(figure),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Report {
    sessions: usize,
    beating: usize,
    /// One figure from each round, where there is one.
    figures: BTreeMap<(Question, Contender), Vec<f64>>,
}

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        Self { sessions: options.sessions(), beating: options.beating(), figures: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, question: Question, contender: Contender, figure: Option<f64>) {
        self.figures.entry((question, contender)).or_default().extend(figure);
    }

    fn figures(
        &self,
        question: Question,
        contender: Contender,
    ) -> impl Iterator<Item = f64> + Clone {
        self.figures.get(&(question, contender)).into_iter().flatten().copied()
    }

    /// The median over the rounds of the ratio to another contender in the same round.
    fn ratio(&self, question: Question, contender: Contender, other: Contender) -> Option<f64> {
        let others = self.figures(question, other);
        median(self.figures(question, contender).zip(others).map(|(figure, other)| figure / other))
    }

    pub(crate) fn records(&self, machine: String) -> Records {
        let record = |((question, contender), rounds): (&(Question, Contender), &Vec<f64>)| {
            let (case, figure) = question.name();
            Record::new(case, &contender.name(), Threads::One, figure, rounds.iter().copied())
        };
        Records { machine, records: self.figures.iter().map(record).collect() }
    }

    fn heading(&self, question: Question) -> String {
        let (sessions, beating) = (self.sessions, self.beating);
        match question {
            Question::ServerMemory => format!("an idle session, of {sessions}: server"),
            Question::ClientMemory => format!("an idle session, of {sessions}: client"),
            Question::OpeningOwn => "upgrade and initialize, own client".into(),
            Question::OpeningBare => "upgrade and initialize, bare client".into(),
            Question::Broadcast => format!("to {sessions}, until the last is told"),
            Question::BroadcastCpu => "the same, CPU of the server for each".into(),
            Question::ServerHeartbeats => format!("{beating} idle sessions: server's core"),
            Question::ClientHeartbeats => format!("{beating} idle sessions: clients' core"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut above = None;
        for ((question, contender), rounds) in &self.figures {
            if above.replace(*question) != Some(*question) {
                let heading = self.heading(*question);
                writeln!(
                    f,
                    "{heading:<40} {:>12} {:>8} {:>8} {:>8}",
                    "median", "spread", "× raw", "× stock"
                )?;
            }
            let to = |other| or_dash(self.ratio(*question, *contender, other), ratio);
            writeln!(
                f,
                "  {contender:<38} {:>12} {:>8} {:>8} {:>8}",
                or_dash(median(rounds.iter().copied()), |figure| question.show(figure)),
                or_dash(figures::spread(rounds.iter().copied()), percent),
                to(Contender::Raw),
                to(Contender::StockBest),
            )?;
        }
        writeln!(
            f,
            "medians over the rounds; × is against raw tungstenite, and against the stock adaptor in its\n\
             best form, in the same round; spread is from the lowest to the highest round"
        )
    }
}

fn kib(kib: f64) -> String {
    format!("{kib:.1} KiB")
}
