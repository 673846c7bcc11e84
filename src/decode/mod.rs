//! Typed decoding of JSON-RPC messages, in one pass.
//!
//! rmcp's own `Deserialize` buffers each message and tries the variants of nested untagged enums
//! one after the other. Here a request is dispatched on the name of its method, and a response on
//! the method of the request that it answers, which the [`Calls`] in flight know.
//!
//! rmcp remains the authority: whatever is unusual goes to its own `Deserialize`, and what is
//! decoded here is what rmcp would have made of it, value for value.

mod malformed;
mod message;
mod method;
mod notification;
mod request;
mod result;
mod role;
mod strict;

use rmcp::{model::RequestId, service::RxJsonRpcMessage};

pub use self::{
    malformed::{Malformed, MalformedKind},
    method::Method,
    role::Role,
};

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
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    message::usual::<R>(bytes, calls)
        .map_or_else(|| serde_json::from_slice(bytes), Ok)
        .map_err(|_| Malformed::of(bytes))
}
