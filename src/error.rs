//! Errors by the moment at which they occur.
//!
//! [`HandshakeError`] while a connection is made, [`LinkError`] while it is open, and
//! [`MessageError`] with one message.

use std::{fmt, io, sync::Arc, time::Duration};

use http::{StatusCode, Uri};

use crate::close::{CloseCode, CloseReason};

/// Error of this crate.
///
/// `Clone`, with the sources behind `Arc`s, so that one failure of a connection reaches everyone
/// who waits on it, each with the original cause.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection came about.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The connection ended.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A message could not be sent or understood; the connection stays open.
    #[error(transparent)]
    Message(#[from] MessageError),
}

impl Error {
    /// Returns `true` if a new connection may succeed where this one failed.
    ///
    /// An error of a single message is not retryable: the same message fails again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Handshake(error) => error.is_retryable(),
            Self::Link(error) => error.is_retryable(),
            Self::Message(_) => false,
        }
    }
}

/// Error of a connection attempt (RFC 6455, section 4).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The URL is not one that can be dialled, or a header is not one that can be sent.
    #[error("cannot dial: {0}")]
    Invalid(String),
    /// The server is unreachable. The name did not resolve, nobody answered at the address, or the
    /// connection ended during the TLS handshake.
    #[error("cannot reach the server: {0}")]
    Connect(#[source] Arc<io::Error>),
    /// The proxy on the way did not connect this client to the server.
    #[error("cannot reach the server: {0}")]
    Proxy(#[source] Box<ProxyRefusal>),
    /// No certificate of this client's own could be read.
    #[error("no client certificate: {0}")]
    ClientCertificate(String),
    /// No token was available for the server.
    #[error("no token: {0}")]
    Token(String),
    /// The TLS handshake failed: certificate, host name, or no TLS in this build.
    #[error("TLS: {0}")]
    Tls(String),
    /// No answer within the handshake's deadline.
    #[error("no answer to the handshake within {0:?}: is a WebSocket server there?")]
    TimedOut(Duration),
    /// The server answered, but not with `101 Switching Protocols`.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// The peer's answer or request is not a WebSocket handshake.
    #[error("not a WebSocket handshake: {0}")]
    NotWebSocket(String),
    /// The server chose a subprotocol that was not offered.
    #[error(
        "the server chose the subprotocol {0:?}, which was not offered: is it a server of MCP? If it \
         is, offer it with `Connect::subprotocols`"
    )]
    Subprotocol(String),
}

impl HandshakeError {
    /// Returns `true` if the same handshake may succeed later.
    ///
    /// `true` for an unreachable server, a timeout, a token or client certificate that could not be
    /// had, and the statuses 408, 425, 429 and 5xx.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(_) | Self::TimedOut(_) | Self::Token(_) | Self::ClientCertificate(_) => {
                true
            }
            Self::Refused(refusal) => is_temporary(refusal.status),
            Self::Proxy(refusal) => refusal.is_retryable(),
            _ => false,
        }
    }
}

impl From<io::Error> for HandshakeError {
    /// Converts the error of a connection that was not made.
    fn from(error: io::Error) -> Self {
        Self::Connect(Arc::new(error))
    }
}

#[cfg(feature = "proxy")]
impl From<ProxyRefusal> for HandshakeError {
    fn from(refusal: ProxyRefusal) -> Self {
        Self::Proxy(Box::new(refusal))
    }
}

/// Returns `true` for statuses that say that the same request may succeed later.
pub(crate) fn is_temporary(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429) || status.is_server_error()
}

/// Answer of a proxy that did not connect this client to the server.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
#[error("the proxy {proxy} refused: {reason}")]
pub struct ProxyRefusal {
    /// Scheme, host and port of the proxy.
    pub proxy: String,
    /// Status of an HTTP proxy's answer; `None` for a SOCKS proxy.
    pub status: Option<StatusCode>,
    /// Words of the proxy, with advice on what to try next, for people.
    pub reason: String,
    pub(crate) meaning: ProxyMeaning,
}

/// Meaning of a proxy's answer for the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "proxy"), expect(dead_code, reason = "nothing is asked of a proxy"))]
pub(crate) enum ProxyMeaning {
    /// The proxy may let this client through later.
    NotNow,
    /// The proxy wants a user and password, or others.
    Credentials,
    /// The proxy refuses this client whenever it comes.
    Never,
}

impl ProxyRefusal {
    #[cfg(feature = "proxy")]
    pub(crate) fn new(
        proxy: impl fmt::Display,
        reason: impl Into<String>,
        meaning: ProxyMeaning,
    ) -> Self {
        Self { proxy: proxy.to_string(), status: None, reason: reason.into(), meaning }
    }

    /// Returns `true` if the proxy may let this client through later.
    ///
    /// `true` for the statuses 408, 425, 429 and 5xx, and for a SOCKS proxy that does not reach the
    /// server.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.meaning == ProxyMeaning::NotNow
    }

    /// Returns `true` if the proxy wants a user and password, or others than it was shown.
    ///
    /// `true` for the status 407, and for a SOCKS proxy that misses credentials or does not accept
    /// them.
    #[must_use]
    pub fn wants_credentials(&self) -> bool {
        self.meaning == ProxyMeaning::Credentials
    }
}

/// An answer to the upgrade request other than `101 Switching Protocols`.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub struct Refusal {
    /// The answer's status.
    pub status: StatusCode,
    /// The beginning of the body, at most 4 KiB, as text.
    pub body: String,
    /// `Location`, when the answer is a redirect that was not followed (it leaves the origin).
    pub location: Option<Uri>,
    /// Time of `Retry-After`, counted from the response on where it is a date (RFC 9110, section
    /// 10.2.3). A day at most, whatever the server asks for.
    pub retry_after: Option<Duration>,
    /// `WWW-Authenticate` (RFC 9110, section 11.6.1).
    pub www_authenticate: Option<String>,
    /// Advice on what to try next, for people; part of the `Display` text.
    pub hint: Option<&'static str>,
}

impl Refusal {
    /// Creates a refusal with `status` and `body`, and nothing else known.
    #[must_use]
    pub fn new(status: StatusCode, body: impl Into<String>) -> Self {
        Self {
            status,
            body: body.into(),
            location: None,
            retry_after: None,
            www_authenticate: None,
            hint: None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server refused the upgrade: {}", self.status)?;
        if let Some(location) = &self.location {
            // The user and the query may be secret.
            f.write_str(" to ")?;
            if let Some(scheme) = location.scheme() {
                write!(f, "{scheme}://")?;
            }
            f.write_str(location.host().unwrap_or_default())?;
            if let Some(port) = location.port() {
                write!(f, ":{port}")?;
            }
            f.write_str(location.path())?;
        }
        if let Some(line) = self.body.lines().map(str::trim).find(|line| !line.is_empty()) {
            write!(f, ": {}", line.chars().take(200).collect::<String>())?;
        }
        if let Some(time) = self.retry_after {
            write!(f, "; the server asks to come again in {} s", time.as_secs())?;
        }
        match self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// Reason why a connection ended.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The closing handshake took place, or the peer vanished without it
    /// ([`CloseCode::Abnormal`]).
    #[error("closed: {0}")]
    Closed(CloseReason),
    /// The operating system reports a broken connection.
    #[error("connection lost: {0}")]
    Io(#[source] Arc<io::Error>),
    /// The peer was silent for this long, although it was pinged.
    #[error("nothing received from the peer for {0:?}")]
    TimedOut(Duration),
    /// The peer accepted not one byte for this long while something waited to be written.
    #[error("the peer has not read for {0:?}")]
    Stalled(Duration),
    /// The peer took fewer bytes per second than `rate` for the whole `window` while more waited.
    #[error("the peer has read fewer than {rate} bytes per second for {window:?} (min_send_rate)")]
    ReadsTooSlowly {
        /// Required rate, in bytes per second.
        rate: u64,
        /// Time over which the rate was measured.
        window: Duration,
    },
    /// An inbound message exceeds the limit; the link was closed with 1009.
    #[error("inbound message of {size} bytes exceeds the limit of {limit}")]
    TooBig {
        /// The size of the message as far as it is known, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// An inbound message arrived at fewer bytes per second than `rate` for the whole `window`. The
    /// link was closed with 1008.
    #[error("a message that has begun came at fewer than {rate} bytes per second for {window:?}")]
    TooSlow {
        /// Required rate, in bytes per second.
        rate: u64,
        /// Time over which the rate was measured.
        window: Duration,
    },
    /// An inbound text message is not UTF-8; the link was closed with 1007.
    #[error("inbound text is not UTF-8")]
    Utf8,
    /// An inbound message does not inflate (RFC 7692); the link was closed with 1007.
    #[error("inbound message does not inflate: {0}")]
    Deflate(String),
    /// The peer broke RFC 6455; the link was closed with 1002.
    #[error("the peer broke the WebSocket protocol (this side closed): {0}")]
    Protocol(String),
}

impl LinkError {
    /// Returns the error of a link that the peer has closed.
    pub(crate) fn closed_by_peer(reason: Option<CloseReason>) -> Self {
        Self::Closed(reason.unwrap_or_else(|| CloseCode::NoStatus.into()))
    }

    /// Returns the error of a link that this side has closed because of the peer, and says so.
    pub(crate) fn closed_here(reason: &CloseReason) -> Self {
        let why = match &*reason.reason {
            "" => "by this side".to_owned(),
            why => format!("by this side: {why}"),
        };
        Self::Closed(CloseReason::new(reason.code, why))
    }

    /// Returns the error of a link whose place a newer one takes.
    pub(crate) fn taken_over() -> Self {
        Self::Closed(CloseReason::new(CloseCode::TakenOver, "a newer connection took over"))
    }

    /// Returns the reason as a close code: the one on the wire, or the one that names this cause.
    #[must_use]
    pub fn close_reason(&self) -> CloseReason {
        let code = match self {
            Self::Closed(reason) => return reason.clone(),
            Self::Io(_) | Self::TimedOut(_) => CloseCode::Abnormal,
            Self::Stalled(_) | Self::ReadsTooSlowly { .. } => CloseCode::TryAgainLater,
            Self::TooBig { .. } => CloseCode::TooBig,
            Self::TooSlow { .. } => CloseCode::Policy,
            Self::Utf8 | Self::Deflate(_) => CloseCode::InvalidPayload,
            // The text of the Close that the peer was sent.
            Self::Protocol(what) => {
                let reason = format!("WebSocket protocol error: {what}");
                return CloseReason::new(CloseCode::Protocol, reason);
            }
        };
        CloseReason::new(code, self.to_string())
    }

    /// Returns `true` if a new connection may fare better.
    ///
    /// `false` where the peer does not want this client (1008, 4401, 4403), another has taken its
    /// place (4409), or all is done (1000), and where a new connection would break the same rule
    /// again (1002, 1003, 1007, 1009, 1010).
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        // The cause is a slow link, or a peer that this side has closed.
        if matches!(self, Self::TooSlow { .. }) {
            return true;
        }
        let code = self.close_reason().code;
        !code.is_final() && code != CloseCode::TakenOver
    }
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// Error of one message. The connection stays open.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The message could not be written as JSON.
    #[error("cannot encode the message: {0}")]
    Encode(#[source] Arc<serde_json::Error>),
    /// The framing has no message for this.
    #[error("{0} cannot be said in this form of messages")]
    Unsupported(&'static str),
    /// The message is larger than what may be sent.
    #[error("outbound message of {size} bytes exceeds the limit of {limit}")]
    TooBig {
        /// The size of the message, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The message is larger than the limit that the peer has announced.
    #[error("outbound message of {size} bytes is larger than the {limit} that the peer takes")]
    TooBigForPeer {
        /// The size of the message, in bytes.
        size: usize,
        /// Limit of the peer, in bytes.
        limit: usize,
    },
    /// The queue is full, and nothing in it can be sent at present. There is no connection, or its
    /// peer is new and has not initialized yet.
    #[error("the outbound queue is full, and nothing in it can be sent at present")]
    QueueFull,
}

impl MessageError {
    /// Returns the size of a message that is too large, and the limit, both in bytes.
    pub(crate) fn sizes(&self) -> Option<(usize, usize)> {
        match *self {
            Self::TooBig { size, limit } | Self::TooBigForPeer { size, limit } => {
                Some((size, limit))
            }
            _ => None,
        }
    }
}
