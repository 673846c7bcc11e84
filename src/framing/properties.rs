//! [`FramingProperties`]: what connections need to know of their framing.

use super::session_id::SessionIdCell;
use crate::{close::CloseCode, message::Message};

/// Behaviour of connections with a framing.
#[derive(Debug, Clone)]
pub struct FramingProperties {
    pub(crate) has_initialize: bool,
    pub(crate) uses_subprotocols: bool,
    pub(crate) ping_message: Option<fn() -> Message>,
    pub(crate) unauthorized_code: CloseCode,
    pub(crate) in_band_auth: Option<InBandAuth>,
    pub(crate) session_id: Option<SessionIdField>,
}

/// Session id in the messages of a framing.
#[derive(Debug, Clone)]
pub struct SessionIdField {
    pub(crate) cell: SessionIdCell,
    pub(crate) replace: fn(Message, Option<&str>) -> Message,
}

impl SessionIdField {
    /// Creates it from the cell of the id and the function that replaces the id in a message.
    ///
    /// The message was encoded for a former session; with `None` the function takes the id out.
    /// A server sets the id when the session begins; a client resumes by the id that it has read.
    /// Each connection of a server has a clone of the framing, which must have a cell of its own.
    #[must_use]
    pub fn new(cell: SessionIdCell, replace: fn(Message, Option<&str>) -> Message) -> Self {
        Self { cell, replace }
    }

    /// Returns the cell of the id, shared by the framing and whoever makes the connection.
    #[must_use]
    pub fn cell(&self) -> &SessionIdCell {
        &self.cell
    }

    /// Returns `message` with the present id.
    pub(crate) fn replace_in(&self, message: Message) -> Message {
        (self.replace)(message, self.cell.get().as_deref())
    }
}

/// The request by which a client authenticates within the connection, and its reply.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(feature = "client"), expect(dead_code, reason = "clients use it"))]
pub struct InBandAuth {
    pub(crate) request: fn(token: &str) -> Message,
    pub(crate) parse_reply: fn(&Message) -> Option<Result<(), String>>,
}

impl InBandAuth {
    /// Creates it from the function that builds the request with a token, and the one that parses
    /// the reply: accepted, or the reason why not. It returns `None` for any other message.
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
    /// Sets whether an MCP client says which version of MCP it speaks, by `initialize` before its
    /// first request, or in each request: `true`. If `false`, a server answers whatever comes
    /// first.
    #[must_use]
    pub fn has_initialize(mut self, has_initialize: bool) -> Self {
        self.has_initialize = has_initialize;
        self
    }

    /// Sets whether a client offers subprotocols, and with them to resume its session: `true`.
    #[must_use]
    pub fn uses_subprotocols(mut self, uses_subprotocols: bool) -> Self {
        self.uses_subprotocols = uses_subprotocols;
        self
    }

    /// Sets the function that builds the message which the MCP client sends as a ping; whatever
    /// the server says answers it. By default WebSocket's own pings are used, and a client offers
    /// to resume its session. One whose pings are messages does not: no session counts those.
    #[must_use]
    pub fn ping_message(mut self, ping_message: fn() -> Message) -> Self {
        self.ping_message = Some(ping_message);
        self
    }

    /// Sets the code with which a server closes the connection of a client that fails to
    /// authenticate [within it](crate::server::Config::in_band_authentication): 4401. One that is
    /// known, but may not connect, gets [`Forbidden`](CloseCode::Forbidden).
    #[must_use]
    pub fn unauthorized_code(mut self, code: CloseCode) -> Self {
        self.unauthorized_code = code;
        self
    }

    /// Sets the messages by which a client [authenticates within the
    /// connection](crate::client::Connect::authenticate_in_band). By default there are none.
    #[must_use]
    pub fn in_band_auth(mut self, in_band_auth: InBandAuth) -> Self {
        self.in_band_auth = Some(in_band_auth);
        self
    }

    /// Returns the session id that messages carry, if they do.
    #[must_use]
    pub fn session_id_field(&self) -> Option<&SessionIdField> {
        self.session_id.as_ref()
    }

    /// Sets the session id that messages carry. By default they have none.
    #[must_use]
    pub fn session_id(mut self, field: impl Into<Option<SessionIdField>>) -> Self {
        self.session_id = field.into();
        self
    }
}
