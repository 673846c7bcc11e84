//! What clients and servers have written down, compared.

use std::{
    collections::{BTreeMap, HashMap},
    ops::AddAssign,
    time::Duration,
};

use crate::journal::{Call, End, Report};

/// Time in which a client knows that a server has gone, although its connection is half open, or
/// the machine is busy.
pub const DETECTION: Duration = Duration::from_secs(5);

/// Time within which a client writes down that a session has begun.
const LATE: Duration = Duration::from_secs(1);

/// Period in which one server took another's place, in microseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    pub from: u64,
    pub until: u64,
    /// `true` if answers may be lost by it, and not only calls that the server has not read.
    pub loses_answers: bool,
}

/// Outcome of a round.
#[derive(Debug)]
pub struct Record {
    pub reports: Vec<Report>,
    pub executions: HashMap<u64, usize>,
    pub changes: Vec<Change>,
    /// `false` where calls may be lost because a connection is.
    pub resumes: bool,
    /// What else went wrong: processes that failed or did not end.
    pub failures: Vec<String>,
}

/// Counts of calls.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub calls: usize,
    pub ok: usize,
    /// How many ended with an error of each kind.
    pub errors: BTreeMap<String, usize>,
    /// Calls of clients that were killed meanwhile.
    pub killed: usize,
    pub executed: usize,
    pub hung: usize,
    /// Not its own answer, or an error that is not true or not one that a lost connection has.
    pub wrong: usize,
    pub twice: usize,
    /// Calls that were lost though no server went away that may have had them.
    pub lost: usize,
    /// Sessions that were lost, beyond one for each server that went away.
    pub sessions: usize,
    pub slowest: Duration,
    /// What is wrong.
    pub findings: Vec<String>,
}

impl Verdict {
    pub fn is_good(&self) -> bool {
        self.findings.is_empty() && self.ok > 0
    }
}

impl AddAssign<Self> for Verdict {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.ok += other.ok;
        for (kind, calls) in other.errors {
            *self.errors.entry(kind).or_default() += calls;
        }
        self.killed += other.killed;
        self.executed += other.executed;
        self.hung += other.hung;
        self.wrong += other.wrong;
        self.twice += other.twice;
        self.lost += other.lost;
        self.sessions += other.sessions;
        self.slowest = self.slowest.max(other.slowest);
        self.findings.extend(other.findings);
    }
}

impl Record {
    pub fn verdict(self) -> Verdict {
        let mut verdict = Verdict::default();
        for (place, report) in self.reports.iter().enumerate() {
            if self.resumes && report.restarted.len() > self.changes.len() {
                verdict.sessions += report.restarted.len() - self.changes.len();
                let times = &report.restarted;
                verdict.findings.push(format!("client {place} began new sessions at {times:?}"));
            }
            for call in &report.calls {
                self.judge(call, report, &mut verdict);
            }
        }
        if !verdict.findings.is_empty() {
            verdict.findings.push(format!("servers went away: {:?}", self.changes));
        }
        verdict.findings.extend(self.failures);
        verdict
    }

    fn judge(&self, call: &Call, report: &Report, verdict: &mut Verdict) {
        let times = self.executions.get(&call.number).copied().unwrap_or(0);
        verdict.calls += 1;
        verdict.executed += usize::from(times > 0);
        let mut is_good = times <= 1;
        verdict.twice += usize::from(times > 1);
        if let Some(end) = &call.end {
            verdict.slowest = verdict.slowest.max(Duration::from_micros(end.at - call.from));
            let mut count = |count: &mut usize, is_bad: bool| {
                *count += usize::from(is_bad);
                is_good &= !is_bad;
            };
            match &*end.kind {
                "ok" => {
                    verdict.ok += 1;
                    count(&mut verdict.wrong, times == 0);
                }
                "hung" => count(&mut verdict.hung, true),
                "wrong" => count(&mut verdict.wrong, true),
                kind => {
                    *verdict.errors.entry(kind.to_owned()).or_default() += 1;
                    let is_true = match kind {
                        "not_sent" => times == 0,
                        kind => kind == "outcome_unknown",
                    };
                    count(&mut verdict.wrong, !is_true);
                    let excused = !self.resumes || self.excuses(call, end, times, report);
                    count(&mut verdict.lost, !excused);
                }
            }
        } else {
            verdict.killed += 1;
        }
        if !is_good {
            verdict.findings.push(format!("executed {times} times: {call:?}"));
        }
    }

    /// Returns `true` if a server went away while the call was in flight, or before and the client
    /// did not know of that yet: it had not begun another session since.
    fn excuses(&self, call: &Call, end: &End, times: usize, report: &Report) -> bool {
        let [detection, late] = [DETECTION, LATE].map(|time| time.as_micros() as u64);
        self.changes.iter().any(|change| {
            let has_new_session = |&at: &u64| change.until + late < at && at < call.from;
            (change.loses_answers || times == 0 && end.kind == "outcome_unknown")
                && change.from <= end.at
                && call.from <= change.until + detection
                && !report.restarted.iter().any(has_new_session)
        })
    }
}

/// The verdict on calls that are made up.
pub mod test {
    use super::{Call, Change, End, Record, Report, Verdict};

    /// A call from the tenth to the twentieth second.
    fn call(number: u64, kind: &str) -> Call {
        let end = End { at: 20_000_000, kind: kind.to_owned() };
        Call { number, from: 10_000_000, end: Some(end) }
    }

    /// Returns the change by which a server went away at this second.
    fn change(second: u64) -> Change {
        let until = second * 1_000_000;
        Change { from: until - 1000, until, loses_answers: true }
    }

    /// Returns the verdict on a call that was executed so many times.
    fn verdict(call: Call, times: usize, changes: &[u64], restarted: &[u64]) -> Verdict {
        let changes = changes.iter().copied().map(change).collect();
        verdict_with(call, times, changes, restarted)
    }

    fn verdict_with(call: Call, times: usize, changes: Vec<Change>, restarted: &[u64]) -> Verdict {
        let restarted = restarted.iter().map(|second| second * 1_000_000).collect();
        let record = Record {
            executions: [(call.number, times)].into(),
            reports: vec![Report { calls: vec![call], restarted }],
            changes,
            resumes: true,
            failures: Vec::new(),
        };
        record.verdict()
    }

    pub fn run() {
        let good = verdict(call(1, "ok"), 1, &[], &[]);
        assert!(good.is_good() && (good.ok, good.executed) == (1, 1));
        for (kind, times) in [("ok", 0), ("wrong", 1), ("not_sent", 1), ("-32603", 1)] {
            assert_eq!(verdict(call(1, kind), times, &[15], &[]).wrong, 1, "{kind}");
        }
        for (kind, times) in [("not_sent", 0), ("outcome_unknown", 0), ("outcome_unknown", 1)] {
            assert_eq!(verdict(call(1, kind), times, &[15], &[]).wrong, 0, "{kind}");
        }
        assert_eq!(verdict(call(1, "ok"), 2, &[], &[]).twice, 1);
        assert_eq!(verdict(call(1, "hung"), 1, &[], &[]).hung, 1);
        let killed = verdict(Call { end: None, ..call(1, "") }, 1, &[], &[]);
        assert_eq!((killed.killed, killed.executed, killed.twice), (1, 1, 0));
        assert_eq!(verdict(Call { end: None, ..call(1, "") }, 2, &[], &[]).twice, 1);

        // Times at which servers went away and sessions began, and whether that excuses a loss.
        let losses: [(&[u64], &[u64], bool); 8] = [
            (&[], &[], false),
            (&[15], &[16], true),
            (&[21], &[], false),
            (&[8], &[], true),
            (&[6], &[], true),
            (&[4], &[], false),
            (&[6], &[8], false),
            (&[6, 15], &[8, 15], true),
        ];
        for (changes, restarted, excused) in losses {
            let verdict = verdict(call(1, "outcome_unknown"), 1, changes, restarted);
            assert_eq!(verdict.lost, usize::from(!excused), "{changes:?} {restarted:?}");
        }
        for (kind, times, lost) in
            [("outcome_unknown", 0, 0), ("outcome_unknown", 1, 1), ("not_sent", 0, 1)]
        {
            let drained = vec![Change { loses_answers: false, ..change(15) }];
            let verdict = verdict_with(call(1, kind), times, drained, &[16]);
            assert_eq!(verdict.lost, lost, "{kind}, executed {times} times");
        }
        assert_eq!(verdict(call(1, "ok"), 1, &[15], &[16, 17]).sessions, 1);
    }
}
