//! From an upgrade to the transport of a client that is admitted.

use std::{
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
};

use http::request::Parts;
use hyper::upgrade::OnUpgrade;
use rmcp::Service;
use tokio::time::{Sleep, sleep_until};

use super::{
    in_band,
    run::{Established, RunningConnection},
    state::ServerState,
};
use crate::{
    close::{CloseCode, CloseReason},
    event::ConnectionEvents,
    framing::Framing,
    layer::resume,
    link::PeerLimits,
    server::{
        admission::{AuthState, ClientInfo},
        auth::Identity,
        http::{
            handshake::Negotiated,
            limits::Permit,
            pending::PendingSlot,
            upgraded::{self, AllLayers, BeforeAuthentication, Unauthenticated},
        },
        registry::event::RejectReason,
        role::HostedRole,
        sessions::new_link::NewLink,
    },
    time::deadline_in,
    transport::{WebSocketTransport, builder::Builder},
};

impl<S: Service<R>, R: HostedRole> ServerState<S, R> {
    /// Waits for the upgrade, and gets a service to run on it.
    pub(in crate::server) async fn open(
        self: Arc<Self>,
        upgrade: OnUpgrade,
        negotiated: Negotiated,
        client: ClientInfo,
    ) -> Option<RunningConnection<S, R>> {
        // One timer for all that follows: to set one costs more than most of it.
        let mut timer = pin!(sleep_until(deadline_in(self.config.timeout)));
        let upgraded = tokio::select! {
            upgraded = upgrade => upgraded.inspect_err(|error| tracing::debug!(%error, "no upgrade")),
            () = &mut timer => {
                tracing::debug!("no upgrade in time");
                return None;
            }
        };
        // On the heap, one after the other: what waits for an unauthenticated peer is to be small.
        let opened =
            Box::pin(self.transport(upgraded.ok()?, negotiated, client, timer.as_mut())).await?;
        Box::pin(self.start(opened, timer)).await
    }

    /// Builds the transport of an upgraded connection, once its client has authenticated if that is
    /// done within the connection.
    async fn transport(
        &self,
        stream: hyper::upgrade::Upgraded,
        negotiated: Negotiated,
        client: ClientInfo,
        mut timer: Pin<&mut Sleep>,
    ) -> Option<Established<R>> {
        let builder = self.config.builder().span(tracing::Span::current());
        let Negotiated { subprotocol, extensions, limits } = negotiated;
        let speaks = subprotocol.as_deref() == Some(resume::SUBPROTOCOL);
        let builder = builder.subprotocol(subprotocol);
        let ClientInfo { parts, peer, auth_state, requested } = client;
        let layers = builder.layers();
        let unauthenticated =
            BeforeAuthentication { layers: &layers, limit: self.config.first_message };
        let (identity, permit) = match auth_state {
            AuthState::Done(identity, permit) => (identity, permit),
            AuthState::InBand => {
                let link = upgraded::build_over_upgraded(stream, unauthenticated);
                let takes = PeerLimits::default();
                takes.set(limits);
                let builder = builder.peer(takes);
                let (transport, identity, permit) =
                    Box::pin(self.authenticate_in_band(link, builder, &parts, peer)).await?;
                timer.as_mut().reset(deadline_in(self.config.timeout));
                return Some(Established { transport, parts, peer, identity, permit, entry: None });
            }
            AuthState::RejectAfterUpgrade(cause) => {
                let link = upgraded::build_over_upgraded(stream, unauthenticated);
                Box::pin(self.reject_upgraded(link, cause, peer)).await;
                return None;
            }
        };
        let link = upgraded::build_over_upgraded(stream, AllLayers { layers: &layers, extensions });
        let (mut transport, entry, permit) = match &self.capacity.sessions {
            Some(sessions) if speaks || requested.is_some() => {
                // The place is given back with the connection, and the session goes on without.
                let address = peer.map(|peer| peer.ip());
                let new_link = NewLink::new(link, builder.counters(), permit, limits, address);
                let asks = (identity.clone(), requested, speaks);
                let session = Box::pin(sessions.attach(builder, new_link, asks, timer)).await;
                let (transport, entry) = session?;
                (transport, Some(entry), None)
            }
            _ => {
                let takes = PeerLimits::default();
                takes.set(limits);
                (builder.peer(takes).over_link(link, ConnectionEvents::default()), None, permit)
            }
        };
        if self.config.in_band {
            transport.intercept_requests(in_band::needless::<R>);
        }
        Some(Established { transport, parts, peer, identity, permit, entry })
    }

    /// Authenticates a client on `link`, and builds its transport.
    pub(in crate::server) async fn authenticate_in_band(
        &self,
        mut link: Box<dyn Unauthenticated>,
        mut builder: Builder<R>,
        parts: &Parts,
        peer: Option<SocketAddr>,
    ) -> Option<(WebSocketTransport<R>, Option<Identity>, Option<Permit>)> {
        let slot = self.pending.register(peer.map(|peer| peer.ip()));
        match self
            .await_authentication(&mut *link, builder.framing_mut(), (parts, peer), &slot)
            .await
        {
            Ok((identity, permit)) => {
                let link = link.authenticated(&builder.layers());
                let link = link.inspect_err(|error| tracing::debug!(%error, "lost")).ok()?;
                let mut transport = builder.over_link(link, ConnectionEvents::default());
                transport.intercept_requests(in_band::again::<R>);
                Some((transport, identity, permit))
            }
            Err((cause, reason)) => {
                self.config.registry.rejected(cause, peer);
                in_band::close(&mut *link, reason).await;
                // Who waits for the slot may wait for the file descriptor.
                drop(link);
                drop(slot);
                None
            }
        }
    }

    /// Closes the `link` of a client for which there is no room.
    pub(in crate::server) async fn reject_upgraded(
        &self,
        mut link: Box<dyn Unauthenticated>,
        cause: RejectReason,
        peer: Option<SocketAddr>,
    ) {
        self.config.registry.rejected(cause, peer);
        let slot = self.pending.register(peer.map(|peer| peer.ip()));
        let reason = CloseReason::new(CloseCode::TryAgainLater, "Server at capacity");
        tokio::select! {
            () = in_band::close(&mut *link, reason) => {}
            () = slot.evicted() => {}
        }
    }

    /// Waits until a client has said who it is, and finds a place for it.
    async fn await_authentication(
        &self,
        link: &mut dyn Unauthenticated,
        framing: &mut dyn Framing<R>,
        (parts, peer): (&Parts, Option<SocketAddr>),
        slot: &PendingSlot,
    ) -> Result<(Option<Identity>, Option<Permit>), (RejectReason, CloseReason)> {
        let Some(authenticator) = &self.config.authenticator else { return Ok((None, None)) };
        let address = peer.map(|peer| peer.ip());
        let client = (parts, peer);
        let proof = in_band::authenticate(link, framing, &self.config, &**authenticator, client);
        let identity = tokio::select! {
            proof = proof => proof?,
            () = slot.evicted() => {
                let reason = CloseReason::new(CloseCode::TryAgainLater, "too many strangers");
                return Err((RejectReason::Crowded, reason));
            }
            () = self.config.stop.cancelled() => return Err((RejectReason::Stopping, self.stopping())),
        };
        let permit = self.capacity.connections.try_acquire(address).map_err(|cause| {
            (cause, CloseReason::new(CloseCode::TryAgainLater, "Server at capacity"))
        })?;
        Ok((Some(identity), Some(permit)))
    }
}
