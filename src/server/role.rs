//! [`HostedRole`]: an MCP role whose services a server can run.

use std::{borrow::Cow, fmt};

use rmcp::{
    RoleClient, RoleServer, Service,
    model::{ClientRequest, ServerRequest},
    service::{
        ClientInitializeError, ProgressNotificationToken, RunningService, ServerInitializeError,
        ServiceRole,
    },
};
use tokio_util::sync::CancellationToken;

use crate::{role::McpRole, transport::WebSocketTransport};

/// MCP role whose service a server can run for each connection; implemented for both roles.
pub trait HostedRole:
    McpRole + ServiceRole<InitializeError: fmt::Display + Send, PeerNot: ProgressNotificationToken>
{
    /// Runs `service` on `transport`, as rmcp does for this role.
    #[doc(hidden)]
    fn run<S: Service<Self>>(
        service: S,
        transport: WebSocketTransport<Self>,
        token: CancellationToken,
    ) -> impl Future<Output = Result<RunningService<Self, S>, Self::InitializeError>> + Send;

    /// Runs `service` for a peer that does not initialize its session.
    #[doc(hidden)]
    fn run_directly<S: Service<Self>>(
        service: S,
        transport: WebSocketTransport<Self>,
        token: CancellationToken,
    ) -> RunningService<Self, S> {
        rmcp::service::serve_directly_with_ct(service, transport, None, token)
    }

    /// Returns `true` if the request is answered only when its sender or the server ends it.
    #[doc(hidden)]
    fn is_open_ended(request: &Self::PeerReq) -> bool;

    /// Returns the text of `error` without quotes of the peer, which may hold a token.
    #[doc(hidden)]
    fn explain(error: &Self::InitializeError) -> Cow<'static, str>;
}

impl HostedRole for RoleServer {
    fn run<S: Service<Self>>(
        service: S,
        transport: WebSocketTransport<Self>,
        token: CancellationToken,
    ) -> impl Future<Output = Result<RunningService<Self, S>, Self::InitializeError>> + Send {
        rmcp::service::serve_server_with_ct(service, transport, token)
    }

    fn is_open_ended(request: &ClientRequest) -> bool {
        matches!(request, ClientRequest::SubscriptionsListenRequest(_))
    }

    fn explain(error: &ServerInitializeError) -> Cow<'static, str> {
        match error {
            ServerInitializeError::ExpectedInitializeRequest(_) => {
                "the first message is no request".into()
            }
            ServerInitializeError::UnexpectedInitializeResponse(_) => {
                "the service has no result for initialize".into()
            }
            other => other.to_string().into(),
        }
    }
}

impl HostedRole for RoleClient {
    fn run<S: Service<Self>>(
        service: S,
        transport: WebSocketTransport<Self>,
        token: CancellationToken,
    ) -> impl Future<Output = Result<RunningService<Self, S>, Self::InitializeError>> + Send {
        rmcp::service::serve_client_with_ct(service, transport, token)
    }

    fn is_open_ended(_: &ServerRequest) -> bool {
        false
    }

    fn explain(error: &ClientInitializeError) -> Cow<'static, str> {
        match error {
            ClientInitializeError::ConnectionClosed(_)
            | ClientInitializeError::TransportError { .. }
            | ClientInitializeError::Cancelled => error.to_string().into(),
            _ => "the peer does not initialize as MCP has it".into(),
        }
    }
}
