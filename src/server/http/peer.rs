//! [`PeerAddress`]: where a request comes from.

use std::{
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use http::{StatusCode, request::Parts};

use super::{forwarded::TrustedProxies, rejection::Rejection};
use crate::server::registry::event::RejectReason;

/// Address that the connection of a request was accepted from: an extension of the request.
#[derive(Debug, Clone, Copy)]
pub(in crate::server) struct AcceptedFrom(pub(in crate::server) SocketAddr);

/// Function that tells the address of a request's peer.
type TellPeer = Arc<dyn Fn(&Parts) -> Option<SocketAddr> + Send + Sync>;

/// Settings that tell from which address a request comes.
#[derive(Clone, Default)]
pub(in crate::server) struct PeerAddress {
    /// `None` takes [`AcceptedFrom`].
    tell: Option<TellPeer>,
    proxies: Option<TrustedProxies>,
}

impl PeerAddress {
    /// Sets the function that tells the address, in place of [`AcceptedFrom`].
    pub(in crate::server) fn tell_by(&mut self, tell: TellPeer) {
        self.tell = Some(tell);
    }

    /// Sets the proxies whose header is believed.
    pub(in crate::server) fn trust(&mut self, proxies: TrustedProxies) {
        self.proxies = Some(proxies);
    }

    /// Fails if an entry of the proxies cannot be read.
    pub(in crate::server) fn validate(&self) -> Result<(), String> {
        self.proxies.as_ref().map_or(Ok(()), TrustedProxies::validate)
    }

    /// Returns where the request of these `parts` comes from, or the rejection if that cannot be
    /// told.
    pub(in crate::server) fn of(
        &self,
        parts: &Parts,
    ) -> Result<Option<SocketAddr>, Box<Rejection>> {
        let accepted = || parts.extensions.get::<AcceptedFrom>().map(|accepted| accepted.0);
        let told = catch_unwind(AssertUnwindSafe(|| match &self.tell {
            Some(tell) => tell(parts),
            None => accepted(),
        }));
        let peer = told.map_err(|_| {
            tracing::error!("what tells a client's address panicked");
            let what = "where the request comes from cannot be told";
            Rejection::new(RejectReason::Unavailable, StatusCode::INTERNAL_SERVER_ERROR, what)
        })?;
        Ok(match &self.proxies {
            Some(proxies) => proxies.client(peer, &parts.headers),
            None => peer,
        })
    }
}
