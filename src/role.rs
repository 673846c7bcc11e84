//! [`McpRole`]: what both MCP roles have in common.

use rmcp::{
    ErrorData, RoleClient, RoleServer,
    model::{
        ClientNotification, ClientRequest, ClientResult, CustomRequest, CustomResult,
        GetExtensions, InitializeResult, NotificationMetaObject, ProgressToken, RequestId,
        ServerNotification, ServerRequest, ServerResult,
    },
    service::ServiceRole,
};
use serde_json::Value;

use crate::{decode::method::Method, wire::Wire};

/// MCP role, with what its messages are decoded by.
///
/// [`RoleClient`] and [`RoleServer`] have rmcp's types; [`relay::Client`](crate::relay::Client) and
/// [`relay::Server`](crate::relay::Server) keep messages as they come.
pub trait McpRole: ServiceRole + Wire {
    /// Returns the method of a request that this role sends.
    fn method_of(request: &Self::Req) -> Method;

    /// Returns the method of a request of the peer.
    #[doc(hidden)]
    fn method_of_peer(request: &Self::PeerReq) -> Method;

    /// Returns `true` if this role says here that it is initialized.
    #[doc(hidden)]
    fn is_initialized(notification: &Self::Not) -> bool;

    /// Returns `true` if the peer says here that it is initialized.
    #[doc(hidden)]
    fn is_initialized_by_peer(notification: &Self::PeerNot) -> bool;

    /// Returns the error in an answer of the peer that is kept as it came.
    #[doc(hidden)]
    fn error_of_peer(_: &Self::PeerResp) -> Option<ErrorData> {
        None
    }

    /// Returns the peer's answer to `initialize`, if this is it.
    #[doc(hidden)]
    fn initialize_result(result: &Self::PeerResp) -> Option<&InitializeResult>;

    /// Returns the id in a `notifications/cancelled` that this role sends.
    #[doc(hidden)]
    fn cancelled(notification: &mut Self::Not) -> Option<&mut RequestId>;

    /// Returns the id in a `notifications/cancelled` of the peer.
    #[doc(hidden)]
    fn cancelled_by_peer(notification: &Self::PeerNot) -> Option<&RequestId>;

    /// Returns the token of a `notifications/progress` of the peer.
    #[doc(hidden)]
    fn progress_of_peer(notification: &Self::PeerNot) -> Option<&ProgressToken>;

    /// Returns the token of a `notifications/progress` that this role sends.
    #[doc(hidden)]
    fn progress(notification: &mut Self::Not) -> Option<&mut ProgressToken>;

    /// Returns the metadata of a notification that this role sends, such as its subscription.
    #[doc(hidden)]
    fn meta(notification: &mut Self::Not) -> Option<&mut NotificationMetaObject>;

    /// Sets the subscription id to `id`, if `result` is that of a subscription.
    #[doc(hidden)]
    fn subscribed(result: &mut Self::Resp, id: &RequestId);

    /// Returns the token in a request with the method `authenticate`; `None` for any other.
    #[doc(hidden)]
    fn authenticate(request: &Self::PeerReq) -> Option<Option<String>>;

    /// Returns `value` as the result of a request.
    #[doc(hidden)]
    fn custom_result(value: Value) -> Self::Resp;
}

/// Method by which a client authenticates within the connection.
pub(crate) const AUTHENTICATE: &str = "authenticate";

/// Returns the token in a custom request, if its method is `authenticate`.
fn token_of(request: &CustomRequest) -> Option<Option<String>> {
    let is_it = request.method == AUTHENTICATE;
    let token = || request.params.as_ref()?.get("token")?.as_str().map(str::to_owned);
    is_it.then(token)
}

macro_rules! cancelled {
    ($own:ident, $peer:ident) => {
        fn cancelled(notification: &mut $own) -> Option<&mut RequestId> {
            match notification {
                $own::CancelledNotification(cancelled) => cancelled.params.request_id.as_mut(),
                _ => None,
            }
        }

        fn progress_of_peer(notification: &$peer) -> Option<&ProgressToken> {
            match notification {
                $peer::ProgressNotification(progress) => Some(&progress.params.progress_token),
                _ => None,
            }
        }

        fn progress(notification: &mut $own) -> Option<&mut ProgressToken> {
            match notification {
                $own::ProgressNotification(progress) => Some(&mut progress.params.progress_token),
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

impl McpRole for RoleClient {
    fn method_of(request: &Self::Req) -> Method {
        request.into()
    }

    fn method_of_peer(request: &Self::PeerReq) -> Method {
        request.into()
    }

    fn is_initialized(notification: &Self::Not) -> bool {
        matches!(notification, ClientNotification::InitializedNotification(_))
    }

    fn is_initialized_by_peer(_: &Self::PeerNot) -> bool {
        false
    }

    fn initialize_result(result: &Self::PeerResp) -> Option<&InitializeResult> {
        match result {
            ServerResult::InitializeResult(result) => Some(result),
            _ => None,
        }
    }

    cancelled!(ClientNotification, ServerNotification);

    fn meta(_: &mut Self::Not) -> Option<&mut NotificationMetaObject> {
        None
    }

    fn subscribed(_: &mut Self::Resp, _: &RequestId) {}

    fn authenticate(request: &ServerRequest) -> Option<Option<String>> {
        match request {
            ServerRequest::CustomRequest(custom) => token_of(custom),
            _ => None,
        }
    }

    fn custom_result(value: Value) -> ClientResult {
        ClientResult::CustomResult(CustomResult(value))
    }
}

impl McpRole for RoleServer {
    fn method_of(request: &Self::Req) -> Method {
        request.into()
    }

    fn method_of_peer(request: &Self::PeerReq) -> Method {
        request.into()
    }

    fn is_initialized(_: &Self::Not) -> bool {
        false
    }

    fn is_initialized_by_peer(notification: &Self::PeerNot) -> bool {
        matches!(notification, ClientNotification::InitializedNotification(_))
    }

    fn initialize_result(_: &Self::PeerResp) -> Option<&InitializeResult> {
        None
    }

    cancelled!(ServerNotification, ClientNotification);

    fn meta(notification: &mut Self::Not) -> Option<&mut NotificationMetaObject> {
        notification.extensions_mut().get_mut()
    }

    fn subscribed(result: &mut Self::Resp, id: &RequestId) {
        if let ServerResult::SubscriptionsListenResult(result) = result {
            result.meta.set_subscription_id(id.clone());
        }
    }

    fn authenticate(request: &ClientRequest) -> Option<Option<String>> {
        match request {
            ClientRequest::CustomRequest(custom) => token_of(custom),
            _ => None,
        }
    }

    fn custom_result(value: Value) -> ServerResult {
        ServerResult::CustomResult(CustomResult(value))
    }
}
