//! What is hosted on one connection, from the upgrade to its end.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures::SinkExt;
use hyper::upgrade::OnUpgrade;
use tokio::time::{Instant, Sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    establish::{Established, NotEstablished, establish},
    handlers::RunningHandlers,
    host::{Control, Running},
    state::ServerState,
};
use crate::{
    close::{CloseCode, CloseReason},
    event::State,
    layer::shared_link::SharedLink,
    role::McpRole,
    server::{
        admission::ClientInfo,
        http::{handshake::Negotiated, limits::Permit},
        registry::{Registration, connection::Connection},
        sessions::entry::Owner,
        span::record_connection,
    },
    time::deadline_in,
    transport::{UnansweredRequests, WebSocketTransport},
};
#[cfg(feature = "cluster")]
use crate::{layer::resume, server::cluster::relay::carry::RelayedLink};

/// Time for the last responses and the closing handshake when a service is told to end.
const CLOSE_GRACE: Duration = Duration::from_secs(4);

/// Shortest time for that, once the deadline of the shutdown has passed.
const MIN_CLOSE_GRACE: Duration = Duration::from_secs(1);

/// Connection on which something runs.
pub(in crate::server) struct RunningConnection<R: McpRole> {
    ended: Running,
    stop: CancellationToken,
    handlers: Arc<RunningHandlers>,
    guard: ConnectionGuard<R>,
}

/// Guard of a connection: dropping it cuts the connection and gives back what it has taken.
struct ConnectionGuard<R: McpRole> {
    shared: SharedLink,
    unanswered: Arc<UnansweredRequests>,
    registration: Registration<R>,
    _permit: Option<Permit>,
}

impl<R: McpRole> Drop for ConnectionGuard<R> {
    fn drop(&mut self) {
        self.shared.cut();
    }
}

impl<R: McpRole> ServerState<R> {
    /// Waits for the upgrade, and starts what is hosted on it. `None` if there is nothing to run.
    pub(in crate::server) async fn open(
        self: Arc<Self>,
        upgrade: OnUpgrade,
        negotiated: Negotiated,
        client: ClientInfo,
    ) -> Option<RunningConnection<R>> {
        // One timer for all that follows: to set one costs more than most of it.
        let mut timer = pin!(sleep_until(deadline_in(self.config.timeout)));
        let drain_over = async {
            self.config.stop.cancelled().await;
            sleep_until(deadline_in(self.config.drain.deadline)).await;
        };
        let upgraded = tokio::select! {
            upgraded = upgrade => upgraded.inspect_err(|error| tracing::debug!(%error, "no upgrade")),
            () = &mut timer => {
                tracing::debug!("no upgrade in time");
                return None;
            }
            () = drain_over => return None,
        };
        let (upgraded, peer) = (upgraded.ok()?, client.peer);
        // On the heap, one after the other: an unauthenticated client is to take up little.
        let (config, capacity, client) = (&self.config, &self.capacity, (negotiated, client));
        let established =
            Box::pin(establish(config, capacity, upgraded, client, timer.as_mut())).await;
        match established {
            Ok(established) => Box::pin(self.start(established, timer)).await,
            Err(NotEstablished::Rejected(rejected)) => {
                match rejected.refusal() {
                    Some(refusal) => config.registry.rejected(&refusal, peer),
                    None => tracing::debug!(?peer, "the client has left unauthenticated"),
                }
                Box::pin(rejected.close()).await;
                None
            }
            Err(NotEstablished::Lost(error)) => {
                tracing::debug!(%error, "lost");
                None
            }
            Err(NotEstablished::NotNeeded) => None,
            #[cfg(feature = "cluster")]
            Err(NotEstablished::Relayed(relayed)) => {
                Box::pin(self.carry(relayed)).await;
                None
            }
        }
    }

    /// Starts what is hosted on a connection, before the `timer` fires.
    async fn start(
        &self,
        established: Established<R>,
        timer: Pin<&mut Sleep>,
    ) -> Option<RunningConnection<R>> {
        let (transport, guard) = self.register(established);
        let handlers = RunningHandlers::within(self.config.request_timeout);
        let stop = CancellationToken::new();
        let control = Control {
            handlers: handlers.clone(),
            stop: stop.clone(),
            has_initialize: self.config.framing_properties().has_initialize,
            deadline: timer.deadline(),
        };
        let mut starting = self.host.start(transport, control);
        let ended = match self.initialized(starting.as_mut(), &handlers, &guard, timer).await {
            Ok(ended) => ended,
            Err(reason) => {
                handlers.abort();
                self.close(&guard.shared, reason).await;
                return None;
            }
        };
        guard.registration.connection.initialized();
        Some(RunningConnection { ended, stop, handlers, guard })
    }

    /// Lists a connection in the registry, and in its session if it has one.
    fn register(&self, established: Established<R>) -> (WebSocketTransport<R>, ConnectionGuard<R>) {
        let registry = &self.config.registry;
        let (peer, identity) = (established.peer, established.identity.clone());
        let stats = established.transport.stats();
        let connection = Connection::new(registry.next_id(), peer, identity, stats);
        record_connection(&connection);
        established.log();
        let Established { mut transport, permit, entry, head_bytes, .. } = established;
        transport.extensions().insert(connection.clone());
        let (shared, unanswered) = transport.share_connection();
        if let Some(entry) = entry {
            #[cfg(feature = "cluster")]
            connection.set_session(entry.id.clone());
            entry.set_owner(Owner {
                registry: registry.clone(),
                connection: connection.clone(),
                shared: shared.clone(),
                slots: transport.handler_slots(),
                head_bytes,
            });
        }
        let registration = registry.register(connection, shared.clone(), self.encode.clone());
        (transport, ConnectionGuard { shared, unanswered, registration, _permit: permit })
    }

    /// Waits for MCP's initialization, before the `timer` fires.
    ///
    /// # Errors
    /// The reason to close the connection with.
    async fn initialized(
        &self,
        mut starting: Pin<&mut (dyn Future<Output = Result<Running, CloseReason>> + Send)>,
        handlers: &RunningHandlers,
        guard: &ConnectionGuard<R>,
        mut timer: Pin<&mut Sleep>,
    ) -> Result<Running, CloseReason> {
        let time = self.config.timeout;
        loop {
            tokio::select! {
                biased;
                // First: at the same moment it tells what was not made in time.
                started = &mut starting => return started,
                () = &mut timer => {
                    if handlers.is_idle() && guard.unanswered.is_none() {
                        let reason = format!("MCP was not initialized within {time:?}");
                        return Err(CloseReason::new(CloseCode::Policy, reason));
                    }
                    // The time that the service itself takes does not count.
                    timer.as_mut().reset(deadline_in(time));
                }
                reason = guard.registration.connection.close_request().requested() => {
                    return Err(reason);
                }
                () = self.config.stop.cancelled() => return Err(self.stop_reason()),
            }
        }
    }

    /// Runs it to its end, and ends it when the connection is closed or the server stops.
    pub(in crate::server) async fn run(&self, connection: RunningConnection<R>) {
        let RunningConnection { mut ended, stop, handlers, guard } = connection;
        let close_request = guard.registration.connection.close_request();
        let drained = async {
            self.config.stop.cancelled().await;
            // On the heap, for its time alone: most of the time a connection is idle.
            Box::pin(self.drain(&handlers, &guard)).await
        };
        let mut state = guard.shared.state();
        let lost = async {
            let _ = state.wait_for(|state| matches!(state, State::Closed(_))).await;
        };
        tokio::select! {
            _ = &mut ended => {}
            // rmcp would wait for responses that nobody gets.
            () = lost => {
                handlers.abort();
                let _ = ended.await;
            }
            reason = close_request.requested() => {
                Box::pin(self.close(&guard.shared, reason)).await;
                stop.cancel();
                let _ = timeout(CLOSE_GRACE, &mut ended).await;
            }
            deadline = drained => {
                // rmcp sends the responses that it still has, then closes.
                guard.shared.close_with(self.stop_reason());
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

    /// Carries the session of another instance, until the server stops and it is the turn of this
    /// connection: its calls are not here.
    #[cfg(feature = "cluster")]
    async fn carry(&self, relayed: Box<RelayedLink>) {
        let stopping = async {
            self.config.stop.cancelled().await;
            let deadline = deadline_in(self.config.drain.deadline);
            let turn = self.pacer.next(&self.config.drain, self.tasks.len());
            sleep_until(turn.min(deadline)).await;
            self.stop_reason()
        };
        let end_report = relayed.end_report();
        tracing::info!(subprotocol = resume::SUBPROTOCOL, session = "relayed", "connected");
        let reason = relayed.run(stopping, self.config.transport.socket.close_timeout).await;
        end_report.log(&reason);
    }

    /// Waits for the turn of this connection to close and for its calls to be answered and written.
    /// Returns the deadline, which bounds all of it.
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

    /// Closes a connection with this reason, within the close timeout of its socket.
    async fn close(&self, shared: &SharedLink, reason: CloseReason) {
        let mut shared = shared.clone();
        shared.close_with(reason);
        let _ = timeout(self.config.transport.socket.close_timeout, shared.close()).await;
    }
}
