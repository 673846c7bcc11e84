//! Whether a request may be upgraded: the checks in the order in which they are made, the cheap ones
//! first, and what is answered instead.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{
    Extensions, HeaderMap, HeaderValue, StatusCode,
    header::{
        AUTHORIZATION, CONNECTION, COOKIE, HeaderName, PROXY_AUTHORIZATION, RETRY_AFTER,
        SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        UPGRADE, WWW_AUTHENTICATE,
    },
    request::Parts,
};

use super::{
    auth::{self, AuthError, Credentials, Identity, token},
    config::{Accepted, Config},
    handshake::{self, HttpResponse, Negotiated, plain_response},
    limit::{ConnectionLimit, Permit},
    registry::event::RejectReason,
    resume::{SessionStore, name::RequestedId},
};
use crate::{
    layer::socket::Side,
    role::McpRole,
    upgrade::{MAX_MESSAGE, MAX_REQUESTS},
};

/// When they may come again for whom there was no place.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// A request that is not upgraded.
pub(super) struct Rejection {
    pub(super) reason: RejectReason,
    pub(super) response: HttpResponse,
}

impl Rejection {
    pub(super) fn new(reason: RejectReason, status: StatusCode, body: &'static str) -> Box<Self> {
        Box::new(Self { reason, response: plain_response(status, body) })
    }

    pub(super) fn with(mut self: Box<Self>, name: HeaderName, value: &str) -> Box<Self> {
        // What cannot stand in a header is left out: the status says enough.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.response.headers_mut().insert(name, value);
        }
        self
    }

    pub(super) fn retry_after(self: Box<Self>, after: Duration) -> Box<Self> {
        self.with(RETRY_AFTER, &after.as_secs().to_string())
    }
}

/// A request that is upgraded.
pub(super) struct Admission {
    /// The 101.
    pub(super) response: HttpResponse,
    pub(super) negotiated: Negotiated,
    pub(super) client: ClientInfo,
}

/// Who comes in with it.
pub(super) struct ClientInfo {
    /// The request, as handlers get to see it.
    pub(super) parts: Parts,
    pub(super) peer: Option<SocketAddr>,
    pub(super) auth_state: AuthState,
    /// The session that it comes for, where that has a name.
    pub(super) requested: Option<RequestedId>,
}

/// What there is for those who come in.
pub(super) struct Capacity<R: McpRole> {
    pub(super) connections: Arc<ConnectionLimit>,
    /// Where sessions are kept.
    pub(super) sessions: Option<Arc<SessionStore<R>>>,
}

/// What is known of who comes in.
pub(super) enum AuthState {
    /// It may stay: `None` where nobody is asked who it is.
    Done(Option<Identity>, Option<Permit>),
    /// It has yet to say who it is.
    InBand,
    /// There is no place for it, as it will be told.
    RejectAfterUpgrade(RejectReason),
}

/// Lets in the request of `parts` from `peer`, or not. Without `capacity` there is no limit to how many are
/// let in, and no session outlives its connection.
pub(super) async fn admit<R: McpRole>(
    config: &Config<R>,
    capacity: Option<&Capacity<R>>,
    peer: Option<SocketAddr>,
    mut parts: Parts,
) -> Result<Admission, Box<Rejection>> {
    let upgrade = handshake::validate(&parts, &config.allowed, &config.transport.socket)?;
    if config.stop.is_cancelled() {
        return Err(stopping());
    }
    let take = || {
        capacity
            .map(|capacity| capacity.connections.try_acquire(peer.map(|peer| peer.ip())))
            .transpose()
    };
    let cookie = config.cookie.as_deref();
    let token = token::of(&parts.headers, cookie);
    let sessions = capacity.and_then(|capacity| capacity.sessions.as_ref());
    let requested = sessions.map(|sessions| sessions.requested_id(&parts)).transpose()?.flatten();
    // Who may come back to a session is no web page, and would begin anew if it were upgraded.
    let returns =
        upgrade.resumes() || requested.as_ref().is_some_and(|requested| !requested.is_issued());
    let full = |reason| match config.limits.reject_after_upgrade && !returns {
        true => Ok(AuthState::RejectAfterUpgrade(reason)),
        false => Err(at_capacity(reason)),
    };
    let known = |identity| match take() {
        Ok(permit) => Ok(AuthState::Done(identity, permit)),
        Err(reason) => full(reason),
    };
    // Before anybody is asked, and given back at once: who is not yet known takes up no place.
    let refused = take().err().map(full).transpose()?;

    strip_handshake_headers(&mut parts);
    let auth_state = match (refused, &config.authenticator) {
        (Some(refused), _) => refused,
        (None, None) => known(None)?,
        (None, Some(authenticator)) => {
            let Ok(token) = token else {
                return Err(several_tokens());
            };
            let has_token = token.is_some();
            let credentials = Credentials { token, parts: parts.clone(), peer };
            let asked = tokio::select! {
                asked = auth::verify(&**authenticator, credentials, config.timeout) => asked,
                () = config.stop.cancelled() => return Err(stopping()),
            };
            match asked {
                Ok(identity) => known(Some(identity))?,
                Err(AuthError::Unauthorized | AuthError::Challenge(_))
                    if config.in_band && !has_token =>
                {
                    AuthState::InBand
                }
                Err(denied) => return Err(auth_rejection(denied, has_token)),
            }
        }
    };
    // It may have begun to stop while somebody was asked.
    if config.stop.is_cancelled() {
        return Err(stopping());
    }
    // A session belongs to somebody, and to a server that can find it again.
    let (resumes, requested) = match (sessions, &auth_state, requested) {
        (Some(sessions), AuthState::Done(identity, _), Some(requested)) => {
            (true, Some(sessions.authorize(requested, identity.as_ref())?))
        }
        (Some(_), AuthState::Done(..), None) => (true, None),
        _ => (false, None),
    };
    // To who has a secret to show a name is of no use, but to everybody else who learns it.
    let requested = requested.filter(|requested| !(requested.is_issued() && upgrade.resumes()));
    let is_known = matches!(auth_state, AuthState::Done(..));
    let limits = config.transport.limits(Side::Server);
    let (mut response, negotiated) = upgrade.accept(resumes, limits, is_known);
    if let Some(requested) = &requested {
        // Such a path has the cookie with and without a slash at its end (RFC 6265, section 5.1.4).
        let path = parts.uri.path().strip_suffix('/').filter(|path| !path.is_empty());
        let path = path.unwrap_or_else(|| parts.uri.path());
        requested.set_headers(&mut response, path, config.allowed.is_secure());
    }
    Ok(Admission {
        response,
        negotiated,
        client: ClientInfo { parts, peer, auth_state, requested },
    })
}

fn stopping() -> Box<Rejection> {
    let what = "the server is stopping";
    Rejection::new(RejectReason::Stopping, StatusCode::SERVICE_UNAVAILABLE, what)
        .retry_after(RETRY_DELAY)
}

fn at_capacity(reason: RejectReason) -> Box<Rejection> {
    let what = match reason {
        RejectReason::AddressAtCapacity => "too many connections from this address",
        _ => "the server is at capacity",
    };
    Rejection::new(reason, StatusCode::SERVICE_UNAVAILABLE, what).retry_after(RETRY_DELAY)
}

pub(super) fn several_tokens() -> Box<Rejection> {
    Rejection::new(RejectReason::Unauthorized, StatusCode::BAD_REQUEST, "more than one token")
}

/// Returns the response to a request that was denied, with or without a token.
pub(super) fn auth_rejection(denied: AuthError, has_token: bool) -> Box<Rejection> {
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

/// Headers whose values must not be logged.
const SECRET: [HeaderName; 3] = [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE];

/// Marks the headers of a request that must not be logged as sensitive.
pub(super) fn mark_sensitive(headers: &mut HeaderMap) {
    for (_, value) in headers.iter_mut().filter(|(name, _)| SECRET.contains(name)) {
        value.set_sensitive(true);
    }
}

/// Takes out of a request what was for the handshake alone, marks what must not be printed, and copies
/// the rest: as hyper has read it, each small value holds on to the whole buffer.
pub(super) fn strip_handshake_headers(parts: &mut Parts) {
    const HANDSHAKE: [HeaderName; 8] = [
        MAX_MESSAGE,
        MAX_REQUESTS,
        CONNECTION,
        UPGRADE,
        SEC_WEBSOCKET_EXTENSIONS,
        SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION,
    ];
    let mut headers = HeaderMap::with_capacity(parts.headers.keys_len());
    for (name, value) in parts.headers.iter().filter(|(name, _)| !HANDSHAKE.contains(name)) {
        if let Ok(mut copy) = HeaderValue::from_bytes(value.as_bytes()) {
            copy.set_sensitive(value.is_sensitive() || SECRET.contains(name));
            headers.append(name.clone(), copy);
        }
    }
    parts.headers = headers;
    if let Ok(uri) = parts.uri.to_string().try_into() {
        parts.uri = uri;
    }
    parts.extensions.remove::<Accepted>();
    if parts.extensions.is_empty() {
        // Even an empty map would be cloned for each request.
        parts.extensions = Extensions::new();
    }
}
