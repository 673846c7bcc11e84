use crate::{error::CloseCode, message::Message};

/// How connections behave whose messages have some form.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Manners {
    /// Whether an MCP client initializes its session before it asks for anything, or says in each
    /// request which version of MCP it speaks. Where it does neither, a server answers whatever
    /// comes first.
    pub initializes: bool,
    /// Whether a client offers subprotocols, and with them to resume its session.
    pub negotiates: bool,
    /// What stands for a WebSocket ping: it is sent by the MCP client, and whatever the server says
    /// is its answer. `None`: WebSocket's own.
    pub probe: Option<fn() -> Message>,
    /// The code by which a server closes the connection of who fails to authenticate
    /// [within it](crate::server::Config::in_band_authentication), and is not just [forbidden](CloseCode::Forbidden) to enter.
    pub unauthorized: CloseCode,
    /// How a client [authenticates within the
    /// connection](crate::client::Connect::authenticate_in_band); `None` where that cannot be said.
    pub greeting: Option<Greeting>,
}

/// What a client says first where a server asks within the connection who it is.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Greeting {
    /// The message that shows a token.
    pub ask: fn(token: &str) -> Message,
    /// What a message says to that: that the client is let in, or why not. `None` if it is about
    /// something else.
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
