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
    Config,
    auth::{self, Credentials, Denied, Identity, token},
    config::Accepted,
    handshake::{self, Agreed, Answer, refuse},
    limit::{Permit, Places},
    registry::Cause,
    resume::{Name, Sessions},
};
use crate::{
    decode::Role,
    layer::socket::Side,
    upgrade::{MAX_MESSAGE, MAX_REQUESTS},
};

/// When they may come again for whom there was no place.
const AGAIN: Duration = Duration::from_secs(5);

/// A request that is not upgraded.
pub(super) struct Refusal {
    pub(super) cause: Cause,
    pub(super) answer: Answer,
}

impl Refusal {
    pub(super) fn new(cause: Cause, status: StatusCode, body: &'static str) -> Box<Self> {
        Box::new(Self { cause, answer: refuse(status, body) })
    }

    pub(super) fn with(mut self: Box<Self>, name: HeaderName, value: &str) -> Box<Self> {
        // What cannot stand in a header is left out: the status says enough.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.answer.headers_mut().insert(name, value);
        }
        self
    }

    pub(super) fn again(self: Box<Self>, after: Duration) -> Box<Self> {
        self.with(RETRY_AFTER, &after.as_secs().to_string())
    }
}

/// A request that is upgraded.
pub(super) struct Admitted {
    /// The 101.
    pub(super) answer: Answer,
    pub(super) agreed: Agreed,
    pub(super) guest: Guest,
}

/// Who comes in with it.
pub(super) struct Guest {
    /// The request, as handlers get to see it.
    pub(super) parts: Parts,
    pub(super) peer: Option<SocketAddr>,
    pub(super) standing: Standing,
    /// The session that it comes for, where that has a name.
    pub(super) name: Option<Name>,
}

/// What there is for those who come in.
pub(super) struct Rooms<R: Role> {
    pub(super) places: Arc<Places>,
    /// Where sessions are kept.
    pub(super) sessions: Option<Arc<Sessions<R>>>,
}

/// What is known of who comes in.
pub(super) enum Standing {
    /// It may stay: `None` where nobody is asked who it is.
    Known(Option<Identity>, Option<Permit>),
    /// It has yet to say who it is.
    Unknown,
    /// There is no place for it, as it will be told.
    Refused(Cause),
}

/// Lets in the request of `parts` from `peer`, or not. Without `rooms` there is no limit to how many are
/// let in, and no session outlives its connection.
pub(super) async fn admit<R: Role>(
    config: &Config<R>,
    rooms: Option<&Rooms<R>>,
    peer: Option<SocketAddr>,
    mut parts: Parts,
) -> Result<Admitted, Box<Refusal>> {
    let granted = handshake::check(&parts, &config.allowed, &config.layers.socket)?;
    if config.stop.is_cancelled() {
        return Err(stopping());
    }
    let take = || rooms.map(|rooms| rooms.places.take(peer.map(|peer| peer.ip()))).transpose();
    let cookie = config.cookie.as_deref();
    let token = token::of(&parts.headers, cookie);
    let sessions = rooms.and_then(|rooms| rooms.sessions.as_ref());
    let name = sessions.map(|sessions| sessions.name_of(&parts)).transpose()?.flatten();
    // Who may come back to a session is no web page, and would begin anew if it were upgraded.
    let returns = granted.resumes() || name.as_ref().is_some_and(|name| !name.is_issued());
    let full = |cause| match config.limits.refuse_upgraded && !returns {
        true => Ok(Standing::Refused(cause)),
        false => Err(full(cause)),
    };
    let known = |identity| match take() {
        Ok(permit) => Ok(Standing::Known(identity, permit)),
        Err(cause) => full(cause),
    };
    // Before anybody is asked, and given back at once: who is not yet known takes up no place.
    let refused = take().err().map(full).transpose()?;

    tidy(&mut parts);
    let standing = match (refused, &config.gate) {
        (Some(refused), _) => refused,
        (None, None) => known(None)?,
        (None, Some(gate)) => {
            let Ok(token) = token else {
                return Err(several_tokens());
            };
            let has_token = token.is_some();
            let credentials = Credentials { token, parts: parts.clone(), peer };
            let asked = tokio::select! {
                asked = auth::ask(&**gate, credentials, config.timeout) => asked,
                () = config.stop.cancelled() => return Err(stopping()),
            };
            match asked {
                Ok(identity) => known(Some(identity))?,
                Err(Denied::Unauthorized | Denied::Challenge(_))
                    if config.in_band && !has_token =>
                {
                    Standing::Unknown
                }
                Err(denied) => return Err(deny(denied, has_token)),
            }
        }
    };
    // It may have begun to stop while somebody was asked.
    if config.stop.is_cancelled() {
        return Err(stopping());
    }
    // A session belongs to somebody, and to a server that can find it again.
    let (resumes, name) = match (sessions, &standing, name) {
        (Some(sessions), Standing::Known(identity, _), Some(name)) => {
            (true, Some(sessions.check(name, identity.as_ref())?))
        }
        (Some(_), Standing::Known(..), None) => (true, None),
        _ => (false, None),
    };
    // To who has a secret to show a name is of no use, but to everybody else who learns it.
    let name = name.filter(|name| !(name.is_issued() && granted.resumes()));
    let is_known = matches!(standing, Standing::Known(..));
    let limits = config.layers.limits(Side::Server);
    let (mut answer, agreed) = granted.answer(resumes, limits, is_known);
    if let Some(name) = &name {
        // Such a path has the cookie with and without a slash at its end (RFC 6265, section 5.1.4).
        let path = parts.uri.path().strip_suffix('/').filter(|path| !path.is_empty());
        let path = path.unwrap_or_else(|| parts.uri.path());
        name.announce(&mut answer, path, config.allowed.is_secure());
    }
    Ok(Admitted { answer, agreed, guest: Guest { parts, peer, standing, name } })
}

fn stopping() -> Box<Refusal> {
    let what = "the server is stopping";
    Refusal::new(Cause::Stopping, StatusCode::SERVICE_UNAVAILABLE, what).again(AGAIN)
}

fn full(cause: Cause) -> Box<Refusal> {
    let what = match cause {
        Cause::AddressAtCapacity => "too many connections from this address",
        _ => "the server is at capacity",
    };
    Refusal::new(cause, StatusCode::SERVICE_UNAVAILABLE, what).again(AGAIN)
}

pub(super) fn several_tokens() -> Box<Refusal> {
    Refusal::new(Cause::Unauthorized, StatusCode::BAD_REQUEST, "more than one token")
}

/// Returns the response to a request that was denied, with or without a token.
pub(super) fn deny(denied: Denied, has_token: bool) -> Box<Refusal> {
    match denied {
        Denied::Unauthorized => {
            let challenge = if has_token { "Bearer error=\"invalid_token\"" } else { "Bearer" };
            deny(Denied::Challenge(challenge.into()), has_token)
        }
        Denied::Challenge(challenge) => {
            let what = "authentication required";
            Refusal::new(Cause::Unauthorized, StatusCode::UNAUTHORIZED, what)
                .with(WWW_AUTHENTICATE, &challenge)
        }
        Denied::Forbidden => Refusal::new(Cause::Forbidden, StatusCode::FORBIDDEN, "not allowed"),
        Denied::Unavailable(after) => {
            let what = "authentication is not available";
            Refusal::new(Cause::Unavailable, StatusCode::SERVICE_UNAVAILABLE, what).again(after)
        }
    }
}

/// Headers whose values must not be logged.
const SECRET: [HeaderName; 3] = [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE];

/// Marks the headers of a request that must not be logged as sensitive.
pub(super) fn conceal(headers: &mut HeaderMap) {
    for (_, value) in headers.iter_mut().filter(|(name, _)| SECRET.contains(name)) {
        value.set_sensitive(true);
    }
}

/// Takes out of a request what was for the handshake alone, marks what must not be printed, and copies
/// the rest: as hyper has read it, each small value holds on to the whole buffer.
pub(super) fn tidy(parts: &mut Parts) {
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
    let stays = |name: &HeaderName| !HANDSHAKE.contains(name);
    // No larger than it has to be: a session holds it, and each of its requests a copy.
    let names = parts.headers.keys().filter(|name| stays(name)).count();
    let mut headers = HeaderMap::with_capacity(names);
    for (name, value) in parts.headers.iter().filter(|(name, _)| stays(name)) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_request_has_no_room_for_what_is_not() {
        let mut request = http::Request::new(());
        for name in [CONNECTION, UPGRADE, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, MAX_MESSAGE] {
            request.headers_mut().insert(name, HeaderValue::from_static("x"));
        }
        request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
        let (mut parts, ()) = request.into_parts();
        tidy(&mut parts);
        assert_eq!(parts.headers.len(), 1);
        assert!(parts.headers[AUTHORIZATION].is_sensitive());
        assert!(parts.headers.capacity() <= 3, "{}", parts.headers.capacity());
    }
}
