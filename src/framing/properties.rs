//! [`FramingProperties`]: what connections need to know of their framing.

use super::session_id::SessionIdCell;
use crate::{close::CloseCode, message::Message};

/// Behaviour of connections with a framing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FramingProperties {
    /// `true` if the first request of an MCP client is `initialize`, or each names its version of
    /// MCP. If `false`, a server answers whatever comes first.
    pub has_initialize: bool,
    /// `true` if a client offers subprotocols, and with them to resume its session.
    pub uses_subprotocols: bool,
    /// Builds the message that the MCP client sends as a ping; whatever the server says answers it.
    /// `None` uses the pings of WebSocket.
    pub ping_message: Option<fn() -> Message>,
    /// Code of the Close for a client that fails to authenticate [within the
    /// connection](crate::server::Config::in_band_authentication). One that is known, but may not
    /// connect, gets [`Forbidden`](CloseCode::Forbidden).
    pub unauthorized_code: CloseCode,
    /// The messages by which a client authenticates [within the
    /// connection](crate::client::Connect::authenticate_in_band); `None` if the framing has none.
    pub in_band_auth: Option<InBandAuth>,
    /// The session id in the messages; `None` if they have none.
    pub session_id: Option<SessionIdField>,
}

/// Session id in the messages of a framing.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SessionIdField {
    /// The id. A server sets it when the session begins; a client resumes by the id that it has
    /// read.
    pub cell: SessionIdCell,
    /// Replaces the id in a message that was encoded for a former session.
    pub replace: fn(Message, Option<&str>) -> Message,
}

impl SessionIdField {
    /// Creates it from the cell and the function that replaces the id in an encoded message.
    #[must_use]
    pub fn new(cell: SessionIdCell, replace: fn(Message, Option<&str>) -> Message) -> Self {
        Self { cell, replace }
    }

    /// Returns `message` with the present id.
    pub(crate) fn replace_in(&self, message: Message) -> Message {
        (self.replace)(message, self.cell.get().as_deref())
    }
}

/// The request by which a client authenticates within the connection, and its reply.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct InBandAuth {
    /// Builds the request that shows a token.
    pub request: fn(token: &str) -> Message,
    /// Parses a message as the reply: accepted, or why not. `None` if it is not the reply.
    pub parse_reply: fn(&Message) -> Option<Result<(), String>>,
}

impl InBandAuth {
    /// Creates it from the function that builds the request and the one that parses the reply.
    #[must_use]
    pub fn new(
        request: fn(token: &str) -> Message,
        parse_reply: fn(&Message) -> Option<Result<(), String>>,
    ) -> Self {
        Self { request, parse_reply }
    }
}

impl Default for FramingProperties {
    /// Returns those of MCP, without authentication within the connection.
    fn default() -> Self {
        Self {
            has_initialize: true,
            uses_subprotocols: true,
            ping_message: None,
            unauthorized_code: CloseCode::Unauthorized,
            in_band_auth: None,
            session_id: None,
        }
    }
}

impl FramingProperties {
    /// Sets [`has_initialize`](Self::has_initialize).
    #[must_use]
    pub fn has_initialize(mut self, has_initialize: bool) -> Self {
        self.has_initialize = has_initialize;
        self
    }

    /// Sets [`uses_subprotocols`](Self::uses_subprotocols).
    #[must_use]
    pub fn uses_subprotocols(mut self, uses_subprotocols: bool) -> Self {
        self.uses_subprotocols = uses_subprotocols;
        self
    }

    /// Sets [`ping_message`](Self::ping_message).
    #[must_use]
    pub fn ping_message(mut self, ping_message: fn() -> Message) -> Self {
        self.ping_message = Some(ping_message);
        self
    }

    /// Sets [`unauthorized_code`](Self::unauthorized_code).
    #[must_use]
    pub fn unauthorized_code(mut self, code: CloseCode) -> Self {
        self.unauthorized_code = code;
        self
    }

    /// Sets [`in_band_auth`](Self::in_band_auth).
    #[must_use]
    pub fn in_band_auth(mut self, in_band_auth: InBandAuth) -> Self {
        self.in_band_auth = Some(in_band_auth);
        self
    }

    /// Sets [`session_id`](Self::session_id).
    #[must_use]
    pub fn session_id(mut self, field: impl Into<Option<SessionIdField>>) -> Self {
        self.session_id = field.into();
        self
    }
}
