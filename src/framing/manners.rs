use crate::{error::CloseCode, message::Message};

/// How connections behave whose messages have some form.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Manners {
    /// Whether an MCP client initializes its session before it asks for anything, or says in each request
    /// which version of MCP it speaks. Where it does neither, a server answers whatever comes first.
    pub initializes: bool,
    /// Whether a client offers subprotocols, and with them to resume its session.
    pub negotiates: bool,
    /// What stands for a WebSocket ping: it is sent by the MCP client, and whatever the server says is
    /// its answer. `None`: WebSocket's own.
    pub probe: Option<fn() -> Message>,
    /// The code by which a server closes the connection of who fails to authenticate
    /// [within it](crate::server::Config::in_band_authentication), and is not just [forbidden](CloseCode::Forbidden) to enter.
    pub unauthorized: CloseCode,
}

impl Default for Manners {
    /// Those of MCP.
    fn default() -> Self {
        Self {
            initializes: true,
            negotiates: true,
            probe: None,
            unauthorized: CloseCode::Unauthorized,
        }
    }
}

impl Manners {
    /// Sets [`initializes`](Self::initializes).
    #[must_use]
    pub fn initializes(mut self, initializes: bool) -> Self {
        self.initializes = initializes;
        self
    }

    /// Sets [`negotiates`](Self::negotiates).
    #[must_use]
    pub fn negotiates(mut self, negotiates: bool) -> Self {
        self.negotiates = negotiates;
        self
    }

    /// Sets [`probe`](Self::probe).
    #[must_use]
    pub fn probe(mut self, probe: fn() -> Message) -> Self {
        self.probe = Some(probe);
        self
    }

    /// Sets [`unauthorized`](Self::unauthorized).
    #[must_use]
    pub fn unauthorized(mut self, code: CloseCode) -> Self {
        self.unauthorized = code;
        self
    }
}
