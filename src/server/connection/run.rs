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
    handlers::{GuardedService, RunningHandlers},
    state::ServerState,
};
use crate::{
    close::{CloseCode, CloseReason},
    event::State,
    layer::shared_link::SharedLink,
    server::{
        auth::Identity,
        http::limits::Permit,
        registry::{Registration, connection::Connection},
        role::HostedRole,
        sessions::entry::{Owner, SessionEntry},
    },
    time::deadline_in,
    transport::{UnansweredRequests, WebSocketTransport},
};

/// How long the last answers may take to be written, and the closing handshake, when a service is
/// told to end.
const CLOSE_GRACE: Duration = Duration::from_secs(4);

/// The same, when its time is over.
const MIN_CLOSE_GRACE: Duration = Duration::from_secs(1);

/// A connection whose service runs.
pub(in crate::server) struct RunningConnection<S: Service<R>, R: HostedRole> {
    running: RunningService<R, GuardedService<S>>,
    stop: CancellationToken,
    handlers: Arc<RunningHandlers>,
    guard: ConnectionGuard<R>,
}

/// Connection of a client that is admitted and gets a service.
pub(in crate::server) struct Established<R: HostedRole> {
    pub(in crate::server) transport: WebSocketTransport<R>,
    /// Upgrade request, as handlers see it.
    pub(in crate::server) parts: Parts,
    pub(in crate::server) peer: Option<SocketAddr>,
    pub(in crate::server) identity: Option<Identity>,
    pub(in crate::server) permit: Option<Permit>,
    /// Session of the connection, if sessions can outlive connections.
    pub(in crate::server) entry: Option<Arc<SessionEntry<R>>>,
}

/// What is given back when a connection ends, whichever way it does.
struct ConnectionGuard<R: HostedRole> {
    shared: SharedLink,
    unanswered: Arc<UnansweredRequests>,
    registration: Registration<R>,
    _permit: Option<Permit>,
}

impl<R: HostedRole> Drop for ConnectionGuard<R> {
    fn drop(&mut self) {
        self.shared.cut();
    }
}

impl<S: Service<R>, R: HostedRole> ServerState<S, R> {
    /// Gets a service to run on a connection, before the `timer` fires.
    pub(in crate::server) async fn start(
        &self,
        opened: Established<R>,
        mut timer: Pin<&mut Sleep>,
    ) -> Option<RunningConnection<S, R>> {
        let Established { mut transport, parts, peer, identity, permit, entry } = opened;
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
        let (shared, unanswered) = transport.share_connection();
        if let Some(entry) = entry {
            entry.set_owner(Owner {
                registry: registry.clone(),
                connection: connection.clone(),
                shared: shared.clone(),
                slots: transport.handler_slots(),
                head_bytes,
            });
        }
        let registration =
            registry.register(connection.clone(), shared.clone(), self.encode.clone());
        let guard =
            ConnectionGuard { shared: shared.clone(), unanswered, registration, _permit: permit };

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
        let handlers = RunningHandlers::within(self.config.request_timeout);
        let watched = GuardedService::new(service, handlers.clone());
        let stop = CancellationToken::new();
        if !self.config.framing_properties().has_initialize {
            let running = R::run_directly(watched, transport, stop.clone());
            connection.initialized();
            return Some(RunningConnection { running, stop, handlers, guard });
        }
        let mut initialization = pin!(R::run(watched, transport, stop.clone()));
        let time = self.config.timeout;
        let reason = loop {
            tokio::select! {
                initialized = &mut initialization => match initialized {
                    Ok(running) => {
                        connection.initialized();
                        return Some(RunningConnection { running, stop, handlers, guard });
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
                    timer.as_mut().reset(deadline_in(time));
                }
                reason = connection.close_request().requested() => break reason,
                () = self.config.stop.cancelled() => break self.stopping(),
            }
        };
        handlers.abort();
        self.close(&shared, reason).await;
        None
    }

    /// Waits until the service ends, or ends it.
    pub(in crate::server) async fn run(&self, session: RunningConnection<S, R>) {
        let RunningConnection { running, stop, handlers, guard } = session;
        let mut ended = pin!(running.waiting());
        let close_request = guard.registration.connection.close_request();
        let drained = async {
            self.config.stop.cancelled().await;
            self.drain(&handlers, &guard).await
        };
        let mut state = guard.shared.state();
        let lost = async {
            let _ = state.wait_for(|state| matches!(state, State::Closed(_))).await;
        };
        tokio::select! {
            _ = &mut ended => {}
            // rmcp would wait for answers that nobody gets.
            () = lost => {
                handlers.abort();
                let _ = ended.await;
            }
            reason = close_request.requested() => {
                self.close(&guard.shared, reason).await;
                stop.cancel();
                let _ = timeout(CLOSE_GRACE, &mut ended).await;
            }
            deadline = drained => {
                // rmcp sends the answers that it still has, then closes.
                guard.shared.close_with(self.stopping());
                handlers.abort();
                stop.cancel();
                let now = Instant::now();
                let end = deadline.min(now + CLOSE_GRACE).max(now + MIN_CLOSE_GRACE);
                let _ = timeout_at(end, &mut ended).await;
            }
        }
        // rmcp leaves handlers running that take no notice of their token.
        handlers.abort();
    }

    /// Resolves when it is this connection's turn to close and every call is answered, as far as
    /// what the client reads; or at the deadline, which it returns.
    async fn drain(&self, handlers: &RunningHandlers, guard: &ConnectionGuard<R>) -> Instant {
        let deadline = deadline_in(self.config.drain.deadline);
        sleep_until(self.pacer.next(&self.config.drain, self.tasks.len()).min(deadline)).await;
        let answered = async {
            handlers.drained().await;
            guard.unanswered.settled(|| handlers.open_ended()).await;
            let _ = guard.shared.flushed().await;
        };
        let _ = timeout_at(deadline, answered).await;
        deadline
    }

    async fn close(&self, shared: &SharedLink, reason: CloseReason) {
        let mut shared = shared.clone();
        shared.close_with(reason);
        let _ = timeout(self.config.transport.socket.close_timeout, shared.close()).await;
    }
}

/// Returns the memory that a copy of an upgrade request takes, which each request of the client
/// carries, in bytes.
fn head_bytes(parts: &Parts) -> usize {
    // An entry of the map, its place in the index, and half as many again that are unused.
    size_of::<Parts>() + parts.headers.capacity() * 160
}
