//! The crate's own listener: it accepts connections, and serves them until their upgrade.

mod acceptor;
pub(super) mod fallback;
pub(super) mod listener;
pub(super) mod serve;
#[cfg(feature = "rustls-tls")]
pub(super) mod tls;
