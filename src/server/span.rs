//! The span in which a request is traced, and the connection that it becomes.
//!
//! Its fields have the names of OpenTelemetry's semantic conventions, where those have one.

use std::net::SocketAddr;

use http::{HeaderValue, header::USER_AGENT, request::Parts};
use tracing::{
    Span,
    field::{Empty, display},
};

use super::registry::connection::Connection;

/// Most characters of a text that a client may choose.
const MAX_TEXT: usize = 200;

/// Creates the span of a request from `peer`, and of the connection that it becomes.
///
/// Each request has one of its own: subscribers may keep every value of a field that is recorded
/// again, and a client may send any number of requests before it is upgraded.
pub(super) fn connection_span(peer: Option<SocketAddr>, scheme: Option<&'static str>) -> Span {
    tracing::info_span!(
        "websocket",
        otel.kind = "server",
        network.protocol.name = "websocket",
        network.transport = peer.map(|_| "tcp"),
        network.peer.address = peer.map(|peer| display(peer.ip())),
        network.peer.port = peer.map(|peer| peer.port()),
        url.scheme = scheme,
        url.path = Empty,
        user_agent.original = Empty,
        client.address = Empty,
        enduser.id = Empty,
        mcp_ws.connection.id = Empty,
    )
}

/// Records in the current span what a request says, and the address that its client comes from.
pub(super) fn record_request(parts: &Parts, client: Option<SocketAddr>) {
    let span = Span::current();
    span.record("url.path", cut(parts.uri.path()));
    let agent = parts.headers.get(USER_AGENT).map(HeaderValue::to_str);
    if let Some(Ok(agent)) = agent {
        span.record("user_agent.original", cut(agent));
    }
    if let Some(client) = client {
        span.record("client.address", display(client.ip()));
    }
}

/// Records in the current span under which number a connection is listed, and whose it is.
pub(super) fn record_connection(connection: &Connection) {
    let span = Span::current();
    span.record("mcp_ws.connection.id", connection.id());
    if let Some(identity) = connection.identity() {
        span.record("enduser.id", cut(identity.subject()));
    }
}

/// Returns the beginning of `text`.
pub(super) fn cut(text: &str) -> &str {
    text.char_indices().nth(MAX_TEXT).map_or(text, |(end, _)| &text[..end])
}
