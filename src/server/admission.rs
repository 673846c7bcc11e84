//! [`admit`]: the checks of an upgrade request in the order in which they are made, the cheap ones
//! first.

use std::{net::SocketAddr, sync::Arc};

use http::request::Parts;

use super::{
    auth::{self, AuthError, Credentials, Identity, token},
    config::Config,
    http::{
        handshake::{self, Negotiated},
        headers::strip_handshake_headers,
        limits::{ConnectionLimit, Permit},
        rejection::{Rejection, at_capacity, auth_rejection, several_tokens, stopping},
        response::HttpResponse,
    },
    registry::event::RejectReason,
    sessions::{id::RequestedId, store::SessionStore},
};
use crate::{layer::socket::side::Side, role::McpRole};

/// Admission of a request that is upgraded.
pub(super) struct Admission {
    /// The 101.
    pub(super) response: HttpResponse,
    pub(super) negotiated: Negotiated,
    pub(super) client: ClientInfo,
}

/// Client of an upgraded request.
pub(super) struct ClientInfo {
    /// The request, as handlers get to see it.
    pub(super) parts: Parts,
    pub(super) peer: Option<SocketAddr>,
    pub(super) auth_state: AuthState,
    /// Id of the session that it asks for, if there is one.
    pub(super) requested: Option<RequestedId>,
}

/// Places of a server, for connections and for sessions.
pub(super) struct Capacity<R: McpRole> {
    pub(super) connections: Arc<ConnectionLimit>,
    /// Where sessions are kept.
    pub(super) sessions: Option<Arc<SessionStore<R>>>,
}

/// State of a client's authentication.
pub(super) enum AuthState {
    /// Done: the identity is `None` if there is no authenticator.
    Done(Option<Identity>, Option<Permit>),
    /// To be done within the connection.
    InBand,
    /// Of no use: the client is rejected after the upgrade, for want of a place.
    RejectAfterUpgrade(RejectReason),
}

/// Admits the request of `parts` from `peer`, or rejects it. Without `capacity` there is no limit to how many are
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
    // A client that resumes by secret needs no session id, and an id that leaks could be used by others.
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
