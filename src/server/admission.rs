//! [`admit`]: the checks of an upgrade request, in their order, the cheap ones first.

use std::{net::SocketAddr, sync::Arc};

use http::request::Parts;

use super::{
    auth::{
        self, AuthError, Credentials, DynAuthenticator, Identity,
        token::{self, Token},
    },
    config::Config,
    http::{
        handshake::{self, Negotiated},
        headers::strip_handshake_headers,
        limits::{ConnectionLimit, Limits, Permit},
        pending::PendingConnections,
        rejection::{Rejection, at_capacity, auth_rejection, several_tokens, stopping},
        response::HttpResponse,
    },
    registry::event::RejectReason,
    sessions::{id::RequestedId, store::SessionStore},
};
#[cfg(feature = "cluster")]
use crate::server::cluster::relay::offer;
use crate::{layer::socket::side::Side, role::McpRole};

/// Admission of a request that is upgraded.
pub(super) struct Admission {
    /// Response with the status 101.
    pub(super) response: HttpResponse,
    pub(super) negotiated: Negotiated,
    pub(super) client: ClientInfo,
}

/// Client whose upgrade is granted.
pub(super) struct ClientInfo {
    /// Upgrade request, as handlers get to see it.
    pub(super) parts: Parts,
    pub(super) peer: Option<SocketAddr>,
    pub(super) auth_state: AuthState,
    /// Id of its session, brought or issued, if there is one.
    pub(super) requested: Option<RequestedId>,
}

/// Capacity of a server: what is limited, and what is kept.
pub(super) struct Capacity<R: McpRole> {
    pub(super) connections: Arc<ConnectionLimit>,
    /// Connections of unauthenticated clients, before the upgrade or after it.
    pub(super) pending: Arc<PendingConnections>,
    /// Sessions that outlive their connections, if there are any.
    pub(super) sessions: Option<Arc<SessionStore<R>>>,
}

impl<R: McpRole> Capacity<R> {
    /// Creates the capacity of a server with this configuration.
    pub(super) fn new(config: &Config<R>) -> Self {
        let sessions = config.sessions.clone().map(|sessions| {
            let window_bytes = config.transport.resume.window_bytes;
            let (limits, stop) = (config.transport.limits(Side::Server), config.stop.clone());
            SessionStore::new(sessions, config.instance_tag(), window_bytes, limits, stop)
        });
        #[cfg(feature = "cluster")]
        if let (Some(sessions), Some(cluster)) = (&sessions, &config.cluster) {
            let max_message = config.max_message();
            let counts = config.registry.relay_counts();
            offer::join(cluster, sessions, counts, max_message);
        }
        Self {
            connections: ConnectionLimit::new(config.limits.clone()),
            pending: PendingConnections::new(config.limits.handshakes),
            sessions,
        }
    }

    /// Creates a capacity without limits, where no session outlives its connection.
    pub(super) fn unlimited() -> Self {
        let limits = Limits::default().connections(usize::MAX);
        Self {
            connections: ConnectionLimit::new(limits),
            pending: PendingConnections::new(usize::MAX),
            sessions: None,
        }
    }
}

/// State of a client's authentication.
pub(super) enum AuthState {
    /// Done: the identity is `None` if there is no authenticator.
    Done(Option<Identity>, Permit),
    /// Unknown: the client has yet to authenticate within the connection.
    InBand(Arc<dyn DynAuthenticator>),
    /// Rejected: a limit is reached, and the client is told after the upgrade.
    RejectAfterUpgrade(RejectReason),
}

/// Admits the request of `parts` from `peer`, or rejects it.
pub(super) async fn admit<R: McpRole>(
    config: &Config<R>,
    capacity: &Capacity<R>,
    peer: Option<SocketAddr>,
    mut parts: Parts,
) -> Result<Admission, Box<Rejection>> {
    let upgrade = handshake::validate(&parts, &config.allowed, &config.transport.socket)?;
    if config.stop.is_cancelled() {
        return Err(stopping());
    }
    let token = token::of(&parts.headers, config.cookie.as_deref());
    let sessions = capacity.sessions.as_ref();
    let requested = sessions.map(|sessions| sessions.requested_id(&parts)).transpose()?.flatten();
    // A client that may return to a session is no web page, and would begin anew if it were upgraded.
    let may_return =
        upgrade.resumes() || requested.as_ref().is_some_and(|requested| !requested.is_issued());
    let full = |reason| match config.limits.reject_after_upgrade && !may_return {
        true => Ok(AuthState::RejectAfterUpgrade(reason)),
        false => Err(at_capacity(reason)),
    };
    let acquire = || capacity.connections.try_acquire(peer.map(|peer| peer.ip()));
    let admitted = |identity| match acquire() {
        Ok(permit) => Ok(AuthState::Done(identity, permit)),
        Err(reason) => full(reason),
    };
    // Before the authenticator is asked. Given back at once: until then the client takes up no place.
    let rejected = acquire().err().map(full).transpose()?;

    strip_handshake_headers(&mut parts);
    let auth_state = match (rejected, &config.authenticator) {
        (Some(rejected), _) => rejected,
        (None, None) => admitted(None)?,
        (None, Some(authenticator)) => {
            let token = token.map_err(|()| several_tokens())?;
            match authenticate(config, &**authenticator, token, &parts, peer).await? {
                Some(identity) => admitted(Some(identity))?,
                None => AuthState::InBand(authenticator.clone()),
            }
        }
    };
    // The server may have begun to stop meanwhile.
    if config.stop.is_cancelled() {
        return Err(stopping());
    }
    // A session belongs to an identity, and to a server that keeps sessions.
    // Messages as pings would be counted by one side alone.
    let may_resume = config.framing_properties().ping_message.is_none();
    let (resumes, requested) = match (sessions, &auth_state, requested) {
        (Some(sessions), AuthState::Done(identity, _), Some(requested)) => {
            let resumes = upgrade.resumes() && may_resume;
            (may_resume, Some(sessions.authorize(requested, identity.as_ref(), resumes)?))
        }
        (Some(_), AuthState::Done(..), None) => (may_resume, None),
        _ => (false, None),
    };
    // A client that resumes by secret needs no session id, and an id that leaks could be used by others.
    let requested =
        requested.filter(|requested| !(requested.is_issued() && upgrade.resumes() && may_resume));
    let is_known = matches!(auth_state, AuthState::Done(..));
    let limits = config.transport.limits(Side::Server);
    let (mut response, negotiated) = upgrade.accept(resumes, limits, is_known);
    if let Some(requested) = &requested {
        // Such a path has the cookie with and without a slash at its end (RFC 6265, section 5.1.4).
        let path = parts.uri.path().strip_suffix('/').filter(|path| !path.is_empty());
        let path = path.unwrap_or_else(|| parts.uri.path());
        requested.set_headers(&mut response, path, config.allowed.is_secure());
    }
    let client = ClientInfo { parts, peer, auth_state, requested };
    Ok(Admission { response, negotiated, client })
}

/// Authenticates the sender of a request. `None` if that is to be done within the connection.
async fn authenticate<R: McpRole>(
    config: &Config<R>,
    authenticator: &dyn DynAuthenticator,
    token: Option<Token>,
    parts: &Parts,
    peer: Option<SocketAddr>,
) -> Result<Option<Identity>, Box<Rejection>> {
    let has_token = token.is_some();
    let credentials = Credentials { token, parts: parts.clone(), peer };
    let decision = tokio::select! {
        decision = auth::verify(authenticator, credentials, config.timeout) => decision,
        () = config.stop.cancelled() => return Err(stopping()),
    };
    match decision {
        Ok(identity) => Ok(Some(identity)),
        Err(AuthError::Unauthorized | AuthError::Challenge(_)) if config.in_band && !has_token => {
            Ok(None)
        }
        Err(denied) => Err(auth_rejection(denied, has_token)),
    }
}
