//! [`Failure`]: what the program ends with when it does not succeed.

use std::{fmt, io, process::ExitCode};

use mcp_ws_transport::{
    CloseCode, CloseReason, Error,
    client::ToolError,
    error::{HandshakeError, LinkError},
};

/// Kind of a failure, which is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The tool or the server has answered with an error.
    Answer = 1,
    /// A wrong option, URL or file.
    Usage = 2,
    /// The server is not reachable, or the connection to it has ended.
    Connection = 3,
    /// A token is missing, or one was refused.
    Unauthorized = 4,
    /// The server's certificate is not trusted, or there is no TLS.
    Tls = 5,
    /// The command could not be started, or has ended.
    Command = 6,
}

/// The table of the exit codes, for `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  the tool or the server has answered with an error
  2  a wrong option, URL or file
  3  the server is not reachable, or the connection has ended
  4  a token is missing, or was refused
  5  the server's certificate is not trusted
  6  the command could not be started, or has ended";

/// Failure of a command: its kind, and one line for people.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    message: String,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Creates the failure for a wrong option, URL or file.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind as u8)
    }
}

/// Writes one line, whatever a server has put into the message.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.message))
    }
}

/// Returns `text` without line breaks and other control characters.
pub(crate) fn one_line(text: &str) -> String {
    let parts = text.split(char::is_control).map(str::trim).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join(" ")
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Handshake(HandshakeError::Invalid(_)) => Kind::Usage,
            Error::Handshake(HandshakeError::Token(_)) => Kind::Unauthorized,
            Error::Handshake(HandshakeError::Tls(_) | HandshakeError::ClientCertificate(_)) => {
                Kind::Tls
            }
            Error::Handshake(HandshakeError::Refused(refusal))
                if matches!(refusal.status.as_u16(), 401 | 403 | 407) =>
            {
                Kind::Unauthorized
            }
            Error::Link(LinkError::Closed(reason)) => kind_of(reason),
            _ => Kind::Connection,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<CloseReason> for Failure {
    fn from(reason: CloseReason) -> Self {
        Self::new(kind_of(&reason), format!("the connection has ended: {reason}"))
    }
}

fn kind_of(reason: &CloseReason) -> Kind {
    match reason.code {
        CloseCode::Unauthorized | CloseCode::Forbidden => Kind::Unauthorized,
        _ => Kind::Connection,
    }
}

impl From<ToolError> for Failure {
    fn from(error: ToolError) -> Self {
        match error {
            ToolError::Connect(error) => error.into(),
            other => Self::new(Kind::Answer, other.text().unwrap_or_else(|| other.to_string())),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Kind::Usage, error.to_string())
    }
}
