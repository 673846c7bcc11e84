//! Dialling: [`connect`], and [`connect_over`] on a stream of your own.
//!
//! # When the connection is lost
//!
//! The first connection is attempted once, unless [`Connect::retry_first`] says otherwise. From
//! then on a transport of [`connect`] outlives its connections: it dials again, as
//! [`ReconnectPolicy`] says, until the server is there; at once when the machine has been asleep.
//! [`Connect::once`] turns that off.
//!
//! Where the server speaks [`mcp.resume.v1`](crate::layer::resume::protocol), which is offered unless
//! [`Connect::resume`] says otherwise, the next connection resumes the session: what was lost is sent
//! again, by both sides, and nothing else happens. Where it does not, or no longer has the session:
//!
//! | a request that | |
//! |---|---|
//! | was handed to the connection that is lost | ends with `-32000`, `outcome_unknown`: at once, or when the server is not back while it keeps the session. One that may run twice is sent [again](Connect::replay) |
//! | was not, or is made meanwhile | waits until the server is initialized anew, as far as the outbound queue has room (1 MiB); then `not_sent` |
//! | is cancelled or overdue before it was sent | is never sent |
//! | was refused because the server has too many | waits until it takes more, and is sent first then: [`retry_refused`](crate::layer::correlation::Config::retry_refused) |
//! | was refused because the server stops | is sent again on the next connection: [`retry_refused`](crate::layer::correlation::Config::retry_refused) |
//! | was too large for the server, which closed with 1009 | ends with `not_sent`; those sent after it are sent again |
//! | came from the server | is cancelled, and what its handler still answers is dropped |
//!
//! Then the next connection leads to a server that knows nothing of what was before. `initialize` and
//! `notifications/initialized` are repeated there, with the answer kept from the service, and then what
//! waits is sent; notifications that had not been sent are not. `subscriptions/listen` is repeated too, and
//! a `server/discover` that had no answer.
//!
//! It ends for good when the server closes with 1000, or says that this client is not wanted (1008,
//! 4401, 4403; 4409, unless the session is still its own) or breaks its rules, but for the size of
//! a message (1009), for which five connections may be lost in a row; when it refuses the upgrade
//! with a status that means it (401 after a new [token](Connect::bearer_with), 403, 404, …), fails
//! the TLS handshake, or answers with no WebSocket handshake or a subprotocol that was not offered;
//! when it refuses the repeated `initialize`; when five connections are lost before it has answered
//! the first one; after [so many attempts](ReconnectPolicy::attempts), counted anew for each
//! connection that is lost; or when the service is closed.
//!
//! What happens is told by [`Connect::state`] and [`Connect::events`], and logged: a warning for each
//! outage, not for each attempt.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use futures::StreamExt;
//! use mcp_ws_transport::{client::ReconnectPolicy, connect};
//! use rmcp::ServiceExt;
//!
//! let policy = ReconnectPolicy::default().attempts(20);
//! let connect = connect("ws://127.0.0.1:8080/mcp").reconnect(policy);
//! let mut events = connect.events();
//! tokio::spawn(async move {
//!     while let Some(event) = events.next().await {
//!         println!("{event:?}");
//!     }
//! });
//! let client = ().serve(connect.await?).await?;
//! # drop(client); Ok(()) }
//! ```
//!
//! # What the server asks
//!
//! A server may send requests too, such as elicitations. rmcp hands them to the service, and where
//! a handler panics, it does not answer. Serve a [`CatchPanic`](crate::CatchPanic) of your service,
//! which answers then; a [`Toolbox`] does. Without it the request is answered a second later, unless
//! the handler had given its context away.
//!
//! # Tools by name
//!
//! Where tools are all that is wanted of a server, a [`Toolbox`] dials, initializes, learns what tools
//! there are, and calls them with anything that serialises, for anything that deserialises:
//!
//! ```no_run
//! use mcp_ws_transport::{client::{ToolError, Toolbox}, connect};
//! use serde::Deserialize;
//! use serde_json::json;
//!
//! #[derive(Deserialize)]
//! struct Sum { result: f64 }
//!
//! # async fn example() -> Result<(), ToolError> {
//! let tools = Toolbox::connect(connect("wss://example.com/mcp").bearer("s3cr3t")).await?;
//! match tools.call("add", json!({ "a": 5, "b": 3 })).await {
//!     Ok(Sum { result }) => println!("{result}"),
//!     Err(ToolError::OutcomeUnknown(_)) => println!("connection lost: it may have run"),
//!     Err(error) => println!("{error}"),
//! }
//! # Ok(()) }
//! ```

mod cookies;
mod dial;
mod failure;
mod first;
mod greeting;
mod lifetimes;
mod offer;
mod opening;
mod reconnect;
mod redial;
mod tcp;
mod tls;
mod tool_error;
mod toolbox;

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    time::Duration,
};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, AUTHORIZATION},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
};

use self::{dial::Target, reconnect::Tokens};
pub use self::{
    reconnect::{ReconnectPolicy, TokenRequest},
    tls::Tls,
    tool_error::ToolError,
    toolbox::Toolbox,
};
pub use crate::layer::correlation::Replay;
use crate::{
    decode::Role,
    error::{Error, HandshakeError},
    event::{Announcer, Event, Events, State},
    framing::Framing,
    layer::resume,
    transport::{self, Builder, WebSocketTransport},
    upgrade::SUBPROTOCOL,
};

/// Dials `url`, `ws://` or `wss://`. Await the result, or set options first.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use rmcp::ServiceExt;
///
/// let client = ().serve(mcp_ws_transport::connect("ws://127.0.0.1:8080/mcp").await?).await?;
/// println!("{:#?}", client.list_all_tools().await?);
/// client.cancel().await?;
/// # Ok(()) }
/// ```
pub fn connect<R: Role>(url: impl Into<String>) -> Connect<R> {
    Connect {
        target: Target {
            url: url.into(),
            headers: HeaderMap::new(),
            offers: vec![SUBPROTOCOL.to_owned()],
            tls: Tls::default(),
            tokens: None,
            learned: offer::Offers::default(),
            cookies: cookies::Cookies::default(),
            session: None,
            greeting: None,
            bearer: None,
        },
        timeout: Duration::from_secs(10),
        builder: WebSocketTransport::builder(),
        reconnect: Some(ReconnectPolicy::default()),
        resume: true,
        in_band: false,
        retry_first: false,
        state: watch::Sender::new(State::Connecting),
        events: Announcer::default(),
        invalid: None,
    }
}

/// Performs the client's opening handshake on `stream`, as if it were a connection to the host of
/// `url` (for `wss://`, TLS is up to you). The same as [`connect(url).over(stream)`](Connect::over).
///
/// # Errors
/// [`Error::Handshake`].
pub async fn connect_over<R, S>(
    stream: S,
    url: impl Into<String>,
) -> Result<WebSocketTransport<R>, Error>
where
    R: Role,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    connect(url).over(stream).await
}

/// A connection to be made; see [`connect`].
///
/// Awaiting it resolves the name, connects with `TCP_NODELAY`, performs the TLS and the opening
/// handshake, follows at most 5 redirects, all within the origin, and fails with [`Error::Handshake`].
///
/// A server that refuses the upgrade with a status that does not say why (400, say) may dislike the
/// subprotocols offered, and so may one that chooses what was not offered: it is dialled again
/// without `mcp.resume.v1`, then with `mcp` alone, then with no offer, and for ten minutes the next
/// connections begin with what it has taken. A connection that is lost before the answer is most
/// likely just that: the first is dialled again with the same offer, and only where that is dropped
/// too with less, which no later connection takes for granted. The error is that of the first
/// answer.
#[must_use = "nothing is dialled until this is awaited"]
pub struct Connect<R: Role> {
    target: Target,
    timeout: Duration,
    builder: Builder<R>,
    reconnect: Option<ReconnectPolicy>,
    resume: bool,
    in_band: bool,
    retry_first: bool,
    state: watch::Sender<State>,
    events: Announcer<Event>,
    invalid: Option<HandshakeError>,
}

impl<R: Role> Connect<R> {
    /// Adds a header to the upgrade request. One that is not valid, or that belongs to the handshake
    /// itself, is reported when the connection is made.
    pub fn header<K, V>(mut self, name: K, value: V) -> Self
    where
        HeaderName: TryFrom<K, Error: fmt::Display>,
        HeaderValue: TryFrom<V, Error: fmt::Display>,
    {
        let name = HeaderName::try_from(name).map_err(|error| format!("header name: {error}"));
        let value = HeaderValue::try_from(value).map_err(|error| format!("header value: {error}"));
        let checked = name.and_then(|name| match name {
            header::CONNECTION
            | header::UPGRADE
            | header::CONTENT_LENGTH
            | header::TRANSFER_ENCODING
            | header::SEC_WEBSOCKET_ACCEPT
            | header::SEC_WEBSOCKET_EXTENSIONS
            | header::SEC_WEBSOCKET_KEY
            | header::SEC_WEBSOCKET_PROTOCOL
            | header::SEC_WEBSOCKET_VERSION => {
                Err(format!("the header {name} belongs to the handshake"))
            }
            name => Ok((name, value?)),
        });
        match checked {
            Ok((name, value)) => drop(self.target.headers.append(name, value)),
            Err(error) => drop(self.invalid.get_or_insert(HandshakeError::Invalid(error))),
        }
        self
    }

    /// Sends `Authorization: Bearer …` (RFC 6750, section 2.1). The token is shown nowhere.
    pub fn bearer(mut self, token: impl AsRef<str>) -> Self {
        match dial::bearer(token.as_ref()) {
            Ok(value) => drop(self.target.headers.insert(AUTHORIZATION, value)),
            Err(error) => drop(self.invalid.get_or_insert(error)),
        }
        self
    }

    /// The same with a token that does not last: `tokens` is asked for one before every attempt, and
    /// once more where the server refuses it (401, or 4401 later on).
    pub fn bearer_with<F, E>(
        mut self,
        tokens: impl Fn(TokenRequest) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<String, E>> + Send + 'static,
        E: fmt::Display,
    {
        self.target.tokens = Some(Tokens::new(tokens));
        self
    }

    /// Sets when a lost connection is dialled again, in place of [`ReconnectPolicy::default`].
    pub fn reconnect(mut self, reconnect: ReconnectPolicy) -> Self {
        self.reconnect = Some(reconnect);
        self
    }

    /// Retries the first connection like a lost one, for a server that may not be there yet: with
    /// the waits and the [attempts](ReconnectPolicy::attempts) of [`reconnect`](Self::reconnect),
    /// or the default ones after [`once`](Self::once). By default there is a single attempt.
    ///
    /// Permanent failures end the attempts at once: a URL that cannot be dialled, TLS, 401 after a
    /// new [token](Self::bearer_with), 403, 404, …; see [`HandshakeError::is_retryable`]. Failed
    /// attempts are reported by [`events`](Self::events), and the [state](Self::state) is
    /// [`State::Connecting`] meanwhile.
    pub fn retry_first(mut self) -> Self {
        self.retry_first = true;
        self
    }

    /// Does not dial again: the end of the connection is the end of the transport.
    pub fn once(mut self) -> Self {
        self.reconnect = None;
        self
    }

    /// Whether to offer the server to resume the session where a connection was lost: it is, if the
    /// transport reconnects. A server that does not know [`mcp.resume.v1`](crate::layer::resume::protocol)
    /// chooses something else, and nothing is resumed; for one that chooses it all the same, set
    /// `false`.
    pub fn resume(mut self, resume: bool) -> Self {
        self.resume = resume;
        self
    }

    /// Offers these subprotocols too, after `mcp`. The server may choose one of them.
    /// `mcp.resume.v1` is offered by [`resume`](Self::resume) alone.
    pub fn subprotocols<T: Into<String>>(
        mut self,
        subprotocols: impl IntoIterator<Item = T>,
    ) -> Self {
        for subprotocol in subprotocols {
            let subprotocol = subprotocol.into();
            if HeaderName::from_bytes(subprotocol.as_bytes()).is_err() {
                let error = "a subprotocol is not a token (RFC 9110, section 5.6.2)".into();
                self.invalid.get_or_insert(HandshakeError::Invalid(error));
            } else if subprotocol != resume::SUBPROTOCOL
                && !self.target.offers.contains(&subprotocol)
            {
                self.target.offers.push(subprotocol);
            }
        }
        self
    }

    /// How long everything up to the open connection may take: 10 s.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Shows the token of [`bearer`](Self::bearer) or [`bearer_with`](Self::bearer_with) within the
    /// connection, as its first message, in place of a header: for servers that
    /// [ask there](crate::server::Config::in_band_authentication). A refusal is one with the status 401 or 403, as before
    /// the upgrade. Nothing is resumed then.
    pub fn authenticate_in_band(mut self) -> Self {
        self.in_band = true;
        self
    }

    /// Whom to trust on `wss://`.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.target.tls = tls;
        self
    }

    /// The settings of the connection's layers.
    pub fn config(mut self, config: transport::Config) -> Self {
        self.builder = self.builder.config(config);
        self
    }

    /// Says which requests are sent again to a server that knows nothing of them, though they may have
    /// run: those of which that does no harm. By default none is, and each ends with `outcome_unknown`.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use mcp_ws_transport::{client::Replay, connect};
    /// use rmcp::{ServiceExt, model::ClientRequest};
    ///
    /// let reads_only = |request: &ClientRequest| match request {
    ///     ClientRequest::ListToolsRequest(_) | ClientRequest::ReadResourceRequest(_) => Replay::Resend,
    ///     _ => Replay::Fail,
    /// };
    /// let client = ().serve(connect("ws://127.0.0.1:8080/mcp").replay(reads_only).await?).await?;
    /// # drop(client); Ok(()) }
    /// ```
    pub fn replay(mut self, policy: impl Fn(&R::Req) -> Replay + Send + Sync + 'static) -> Self {
        self.builder = self.builder.replay(policy);
        self
    }

    /// Ends each request that shows no sign of life for so long: no response and no progress
    /// report. The time is suspended while the server waits for an answer to a request of its own,
    /// such as an elicitation. Put the service that answers those in a
    /// [`CatchPanic`](crate::CatchPanic): a handler that panics might never answer, and deadlines
    /// be suspended until the connection ends. By default there is no deadline as long as there is a connection;
    /// [`correlation::Config`](crate::layer::correlation::Config) explains why, and has a bound for
    /// the total time.
    ///
    /// The request ends with the error [`TIMED_OUT`](crate::layer::correlation::TIMED_OUT), and the
    /// server is sent `notifications/cancelled`.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.builder = self.builder.deadline(deadline);
        self
    }

    /// The form of the messages, in place of JSON-RPC itself.
    pub fn framing(mut self, framing: impl Framing<R> + 'static) -> Self {
        self.builder = self.builder.framing(framing);
        self
    }

    /// The state of the connection to be: [`State::Connecting`] until it is made.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// What happens to the connection from now on, where it reconnects.
    pub fn events(&self) -> Events<Event> {
        self.events.subscribe()
    }

    /// Performs the opening handshake on `stream` in place of dialling. Redirects are not
    /// followed, and there is no second attempt.
    ///
    /// # Errors
    /// [`Error::Handshake`].
    pub async fn over<S>(self, stream: S) -> Result<WebSocketTransport<R>, Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.once().run(Some(stream)).await
    }
}

impl<R: Role> From<&str> for Connect<R> {
    fn from(url: &str) -> Self {
        connect(url)
    }
}

impl<R: Role> From<String> for Connect<R> {
    fn from(url: String) -> Self {
        connect(url)
    }
}

impl<R: Role> IntoFuture for Connect<R> {
    type Output = Result<WebSocketTransport<R>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run(None::<TcpStream>))
    }
}

impl<R: Role> fmt::Debug for Connect<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").field("target", &self.target).finish_non_exhaustive()
    }
}
