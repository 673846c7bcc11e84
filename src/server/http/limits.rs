//! [`Limits`] on connections, and the [`ConnectionLimit`] that enforces them.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::server::registry::event::RejectReason;

/// Limits on the clients of a server. What one client may do is bounded by the layers of its
/// connection; see [`transport::Config`](crate::transport::Config).
#[derive(Debug, Clone)]
pub struct Limits {
    pub(crate) connections: usize,
    pub(crate) connections_per_address: Option<usize>,
    pub(crate) handshakes: usize,
    pub(crate) reject_after_upgrade: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_address: None,
            handshakes: 1024,
            reject_after_upgrade: false,
        }
    }
}

impl Limits {
    /// Sets how many connections there may be at once: 1,024. One more is 503 with `Retry-After`.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Sets how many connections there may be at once from one IPv4 address or one IPv6 /64.
    /// `None`, the default, since behind a proxy all have the same; see
    /// [`Config::trusted_proxies`](crate::server::Config::trusted_proxies). Those whose address is
    /// not known count as one.
    #[must_use]
    pub fn connections_per_address(mut self, connections: impl Into<Option<usize>>) -> Self {
        self.connections_per_address = connections.into();
        self
    }

    /// Sets how many clients there may be at once that have not yet shown who they are: 1,024.
    ///
    /// Such clients are in the TLS handshake, in the head of their request, before they have taken
    /// the 101, or in the connection where that is allowed. When there is one more, one is dropped:
    /// of those from the address with the most (as above), the one that came first. So neither slow
    /// clients nor one that comes all the time shut out the others. A client that is being answered
    /// by a [`fallback`](crate::server::Serve::fallback) is not counted until the answer is written.
    #[must_use]
    pub fn handshakes(mut self, handshakes: usize) -> Self {
        self.handshakes = handshakes;
        self
    }

    /// Sets whether one connection too many is upgraded and then closed, in place of a 503: `false`.
    ///
    /// The Close has 1013 "Server at capacity": web pages are told the code of a Close, but not the
    /// status of an answer. Who may come back to a session is still told 503.
    #[must_use]
    pub fn reject_after_upgrade(mut self, upgraded: bool) -> Self {
        self.reject_after_upgrade = upgraded;
        self
    }
}

/// Counter of connections, which enforces the limits.
#[derive(Debug)]
pub(in crate::server) struct ConnectionLimit {
    limits: Limits,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    /// Counts by address, if these are limited.
    by_address: HashMap<Option<IpAddr>, usize>,
}

impl ConnectionLimit {
    /// Creates the counter, with no connection.
    pub(in crate::server) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, counts: Mutex::default() })
    }

    /// Acquires a permit for a client at `address`.
    ///
    /// # Errors
    /// The reason, if a limit is reached.
    pub(in crate::server) fn try_acquire(
        self: &Arc<Self>,
        address: Option<IpAddr>,
    ) -> Result<Permit, RejectReason> {
        let mut counts = self.lock();
        if counts.all >= self.limits.connections {
            return Err(RejectReason::AtCapacity);
        }
        let address = address.map(address_prefix);
        if let Some(limit) = self.limits.connections_per_address {
            // Looked up first: the entry of a rejected client would never be removed.
            if counts.by_address.get(&address).copied().unwrap_or(0) >= limit {
                return Err(RejectReason::AddressAtCapacity);
            }
            *counts.by_address.entry(address).or_default() += 1;
        }
        counts.all += 1;
        Ok(Permit { limit: self.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Permit for one connection; dropping it gives it back.
#[derive(Debug)]
pub(in crate::server) struct Permit {
    limit: Arc<ConnectionLimit>,
    address: Option<IpAddr>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.limit.lock();
        counts.all -= 1;
        if let Some(count) = counts.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

/// Returns the part of an address that one subscriber has: all of IPv4, the /64 of IPv6.
pub(in crate::server) fn address_prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(connections: usize, per_address: Option<usize>) -> Arc<ConnectionLimit> {
        let limits = Limits::default().connections(connections);
        ConnectionLimit::new(limits.connections_per_address(per_address))
    }

    fn at(address: &str) -> Option<IpAddr> {
        Some(address.parse().unwrap())
    }

    #[test]
    fn a_place_that_is_given_back_can_be_taken_again() {
        let limit = limit(2, None);
        let first = limit.try_acquire(None).unwrap();
        let _second = limit.try_acquire(at("10.0.0.1")).unwrap();
        assert_eq!(limit.try_acquire(None).unwrap_err(), RejectReason::AtCapacity);
        drop(first);
        let _third = limit.try_acquire(None).unwrap();
        assert_eq!(limit.try_acquire(None).unwrap_err(), RejectReason::AtCapacity);
    }

    #[test]
    fn an_address_has_a_share_of_the_places() {
        let limit = limit(10, Some(1));
        let first = limit.try_acquire(at("10.0.0.1")).unwrap();
        for same in ["10.0.0.1", "::ffff:10.0.0.1"] {
            assert_eq!(limit.try_acquire(at(same)).unwrap_err(), RejectReason::AddressAtCapacity);
        }
        let _other = limit.try_acquire(at("10.0.0.2")).unwrap();
        let _six = limit.try_acquire(at("2001:db8::1")).unwrap();
        assert_eq!(
            limit.try_acquire(at("2001:db8::2:3")).unwrap_err(),
            RejectReason::AddressAtCapacity
        );
        let _next = limit.try_acquire(at("2001:db8:0:1::1")).unwrap();
        let _unknown = limit.try_acquire(None).unwrap();
        assert_eq!(limit.try_acquire(None).unwrap_err(), RejectReason::AddressAtCapacity);
        drop(first);
        let first = limit.try_acquire(at("10.0.0.1")).unwrap();
        drop(first);
        assert_eq!(limit.lock().by_address.len(), 4);
    }
}
