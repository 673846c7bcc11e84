use rmcp::{
    RoleClient, RoleServer,
    model::{
        ClientNotification, GetExtensions, InitializeResult, NotificationMetaObject, ProgressToken,
        RequestId, ServerNotification, ServerResult,
    },
    service::ServiceRole,
};
use serde::de::MapAccess;

use super::{
    method::Method,
    notification::{self, Notice},
    request, result,
};

/// An MCP role, [`RoleClient`] or [`RoleServer`], with what its messages are decoded by.
pub trait Role: ServiceRole + Peer {
    /// The method of a request that this role sends.
    fn method_of(request: &Self::Req) -> Method;

    /// The method of a request of the peer.
    fn method_of_peer(request: &Self::PeerReq) -> Method;

    /// Whether this role says here that it is initialized.
    fn is_initialized(notification: &Self::Not) -> bool;

    /// Whether the peer says here that it is initialized.
    fn is_initialized_by_peer(notification: &Self::PeerNot) -> bool;

    /// What the peer answers to `initialize`, if this is its answer.
    fn initialize_result(result: &Self::PeerResp) -> Option<&InitializeResult>;

    /// The id in a `notifications/cancelled` that this role sends.
    fn cancelled(notification: &mut Self::Not) -> Option<&mut RequestId>;

    /// The id in a `notifications/cancelled` of the peer.
    fn cancelled_by_peer(notification: &Self::PeerNot) -> Option<&RequestId>;

    /// Whose progress a `notifications/progress` of the peer tells.
    fn progress_of_peer(notification: &Self::PeerNot) -> Option<&ProgressToken>;

    /// Whose progress a `notifications/progress` tells that this role sends.
    fn progress(notification: &mut Self::Not) -> Option<&mut ProgressToken>;

    /// What a notification that this role sends says of the subscription it belongs to, and else.
    fn meta(notification: &mut Self::Not) -> Option<&mut NotificationMetaObject>;

    /// Names the request of this `id`, if `result` is that of a subscription.
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

impl Role for RoleClient {
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

impl Role for RoleServer {
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

/// What the peer of a role sends.
///
/// Each hook takes the value of the member that was just read from a map, and errs when rmcp's own
/// `Deserialize` has to judge the message.
#[expect(unnameable_types, reason = "seals Role")]
pub trait Peer: ServiceRole {
    fn request<'de, A: MapAccess<'de>>(
        method: Method,
        params: &mut A,
    ) -> Result<Self::PeerReq, A::Error>;

    fn bare_request(method: Method) -> Option<Self::PeerReq>;

    fn notification<'de, A: MapAccess<'de>>(
        notice: Notice,
        params: &mut A,
    ) -> Result<Self::PeerNot, A::Error>;

    fn bare_notification(notice: Notice) -> Option<Self::PeerNot>;

    fn result<'de, A: MapAccess<'de>>(
        method: Option<Method>,
        result: &mut A,
    ) -> Result<Self::PeerResp, A::Error>;
}

impl Peer for RoleClient {
    fn request<'de, A: MapAccess<'de>>(
        method: Method,
        params: &mut A,
    ) -> Result<Self::PeerReq, A::Error> {
        request::of_server(method, params)
    }

    fn bare_request(method: Method) -> Option<Self::PeerReq> {
        request::of_server_bare(method)
    }

    fn notification<'de, A: MapAccess<'de>>(
        notice: Notice,
        params: &mut A,
    ) -> Result<Self::PeerNot, A::Error> {
        notification::of_server(notice, params)
    }

    fn bare_notification(notice: Notice) -> Option<Self::PeerNot> {
        notification::of_server_bare(notice)
    }

    fn result<'de, A: MapAccess<'de>>(
        method: Option<Method>,
        result: &mut A,
    ) -> Result<Self::PeerResp, A::Error> {
        result.next_value_seed(result::OfServer(method))
    }
}

impl Peer for RoleServer {
    fn request<'de, A: MapAccess<'de>>(
        method: Method,
        params: &mut A,
    ) -> Result<Self::PeerReq, A::Error> {
        request::of_client(method, params)
    }

    fn bare_request(method: Method) -> Option<Self::PeerReq> {
        request::of_client_bare(method)
    }

    fn notification<'de, A: MapAccess<'de>>(
        notice: Notice,
        params: &mut A,
    ) -> Result<Self::PeerNot, A::Error> {
        notification::of_client(notice, params)
    }

    fn bare_notification(notice: Notice) -> Option<Self::PeerNot> {
        notification::of_client_bare(notice)
    }

    fn result<'de, A: MapAccess<'de>>(
        method: Option<Method>,
        result: &mut A,
    ) -> Result<Self::PeerResp, A::Error> {
        result.next_value_seed(result::OfClient(method))
    }
}
