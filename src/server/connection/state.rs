//! [`ServerState`]: the state of a server that all its connections share.

use tokio_util::task::TaskTracker;

use super::host::Host;
use crate::{
    close::CloseReason,
    role::McpRole,
    server::{admission::Capacity, config::Config, registry::Encode, shutdown::ClosePacer},
};

/// State of a server that all its connections share.
pub(in crate::server) struct ServerState<R: McpRole> {
    pub(in crate::server) host: Box<dyn Host<R>>,
    pub(in crate::server) config: Config<R>,
    pub(in crate::server) encode: Encode<R>,
    pub(in crate::server) capacity: Capacity<R>,
    pub(in crate::server) tasks: TaskTracker,
    pub(in crate::server) pacer: ClosePacer,
}

impl<R: McpRole> ServerState<R> {
    /// Returns the reason to close a connection with when the server stops.
    pub(super) fn stop_reason(&self) -> CloseReason {
        self.config.drain.reason.clone()
    }
}
