//! [`establish`]: the transport of a client whose upgrade was granted.

use std::{net::SocketAddr, pin::Pin, sync::Arc};

use http::request::Parts;
use tokio::time::Sleep;

use super::in_band;
#[cfg(feature = "cluster")]
use crate::server::cluster::relay::carry::RelayedLink;
use crate::{
    close::{CloseCode, CloseReason},
    error::Error,
    event::ConnectionEvents,
    layer::resume,
    link::{MessageLimits, PeerLimits},
    role::McpRole,
    server::{
        admission::{AuthState, Capacity, ClientInfo},
        auth::{DynAuthenticator, Identity},
        config::Config,
        http::{
            handshake::Negotiated,
            limits::Permit,
            pending::PendingSlot,
            upgraded::{AllLayers, BeforeAuthentication, Unauthenticated, UpgradedStream},
        },
        registry::{event::RejectReason, refusal::Refusal},
        sessions::{
            attach::{Attached, close_link},
            entry::SessionEntry,
            new_link::NewLink,
        },
        span::cut,
    },
    time::deadline_in,
    transport::{WebSocketTransport, builder::Builder},
};

/// Reason of the Close when a limit is reached.
const AT_CAPACITY: &str = "Server at capacity";

/// Connection of an admitted client, over which a service can run.
pub(in crate::server) struct Established<R: McpRole> {
    /// Transport whose extensions hold the upgrade request and the identity.
    pub(in crate::server) transport: WebSocketTransport<R>,
    pub(in crate::server) peer: Option<SocketAddr>,
    pub(in crate::server) identity: Option<Identity>,
    /// Permit of the connection, unless its session has it.
    pub(in crate::server) permit: Option<Permit>,
    /// Session of the connection, if sessions can outlive connections.
    pub(in crate::server) entry: Option<Arc<SessionEntry<R>>>,
    /// Memory that a copy of the upgrade request takes, in bytes; each MCP request carries one.
    pub(in crate::server) head_bytes: usize,
}

/// Reason why an upgraded connection has no transport of its own.
pub(in crate::server) enum NotEstablished {
    /// The client is rejected, and has yet to be told.
    Rejected(Box<RejectedLink>),
    /// The connection was lost.
    Lost(Error),
    /// The connection carries an earlier session, or was closed since its client may not have that.
    NotNeeded,
    /// The connection carries the session of another instance.
    #[cfg(feature = "cluster")]
    Relayed(Box<RelayedLink>),
}

/// Upgraded connection of a rejected client.
pub(in crate::server) struct RejectedLink {
    cause: RejectReason,
    pub(in crate::server) reason: CloseReason,
    may_be_evicted: bool,
    // Before the slot: what waits for the slot may wait for the file descriptor.
    link: Box<dyn Unauthenticated>,
    slot: PendingSlot,
}

impl<R: McpRole> Established<R> {
    /// Logs that the connection is established.
    pub(in crate::server) fn log(&self) {
        let session = self.entry.as_ref().map_or("none", |_| "new");
        let subprotocol = self.transport.subprotocol().map(cut);
        tracing::info!(subprotocol, session, "connected");
    }
}

impl RejectedLink {
    /// Returns the refusal for the registry, unless the client has left.
    pub(in crate::server) fn refusal(&self) -> Option<Refusal<'static>> {
        Refusal::of_connection(self.cause, &self.reason)
    }

    /// Closes the connection with the reason, where it may be until its slot is needed.
    pub(in crate::server) async fn close(mut self: Box<Self>) {
        tokio::select! {
            biased;
            () = in_band::close(&mut *self.link, self.reason.clone()) => {}
            () = self.slot.evicted(), if self.may_be_evicted => {}
        }
    }
}

/// Builds the transport of an upgraded connection.
///
/// A client that authenticates within the connection does so first. The `timer` bounds the steps
/// after the upgrade, and starts anew after an authentication.
pub(in crate::server) async fn establish<R: McpRole>(
    config: &Config<R>,
    capacity: &Capacity<R>,
    stream: impl UpgradedStream,
    (negotiated, client): (Negotiated, ClientInfo),
    mut timer: Pin<&mut Sleep>,
) -> Result<Established<R>, NotEstablished> {
    let Negotiated { subprotocol, extensions, limits } = negotiated;
    let ClientInfo { parts, peer, auth_state, requested } = client;
    let address = peer.map(|peer| peer.ip());
    let speaks = subprotocol.as_deref() == Some(resume::SUBPROTOCOL);
    let builder = config.builder().span(tracing::Span::current()).subprotocol(subprotocol);
    let layers = builder.layers();
    let unauthenticated =
        BeforeAuthentication { layers: &layers, limit: config.max_unauthenticated_message_size };
    let (mut transport, identity, permit, entry) = match auth_state {
        AuthState::InBand(authenticator) => {
            let link = stream.build(unauthenticated);
            let slot = capacity.pending.register(address);
            let builder = builder.peer(peer_limits(limits));
            let client = (&parts, peer);
            let authenticated =
                authenticate(config, capacity, &*authenticator, (link, slot), builder, client);
            let (transport, identity, permit) = Box::pin(authenticated).await?;
            timer.as_mut().reset(deadline_in(config.timeout));
            (transport, Some(identity), Some(permit), None)
        }
        AuthState::RejectAfterUpgrade(cause) => {
            let reason = CloseReason::new(CloseCode::TryAgainLater, AT_CAPACITY);
            let link = stream.build(unauthenticated);
            let slot = capacity.pending.register(address);
            let rejected = RejectedLink { cause, reason, may_be_evicted: true, link, slot };
            return Err(NotEstablished::Rejected(Box::new(rejected)));
        }
        AuthState::Done(identity, permit) => {
            let link = stream.build(AllLayers { layers: &layers, extensions });
            let (mut transport, permit, entry) = match &capacity.sessions {
                Some(sessions) if speaks || requested.is_some() => {
                    // The permit is given back with the connection, and the session goes on without.
                    let permit = Some(permit);
                    let new_link = NewLink::new(link, builder.counters(), permit, limits, address);
                    let asks = (identity.clone(), requested, speaks);
                    let attaching =
                        sessions.attach(builder, new_link, asks, timer, &config.drain.reason);
                    let session = Box::pin(attaching).await;
                    match session {
                        Attached::New(transport, entry) => (*transport, None, Some(entry)),
                        Attached::Over => return Err(NotEstablished::NotNeeded),
                        Attached::Rejected(new_link, (cause, reason)) => {
                            if let Some(refusal) = Refusal::of_connection(cause, &reason) {
                                config.registry.rejected(&refusal, peer);
                            }
                            Box::pin(close_link(new_link, reason)).await;
                            return Err(NotEstablished::NotNeeded);
                        }
                        #[cfg(feature = "cluster")]
                        Attached::Relayed(relayed) => {
                            return Err(NotEstablished::Relayed(relayed));
                        }
                    }
                }
                _ => {
                    let builder = builder.peer(peer_limits(limits));
                    (builder.over_link(link, ConnectionEvents::default()), Some(permit), None)
                }
            };
            if config.in_band {
                transport.intercept_requests(in_band::answer_when_authenticated::<R>);
            }
            (transport, identity, permit, entry)
        }
    };
    let head_bytes = head_bytes(&parts);
    let extensions = transport.extensions();
    extensions.insert(parts);
    if let Some(identity) = &identity {
        extensions.insert(identity.clone());
    }
    Ok(Established { transport, peer, identity, permit, entry, head_bytes })
}

/// Authenticates a client on a link without layers, and builds its transport.
async fn authenticate<R: McpRole>(
    config: &Config<R>,
    capacity: &Capacity<R>,
    authenticator: &dyn DynAuthenticator,
    (mut link, slot): (Box<dyn Unauthenticated>, PendingSlot),
    mut builder: Builder<R>,
    client: (&Parts, Option<SocketAddr>),
) -> Result<(WebSocketTransport<R>, Identity, Permit), NotEstablished> {
    let framing = builder.framing_mut();
    let outcome = tokio::select! {
        outcome = in_band::authenticate(&mut *link, framing, config, authenticator, client) => outcome,
        () = slot.evicted() => {
            let reason = "too many unauthenticated clients";
            Err((RejectReason::Evicted, CloseReason::new(CloseCode::TryAgainLater, reason)))
        }
        () = config.stop.cancelled() => Err((RejectReason::Stopping, config.drain.reason.clone())),
    };
    let address = client.1.map(|peer| peer.ip());
    let admitted = outcome.and_then(|identity| {
        let at_capacity = |cause| (cause, CloseReason::new(CloseCode::TryAgainLater, AT_CAPACITY));
        let permit = capacity.connections.try_acquire(address).map_err(at_capacity)?;
        Ok((identity, permit))
    });
    match admitted {
        Ok((identity, permit)) => {
            let link = link.authenticated(&builder.layers()).map_err(NotEstablished::Lost)?;
            let mut transport = builder.over_link(link, ConnectionEvents::default());
            transport.intercept_requests(in_band::refuse_second_attempt::<R>);
            Ok((transport, identity, permit))
        }
        Err((cause, reason)) => {
            let rejected = RejectedLink { cause, reason, may_be_evicted: false, link, slot };
            Err(NotEstablished::Rejected(Box::new(rejected)))
        }
    }
}

/// Creates the limits of a peer that announces these.
fn peer_limits(announced: MessageLimits) -> PeerLimits {
    let limits = PeerLimits::default();
    limits.set(announced);
    limits
}

/// Returns the memory that a copy of an upgrade request takes, in bytes.
fn head_bytes(parts: &Parts) -> usize {
    // An entry of the map, its place in the index, and half as many again that are unused.
    size_of::<Parts>() + parts.headers.capacity() * 160
}
