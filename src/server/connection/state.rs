//! [`ServerState`]: what all connections of a server share.

use std::{io, sync::Arc};

use tokio_util::task::TaskTracker;

use crate::server::{
    admission::Capacity, config::Config, http::pending::PendingConnections, registry::Encode,
    shutdown::ClosePacer,
};
use crate::{close::CloseReason, role::McpRole};

/// State of a server that all its connections share.
pub(in crate::server) struct ServerState<S, R: McpRole> {
    pub(in crate::server) factory: Box<dyn Fn() -> io::Result<S> + Send + Sync>,
    pub(in crate::server) config: Config<R>,
    pub(in crate::server) encode: Encode<R>,
    pub(in crate::server) capacity: Capacity<R>,
    /// Connections of clients that have not shown who they are.
    pub(in crate::server) pending: Arc<PendingConnections>,
    pub(in crate::server) tasks: TaskTracker,
    pub(in crate::server) pacer: ClosePacer,
}

impl<S, R: McpRole> ServerState<S, R> {
    /// Returns what a connection is told when the server stops.
    pub(super) fn stopping(&self) -> CloseReason {
        self.config.drain.reason.clone()
    }
}
