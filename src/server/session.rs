//! One connection, from the upgrade to the end of its service.

use std::{
    net::SocketAddr,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, SinkExt};
use http::request::Parts;
use rmcp::{Service, service::RunningService};
use tokio::time::{Instant, Sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    auth::{
        Identity,
        in_band::{self, Unauthenticated},
    },
    handler::{Handlers, Watched},
    limit::Permit,
    lobby::Seat,
    registry::{Cause, Connection, Entry},
    resume::{Slot, Tenant},
    role::Hosted,
    service::Shop,
};
use crate::{
    error::{CloseCode, CloseReason},
    event::{Notices, State},
    framing::Framing,
    layer::SharedLink,
    time::after,
    transport::{Builder, Owed, WebSocketTransport},
};

/// How long the last answers may take to be written, and the closing handshake, when a service is
/// told to end.
const LAST_WORDS: Duration = Duration::from_secs(4);

/// The same, when its time is over.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A connection whose service runs.
pub(super) struct Session<S: Service<R>, R: Hosted> {
    running: RunningService<R, Watched<S>>,
    stop: CancellationToken,
    handlers: Arc<Handlers>,
    ground: Ground<R>,
}

/// Connection of a client that is admitted and gets a service.
pub(super) struct Opened<R: Hosted> {
    pub(super) transport: WebSocketTransport<R>,
    /// Upgrade request, as handlers see it.
    pub(super) parts: Parts,
    pub(super) peer: Option<SocketAddr>,
    pub(super) identity: Option<Identity>,
    pub(super) permit: Option<Permit>,
    /// Session of the connection, if sessions can outlive connections.
    pub(super) slot: Option<Arc<Slot<R>>>,
}

/// What is given back when a connection ends, whichever way it does.
struct Ground<R: Hosted> {
    shared: SharedLink,
    owed: Arc<Owed>,
    entry: Entry<R>,
    _permit: Option<Permit>,
}

impl<R: Hosted> Drop for Ground<R> {
    fn drop(&mut self) {
        self.shared.cut();
    }
}

impl<S: Service<R>, R: Hosted> Shop<S, R> {
    /// Gets a service to run on a connection, before the `timer` fires.
    pub(super) async fn begin(
        &self,
        opened: Opened<R>,
        mut timer: Pin<&mut Sleep>,
    ) -> Option<Session<S, R>> {
        let Opened { mut transport, parts, peer, identity, permit, slot } = opened;
        let registry = &self.config.registry;
        let connection =
            Connection::new(registry.next_id(), peer, identity.clone(), transport.stats());
        tracing::debug!(id = connection.id(), ?identity, "connected");
        let head_bytes = head_bytes(&parts);
        let extensions = transport.extensions();
        extensions.insert(parts);
        extensions.insert(connection.clone());
        if let Some(identity) = identity {
            extensions.insert(identity);
        }
        let (shared, owed) = transport.linger();
        if let Some(slot) = slot {
            let (registry, connection) = (registry.clone(), connection.clone());
            let tenant = Tenant {
                registry,
                connection,
                shared: shared.clone(),
                slots: transport.handler_slots(),
                head_bytes,
            };
            slot.let_to(tenant);
        }
        let entry = registry.enter(connection.clone(), shared.clone(), self.encode.clone());
        let ground = Ground { shared: shared.clone(), owed, entry, _permit: permit };

        let service = match AssertUnwindSafe(async { (self.factory)() }).catch_unwind().await {
            Ok(Ok(service)) => service,
            failed => {
                match failed {
                    Ok(Err(error)) => tracing::error!(%error, "no service for a connection"),
                    _ => tracing::error!("the factory of services panicked"),
                }
                self.close(&shared, CloseCode::Internal.into()).await;
                return None;
            }
        };
        let handlers = Handlers::within(self.config.request_timeout);
        let watched = Watched::new(service, handlers.clone());
        let stop = CancellationToken::new();
        if !self.config.manners().initializes {
            let running = R::run_directly(watched, transport, stop.clone());
            connection.initialized();
            return Some(Session { running, stop, handlers, ground });
        }
        let mut initialization = pin!(R::run(watched, transport, stop.clone()));
        let time = self.config.timeout;
        let reason = loop {
            tokio::select! {
                initialized = &mut initialization => match initialized {
                    Ok(running) => {
                        connection.initialized();
                        return Some(Session { running, stop, handlers, ground });
                    }
                    Err(error) => {
                        tracing::debug!(error = %R::explain(&error), "not initialized");
                        break CloseReason::new(CloseCode::Policy, "MCP was not initialized");
                    }
                },
                () = &mut timer => {
                    if handlers.is_idle() {
                        let reason = format!("MCP was not initialized within {time:?}");
                        break CloseReason::new(CloseCode::Policy, reason);
                    }
                    // What the service itself takes is its own affair.
                    timer.as_mut().reset(after(time));
                }
                reason = connection.farewell().said() => break reason,
                () = self.config.stop.cancelled() => break self.stopping(),
            }
        };
        handlers.cut();
        self.close(&shared, reason).await;
        None
    }

    /// Authenticates a client on `link`, and builds its transport.
    pub(super) async fn authenticate(
        &self,
        mut link: Box<dyn Unauthenticated>,
        mut builder: Builder<R>,
        parts: &Parts,
        peer: Option<SocketAddr>,
    ) -> Option<(WebSocketTransport<R>, Option<Identity>, Option<Permit>)> {
        let seat = self.lobby.enter(peer.map(|peer| peer.ip()));
        match self.prove(&mut *link, builder.framing_mut(), (parts, peer), &seat).await {
            Ok((identity, permit)) => {
                let link = link.authenticated(&builder.layers());
                let link = link.inspect_err(|error| tracing::debug!(%error, "lost")).ok()?;
                let mut transport = builder.over_link(link, Notices::default());
                transport.answer_by(in_band::again::<R>);
                Some((transport, identity, permit))
            }
            Err((cause, reason)) => {
                self.config.registry.refused(cause, peer);
                in_band::close(&mut *link, reason).await;
                // Who waits for the seat may wait for the file descriptor.
                drop(link);
                drop(seat);
                None
            }
        }
    }

    /// Closes the `link` of a client for which there is no room.
    pub(super) async fn turn_away(
        &self,
        mut link: Box<dyn Unauthenticated>,
        cause: Cause,
        peer: Option<SocketAddr>,
    ) {
        self.config.registry.refused(cause, peer);
        let seat = self.lobby.enter(peer.map(|peer| peer.ip()));
        let reason = CloseReason::new(CloseCode::TryAgainLater, "Server at capacity");
        tokio::select! {
            () = in_band::close(&mut *link, reason) => {}
            () = seat.taken() => {}
        }
    }

    /// Waits until a client has said who it is, and finds a place for it.
    async fn prove(
        &self,
        link: &mut dyn Unauthenticated,
        framing: &mut dyn Framing<R>,
        (parts, peer): (&Parts, Option<SocketAddr>),
        seat: &Seat,
    ) -> Result<(Option<Identity>, Option<Permit>), (Cause, CloseReason)> {
        let Some(gate) = &self.config.gate else { return Ok((None, None)) };
        let address = peer.map(|peer| peer.ip());
        let client = (parts, peer);
        let proof = in_band::authenticate(link, framing, &self.config, &**gate, client);
        let identity = tokio::select! {
            proof = proof => proof?,
            () = seat.taken() => {
                let reason = CloseReason::new(CloseCode::TryAgainLater, "too many strangers");
                return Err((Cause::Crowded, reason));
            }
            () = self.config.stop.cancelled() => return Err((Cause::Stopping, self.stopping())),
        };
        let permit = self.rooms.places.take(address).map_err(|cause| {
            (cause, CloseReason::new(CloseCode::TryAgainLater, "Server at capacity"))
        })?;
        Ok((Some(identity), Some(permit)))
    }

    /// Waits until the service ends, or ends it.
    pub(super) async fn run(&self, session: Session<S, R>) {
        let Session { running, stop, handlers, ground } = session;
        let mut ended = pin!(running.waiting());
        let farewell = ground.entry.connection.farewell();
        let drained = async {
            self.config.stop.cancelled().await;
            self.drain(&handlers, &ground).await
        };
        let mut state = ground.shared.state();
        let lost = async {
            let _ = state.wait_for(|state| matches!(state, State::Closed(_))).await;
        };
        tokio::select! {
            _ = &mut ended => {}
            // rmcp would wait for answers that nobody gets.
            () = lost => {
                handlers.cut();
                let _ = ended.await;
            }
            reason = farewell.said() => {
                self.close(&ground.shared, reason).await;
                stop.cancel();
                let _ = timeout(LAST_WORDS, &mut ended).await;
            }
            deadline = drained => {
                // rmcp sends the answers that it still has, then closes.
                ground.shared.close_with(self.stopping());
                handlers.cut();
                stop.cancel();
                let now = Instant::now();
                let end = deadline.min(now + LAST_WORDS).max(now + LAST_WORD);
                let _ = timeout_at(end, &mut ended).await;
            }
        }
        // rmcp leaves handlers running that take no notice of their token.
        handlers.cut();
    }

    /// Resolves when it is this connection's turn to close and every call is answered, as far as
    /// what the client reads; or at the deadline, which it returns.
    async fn drain(&self, handlers: &Handlers, ground: &Ground<R>) -> Instant {
        let deadline = after(self.config.drain.deadline);
        sleep_until(self.turn().min(deadline)).await;
        let answered = async {
            handlers.drained().await;
            ground.owed.settled(|| handlers.open_ended()).await;
            let _ = ground.shared.flushed().await;
        };
        let _ = timeout_at(deadline, answered).await;
        deadline
    }

    fn stopping(&self) -> CloseReason {
        self.config.drain.reason.clone()
    }

    async fn close(&self, shared: &SharedLink, reason: CloseReason) {
        let mut shared = shared.clone();
        shared.close_with(reason);
        let _ = timeout(self.config.layers.socket.close_timeout, shared.close()).await;
    }
}

/// Memory that a copy of an upgrade request takes, which each request of the client carries, in bytes.
fn head_bytes(parts: &Parts) -> usize {
    // An entry of the map, its place in the index, and half as many again that are unused.
    size_of::<Parts>() + parts.headers.capacity() * 160
}
