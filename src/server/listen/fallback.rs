//! [`HttpService`]: an HTTP service beside the WebSockets.

use std::{convert::Infallible, future::poll_fn, pin::Pin};

use bytes::Bytes;
use http::{Request, Response};
use tower_service::Service;

use crate::server::http::body::Body;

/// Tower service that answers HTTP requests: axum's `Router`, rmcp's `StreamableHttpService`.
///
/// Implemented for every [`Service`] of `Request<Body>` that is `Clone + Send + Sync`, answers with
/// a [`http_body::Body`] of [`Bytes`], and never fails. A clone of it answers each request.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no service that answers HTTP requests",
    note = "it must be a `tower_service::Service<http::Request<mcp_ws_transport::server::Body>, \
            Response = http::Response<_>, Error = Infallible>` that is `Clone + Send + Sync + 'static`, \
            as an axum `Router` is"
)]
pub trait HttpService: Send + Sync + 'static {
    #[doc(hidden)]
    fn respond(&self, request: Request<Body>) -> Responding;
}

type Responding = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

impl<T, B> HttpService for T
where
    T: Service<Request<Body>, Response = Response<B>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn respond(&self, request: Request<Body>) -> Responding {
        let mut service = self.clone();
        Box::pin(async move {
            let ready = poll_fn(|cx| service.poll_ready(cx)).await;
            let Ok(response) = match ready {
                Ok(()) => service.call(request).await,
                Err(never) => match never {},
            };
            response.map(Body::new)
        })
    }
}

/// Boxed HTTP service beside the WebSockets, guarded or not.
pub(in crate::server) struct BoxHttpService {
    service: Box<dyn HttpService>,
    is_guarded: bool,
}

impl BoxHttpService {
    /// Boxes a service before which the checks of an upgrade are made.
    pub(in crate::server) fn guarded(service: impl HttpService) -> Self {
        Self { service: Box::new(service), is_guarded: true }
    }

    /// Boxes a service that answers every request.
    pub(in crate::server) fn unguarded(service: impl HttpService) -> Self {
        Self { service: Box::new(service), is_guarded: false }
    }

    /// Returns `true` if the checks of an upgrade are made before the service.
    pub(in crate::server) fn is_guarded(&self) -> bool {
        self.is_guarded
    }

    /// Returns the response of the service.
    pub(in crate::server) async fn respond(&self, request: Request<Body>) -> Response<Body> {
        self.service.respond(request).await
    }
}
