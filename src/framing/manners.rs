use crate::{error::CloseCode, message::Message};

/// How connections behave whose messages have some form.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Manners {
    /// `true` if an MCP client initializes its session before its first request, or names its version
    /// of MCP in each. If `false`, a server answers whatever comes first.
    pub initializes: bool,
    /// `true` if a client offers subprotocols, and with them to resume its session.
    pub negotiates: bool,
    /// Builds the message that the MCP client sends as a ping; whatever the server says answers it.
    /// `None` uses the pings of WebSocket.
    pub probe: Option<fn() -> Message>,
    /// The code by which a server closes the connection of who fails to authenticate
    /// [within it](crate::server::Config::in_band_authentication), and is not just [forbidden](CloseCode::Forbidden) to enter.
    pub unauthorized: CloseCode,
    /// The messages by which a client [authenticates within the
    /// connection](crate::client::Connect::authenticate_in_band); `None` if the framing has none.
    pub greeting: Option<Greeting>,
}

/// What a client says first where a server asks within the connection who it is.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Greeting {
    /// The message that shows a token.
    pub ask: fn(token: &str) -> Message,
    /// Returns the answer that a message gives to it: accepted, or why not. `None` if the message
    /// is about something else.
    pub verdict: fn(&Message) -> Option<Result<(), String>>,
}

impl Greeting {
    /// One that is said so, and answered so.
    #[must_use]
    pub fn new(
        ask: fn(token: &str) -> Message,
        verdict: fn(&Message) -> Option<Result<(), String>>,
    ) -> Self {
        Self { ask, verdict }
    }
}

impl Default for Manners {
    /// Those of MCP, without a greeting.
    fn default() -> Self {
        Self {
            initializes: true,
            negotiates: true,
            probe: None,
            unauthorized: CloseCode::Unauthorized,
            greeting: None,
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

    /// Sets [`greeting`](Self::greeting).
    #[must_use]
    pub fn greeting(mut self, greeting: Greeting) -> Self {
        self.greeting = Some(greeting);
        self
    }
}
