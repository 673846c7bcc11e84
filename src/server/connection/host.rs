//! [`Host`]: what a server runs on each of its connections.

use std::{io, panic::AssertUnwindSafe, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use rmcp::Service;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::handlers::{GuardedService, RunningHandlers};
use crate::{
    close::{CloseCode, CloseReason},
    role::McpRole,
    server::role::HostedRole,
    transport::WebSocketTransport,
};

/// Future of what runs on a connection: it resolves when that has ended.
pub(in crate::server) type Running = BoxFuture<'static, ()>;

/// Handles by which the server ends what runs on a connection.
pub(in crate::server) struct Control {
    /// Requests of the peer that are being answered. Once they drain, no more may begin; once they
    /// are aborted, those that are left are answered with an error.
    pub(super) handlers: Arc<RunningHandlers>,
    /// Cancelled when it is to write what it has, and to close.
    pub(super) stop: CancellationToken,
    /// `true` if the peer has to initialize MCP first.
    pub(super) has_initialize: bool,
    /// Moment by which what is to run has to be made.
    pub(super) deadline: Instant,
}

/// Host of the connections of a server: it runs rmcp services, or relays.
pub(in crate::server) trait Host<R: McpRole>: Send + Sync {
    /// Starts on a connection. The future resolves when MCP is initialized.
    ///
    /// # Errors
    /// The reason to close the connection with.
    fn start(
        &self,
        transport: WebSocketTransport<R>,
        control: Control,
    ) -> BoxFuture<'_, Result<Running, CloseReason>>;
}

/// Host that runs an rmcp service on each connection.
pub(in crate::server) struct ServiceHost<F> {
    factory: F,
}

impl<F> ServiceHost<F> {
    /// Creates the host of the services that `factory` makes.
    pub(in crate::server) fn new(factory: F) -> Self {
        Self { factory }
    }
}

impl<R, S, F> Host<R> for ServiceHost<F>
where
    R: HostedRole,
    S: Service<R>,
    F: Fn() -> io::Result<S> + Send + Sync,
{
    fn start(
        &self,
        transport: WebSocketTransport<R>,
        control: Control,
    ) -> BoxFuture<'_, Result<Running, CloseReason>> {
        Box::pin(async move {
            let made = AssertUnwindSafe(async { (self.factory)() }).catch_unwind().await;
            let service = made_or_internal(made)?;
            let Control { handlers, stop, has_initialize, .. } = control;
            let service = GuardedService::new(service, handlers);
            let running = if has_initialize {
                R::run(service, transport, stop).await.map_err(|error| {
                    tracing::debug!(error = %R::explain(&error), "not initialized");
                    CloseReason::new(CloseCode::Policy, "MCP was not initialized")
                })?
            } else {
                R::run_directly(service, transport, stop)
            };
            Ok(running.waiting().map(drop).boxed())
        })
    }
}

/// Returns what a factory has made.
///
/// # Errors
/// The reason to close the connection with, where it has failed or panicked.
pub(super) fn made_or_internal<T, P>(made: Result<io::Result<T>, P>) -> Result<T, CloseReason> {
    match made {
        Ok(Ok(made)) => return Ok(made),
        Ok(Err(error)) => tracing::error!(%error, "nothing to run on a connection"),
        Err(_) => tracing::error!("the factory of what runs on a connection panicked"),
    }
    Err(CloseCode::Internal.into())
}
