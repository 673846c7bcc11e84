//! [`Frame`]: the control frames of [`mcp.resume.v1`](super::protocol), to and from text.

use serde::{Deserialize, Deserializer, Serialize};

use super::secret::{Secret, SessionId};
use crate::{
    link::MessageLimits,
    message::{Message, Text},
};

/// The subprotocol token by which the extension is negotiated, offered behind `mcp`.
pub const SUBPROTOCOL: &str = "mcp.resume.v1";

/// Length of the longest control frame, in bytes.
const MAX_LENGTH: usize = 4096;

/// A control frame. Its session id and secret do not show in `Debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// `@open`: the first frame of the client on every link, with the client's limits.
    Open(OpenFrame, MessageLimits),
    /// `@session`: the first frame of the server on every link.
    Session(SessionFrame),
    /// `@ack`: the number of data messages received in this session.
    Ack(u64),
}

/// Request of a client for a session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenFrame {
    /// A new session.
    New,
    /// The former session.
    Resume {
        /// Id of the session.
        session: SessionId,
        /// Latest secret that the server gave.
        secret: Secret,
        /// Number of data messages that the client has received in that session.
        received: u64,
    },
}

/// Answer of a server to an [`OpenFrame`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionFrame {
    /// The session on this link.
    pub session: SessionId,
    /// Secret to present when the session is resumed next.
    pub secret: Secret,
    /// Number of data messages that the server has received in the session.
    pub received: u64,
    /// `true` if this is the session that was asked for.
    pub resumed: bool,
    /// Time for which the session is kept without a link, in whole seconds, rounded up.
    pub window_s: u32,
    /// Bytes of messages that the server keeps until they are acknowledged.
    pub window_bytes: u64,
    /// Reason for which it is another session: `unknown`, or a word newer than this document.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub why: Option<String>,
    /// The largest message that the server takes, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub max_message: Option<u64>,
    /// Number of unanswered requests that the server accepts at a time.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub max_inbound: Option<u64>,
}

impl SessionFrame {
    /// Creates the answer to a client that asked for a new session.
    #[must_use]
    pub fn new(session: SessionId, secret: Secret, window_s: u32, window_bytes: u64) -> Self {
        Self {
            session,
            secret,
            received: 0,
            resumed: false,
            window_s,
            window_bytes,
            why: None,
            max_message: None,
            max_inbound: None,
        }
    }

    /// Returns this frame with the limits of the server added.
    #[must_use]
    pub fn within(self, limits: MessageLimits) -> Self {
        let (max_message, max_inbound) = numbers(limits);
        Self { max_message, max_inbound, ..self }
    }

    /// Returns the limits that the server announces.
    #[must_use]
    pub fn limits(&self) -> MessageLimits {
        MessageLimits::from_peer(self.max_message, self.max_inbound)
    }

    /// Returns this frame as the session that was asked for, with this number of messages
    /// `received`.
    #[must_use]
    pub fn resumed(self, received: u64) -> Self {
        Self { received, resumed: true, ..self }
    }

    /// Returns this frame as a new session in place of one that is not there, or not the client's.
    #[must_use]
    pub fn unknown(self) -> Self {
        Self { why: Some("unknown".into()), ..self }
    }
}

/// A malformed control frame, as the reason that the peer is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("resume: {0}")]
pub struct ControlFrameError(&'static str);

/// Returns the limits as the numbers on the wire.
fn numbers(limits: MessageLimits) -> (Option<u64>, Option<u64>) {
    let number = |limit: Option<usize>| limit.map(|limit| limit as u64);
    (number(limits.max_message), number(limits.max_inbound))
}

#[derive(Default, Serialize, Deserialize)]
struct Fields {
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    session: Option<SessionId>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    secret: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    received: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    max_message: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    max_inbound: Option<u64>,
}

/// Deserializes a field that may be absent, but not `null`.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

impl Frame {
    /// Returns the control frame that `text` is, or `None` if it is a data message.
    ///
    /// # Errors
    /// [`ControlFrameError`] if it begins as a control frame and is malformed.
    pub fn parse(text: &Text) -> Result<Option<Self>, ControlFrameError> {
        let bytes = text.as_bytes();
        if bytes.first() != Some(&b'@') {
            return Ok(None);
        }
        if bytes.len() > MAX_LENGTH {
            return Err(ControlFrameError("a control frame is too long"));
        }
        let space = bytes.iter().position(|byte| *byte == b' ').unwrap_or(bytes.len());
        let (name, rest) = bytes.split_at(space);
        let body = rest.get(1..).unwrap_or_default();
        let frame = match name {
            b"@ack" => number(body).map(Self::Ack).ok_or(ControlFrameError("malformed @ack")),
            b"@open" => open(body).ok_or(ControlFrameError("malformed @open")),
            b"@session" => {
                session(body).map(Self::Session).ok_or(ControlFrameError("malformed @session"))
            }
            _ => Err(ControlFrameError("unknown control frame")),
        };
        frame.map(Some)
    }

    /// Returns this frame as a text message.
    #[must_use]
    pub fn encode(&self) -> Message {
        Message::text(match self {
            Self::Ack(received) => format!("@ack {received}"),
            Self::Open(open, limits) => {
                let (max_message, max_inbound) = numbers(*limits);
                let mut fields = Fields { max_message, max_inbound, ..Fields::default() };
                if let OpenFrame::Resume { session, secret, received } = open {
                    fields.session = Some(session.clone());
                    fields.secret = Some(secret.clone());
                    fields.received = Some(*received);
                }
                with_body("@open ", &fields)
            }
            Self::Session(session) => with_body("@session ", session),
        })
    }
}

/// Returns a frame of this name and JSON body. Strings and numbers always serialize.
fn with_body(name: &str, body: &impl Serialize) -> String {
    name.to_owned() + &serde_json::to_string(body).unwrap_or_default()
}

/// Parses a decimal number without a sign or leading zeros.
fn number(digits: &[u8]) -> Option<u64> {
    let is_canonical = digits == b"0" || digits.first().is_some_and(|first| *first != b'0');
    if !is_canonical || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Parses a JSON object; serde alone would take an array for a struct as well.
fn object<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Option<T> {
    if !body.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    serde_json::from_slice(body).ok()
}

fn open(body: &[u8]) -> Option<Frame> {
    let Fields { session, secret, received, max_message, max_inbound } = object(body)?;
    let open = match (session, secret, received) {
        (None, None, None) => OpenFrame::New,
        (Some(session), Some(secret), Some(received)) => {
            OpenFrame::Resume { session, secret, received }
        }
        _ => return None,
    };
    Some(Frame::Open(open, MessageLimits::from_peer(max_message, max_inbound)))
}

fn session(body: &[u8]) -> Option<SessionFrame> {
    object(body).filter(|session: &SessionFrame| session.resumed || session.received == 0)
}
