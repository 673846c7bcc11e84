//! How many may be here at once: the [`Limits`], and the places that are taken and given back.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::Cause;

/// How many clients a server takes. What one client may do is bounded by the layers of its
/// connection; see [`transport::Config`](crate::transport::Config).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Connections at once: 1,024. One more is 503 with `Retry-After`.
    pub connections: usize,
    /// Connections at once from one IPv4 address or one IPv6 /64. `None`, the default, since behind a
    /// proxy all have the same; see [`Config::peer`](super::Config::peer). Those whose address is not
    /// known count as one.
    pub connections_per_address: Option<usize>,
    /// Clients at once that have not yet shown who they are, be it in the TLS handshake, in the
    /// request's head, or in the connection where that is allowed: 1,024. One more, and one is dropped:
    /// of the address from which the most come (as above), the one that has been at it the longest.
    /// Slow ones cannot shut out the others, nor can one that comes all the time. Who is being answered
    /// by a [`fallback`](super::Serve::fallback) is not counted until the answer is written.
    pub handshakes: usize,
    /// Whether one connection too many is upgraded, and then closed with 1013 "Server at capacity", in
    /// place of a 503: web pages are told the code of a Close, but not the status of an answer. Who may come back to a session is
    /// still told 503. Off.
    pub refuse_upgraded: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_address: None,
            handshakes: 1024,
            refuse_upgraded: false,
        }
    }
}

impl Limits {
    /// Sets [`connections`](Self::connections).
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Sets [`connections_per_address`](Self::connections_per_address).
    #[must_use]
    pub fn connections_per_address(mut self, connections: impl Into<Option<usize>>) -> Self {
        self.connections_per_address = connections.into();
        self
    }

    /// Sets [`handshakes`](Self::handshakes).
    #[must_use]
    pub fn handshakes(mut self, handshakes: usize) -> Self {
        self.handshakes = handshakes;
        self
    }

    /// Sets [`refuse_upgraded`](Self::refuse_upgraded).
    #[must_use]
    pub fn refuse_upgraded(mut self, upgraded: bool) -> Self {
        self.refuse_upgraded = upgraded;
        self
    }
}

/// The places for connections.
#[derive(Debug)]
pub(super) struct Places {
    limits: Limits,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Only counted where that is limited.
    by_address: HashMap<Option<IpAddr>, usize>,
}

impl Places {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, taken: Mutex::default() })
    }

    /// A place for a client at `address`, until the permit is dropped.
    pub(super) fn take(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Permit, Cause> {
        let mut taken = self.lock();
        if taken.all >= self.limits.connections {
            return Err(Cause::AtCapacity);
        }
        let address = address.map(network);
        if let Some(limit) = self.limits.connections_per_address {
            // Looked up first: an entry for each who is refused would never be removed.
            if taken.by_address.get(&address).copied().unwrap_or(0) >= limit {
                return Err(Cause::AddressAtCapacity);
            }
            *taken.by_address.entry(address).or_default() += 1;
        }
        taken.all += 1;
        Ok(Permit { places: self.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One place among the connections. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Permit {
    places: Arc<Places>,
    address: Option<IpAddr>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        if let Some(count) = taken.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}

/// What one subscriber has: an address, or the /64 in which he chooses his own.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(connections: usize, per_address: Option<usize>) -> Arc<Places> {
        let limits = Limits::default().connections(connections);
        Places::new(limits.connections_per_address(per_address))
    }

    fn at(address: &str) -> Option<IpAddr> {
        Some(address.parse().unwrap())
    }

    #[test]
    fn a_place_that_is_given_back_can_be_taken_again() {
        let places = places(2, None);
        let first = places.take(None).unwrap();
        let _second = places.take(at("10.0.0.1")).unwrap();
        assert_eq!(places.take(None).unwrap_err(), Cause::AtCapacity);
        drop(first);
        let _third = places.take(None).unwrap();
        assert_eq!(places.take(None).unwrap_err(), Cause::AtCapacity);
    }

    #[test]
    fn an_address_has_a_share_of_the_places() {
        let places = places(10, Some(1));
        let first = places.take(at("10.0.0.1")).unwrap();
        for same in ["10.0.0.1", "::ffff:10.0.0.1"] {
            assert_eq!(places.take(at(same)).unwrap_err(), Cause::AddressAtCapacity);
        }
        let _other = places.take(at("10.0.0.2")).unwrap();
        let _six = places.take(at("2001:db8::1")).unwrap();
        assert_eq!(places.take(at("2001:db8::2:3")).unwrap_err(), Cause::AddressAtCapacity);
        let _next = places.take(at("2001:db8:0:1::1")).unwrap();
        let _unknown = places.take(None).unwrap();
        assert_eq!(places.take(None).unwrap_err(), Cause::AddressAtCapacity);
        drop(first);
        let first = places.take(at("10.0.0.1")).unwrap();
        drop(first);
        assert_eq!(places.lock().by_address.len(), 4);
    }
}
