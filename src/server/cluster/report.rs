//! [`ClusterReport`]: how many clients a notification to a cluster has reached, and how many not.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, time::timeout};

use crate::{cluster::bus::PublishError, server::registry::report::BroadcastReport};

/// Notification to a cluster, which was handed to the clients of this instance and to the bus.
///
/// Drop it if nobody wants to know what the other instances say.
#[must_use = "it holds whom the notification has reached here"]
pub struct ClusterNotification {
    /// Clients of this instance, for which it was queued.
    pub local: BroadcastReport,
    reports: Result<Option<PendingReports>, PublishError>,
}

/// Report of how many clients a notification to a cluster has reached, and how many not.
#[derive(Debug)]
#[non_exhaustive]
pub struct ClusterReport {
    /// Clients of this instance.
    pub local: BroadcastReport,
    /// Clients of the other instances that have reported, by tag.
    pub others: BTreeMap<String, Reached>,
    /// Tags of the instances that should have reported, and have not.
    pub silent: Vec<String>,
    /// Reason why the other instances were not told, if they were not.
    pub not_sent: Option<PublishError>,
}

/// Number of clients of one instance that a notification has reached, and of those that it has not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Reached {
    /// Number of connections for which the notification was queued.
    pub sent: u64,
    /// Number of connections that do not get it, by [reason](crate::server::NotifyError::as_str).
    #[serde(default)]
    pub failed: BTreeMap<String, u64>,
}

impl From<&BroadcastReport> for Reached {
    fn from(report: &BroadcastReport) -> Self {
        let mut failed = BTreeMap::new();
        for (_, why) in &report.failed {
            *failed.entry(why.as_str().to_owned()).or_default() += 1;
        }
        Self { sent: report.sent as u64, failed }
    }
}

impl ClusterNotification {
    pub(in crate::server) fn new(
        local: BroadcastReport,
        reports: Result<Option<PendingReports>, PublishError>,
    ) -> Self {
        Self { local, reports }
    }

    /// Waits for the reports of the other instances, for `time` at most, and returns all of them.
    ///
    /// Each reports when it has queued the notification. Waited for are those that are [heard
    /// of](crate::cluster::Cluster::others).
    pub async fn report(self, time: Duration) -> ClusterReport {
        let Self { local, reports } = self;
        let (others, silent, not_sent) = match reports {
            Ok(Some(reports)) => {
                let (others, silent) = reports.collect(time).await;
                (others, silent, None)
            }
            Ok(None) => (BTreeMap::new(), Vec::new(), None),
            Err(error) => (BTreeMap::new(), Vec::new(), Some(error)),
        };
        ClusterReport { local, others, silent, not_sent }
    }
}

impl fmt::Debug for ClusterNotification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterNotification").field("local", &self.local).finish_non_exhaustive()
    }
}

/// Reports on one notification that have come.
#[derive(Debug, Default)]
struct ReceivedReports {
    others: Mutex<BTreeMap<String, Reached>>,
    notify: Notify,
}

impl ReceivedReports {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Reached>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reports that somebody waits for, by the number of the notification.
#[derive(Debug, Default)]
pub(super) struct Reports(Mutex<BTreeMap<u64, Arc<ReceivedReports>>>);

/// The most reports that are kept of one notification.
const MAX_REPORTS: usize = 4096;

impl Reports {
    /// Begins to wait for the reports of the `expected` instances on a notification.
    pub(super) fn expect(self: &Arc<Self>, number: u64, expected: Vec<String>) -> PendingReports {
        let received = Arc::<ReceivedReports>::default();
        self.lock().insert(number, received.clone());
        PendingReports { all: self.clone(), number, received, expected }
    }

    /// Takes a report of an instance; one that nobody waits for is dropped.
    pub(super) fn on_report(&self, number: u64, by: String, reached: Reached) {
        let Some(received) = self.lock().get(&number).cloned() else { return };
        let mut others = received.lock();
        if others.len() < MAX_REPORTS {
            others.insert(by, reached);
        }
        drop(others);
        received.notify.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<ReceivedReports>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reports on one notification, which are waited for until this is dropped.
#[derive(Debug)]
pub(in crate::server) struct PendingReports {
    all: Arc<Reports>,
    number: u64,
    received: Arc<ReceivedReports>,
    expected: Vec<String>,
}

impl PendingReports {
    /// Waits until all that are expected have reported, for `time` at most.
    async fn collect(self, time: Duration) -> (BTreeMap<String, Reached>, Vec<String>) {
        let complete = async {
            while !self.silent().is_empty() {
                self.received.notify.notified().await;
            }
        };
        let _ = timeout(time, complete).await;
        let silent = self.silent();
        (std::mem::take(&mut *self.received.lock()), silent)
    }

    /// Returns the tags of those that have not reported.
    fn silent(&self) -> Vec<String> {
        let others = self.received.lock();
        self.expected.iter().filter(|instance| !others.contains_key(*instance)).cloned().collect()
    }
}

impl Drop for PendingReports {
    fn drop(&mut self) {
        self.all.lock().remove(&self.number);
    }
}
