//! The way from the address to the 101, and other answers.

mod client;
mod connector;
mod dialing;
mod fallback;
mod guard;
mod limits;
mod mount;
mod origin;
#[cfg(all(feature = "proxy", feature = "rustls-tls", feature = "ring"))]
mod proxies;
mod server;
#[cfg(all(feature = "rustls-tls", feature = "ring"))]
mod tls;

use mcp_ws_transport::{
    Error, McpRole, Message, WebSocketTransport,
    decode::PendingMethods,
    error::{HandshakeError, MessageError, Refusal},
    framing::{DecodeError, Framing, FramingProperties, JsonRpc},
};
use rmcp::{
    RoleClient,
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};

/// Outcome of a client's first connection.
type Dialled = Result<WebSocketTransport<RoleClient>, Error>;

fn failure(dialled: Dialled) -> HandshakeError {
    match dialled {
        Err(Error::Handshake(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn refusal(dialled: Dialled) -> Refusal {
    match failure(dialled) {
        HandshakeError::Refused(refusal) => *refusal,
        other => panic!("{other:?}"),
    }
}

/// Framing whose pings are messages, which no session counts.
#[derive(Clone, Default)]
struct PingingByMessages(JsonRpc);

impl<R: McpRole> Framing<R> for PingingByMessages
where
    JsonRpc: Framing<R>,
{
    fn encode(&mut self, message: &TxJsonRpcMessage<R>) -> Result<Option<Message>, MessageError> {
        self.0.encode(message)
    }

    fn decode(
        &mut self,
        message: Message,
        calls: &dyn PendingMethods,
    ) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
        self.0.decode(message, calls)
    }

    fn properties(&self) -> FramingProperties {
        FramingProperties::default().ping_message(|| Message::text("{}"))
    }
}
