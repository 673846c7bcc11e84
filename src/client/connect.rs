//! [`connect`]: a connection to be made, and its options.

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

use super::{
    authorization,
    backoff::ReconnectPolicy,
    connector::{Connector, Route},
    cookies::Cookies,
    endpoint::Endpoint,
    subprotocol::Offers,
    tls::ClientTls,
    token::{TokenRequest, Tokens},
};
use crate::{
    error::{Error, HandshakeError},
    event::{Broadcaster, Event, Events, State},
    framing::Framing,
    handshake::headers::SUBPROTOCOL,
    layer::{
        correlation::config::Replay,
        resume::{self, receive_count::ReceiveCount},
    },
    role::McpRole,
    transport::{self, WebSocketTransport, builder::Builder},
};

/// Dials `url`, `ws://` or `wss://`. Await the result, or set options first.
///
/// On Unix, `ws+unix:/run/mcp.sock:/mcp` is the path `/mcp` of the server at the socket
/// `/run/mcp.sock`, whose `Host` is `localhost`.
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
pub fn connect<R: McpRole>(url: impl Into<String>) -> Connect<R> {
    Connect {
        endpoint: Endpoint {
            url: url.into(),
            route: Route::default(),
            headers: HeaderMap::new(),
            offers: vec![SUBPROTOCOL.to_owned()],
            tls: ClientTls::default(),
            tokens: None,
            learned: Offers::default(),
            cookies: Cookies::default(),
            session: None,
            receive_count: ReceiveCount::default(),
            in_band_auth: None,
            bearer: None,
        },
        timeout: Duration::from_secs(10),
        builder: WebSocketTransport::builder(),
        reconnect: Some(ReconnectPolicy::default()),
        resume: true,
        in_band: false,
        retry_first: false,
        state: watch::Sender::new(State::Connecting),
        events: Broadcaster::default(),
        invalid: None,
    }
}

/// Performs the client's opening handshake on `stream`, a connection to the host of `url`. For
/// `wss://`, TLS is up to you. The same as [`connect(url).over(stream)`](Connect::over).
///
/// # Errors
/// [`Error::Handshake`].
pub async fn connect_over<R, S>(
    stream: S,
    url: impl Into<String>,
) -> Result<WebSocketTransport<R>, Error>
where
    R: McpRole,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    connect(url).over(stream).await
}

/// Connection to be made; see [`connect`].
///
/// Awaiting it resolves the name, connects with `TCP_NODELAY`, performs the TLS and the opening
/// handshake, follows at most 5 redirects, all within the origin, and fails with
/// [`Error::Handshake`].
///
/// A server that refuses the upgrade with a status that does not say why (400, say) may dislike the
/// subprotocols offered, and so may one that chooses what was not offered: it is dialled again
/// without `mcp.resume.v1`, then with `mcp` alone, then with no offer, and for ten minutes the next
/// connections begin with what it has taken. A connection that is lost before the answer is most
/// likely just that: the first is dialled again with the same offer, and only where that is dropped
/// too with less, which no later connection takes for granted. The error is that of the first
/// answer.
#[must_use = "nothing is dialled until this is awaited"]
pub struct Connect<R: McpRole> {
    pub(super) endpoint: Endpoint,
    pub(super) timeout: Duration,
    pub(super) builder: Builder<R>,
    pub(super) reconnect: Option<ReconnectPolicy>,
    pub(super) resume: bool,
    pub(super) in_band: bool,
    pub(super) retry_first: bool,
    pub(super) state: watch::Sender<State>,
    pub(super) events: Broadcaster<Event>,
    pub(super) invalid: Option<HandshakeError>,
}

impl<R: McpRole> Connect<R> {
    /// Adds a header to the upgrade request, or replaces one that this crate sets, such as `Host`
    /// or `User-Agent`. One that is not valid, or that belongs to the handshake itself, is reported
    /// when the connection is made.
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
            Ok((name, value)) => drop(self.endpoint.headers.append(name, value)),
            Err(error) => drop(self.invalid.get_or_insert(HandshakeError::Invalid(error))),
        }
        self
    }

    /// Sends `Authorization: Bearer …` (RFC 6750, section 2.1). The token is shown nowhere.
    pub fn bearer(mut self, token: impl AsRef<str>) -> Self {
        match authorization::bearer(token.as_ref()) {
            Ok(value) => drop(self.endpoint.headers.insert(AUTHORIZATION, value)),
            Err(error) => drop(self.invalid.get_or_insert(error)),
        }
        self
    }

    /// Sends a short-lived token. `tokens` is asked for one before every attempt, and once more
    /// where the server refuses it (401, or 4401 later on).
    pub fn bearer_provider<F, E>(
        mut self,
        tokens: impl Fn(TokenRequest) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<String, E>> + Send + 'static,
        E: fmt::Display,
    {
        self.endpoint.tokens = Some(Tokens::new(tokens));
        self
    }

    /// Sets when a lost connection is dialled again, in place of [`ReconnectPolicy::default`].
    pub fn reconnect(mut self, reconnect: ReconnectPolicy) -> Self {
        self.reconnect = Some(reconnect);
        self
    }

    /// Retries the first connection like a lost one, for a server that may not be there yet. The
    /// waits and [attempts](ReconnectPolicy::attempts) are those of [`reconnect`](Self::reconnect),
    /// or the default ones after [`no_reconnect`](Self::no_reconnect). By default there is a single
    /// attempt.
    ///
    /// Permanent failures end the attempts at once: a URL that cannot be dialled, TLS, 401 after a
    /// new [token](Self::bearer_provider), 403, 404, …; see [`HandshakeError::is_retryable`].
    /// Failed attempts are reported by [`events`](Self::events), and the [state](Self::state) is
    /// [`State::Connecting`] meanwhile.
    pub fn retry_first(mut self) -> Self {
        self.retry_first = true;
        self
    }

    /// Disables reconnecting: the end of the connection is the end of the transport.
    pub fn no_reconnect(mut self) -> Self {
        self.reconnect = None;
        self
    }

    /// Sets whether resuming the session is offered to the server. By default it is, if the
    /// transport reconnects, and its framing does not ping
    /// [by messages](crate::framing::FramingProperties::ping_message). A server that does not know
    /// [`mcp.resume.v1`](crate::guide::resume_v1) chooses something else, and nothing is resumed;
    /// for one that chooses it all the same, set `false`.
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
                && !self.endpoint.offers.contains(&subprotocol)
            {
                self.endpoint.offers.push(subprotocol);
            }
        }
        self
    }

    /// Sets the time that everything up to the open connection may take: 10 s. A connector, a proxy
    /// and redirects have it together.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends the token within the connection, as its first message, in place of a header. The token
    /// is that of [`bearer`](Self::bearer) or [`bearer_provider`](Self::bearer_provider), and the
    /// servers those that [ask for it there](crate::server::Config::in_band_authentication). A
    /// refusal is one with the status 401 or 403, as before the upgrade. Nothing is resumed then.
    pub fn authenticate_in_band(mut self) -> Self {
        self.in_band = true;
        self
    }

    /// Connects by `connector`, in place of TCP to the host of the URL: for each connection anew,
    /// so that reconnecting and resuming work over it. TLS for `wss://` is spoken over its stream.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use mcp_ws_transport::{client::Target, connect};
    /// use rmcp::ServiceExt;
    /// use tokio::net::TcpStream;
    ///
    /// // Whatever the URL says, by way of a forwarded port.
    /// let forwarded = |_: Target| TcpStream::connect("127.0.0.1:9443");
    /// let connect = connect("wss://mcp.example.com/mcp").connector(forwarded);
    /// let client = ().serve(connect.await?).await?;
    /// # drop(client); Ok(()) }
    /// ```
    pub fn connector(mut self, connector: impl Connector) -> Self {
        self.endpoint.route = Route::by(connector);
        self
    }

    /// Connects by way of `proxy`, in place of one that the environment names. Its URL begins with
    /// `http://`, `https://`, `socks5://` or `socks5h://`; see [`Proxy`](super::proxy::Proxy).
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// # use rmcp::ServiceExt;
    /// use mcp_ws_transport::connect;
    ///
    /// let connect = connect("wss://mcp.example.com/mcp").proxy("http://proxy.example.com:3128");
    /// let client = ().serve(connect.await?).await?;
    /// # drop(client); Ok(()) }
    /// ```
    #[cfg(feature = "proxy")]
    #[cfg_attr(docsrs, doc(cfg(feature = "proxy")))]
    pub fn proxy(mut self, proxy: impl Into<super::proxy::Proxy>) -> Self {
        self.endpoint.route = Route::Connector(std::sync::Arc::new(proxy.into()));
        self
    }

    /// Connects to the host of the URL itself, whatever proxy the environment names.
    #[cfg(feature = "proxy")]
    #[cfg_attr(docsrs, doc(cfg(feature = "proxy")))]
    pub fn no_proxy(mut self) -> Self {
        self.endpoint.route = Route::Direct;
        self
    }

    /// Sets whom to trust on `wss://`, and what to show there.
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.endpoint.tls = tls;
        self
    }

    /// Sets the settings of the connection's layers.
    pub fn transport(mut self, config: transport::Config) -> Self {
        self.builder = self.builder.transport(config);
        self
    }

    /// Sets which requests are sent again to a server that knows nothing of them, though they may
    /// have run. Those are the ones for which that does no harm. By default there are none, and
    /// each ends with `outcome_unknown`; so does one that is sent again and refused, or lost.
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

    /// Ends each request for which nothing arrives in this time: no response and no progress
    /// report. The time is suspended while the server waits for an answer to a request of its own,
    /// such as an elicitation. Put the service that answers those in a
    /// [`CatchPanic`](crate::CatchPanic): a handler that panics might never answer, and deadlines
    /// be suspended until the connection ends. By default there is no deadline as long as there is
    /// a connection; [`correlation::Config`](crate::layer::correlation::Config) explains why, and
    /// has a bound for the total time.
    ///
    /// The request ends with the error [`TIMED_OUT`](crate::layer::correlation::TIMED_OUT), and the
    /// server is sent `notifications/cancelled`.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.builder = self.builder.deadline(deadline);
        self
    }

    /// Sets the framing of the messages, in place of JSON-RPC itself.
    pub fn framing(mut self, framing: impl Framing<R> + 'static) -> Self {
        self.builder = self.builder.framing(framing);
        self
    }

    /// Returns the state of the connection to be: [`State::Connecting`] until it is made.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Returns what happens to the connection from now on, where it reconnects.
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
        self.no_reconnect().run(Some(stream)).await
    }
}

impl<R: McpRole> From<&str> for Connect<R> {
    fn from(url: &str) -> Self {
        connect(url)
    }
}

impl<R: McpRole> From<String> for Connect<R> {
    fn from(url: String) -> Self {
        connect(url)
    }
}

impl<R: McpRole> IntoFuture for Connect<R> {
    type Output = Result<WebSocketTransport<R>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run(None::<TcpStream>))
    }
}

impl<R: McpRole> fmt::Debug for Connect<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
