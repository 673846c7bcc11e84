//! [`Rejection`]: the reason why a request is not upgraded, and the response.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, StatusCode,
    header::{HeaderName, RETRY_AFTER, WWW_AUTHENTICATE},
};
use http_body_util::Full;

use super::response::{HttpResponse, plain_response};
use crate::server::{
    auth::AuthError,
    registry::{event::RejectReason, refusal::Refusal},
};

/// `Retry-After` of a 503 at capacity, or while the server stops.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// Rejection of a request, with the reason that the registry counts and the response.
pub(in crate::server) struct Rejection {
    reason: RejectReason,
    pub(in crate::server) response: HttpResponse,
    /// Text of the response.
    why: Cow<'static, str>,
}

impl Rejection {
    /// Creates a rejection with a plain response.
    pub(in crate::server) fn new(
        reason: RejectReason,
        status: StatusCode,
        body: &'static str,
    ) -> Box<Self> {
        Box::new(Self { reason, response: plain_response(status, body), why: body.into() })
    }

    /// Creates a rejection whose response has this text.
    pub(in crate::server) fn with_text(
        reason: RejectReason,
        status: StatusCode,
        text: String,
    ) -> Box<Self> {
        let mut rejection = Self::new(reason, status, "");
        *rejection.response.body_mut() = Full::new(Bytes::from(text.clone()));
        rejection.why = text.into();
        rejection
    }

    /// Returns the refusal for the registry.
    pub(in crate::server) fn refusal(&self) -> Refusal<'_> {
        Refusal::of_request(self.reason, self.response.status(), &self.why)
    }

    /// Sets a header of the response.
    pub(in crate::server) fn with(mut self: Box<Self>, name: HeaderName, value: &str) -> Box<Self> {
        // A value that is not valid in a header is left out: the status says enough.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.response.headers_mut().insert(name, value);
        }
        self
    }

    /// Sets `Retry-After`, in seconds.
    pub(in crate::server) fn retry_after(self: Box<Self>, after: Duration) -> Box<Self> {
        self.with(RETRY_AFTER, &after.as_secs().to_string())
    }
}

/// Creates the 503 of a server that is stopping.
pub(in crate::server) fn stopping() -> Box<Rejection> {
    let what = "the server is stopping";
    Rejection::new(RejectReason::Stopping, StatusCode::SERVICE_UNAVAILABLE, what)
        .retry_after(RETRY_DELAY)
}

/// Creates the 503 of a server at one of its limits.
pub(in crate::server) fn at_capacity(reason: RejectReason) -> Box<Rejection> {
    let what = match reason {
        RejectReason::AddressAtCapacity => "too many connections from this address",
        _ => "the server is at capacity",
    };
    Rejection::new(reason, StatusCode::SERVICE_UNAVAILABLE, what).retry_after(RETRY_DELAY)
}

/// Creates the 400 for a request with several tokens.
pub(in crate::server) fn several_tokens() -> Box<Rejection> {
    Rejection::new(RejectReason::Unauthorized, StatusCode::BAD_REQUEST, "more than one token")
}

/// Creates the rejection of a request that the authenticator has denied.
pub(in crate::server) fn auth_rejection(denied: AuthError, has_token: bool) -> Box<Rejection> {
    match denied {
        AuthError::Unauthorized => {
            let challenge = if has_token { "Bearer error=\"invalid_token\"" } else { "Bearer" };
            auth_rejection(AuthError::Challenge(challenge.into()), has_token)
        }
        AuthError::Challenge(challenge) => {
            let what = "authentication required";
            Rejection::new(RejectReason::Unauthorized, StatusCode::UNAUTHORIZED, what)
                .with(WWW_AUTHENTICATE, &challenge)
        }
        AuthError::Forbidden => {
            Rejection::new(RejectReason::Forbidden, StatusCode::FORBIDDEN, "not allowed")
        }
        AuthError::Unavailable(after) => {
            let what = "authentication is not available";
            Rejection::new(RejectReason::Unavailable, StatusCode::SERVICE_UNAVAILABLE, what)
                .retry_after(after)
        }
    }
}
