//! [`HealthPage`]: the health of a server as JSON, for whatever watches it.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use http::{Request, Response, StatusCode, header::CONTENT_TYPE};
use mcp_ws_transport::{
    relay,
    server::{Body, Registry},
};
use tower_service::Service;

/// Service that answers `/health`, and nothing else.
#[derive(Clone)]
pub(crate) struct HealthPage {
    pub(crate) registry: Registry<relay::Server>,
}

impl Service<Request<Body>> for HealthPage {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut response = Response::new(String::new());
        if request.uri().path() != "/health" {
            *response.status_mut() = StatusCode::NOT_FOUND;
            *response.body_mut() = "Not Found".into();
        } else if let Ok(health) = serde_json::to_string(&self.registry.health()) {
            response
                .headers_mut()
                .insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
            *response.body_mut() = health;
        }
        ready(Ok(response))
    }
}
