//! [`FanOut`]: notifications to the clients of all instances.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{audience::Audience, report::Reports};
use crate::server::registry::report::BroadcastReport;

/// Registry whose clients are notified.
pub(in crate::server) trait Deliver: Send + Sync {
    /// Returns what tells the registry from others of the process; `None` once it is gone.
    fn key(&self) -> Option<usize>;

    /// Queues a notification, given as JSON-RPC, for those of the audience at this instance. `None`
    /// if it cannot be decoded.
    fn deliver(&self, audience: &Audience, json: &[u8]) -> Option<BroadcastReport>;
}

/// Notifications of an instance to its cluster.
#[derive(Default)]
pub(super) struct FanOut {
    registries: Mutex<Vec<Arc<dyn Deliver>>>,
    /// Number of notifications that were sent. Locked while one is published, to keep their order.
    pub(super) sent: Mutex<u64>,
    pub(super) reports: Arc<Reports>,
}

impl FanOut {
    pub(super) fn sent(&self) -> u64 {
        *self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn registries(&self) -> MutexGuard<'_, Vec<Arc<dyn Deliver>>> {
        self.registries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a notification to the registries, but not to the one with the key `except`.
    ///
    /// `None` if none of them can decode it.
    pub(super) fn deliver(
        &self,
        audience: &Audience,
        json: &[u8],
        except: Option<usize>,
    ) -> Option<BroadcastReport> {
        let others: Vec<_> = {
            let registries = self.registries();
            let others = registries.iter().filter(|registry| registry.key() != except);
            others.cloned().collect()
        };
        // Without the lock: whoever makes a registry need not wait for it.
        let mut all = others.is_empty().then(BroadcastReport::default);
        for registry in others {
            if let Some(report) = registry.deliver(audience, json) {
                all.get_or_insert_default().add(report);
            }
        }
        all
    }
}
