//! [`Peer`]: how the messages of the peer of a role are decoded.

use rmcp::{RoleClient, RoleServer, service::ServiceRole};
use serde::de::MapAccess;

use super::{
    method::Method,
    notification::{self, Notice},
    request, result,
};

/// Decoding of what the peer of a role sends.
///
/// The functions that take a map decode the value of the member whose key was just read. They fail
/// where rmcp's own `Deserialize` has to decide on the message.
pub(crate) trait Peer: ServiceRole {
    /// Decodes the `params` of a request.
    fn request<'de, A: MapAccess<'de>>(
        method: Method,
        params: &mut A,
    ) -> Result<Self::PeerReq, A::Error>;

    /// Builds the request of a method without `params`; `None` if it needs some.
    fn bare_request(method: Method) -> Option<Self::PeerReq>;

    /// Decodes the `params` of a notification.
    fn notification<'de, A: MapAccess<'de>>(
        notice: Notice,
        params: &mut A,
    ) -> Result<Self::PeerNot, A::Error>;

    /// Builds the notification without `params`; `None` if it needs some.
    fn bare_notification(notice: Notice) -> Option<Self::PeerNot>;

    /// Decodes the `result` of a response to a request of this `method`, if that is known.
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
