//! [`RequestedId`]: the id by which a client that does not speak the extension comes back to its session.

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{COOKIE, HeaderName, SEC_WEBSOCKET_PROTOCOL, SET_COOKIE},
    request::Parts,
};

use percent_encoding::percent_decode_str;

use crate::{
    error::{CloseCode, CloseReason, LinkError},
    handshake::headers::{SESSION, SESSION_ID as NAME, elements},
    layer::resume::secret::SessionId,
    server::{
        http::{rejection::Rejection, response::HttpResponse},
        registry::event::RejectReason,
    },
};

/// Header of the response that names it.
const HEADER: HeaderName = HeaderName::from_static("mcp-session-id");

/// Policy for the ids by which clients come back to their sessions that do not speak
/// [`mcp.resume.v1`](crate::guide::resume_v1).
///
/// They bring it as `mcp_session_id` in the query of the URL, else as a subprotocol
/// `mcp.session-id.<id>`, else in a cookie `mcp_session_id`. It is 1 to 128 of the characters
/// `A-Z a-z 0-9 - . _ ~`, and belongs to the identity that uses it first: 403 for everyone else. Where
/// nobody is authenticated, whoever knows it has the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SessionIdPolicy {
    /// Brought by every client: 400 without.
    Required,
    /// Given to a client that brings none and does not speak the extension, in the header
    /// `mcp-session-id` of the 101 and as a cookie. It has 5 s at most to come back by it for the first
    /// time, since most never do. The default.
    #[default]
    Issued,
    /// Not used: for such clients the connection is the session.
    None,
}

/// Means by which a client can come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum ReturnsBy {
    /// The secret: it speaks the extension.
    Secret,
    /// The id of its session, which it knows.
    KnownId,
    /// Issued id, which it has not yet shown to have noticed.
    IssuedId,
}

/// Id of a session that a client asks for, or is given.
#[derive(Debug, Clone)]
pub(in crate::server) struct RequestedId {
    pub(in crate::server) id: SessionId,
    /// `true` if it was made just now.
    issued: bool,
    /// `true` if a browser has sent it by itself: it need not be this page's own.
    pub(super) from_cookie: bool,
    /// `true` if it came as a subprotocol.
    from_subprotocol: bool,
}

impl RequestedId {
    /// Returns what the request of these `parts` brings, or is given, under this `policy`.
    pub(super) fn of(
        parts: &Parts,
        policy: SessionIdPolicy,
    ) -> Result<Option<Self>, Box<Rejection>> {
        if policy == SessionIdPolicy::None {
            return Ok(None);
        }
        let (mut from_cookie, mut from_subprotocol) = (false, false);
        let brought = in_query(parts)
            .or_else(|| in_subprotocol(&parts.headers).inspect(|_| from_subprotocol = true))
            .or_else(|| in_cookie(&parts.headers).inspect(|_| from_cookie = true));
        match brought.map(SessionId::try_from) {
            Some(Ok(id)) => Ok(Some(Self { id, issued: false, from_cookie, from_subprotocol })),
            // Somebody else's cookie.
            Some(Err(_)) if from_cookie && policy == SessionIdPolicy::Issued => {
                Ok(Some(Self::issue()))
            }
            Some(Err(_)) => Err(reject("a session id is 1 to 128 unreserved characters")),
            None if policy == SessionIdPolicy::Required => {
                Err(reject("mcp_session_id is required"))
            }
            None => Ok(Some(Self::issue())),
        }
    }

    pub(super) fn issue() -> Self {
        Self { id: SessionId::random(), issued: true, from_cookie: false, from_subprotocol: false }
    }

    pub(in crate::server) fn is_issued(&self) -> bool {
        self.issued
    }

    /// Returns how a client comes back that does not speak the extension.
    pub(super) fn returns_by(&self) -> ReturnsBy {
        if self.issued { ReturnsBy::IssuedId } else { ReturnsBy::KnownId }
    }

    /// Returns what a connection is told that is taken over under this id: SEP-1288 wants 1000.
    pub(super) fn superseded_reason(&self) -> CloseReason {
        let taken_over = LinkError::taken_over().close_reason();
        match self.from_subprotocol {
            true => CloseReason { code: CloseCode::Normal, ..taken_over },
            false => taken_over,
        }
    }

    /// Sets the headers that tell a client its id, if it was made for it.
    pub(in crate::server) fn set_headers(
        &self,
        response: &mut HttpResponse,
        path: &str,
        secure: bool,
    ) {
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
                response.headers_mut().insert(name, value);
            }
        }
    }
}

fn reject(what: &'static str) -> Box<Rejection> {
    Rejection::new(RejectReason::SessionId, StatusCode::BAD_REQUEST, what)
}

fn in_query(parts: &Parts) -> Option<String> {
    let mut pairs = parts.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    let (_, id) = pairs.find(|(key, _)| *key == NAME)?;
    Some(percent_decode_str(id).decode_utf8_lossy().into_owned())
}

fn in_subprotocol(headers: &HeaderMap) -> Option<String> {
    let mut offers = elements(headers, SEC_WEBSOCKET_PROTOCOL);
    offers.find_map(|offer| offer.strip_prefix(SESSION)).map(str::to_owned)
}

fn in_cookie(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut pairs =
        lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs
        .find(|(key, value)| *key == NAME && !value.is_empty())
        .map(|(_, id)| id.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};

    use super::*;

    fn parts(path: &str, headers: &[(HeaderName, &str)]) -> Parts {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn name(path: &str, headers: &[(HeaderName, &str)]) -> RequestedId {
        RequestedId::of(&parts(path, headers), SessionIdPolicy::Issued).ok().flatten().unwrap()
    }

    #[test]
    fn the_query_comes_before_the_offer_and_that_before_the_cookie() {
        let offer = (SEC_WEBSOCKET_PROTOCOL, "mcp, mcp.session-id.o, mcp.session-id.p");
        let cookie = (COOKIE, "x=mcp_session_id=1; mcp_session_id=\"c\"; mcp_session_id=d");
        let all = &[cookie.clone(), offer.clone()];
        let found = |path, headers: &[_]| {
            let name = name(path, headers);
            (
                name.id.as_str().to_owned(),
                name.issued,
                name.from_cookie,
                u16::from(name.superseded_reason().code),
            )
        };
        let (q, o, c) = ("q".to_owned(), "o".to_owned(), "c".to_owned());
        assert_eq!(found("/?a&mcp_session_id=q&mcp_session_id=r", all), (q, false, false, 4409));
        assert_eq!(found("/?amcp_session_id=q", all), (o, false, false, 1000));
        assert_eq!(found("/", &[cookie]), (c, false, true, 4409));
        assert!(name("/", &[(COOKIE, "mcp_session_id=; mcp_session=1")]).issued);
    }

    #[test]
    fn a_cookie_is_for_where_it_was_given_and_as_secret_as_that() {
        let cookie = |path, secure| {
            let mut answer = Response::default();
            let name = RequestedId::issue();
            name.set_headers(&mut answer, path, secure);
            let headers = answer.headers();
            assert_eq!(headers[HEADER], name.id.as_str());
            assert!(headers[HEADER].is_sensitive() && headers[SET_COOKIE].is_sensitive());
            let cookie = headers[SET_COOKIE].to_str().unwrap();
            cookie.replace(name.id.as_str(), "id")
        };
        let begin = "mcp_session_id=id; Path=/a/b; HttpOnly; SameSite=Strict";
        assert_eq!(cookie("/a/b", false), begin);
        assert_eq!(cookie("/a/b", true), format!("{begin}; Secure"));
        assert!(cookie("/a;Domain=example.com", false).contains("; Path=/; HttpOnly;"));
    }
}
