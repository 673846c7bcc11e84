//! [`Failure`]: what the program ends with when it does not succeed.

use std::{fmt, io, process::ExitCode};

use mcp_ws_transport::{
    CloseCode, CloseReason, Error,
    client::ToolError,
    error::{HandshakeError, LinkError},
};
use rmcp::{ErrorData, ServiceError, service::ClientInitializeError};

/// Kind of a failure, which is the exit code. What each is for stands in [`Kind::meaning`] alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Answer = 1,
    Usage = 2,
    Connection = 3,
    Unauthorized = 4,
    Tls = 5,
    Command = 6,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::Answer, Self::Usage, Self::Connection, Self::Unauthorized, Self::Tls, Self::Command];

    fn meaning(self) -> &'static str {
        match self {
            Self::Answer => {
                "the tool (isError, also with --json) or the server has answered with an error"
            }
            Self::Usage => "a wrong option, argument, URL or file",
            Self::Connection => {
                "the server is not reachable or does not answer, or a call was lost"
            }
            Self::Unauthorized => {
                "the server wants a token or a proxy a password, or has refused it"
            }
            Self::Tls => "the server's certificate is not trusted, or there is no TLS",
            Self::Command => "the command could not be started, or has ended",
        }
    }
}

/// Returns the table of the exit codes, for `--help`.
pub(crate) fn exit_codes() -> String {
    let success = "success, also where nobody reads the output any more";
    let failures = Kind::ALL.map(|kind| (kind as u8, kind.meaning()));
    let codes = [(0, success)].into_iter().chain(failures);
    codes.fold("Exit codes:".to_owned(), |table, (code, meaning)| {
        format!("{table}\n  {code}  {meaning}")
    })
}

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
            Error::Handshake(HandshakeError::Invalid(_) | HandshakeError::ClientCertificate(_)) => {
                Kind::Usage
            }
            Error::Handshake(HandshakeError::Token(_)) => Kind::Unauthorized,
            Error::Handshake(HandshakeError::Tls(_)) => Kind::Tls,
            Error::Handshake(HandshakeError::Refused(refusal))
                if matches!(refusal.status.as_u16(), 401 | 403 | 407) =>
            {
                Kind::Unauthorized
            }
            Error::Handshake(HandshakeError::Proxy(refusal)) if refusal.wants_credentials() => {
                Kind::Unauthorized
            }
            Error::Link(LinkError::Closed(reason)) => kind_of(reason),
            _ => Kind::Connection,
        };
        Self::new(kind, with_options(error.to_string()))
    }
}

/// Returns an advice of the library with the options of this program in it.
pub(crate) fn with_options(advice: String) -> String {
    [
        ("`Connect::bearer`", "--bearer-file and MCP_WS_BEARER"),
        ("`client::ClientTls::authorities`", "--ca"),
        ("allowed_hosts:", "--allow-host:"),
        ("allowed_origins:", "--allow-origin:"),
        ("trusted proxy", "--trusted-proxy"),
    ]
    .into_iter()
    .fold(advice, |advice, (setting, option)| advice.replace(setting, option))
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
        let kind = match &error {
            ToolError::Unknown(_) | ToolError::Arguments(_) => Kind::Usage,
            ToolError::NotSent(_) | ToolError::OutcomeUnknown(_) => Kind::Connection,
            ToolError::List(error) => kind_of_service(error),
            ToolError::Service(error) => kind_of_service(error),
            ToolError::Initialize(error) => kind_of_initialize(error),
            _ => Kind::Answer,
        };
        match error {
            ToolError::Connect(error) => error.into(),
            other => Self::new(kind, other.text().unwrap_or_else(|| other.to_string())),
        }
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        Self::new(kind_of_service(&error), error.to_string())
    }
}

impl From<ClientInitializeError> for Failure {
    fn from(error: ClientInitializeError) -> Self {
        Self::new(kind_of_initialize(&error), format!("not initialized: {error}"))
    }
}

/// Returns the kind of what became of a request.
fn kind_of_service(error: &ServiceError) -> Kind {
    match error {
        ServiceError::McpError(error) => kind_of_rpc(error),
        ServiceError::TransportSend(_)
        | ServiceError::TransportClosed
        | ServiceError::Timeout { .. }
        | ServiceError::Cancelled { .. } => Kind::Connection,
        _ => Kind::Answer,
    }
}

/// Returns the kind of what became of `initialize`.
pub(crate) fn kind_of_initialize(error: &ClientInitializeError) -> Kind {
    use ClientInitializeError as E;
    match error {
        E::JsonRpcError(error) => kind_of_rpc(error),
        E::ConnectionClosed(_) | E::TransportError { .. } | E::Cancelled => Kind::Connection,
        E::LegacyFallbackFailed { fallback, .. } => kind_of_initialize(fallback),
        _ => Kind::Answer,
    }
}

/// Returns the kind of an error that ends a request, which the transport may have made for one that
/// was lost.
fn kind_of_rpc(error: &ErrorData) -> Kind {
    match ToolError::from(ServiceError::McpError(error.clone())) {
        ToolError::NotSent(_) | ToolError::OutcomeUnknown(_) => Kind::Connection,
        _ => Kind::Answer,
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Kind::Usage, error.to_string())
    }
}
