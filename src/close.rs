//! [`CloseCode`] and [`CloseReason`]: why a connection is closed (RFC 6455, section 7).

use std::fmt::{self, Write as _};

/// WebSocket close code: RFC 6455, section 7.4, the IANA registry, and those of this crate.
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
    /// Returns `true` if the peer has no reason to come back: the connection has done its work, or
    /// another would end the same way.
    pub(crate) fn is_final(self) -> bool {
        matches!(
            self,
            Self::Normal
                | Self::Protocol
                | Self::Unsupported
                | Self::InvalidPayload
                | Self::Policy
                | Self::TooBig
                | Self::MandatoryExtension
                | Self::Unauthorized
                | Self::Forbidden
        )
    }

    /// Returns `true` if the code may stand in a Close frame (RFC 6455, sections 7.4.1 and 7.4.2).
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
    /// Kind of the ending.
    pub code: CloseCode,
    /// Text for people. At most 123 bytes are sent (RFC 6455, section 5.5).
    pub reason: String,
}

impl CloseReason {
    /// Creates a reason of this `code`; `reason` may be empty.
    #[must_use]
    pub fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    /// Returns the text cut to the 123 bytes that fit into a Close frame, on a character's
    /// boundary.
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
        if !self.reason.is_empty() {
            f.write_str(": ")?;
        }
        Escaped(&self.reason).fmt(f)
    }
}

/// Text that may be the words of a peer, for logs and terminals: its control characters are
/// escaped.
#[derive(Debug)]
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char.is_control() {
            true => write!(f, "{}", char.escape_default()),
            false => f.write_char(char),
        })
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
    fn what_is_shown_has_no_control_characters() {
        let reason = CloseReason::new(CloseCode::Other(3000), "bye — \"é\"\n\x1b[31m\u{85}");
        assert_eq!(reason.to_string(), "3000: bye — \"é\"\\n\\u{1b}[31m\\u{85}");
        assert_eq!(CloseReason::from(CloseCode::Normal).to_string(), "1000 (normal closure)");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = CloseReason::new(CloseCode::Policy, "é".repeat(100));
        assert_eq!(reason.wire_reason().len(), 122);
    }
}
