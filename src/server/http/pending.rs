//! [`PendingConnections`]: unauthenticated clients, and the eviction of some.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;

use super::limits::address_prefix;

/// Time that an evicted connection may take to close before another is evicted.
const EVICTION_TIMEOUT: Duration = Duration::from_millis(50);

/// Connections of clients that have not authenticated, before the upgrade or after it.
#[derive(Debug)]
pub(in crate::server) struct PendingConnections {
    capacity: usize,
    queues: Mutex<Queues>,
    /// Notified when one has ended.
    released: Notify,
}

#[derive(Debug, Default)]
struct Queues {
    registered: u64,
    waiting: Queue,
    /// Clients with a request to the fallback, which take up no slot meanwhile.
    suspended: Queue,
}

#[derive(Debug, Default)]
struct Queue {
    entries: HashMap<u64, Entry>,
    /// Numbers of the entries by address, in the order of their arrival.
    by_address: HashMap<Option<IpAddr>, BTreeSet<u64>>,
}

#[derive(Debug)]
struct Entry {
    address: Option<IpAddr>,
    dropped: CancellationToken,
}

impl Queue {
    /// Returns the oldest of the address that has the most.
    fn oldest(&self) -> Option<u64> {
        let groups = self.by_address.values();
        let first = |group: &BTreeSet<u64>| group.first().copied();
        first(groups.max_by_key(|group| (group.len(), Reverse(first(group))))?)
    }

    fn insert(&mut self, number: u64, entry: Entry) {
        self.by_address.entry(entry.address).or_default().insert(number);
        self.entries.insert(number, entry);
    }

    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        if let Some(group) = self.by_address.get_mut(&entry.address) {
            group.remove(&number);
            if group.is_empty() {
                self.by_address.remove(&entry.address);
            }
        }
        Some(entry)
    }

    fn remove_oldest(&mut self) -> Option<Entry> {
        self.oldest().and_then(|oldest| self.remove(oldest))
    }
}

impl PendingConnections {
    /// Creates the set, which holds `capacity` connections.
    pub(in crate::server) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity, queues: Mutex::default(), released: Notify::new() })
    }

    /// Registers a connection from `address`. Another is evicted if there are too many.
    pub(in crate::server) fn register(self: &Arc<Self>, address: Option<IpAddr>) -> PendingSlot {
        let address = address.map(address_prefix);
        let dropped = CancellationToken::new();
        let mut queues = self.lock();
        queues.registered += 1;
        let number = queues.registered;
        self.insert(queues, number, Entry { address, dropped: dropped.clone() });
        PendingSlot { pending: self.clone(), number, dropped }
    }

    /// Evicts one pending connection when another resource, such as file descriptors, runs out.
    ///
    /// It is the oldest, else one whose fallback response is in progress. Waits up to 50 ms for its
    /// socket to close. Returns `false` if there was none.
    pub(in crate::server) async fn evict_oldest(&self) -> bool {
        let released = self.released.notified();
        let oldest = {
            let mut queues = self.lock();
            queues.waiting.remove_oldest().or_else(|| queues.suspended.remove_oldest())
        };
        let Some(oldest) = oldest else { return false };
        oldest.dropped.cancel();
        let _ = timeout(EVICTION_TIMEOUT, released).await;
        true
    }

    /// Inserts an entry into those that wait, and evicts the oldest if there are too many.
    fn insert(&self, mut queues: MutexGuard<'_, Queues>, number: u64, entry: Entry) {
        queues.waiting.insert(number, entry);
        let is_full = queues.waiting.entries.len() > self.capacity.max(1);
        let oldest = is_full.then(|| queues.waiting.remove_oldest()).flatten();
        drop(queues);
        if let Some(oldest) = oldest {
            oldest.dropped.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Slot of a pending connection, whose number, in the order of arrival, stays the same.
#[derive(Debug)]
pub(in crate::server) struct PendingSlot {
    pending: Arc<PendingConnections>,
    number: u64,
    dropped: CancellationToken,
}

impl PendingSlot {
    /// Resolves when another connection needs the slot.
    pub(in crate::server) async fn evicted(&self) {
        self.dropped.cancelled().await;
    }

    /// Gives up the slot for a while.
    pub(in crate::server) fn suspend(&self) {
        let mut queues = self.pending.lock();
        if let Some(entry) = queues.waiting.remove(self.number) {
            queues.suspended.insert(self.number, entry);
        }
    }

    /// Takes a slot again. Another connection is evicted if there are too many.
    pub(in crate::server) fn resume(&self) {
        let mut queues = self.pending.lock();
        if let Some(entry) = queues.suspended.remove(self.number) {
            self.pending.insert(queues, self.number, entry);
        }
    }

    /// Gives up the slot for good.
    pub(in crate::server) fn release(&self) {
        let mut queues = self.pending.lock();
        if queues.waiting.remove(self.number).is_none() {
            queues.suspended.remove(self.number);
        }
    }
}

impl Drop for PendingSlot {
    fn drop(&mut self) {
        self.release();
        self.pending.released.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Option<IpAddr> {
        Some(address.parse().unwrap())
    }

    #[test]
    fn of_too_many_pending_connections_the_oldest_is_evicted() {
        let pending = PendingConnections::new(2);
        let (first, second) = (pending.register(None), pending.register(None));
        let third = pending.register(None);
        let dropped = [&first, &second, &third].map(|slot| slot.dropped.is_cancelled());
        assert_eq!(dropped, [true, false, false]);
        drop((first, third));
        let _fourth = pending.register(None);
        assert!(!second.dropped.is_cancelled());
    }

    #[test]
    fn of_too_many_pending_connections_those_of_the_busiest_address_are_evicted() {
        let pending = PendingConnections::new(3);
        let alone = pending.register(at("2001:db8::1"));
        let many = ["10.0.0.1"; 4].map(|address| pending.register(at(address)));
        assert_eq!(
            many.each_ref().map(|slot| slot.dropped.is_cancelled()),
            [true, true, false, false]
        );
        let _other = pending.register(at("10.0.0.2"));
        assert!(many[2].dropped.is_cancelled() && !alone.dropped.is_cancelled());
        // Where each has one, the first is evicted.
        let _another = pending.register(at("10.0.0.3"));
        assert!(alone.dropped.is_cancelled() && !many[3].dropped.is_cancelled());
        drop(many);
        assert_eq!(pending.lock().waiting.by_address.len(), 2);
    }

    #[tokio::test]
    async fn connections_without_a_response_in_progress_are_evicted_first() {
        let pending = PendingConnections::new(8);
        let [first, second] = [(); 2].map(|()| pending.register(None));
        first.suspend();
        let is_dropped = || [&first, &second].map(|slot| slot.dropped.is_cancelled());
        assert!(pending.evict_oldest().await);
        assert_eq!(is_dropped(), [false, true]);
        assert!(pending.evict_oldest().await);
        assert_eq!(is_dropped(), [true, true]);
        assert!(!pending.evict_oldest().await);
    }

    #[test]
    fn a_suspended_connection_takes_up_no_slot_and_keeps_its_age() {
        let pending = PendingConnections::new(2);
        let [first, second] = [(); 2].map(|()| pending.register(None));
        first.suspend();
        let third = pending.register(None);
        let is_dropped = || [&first, &second, &third].map(|slot| slot.dropped.is_cancelled());
        assert_eq!(is_dropped(), [false; 3]);
        first.resume();
        assert_eq!(is_dropped(), [true, false, false]);
        for slot in [&first, &second, &third] {
            slot.suspend();
            slot.release();
            slot.resume();
        }
        let queues = pending.lock();
        assert!(queues.waiting.by_address.is_empty() && queues.suspended.by_address.is_empty());
    }
}
