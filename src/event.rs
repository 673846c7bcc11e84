//! What an application sees of its connection.

use crate::error::CloseReason;

/// The state of a connection, as found on the `watch` channel of a client or transport.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// The handshake is under way.
    Connecting,
    /// Messages flow.
    Connected,
    /// The connection has ended, for this reason, and does not come back.
    Closed(CloseReason),
}
