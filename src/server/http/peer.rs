//! [`AcceptedFrom`]: the address that a listener accepted a connection from.

use std::net::SocketAddr;

/// Address that a listener accepted the connection of a request from: an extension of the request.
#[derive(Debug, Clone, Copy)]
pub(in crate::server) struct AcceptedFrom(pub(in crate::server) SocketAddr);
