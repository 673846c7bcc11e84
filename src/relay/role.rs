//! [`Client`] and [`Server`]: the MCP roles whose messages stay text.

use std::convert::Infallible;

use bytes::Bytes;
use rmcp::{
    ErrorData,
    model::{GetMeta, InitializeResult, NotificationMetaObject, ProgressToken, RequestId},
    service::ServiceRole,
};
use serde_json::Value;

use super::{
    message::{About, RawMessage, RawNotification, RawRequest, RawResponse},
    parse::parse,
    write::write,
};
use crate::{
    decode::{PendingMethods, json::Reader, malformed::Malformed, method::Method},
    role::{AUTHENTICATE, McpRole},
    wire::Wire,
};

/// Role of an MCP client: its [`RawMessage`]s stay the text that they came as.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "a name for a type parameter")]
pub struct Client;

/// Role of an MCP server: its [`RawMessage`]s stay the text that they came as.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "a name for a type parameter")]
pub struct Server;

/// Role whose messages stay text: [`Client`] or [`Server`].
pub trait RelayRole:
    McpRole<
        Req = RawRequest,
        Resp = RawResponse,
        Not = RawNotification,
        PeerReq = RawRequest,
        PeerResp = RawResponse,
        PeerNot = RawNotification,
    >
{
}

macro_rules! roles {
    ($($role:ident: $is_client:literal,)*) => {$(
        impl ServiceRole for $role {
            type Req = RawRequest;
            type Resp = RawResponse;
            type Not = RawNotification;
            type PeerReq = RawRequest;
            type PeerResp = RawResponse;
            type PeerNot = RawNotification;
            type InitializeError = Infallible;
            type Info = ();
            type PeerInfo = ();
            const IS_CLIENT: bool = $is_client;
        }

        impl RelayRole for $role {}

        impl Wire for $role {
            const IS_TEXT: bool = true;

            fn decode(
                bytes: &[u8],
                calls: &dyn PendingMethods,
            ) -> Result<RawMessage, Malformed> {
                // Copied: a message that waits would keep the whole buffer that it was read into.
                parse(&Bytes::copy_from_slice(bytes), calls)
            }

            fn encode(message: &RawMessage) -> Result<Bytes, serde_json::Error> {
                write(message)
            }

            fn size_of(request: &RawRequest) -> usize {
                request.source.text.len()
            }

            #[cfg(feature = "cluster")]
            fn decode_own(bytes: &[u8]) -> Result<RawMessage, Malformed> {
                parse(&Bytes::copy_from_slice(bytes), &())
            }
        }

        impl McpRole for $role {
            fn method_of(request: &RawRequest) -> Method {
                request.method
            }

            fn method_of_peer(request: &RawRequest) -> Method {
                request.method
            }

            fn is_initialized(notification: &RawNotification) -> bool {
                $is_client && matches!(notification.about, About::Initialized)
            }

            fn is_initialized_by_peer(notification: &RawNotification) -> bool {
                !$is_client && matches!(notification.about, About::Initialized)
            }

            fn error_of_peer(response: &RawResponse) -> Option<ErrorData> {
                response.error()
            }

            fn initialize_result(response: &RawResponse) -> Option<&InitializeResult> {
                response.initialize.as_deref()
            }

            fn cancelled(notification: &mut RawNotification) -> Option<&mut RequestId> {
                match &mut notification.about {
                    About::Cancelled(id, _) => Some(id),
                    _ => None,
                }
            }

            fn cancelled_by_peer(notification: &RawNotification) -> Option<&RequestId> {
                match &notification.about {
                    About::Cancelled(id, _) => Some(id),
                    _ => None,
                }
            }

            fn progress_of_peer(notification: &RawNotification) -> Option<&ProgressToken> {
                match &notification.about {
                    About::Progress(token, _) => Some(token),
                    _ => None,
                }
            }

            fn progress(notification: &mut RawNotification) -> Option<&mut ProgressToken> {
                match &mut notification.about {
                    About::Progress(token, _) => Some(token),
                    _ => None,
                }
            }

            fn meta(notification: &mut RawNotification) -> Option<&mut NotificationMetaObject> {
                (!notification.subscription.is_empty()).then(|| notification.get_meta_mut())
            }

            /// Does nothing: the text gets the id when it is written.
            fn subscribed(_: &mut RawResponse, _: &RequestId) {}

            fn authenticate(request: &RawRequest) -> Option<Option<String>> {
                if request.method != Method::Other || request.method() != AUTHENTICATE {
                    return None;
                }
                let mut token = None;
                Reader::new(request.params().unwrap_or_default()).object(|name, value| {
                    if name == "token" {
                        token = value;
                    }
                });
                Some(token.and_then(|token| token.parse()))
            }

            fn custom_result(value: Value) -> RawResponse {
                RawResponse::new(&value)
            }
        }
    )*};
}

roles! {
    Client: true,
    Server: false,
}
