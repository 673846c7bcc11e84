//! [`DetachedSessions`]: sessions without a connection, and the choice of those to end.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

/// Sessions in the order in which they lost their connections, grouped by client address.
#[derive(Debug)]
pub(super) struct DetachedSessions<T> {
    all: BTreeMap<u64, Entry<T>>,
    by_address: HashMap<Option<IpAddr>, Group>,
    bytes: usize,
    last_seq: u64,
}

#[derive(Debug)]
struct Entry<T> {
    session: T,
    address: Option<IpAddr>,
    bytes: usize,
}

/// Sessions of one address.
#[derive(Debug, Default)]
struct Group {
    seqs: BTreeSet<u64>,
    bytes: usize,
}

impl<T> Default for DetachedSessions<T> {
    fn default() -> Self {
        let (all, by_address) = (BTreeMap::new(), HashMap::new());
        Self { all, by_address, bytes: 0, last_seq: 0 }
    }
}

impl<T> DetachedSessions<T> {
    /// Adds a session, or updates the bytes that wait in it. Returns its sequence number.
    pub(super) fn insert(
        &mut self,
        seq: Option<u64>,
        address: Option<IpAddr>,
        session: T,
        bytes: usize,
    ) -> u64 {
        let seq = seq.unwrap_or_else(|| {
            self.last_seq += 1;
            self.last_seq
        });
        self.remove(seq);
        self.bytes += bytes;
        let group = self.by_address.entry(address).or_default();
        group.seqs.insert(seq);
        group.bytes += bytes;
        self.all.insert(seq, Entry { session, address, bytes });
        seq
    }

    /// Removes the session with this sequence number.
    pub(super) fn remove(&mut self, seq: u64) -> Option<T> {
        let Entry { session, address, bytes } = self.all.remove(&seq)?;
        self.bytes -= bytes;
        if let Some(group) = self.by_address.get_mut(&address) {
            group.seqs.remove(&seq);
            group.bytes -= bytes;
            if group.seqs.is_empty() {
                self.by_address.remove(&address);
            }
        }
        Some(session)
    }

    /// Removes the oldest session of the largest address, if there are too many sessions or bytes.
    ///
    /// The largest has the most sessions if there are more than `max_sessions`, else the most
    /// bytes.
    pub(super) fn take_excess(&mut self, max_sessions: usize, max_bytes: usize) -> Option<T> {
        let groups = self.by_address.values();
        let first = |group: &Group| group.seqs.first().copied();
        let largest = if self.all.len() > max_sessions {
            groups.max_by_key(|group| (group.seqs.len(), Reverse(first(group))))
        } else if self.bytes > max_bytes {
            groups.max_by_key(|group| (group.bytes, Reverse(first(group))))
        } else {
            return None;
        };
        let seq = first(largest?)?;
        self.remove(seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> Option<IpAddr> {
        Some([10, 0, 0, last].into())
    }

    #[test]
    fn whoever_has_the_most_sessions_loses_the_oldest() {
        let mut detached = DetachedSessions::default();
        detached.insert(None, at(1), "alone", 0);
        for session in ["first", "second", "third"] {
            detached.insert(None, at(2), session, 0);
        }
        let excess: Vec<_> = std::iter::from_fn(|| detached.take_excess(2, 0)).collect();
        assert_eq!(excess, ["first", "second"]);
        // Where each has one, the one that came first.
        assert_eq!(detached.take_excess(1, 0), Some("alone"));
        assert_eq!(detached.take_excess(1, 0), None);
        assert_eq!(detached.by_address.len(), 1);
    }

    #[test]
    fn whoever_has_the_most_bytes_loses_the_oldest() {
        let mut detached = DetachedSessions::default();
        let mut grows = detached.insert(None, at(1), "grows", 10);
        for session in ["small", "smaller"] {
            detached.insert(None, at(2), session, 20);
        }
        assert_eq!(detached.take_excess(9, 50), None);
        grows = detached.insert(Some(grows), at(1), "grows", 15);
        assert_eq!(detached.take_excess(9, 50), Some("small"));
        detached.insert(Some(grows), at(1), "grows", 90);
        assert_eq!(detached.take_excess(9, 50), Some("grows"));
        assert_eq!((detached.bytes, detached.take_excess(9, 50)), (20, None));
    }

    #[test]
    fn without_addresses_the_oldest_ends() {
        let mut detached = DetachedSessions::default();
        let [first, ..] = [1, 2, 3].map(|session| detached.insert(None, None, session, 1));
        assert_eq!(detached.remove(first), Some(1));
        assert_eq!(detached.take_excess(1, 9), Some(2));
        assert_eq!(detached.take_excess(1, 9), None);
    }
}
