//! The way from the address to the 101, and other answers.

mod client;
mod connector;
mod dialing;
mod fallback;
mod guard;
mod limits;
mod mount;
mod origin;
#[cfg(all(feature = "proxy", feature = "rustls-tls", feature = "ring"))]
mod proxies;
mod server;
#[cfg(all(feature = "rustls-tls", feature = "ring"))]
mod tls;

use mcp_ws_transport::{
    Error, WebSocketTransport,
    error::{HandshakeError, Refusal},
};
use rmcp::RoleClient;

/// Outcome of a client's first connection.
type Dialled = Result<WebSocketTransport<RoleClient>, Error>;

fn failure(dialled: Dialled) -> HandshakeError {
    match dialled {
        Err(Error::Handshake(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn refusal(dialled: Dialled) -> Refusal {
    match failure(dialled) {
        HandshakeError::Refused(refusal) => *refusal,
        other => panic!("{other:?}"),
    }
}
