//! Connections before the 101: requests, their checks, and the limits on unauthenticated clients.

pub(super) mod body;
pub(super) mod forwarded;
pub(super) mod guard;
pub(super) mod handshake;
pub(super) mod headers;
pub(super) mod http1;
pub(super) mod limits;
pub(super) mod origin;
pub(super) mod peer;
pub(super) mod pending;
pub(super) mod progress;
pub(super) mod rejection;
pub(super) mod response;
pub(super) mod upgraded;
pub(super) mod write_timeout;
