//! [`Report`]: what the simulation has counted.

use std::{fmt, fs, time::Duration};

use crate::{bus::Counts, client::Outages};

/// Figures of a rolling restart, in virtual time.
pub(crate) struct Report {
    /// Number of sessions with a client when all were back.
    pub(crate) sessions: u64,
    /// Number of sessions that were relayed when the restart began.
    pub(crate) relayed_before: u64,
    /// Time from the stop of the first instance until the last was there again.
    pub(crate) restart: Duration,
    /// Time from then until each client had a session.
    pub(crate) back: Duration,
    /// Number of dials in each second until then.
    pub(crate) dials: Vec<u64>,
    pub(crate) bus: Counts,
    pub(crate) outages: Outages,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sessions, relayed_before, restart, back, bus, .. } = self;
        let Outages { resumed, restarted, failed, .. } = self.outages;
        let mut dials = self.dials.clone();
        dials.sort_unstable();
        let mut took = self.outages.took.clone();
        took.sort_unstable();
        let total: u64 = dials.iter().sum();
        let seconds = (*restart + *back).as_secs_f64();
        writeln!(f, "rolling restart                 {restart:.1?}")?;
        writeln!(f, "then, until all are back        {back:.1?}; {sessions} sessions")?;
        writeln!(f, "dials                           {total}, of which {failed} failed")?;
        writeln!(
            f,
            "dials per second                p50 {}, p99 {}, max {}",
            quantile(&dials, 0.5),
            quantile(&dials, 0.99),
            quantile(&dials, 1.0)
        )?;
        writeln!(
            f,
            "a client without a session      p50 {:.1?}, p99 {:.1?}, max {:.1?}",
            quantile(&took, 0.5),
            quantile(&took, 0.99),
            quantile(&took, 1.0)
        )?;
        writeln!(f, "sessions                        {restarted} begun anew, {resumed} resumed")?;
        writeln!(f, "connections lost, by close code {:?}", self.outages.codes)?;
        writeln!(f, "relayed when it began           {relayed_before}")?;
        for (what, count) in [
            ("heartbeats", bus.heartbeats),
            ("questions for sessions", bus.questions),
            ("answers", bus.answers),
            ("of relayed sessions", bus.relayed),
        ] {
            let per_second = count as f64 / seconds;
            writeln!(f, "on the bus: {what:22}  {count}, {per_second:.0} a second")?;
        }
        Ok(())
    }
}

/// Returns the element below which this share of a sorted list lies.
fn quantile<T: Copy + Default>(sorted: &[T], share: f64) -> T {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of the length"
    )]
    let index = (sorted.len().saturating_sub(1) as f64 * share) as usize;
    sorted.get(index).copied().unwrap_or_default()
}

/// Returns the most memory that this process has had, where the system tells it.
pub(crate) fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() >> 10
}
