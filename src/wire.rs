//! [`Wire`]: how the messages of a role are read and written.

use bytes::Bytes;
use rmcp::{
    RoleClient, RoleServer,
    service::{RxJsonRpcMessage, ServiceRole, TxJsonRpcMessage},
};

use crate::{
    decode::{PendingMethods, malformed::Malformed, typed as typed_decoding},
    encode::typed as typed_encoding,
};

/// Decoding and encoding of the messages of a role.
#[expect(unnameable_types, reason = "seals McpRole")]
pub trait Wire: ServiceRole {
    /// `true` if messages stay the text that they came as, and nothing is made of it.
    const IS_TEXT: bool = false;

    fn decode(
        bytes: &[u8],
        calls: &dyn PendingMethods,
    ) -> Result<RxJsonRpcMessage<Self>, Malformed>;

    fn encode(message: &TxJsonRpcMessage<Self>) -> Result<Bytes, serde_json::Error>;

    /// Returns the size of a request, but for its id, in bytes of JSON.
    fn size_of(request: &Self::Req) -> usize;

    /// Decodes a message of this role itself, as another instance has encoded it.
    #[cfg(feature = "cluster")]
    fn decode_own(bytes: &[u8]) -> Result<TxJsonRpcMessage<Self>, Malformed>;
}

macro_rules! typed {
    ($role:ident, $peer:ident) => {
        impl Wire for $role {
            fn decode(
                bytes: &[u8],
                calls: &dyn PendingMethods,
            ) -> Result<RxJsonRpcMessage<Self>, Malformed> {
                typed_decoding::decode::<Self>(bytes, calls)
            }

            fn encode(message: &TxJsonRpcMessage<Self>) -> Result<Bytes, serde_json::Error> {
                typed_encoding::encode::<Self>(message).map(Bytes::from)
            }

            fn size_of(request: &Self::Req) -> usize {
                typed_encoding::size_of(request)
            }

            #[cfg(feature = "cluster")]
            fn decode_own(bytes: &[u8]) -> Result<TxJsonRpcMessage<Self>, Malformed> {
                typed_decoding::decode::<$peer>(bytes, &())
            }
        }
    };
}

typed!(RoleClient, RoleServer);
typed!(RoleServer, RoleClient);
