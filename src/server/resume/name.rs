//! The id by which a client that does not speak the extension comes back to its session.

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{COOKIE, HeaderName, SEC_WEBSOCKET_PROTOCOL, SET_COOKIE},
    request::Parts,
};

use percent_encoding::percent_decode_str;

use super::slot::Claim;
use crate::{
    layer::resume::SessionId,
    server::{door::Refusal, handshake::Answer, registry::Cause},
    upgrade::elements,
};

/// Its name in a query and in a cookie.
const NAME: &str = "mcp_session_id";

/// In which header of the answer it stands.
const HEADER: HeaderName = HeaderName::from_static("mcp-session-id");

/// What begins a subprotocol that is a session id (SEP-1288).
const PREFIX: &str = "mcp.session-id.";

/// By what name clients come back to their sessions that do not speak
/// [`mcp.resume.v1`](crate::layer::resume::protocol).
///
/// They bring it as `mcp_session_id` in the query of the URL, else as a subprotocol
/// `mcp.session-id.<id>`, else in a cookie `mcp_session_id`. It is 1 to 128 of the characters
/// `A-Z a-z 0-9 - . _ ~`, and belongs to the identity that uses it first: 403 for everyone else. Where
/// nobody is authenticated, whoever knows it has the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SessionIds {
    /// A client must bring one: 400 without.
    Required,
    /// A client that brings none is given one, in the header `mcp-session-id` of the 101 and as a
    /// cookie, and has 5 s at most to come back by it for the first time, since most never do. The
    /// default.
    #[default]
    Issued,
    /// There are none: for such clients the connection is the session.
    None,
}

/// The name under which somebody comes.
#[derive(Debug, Clone)]
pub(in crate::server) struct Name {
    pub(in crate::server) id: SessionId,
    /// It was made for them just now.
    issued: bool,
    /// A browser has sent it by itself: it need not be this page's own.
    pub(super) ambient: bool,
}

impl Name {
    /// What the request of these `parts` brings, or is given, under this `policy`.
    pub(super) fn of(parts: &Parts, policy: SessionIds) -> Result<Option<Self>, Box<Refusal>> {
        let (brought, ambient) = match policy {
            SessionIds::None => return Ok(None),
            _ => match in_query(parts).or_else(|| in_offer(&parts.headers)) {
                Some(id) => (Some(id), false),
                None => (in_cookie(&parts.headers), true),
            },
        };
        match brought.map(SessionId::try_from) {
            Some(Ok(id)) => Ok(Some(Self { id, issued: false, ambient })),
            Some(Err(_)) => Err(refuse("a session id is 1 to 128 unreserved characters")),
            None if policy == SessionIds::Required => Err(refuse("mcp_session_id is required")),
            None => Ok(Some(Self::issue())),
        }
    }

    pub(super) fn issue() -> Self {
        Self { id: SessionId::random(), issued: true, ambient: false }
    }

    /// What it is worth to a client that does not speak the extension.
    pub(super) fn claim(&self) -> Claim {
        if self.issued { Claim::Hearsay } else { Claim::Name }
    }

    /// Tells it to whom it was given.
    pub(in crate::server) fn announce(&self, answer: &mut Answer, path: &str, secure: bool) {
        if !self.issued {
            return;
        }
        let secure = if secure { "; Secure" } else { "" };
        let path = if path.contains(';') { "/" } else { path };
        let id = self.id.as_str();
        let cookie = format!("{NAME}={id}; Path={path}; HttpOnly; SameSite=Strict{secure}");
        for (name, value) in [(HEADER, id.to_owned()), (SET_COOKIE, cookie)] {
            if let Ok(mut value) = HeaderValue::try_from(value) {
                value.set_sensitive(true);
                answer.headers_mut().insert(name, value);
            }
        }
    }
}

fn refuse(what: &'static str) -> Box<Refusal> {
    Refusal::new(Cause::SessionId, StatusCode::BAD_REQUEST, what)
}

fn in_query(parts: &Parts) -> Option<String> {
    let mut pairs = parts.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    let (_, id) = pairs.find(|(key, _)| *key == NAME)?;
    Some(percent_decode_str(id).decode_utf8_lossy().into_owned())
}

fn in_offer(headers: &HeaderMap) -> Option<String> {
    let mut offers = elements(headers, SEC_WEBSOCKET_PROTOCOL);
    offers.find_map(|offer| offer.strip_prefix(PREFIX)).map(str::to_owned)
}

fn in_cookie(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut pairs =
        lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs
        .find(|(key, value)| *key == NAME && !value.is_empty())
        .map(|(_, id)| id.trim_matches('"').to_owned())
}
