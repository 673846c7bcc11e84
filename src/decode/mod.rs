//! Typed decoding of JSON-RPC messages, in one pass.
//!
//! rmcp's own `Deserialize` buffers each message and tries the variants of nested untagged enums
//! one after the other. Here a request is dispatched on the name of its method, and a response on
//! the method of the request that it answers, which the [`Calls`] in flight know.
//!
//! rmcp remains the authority: whatever is unusual goes to its own `Deserialize`, and what is
//! decoded here is what rmcp would have made of it, value for value.

mod malformed;
mod method;

use rmcp::{
    RoleClient, RoleServer,
    model::{ClientNotification, RequestId, ServerNotification},
    service::{RxJsonRpcMessage, ServiceRole},
};

pub use self::{
    malformed::{Malformed, MalformedKind},
    method::Method,
};

/// An MCP role, [`RoleClient`] or [`RoleServer`], with what its messages are decoded by.
pub trait Role: ServiceRole {
    /// The method of a request that this role sends.
    fn method_of(request: &Self::Req) -> Method;

    /// The id in a `notifications/cancelled` that this role sends.
    fn cancelled(notification: &Self::Not) -> Option<&RequestId>;

    /// The id in a `notifications/cancelled` of the peer.
    fn cancelled_by_peer(notification: &Self::PeerNot) -> Option<&RequestId>;
}

macro_rules! cancelled {
    ($own:ident, $peer:ident) => {
        fn cancelled(notification: &$own) -> Option<&RequestId> {
            match notification {
                $own::CancelledNotification(cancelled) => cancelled.params.request_id.as_ref(),
                _ => None,
            }
        }

        fn cancelled_by_peer(notification: &$peer) -> Option<&RequestId> {
            match notification {
                $peer::CancelledNotification(cancelled) => cancelled.params.request_id.as_ref(),
                _ => None,
            }
        }
    };
}

impl Role for RoleClient {
    fn method_of(request: &Self::Req) -> Method {
        request.into()
    }

    cancelled!(ClientNotification, ServerNotification);
}

impl Role for RoleServer {
    fn method_of(request: &Self::Req) -> Method {
        request.into()
    }

    cancelled!(ServerNotification, ClientNotification);
}

/// The calls in flight, lent to the decoder for one message.
///
/// `()` knows of none: responses are then told apart by their members.
pub trait Calls {
    /// The method of the request that was sent with this id and awaits its response.
    fn method(&self, id: &RequestId) -> Option<Method>;
}

impl Calls for () {
    fn method(&self, _: &RequestId) -> Option<Method> {
        None
    }
}

/// Decodes one message that the peer of a role `R` has sent.
///
/// A leading byte order mark is skipped.
///
/// # Errors
///
/// [`Malformed`] when rmcp refuses the message. An unknown method is no error, but a custom
/// request or notification.
pub fn decode<R: Role>(bytes: &[u8], calls: &dyn Calls) -> Result<RxJsonRpcMessage<R>, Malformed> {
    let _ = calls;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    serde_json::from_slice(bytes).map_err(|_| Malformed::of(bytes))
}
