//! What can go wrong, split by the moment at which it does: while a connection is made
//! ([`HandshakeError`]), while it lives ([`LinkError`]), and with one message ([`MessageError`]).

use std::{fmt, io, sync::Arc, time::Duration};

use http::{StatusCode, Uri};

/// Any error of this crate.
///
/// It is `Clone`, with its sources behind `Arc`s, so that one failure of a connection reaches
/// everyone who waits on it, each with the original cause.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No connection came about.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The connection ended.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// One message could not be sent or understood; the connection lives on.
    #[error(transparent)]
    Message(#[from] MessageError),
}

impl Error {
    /// Whether a new connection may succeed where this one failed.
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

/// Why no connection came about (RFC 6455, section 4).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The URL is not one that can be dialled, or a header is not one that can be sent.
    #[error("cannot dial: {0}")]
    Invalid(String),
    /// The name did not resolve, nobody answered at the address, or the connection ended during the
    /// TLS handshake.
    #[error("cannot reach the server: {0}")]
    Connect(#[source] Arc<io::Error>),
    /// There was no token to show to the server.
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
    /// Whether the same handshake may succeed later.
    ///
    /// `true` for an unreachable server, a timeout, a token that could not be had, and the statuses
    /// 408, 425, 429 and 5xx.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(_) | Self::TimedOut(_) | Self::Token(_) => true,
            Self::Refused(refusal) => {
                matches!(refusal.status.as_u16(), 408 | 425 | 429)
                    || refusal.status.is_server_error()
            }
            _ => false,
        }
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
    /// A refusal with `status` and `body`, and nothing else known.
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
            // Without the user and the query, which may be secret.
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

/// Why a connection ended.
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
    /// Nothing was heard from the peer for this long, although it was pinged.
    #[error("nothing heard from the peer for {0:?}")]
    TimedOut(Duration),
    /// The peer accepted not one byte for this long while something waited to be written.
    #[error("the peer has not read for {0:?}")]
    Stalled(Duration),
    /// The peer took fewer bytes per second than `rate` for the whole `window` while more waited to
    /// be written.
    #[error("the peer has read fewer than {rate} bytes per second for {window:?} (min_send_rate)")]
    ReadsTooSlowly {
        /// Required rate, in bytes per second.
        rate: u64,
        /// Time over which the rate was measured.
        window: Duration,
    },
    /// An inbound message exceeds the limit; the peer was told 1009.
    #[error("inbound message of {size} bytes exceeds the limit of {limit}")]
    TooBig {
        /// The size of the message as far as it is known, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// An inbound message arrived at fewer bytes per second than `rate` for the whole `window`; the
    /// link was closed with 1008.
    #[error("a message that has begun came at fewer than {rate} bytes per second for {window:?}")]
    TooSlow {
        /// Required rate, in bytes per second.
        rate: u64,
        /// Time over which the rate was measured.
        window: Duration,
    },
    /// An inbound text message is not UTF-8; the peer was told 1007.
    #[error("inbound text is not UTF-8")]
    Utf8,
    /// An inbound message does not inflate (RFC 7692); the peer was told 1007.
    #[error("inbound message does not inflate: {0}")]
    Deflate(String),
    /// The peer broke RFC 6455; it was told 1002.
    #[error("the peer broke the WebSocket protocol (this side closed): {0}")]
    Protocol(String),
}

impl LinkError {
    /// What a Close of the peer means for the link.
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

    /// What the end of a link is where a newer one takes its place.
    pub(crate) fn taken_over() -> Self {
        Self::Closed(CloseReason::new(CloseCode::TakenOver, "a newer connection took over"))
    }

    /// The reason as a close code: the one on the wire, or the one that names this cause.
    #[must_use]
    pub fn close_reason(&self) -> CloseReason {
        let code = match self {
            Self::Closed(reason) => return reason.clone(),
            Self::Io(_) | Self::TimedOut(_) => CloseCode::Abnormal,
            Self::Stalled(_) | Self::ReadsTooSlowly { .. } => CloseCode::TryAgainLater,
            Self::TooBig { .. } => CloseCode::TooBig,
            Self::TooSlow { .. } => CloseCode::Policy,
            Self::Utf8 | Self::Deflate(_) => CloseCode::InvalidPayload,
            // As the peer is told.
            Self::Protocol(what) => {
                let reason = format!("WebSocket protocol error: {what}");
                return CloseReason::new(CloseCode::Protocol, reason);
            }
        };
        CloseReason::new(code, self.to_string())
    }

    /// Whether a new connection may fare better.
    ///
    /// `false` where the peer does not want this client (1008, 4401, 4403), another has taken its
    /// place (4409), or all is done (1000), and where it would break the same rule again (1002, 1003, 1007, 1009, 1010).
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        use CloseCode as C;
        // It is the link that is slow, or a peer that this side has closed.
        if matches!(self, Self::TooSlow { .. }) {
            return true;
        }
        !matches!(
            self.close_reason().code,
            C::Normal
                | C::Protocol
                | C::Unsupported
                | C::InvalidPayload
                | C::Policy
                | C::TooBig
                | C::MandatoryExtension
                | C::Unauthorized
                | C::Forbidden
                | C::TakenOver
        )
    }
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

/// What is wrong with one message. The connection lives on.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The message could not be written as JSON.
    #[error("cannot encode the message: {0}")]
    Encode(#[source] Arc<serde_json::Error>),
    /// There is no such thing in this form of messages.
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
    /// The queue is full, and nothing empties it at present: there is no connection, or its peer is
    /// new and has not initialized yet.
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

/// A WebSocket close code (RFC 6455, section 7.4; the IANA registry; and those of this crate).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CloseCode {
    /// 1000: all is done.
    Normal,
    /// 1001: the server stops, or the browser leaves the page.
    GoingAway,
    /// 1002: a protocol error.
    Protocol,
    /// 1003: a kind of data that is not accepted.
    Unsupported,
    /// 1005: a Close frame without a code. Never on the wire.
    NoStatus,
    /// 1006: no Close frame at all. Never on the wire.
    Abnormal,
    /// 1007: data that contradicts its type, such as text that is not UTF-8.
    InvalidPayload,
    /// 1008: a policy was broken.
    Policy,
    /// 1009: a message too big to process.
    TooBig,
    /// 1010: the client misses an extension.
    MandatoryExtension,
    /// 1011: the server met a condition it did not expect.
    Internal,
    /// 1012: the server restarts; come back.
    Restart,
    /// 1013: overload, or a consumer too slow; come back later.
    TryAgainLater,
    /// 1014: a gateway's upstream answered badly.
    BadGateway,
    /// 1015: the TLS handshake failed. Never on the wire.
    Tls,
    /// 4401: authentication within the connection is missing or failed.
    Unauthorized,
    /// 4403: authenticated, but not allowed.
    Forbidden,
    /// 4409: a newer connection took over the session.
    TakenOver,
    /// 4410: the session is gone.
    SessionGone,
    /// Any other code.
    Other(u16),
}

impl CloseCode {
    /// Whether the code may stand in a Close frame (RFC 6455, section 7.4.1 and 7.4.2).
    #[must_use]
    pub fn is_sendable(self) -> bool {
        !matches!(self, Self::NoStatus | Self::Abnormal | Self::Tls)
            && matches!(u16::from(self), 1000..=1003 | 1007..=1014 | 3000..=4999)
    }

    fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::Normal => "normal closure",
            Self::GoingAway => "going away",
            Self::Protocol => "protocol error",
            Self::Unsupported => "unsupported data",
            Self::NoStatus => "no status received",
            Self::Abnormal => "no closing handshake",
            Self::InvalidPayload => "invalid payload data",
            Self::Policy => "policy violation",
            Self::TooBig => "message too big",
            Self::MandatoryExtension => "mandatory extension missing",
            Self::Internal => "internal error",
            Self::Restart => "service restart",
            Self::TryAgainLater => "try again later",
            Self::BadGateway => "bad gateway",
            Self::Tls => "TLS handshake failed",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::TakenOver => "taken over",
            Self::SessionGone => "session gone",
            Self::Other(_) => return None,
        })
    }
}

macro_rules! codes {
    ($($number:literal => $name:ident,)*) => {
        impl From<u16> for CloseCode {
            fn from(code: u16) -> Self {
                match code {
                    $($number => Self::$name,)*
                    other => Self::Other(other),
                }
            }
        }

        impl From<CloseCode> for u16 {
            fn from(code: CloseCode) -> Self {
                match code {
                    $(CloseCode::$name => $number,)*
                    CloseCode::Other(other) => other,
                }
            }
        }
    };
}

codes! {
    1000 => Normal,
    1001 => GoingAway,
    1002 => Protocol,
    1003 => Unsupported,
    1005 => NoStatus,
    1006 => Abnormal,
    1007 => InvalidPayload,
    1008 => Policy,
    1009 => TooBig,
    1010 => MandatoryExtension,
    1011 => Internal,
    1012 => Restart,
    1013 => TryAgainLater,
    1014 => BadGateway,
    1015 => Tls,
    4401 => Unauthorized,
    4403 => Forbidden,
    4409 => TakenOver,
    4410 => SessionGone,
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} ({name})", u16::from(*self)),
            None => write!(f, "{}", u16::from(*self)),
        }
    }
}

/// A close code and the sentence that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseReason {
    /// What kind of ending it is.
    pub code: CloseCode,
    /// For people. At most 123 bytes travel (RFC 6455, section 5.5).
    pub reason: String,
}

impl CloseReason {
    /// A reason of this `code`; `reason` may be empty.
    #[must_use]
    pub fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    /// The reason cut to the 123 bytes that fit into a Close frame, on a character's boundary.
    #[must_use]
    pub fn wire_reason(&self) -> &str {
        let mut end = self.reason.len().min(123);
        while !self.reason.is_char_boundary(end) {
            end -= 1;
        }
        &self.reason[..end]
    }
}

impl From<CloseCode> for CloseReason {
    fn from(code: CloseCode) -> Self {
        Self::new(code, "")
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, ": {}", self.reason) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_way_there_and_back() {
        for code in 0..=u16::MAX {
            assert_eq!(u16::from(CloseCode::from(code)), code);
        }
    }

    #[test]
    fn codes_that_only_stand_for_an_ending_are_not_sendable() {
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000] {
            assert!(!CloseCode::from(code).is_sendable(), "{code}");
        }
        for code in [1000, 1003, 1007, 1012, 1014, 3000, 4409, 4999] {
            assert!(CloseCode::from(code).is_sendable(), "{code}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = CloseReason::new(CloseCode::Policy, "é".repeat(100));
        assert_eq!(reason.wire_reason().len(), 122);
    }
}
