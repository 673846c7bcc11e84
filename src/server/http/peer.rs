//! [`AcceptedFrom`]: the address that a listener accepted a connection from.

use std::net::SocketAddr;

/// Address that the connection of a request was accepted from: an extension of the request.
#[derive(Debug, Clone, Copy)]
pub(in crate::server) struct AcceptedFrom(pub(in crate::server) SocketAddr);
