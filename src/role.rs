//! [`McpRole`]: what both MCP roles have in common.

use rmcp::{
    RoleClient, RoleServer,
    model::{
        ClientNotification, GetExtensions, InitializeResult, NotificationMetaObject, ProgressToken,
        RequestId, ServerNotification, ServerResult,
    },
    service::ServiceRole,
};

use crate::decode::{method::Method, peer::Peer};

/// MCP role, [`RoleClient`] or [`RoleServer`], with what its messages are decoded by.
pub trait McpRole: ServiceRole + Peer {
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
}
