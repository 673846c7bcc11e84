//! One connection, from the upgrade to the end of its service.

use std::{
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, SinkExt};
use rmcp::{Service, service::RunningService};
use tokio::time::{Instant, Sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    auth::{Credentials, Identity, in_band},
    door::{Guest, Standing},
    handler::{Handlers, Watched},
    limit::Permit,
    lobby::Seat,
    registry::{Cause, Connection, Entry},
    resume::Slot,
    role::Hosted,
    service::Shop,
};
use crate::{
    error::{CloseCode, CloseReason},
    event::State,
    layer::Shared,
    time::after,
    transport::{Owed, WebSocketTransport},
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

/// What is given back when a connection ends, whichever way it does.
struct Ground<R: Hosted> {
    shared: Shared,
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
    /// Gets a service to run for `guest` on `transport`, before the `timer` fires.
    pub(super) async fn begin(
        &self,
        mut transport: WebSocketTransport<R>,
        guest: Guest,
        slot: Option<Arc<Slot<R>>>,
        mut timer: Pin<&mut Sleep>,
    ) -> Option<Session<S, R>> {
        let Guest { parts, peer, standing, .. } = guest;
        let registry = &self.config.registry;
        let mut seat = None;
        let known = match standing {
            Standing::Known(identity, permit) => Ok((identity, permit)),
            Standing::Refused(cause) => {
                registry.refused(cause, peer);
                let seat = self.lobby.enter(peer.map(|peer| peer.ip()));
                let reason = CloseReason::new(CloseCode::TryAgainLater, "Server at capacity");
                tokio::select! {
                    _ = transport.close_with(reason) => {}
                    () = seat.taken() => {}
                }
                return None;
            }
            Standing::Unknown => {
                let credentials = Credentials { token: None, parts: parts.clone(), peer };
                let seat = seat.insert(self.lobby.enter(peer.map(|peer| peer.ip())));
                let proof = self.prove(&mut transport, credentials, seat).await;
                timer.as_mut().reset(after(self.config.timeout));
                proof
            }
        };
        let (identity, permit) = match known {
            Ok(known) => known,
            Err((cause, reason)) => {
                registry.refused(cause, peer);
                let _ = transport.close_with(reason).await;
                // Who waits for the seat may wait for the file descriptor.
                drop(transport);
                return None;
            }
        };
        if self.config.in_band {
            transport.answer_by(match seat {
                Some(_) => in_band::again::<R>,
                None => in_band::needless::<R>,
            });
        }
        drop(seat);

        let connection =
            Connection::new(registry.next_id(), peer, identity.clone(), transport.stats());
        tracing::debug!(id = connection.id(), ?identity, "connected");
        let extensions = transport.extensions();
        extensions.insert(parts);
        extensions.insert(connection.clone());
        if let Some(identity) = identity {
            extensions.insert(identity);
        }
        let (shared, owed) = transport.linger();
        if let Some(slot) = slot {
            slot.let_to(registry.clone(), connection.clone(), shared.clone());
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

    /// Waits until a client has said who it is, and finds a place for it.
    async fn prove(
        &self,
        transport: &mut WebSocketTransport<R>,
        credentials: Credentials,
        seat: &Seat,
    ) -> Result<(Option<Identity>, Option<Permit>), (Cause, CloseReason)> {
        let Some(gate) = &self.config.gate else { return Ok((None, None)) };
        let address = credentials.peer.map(|peer| peer.ip());
        let identity = tokio::select! {
            proof = in_band::authenticate(transport, &self.config, &**gate, credentials) => proof?,
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

    async fn close(&self, shared: &Shared, reason: CloseReason) {
        let mut shared = shared.clone();
        shared.close_with(reason);
        let _ = timeout(self.config.layers.socket.close_timeout, shared.close()).await;
    }
}
