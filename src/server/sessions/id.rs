//! [`RequestedId`]: the session id by which a client without the extension comes back.

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{SEC_WEBSOCKET_PROTOCOL, SET_COOKIE},
    request::Parts,
};

use percent_encoding::percent_decode_str;

use super::{instance::InstanceTag, returns::ReturnsBy};
use crate::{
    close::{CloseCode, CloseReason},
    error::LinkError,
    handshake::headers::{SESSION, SESSION_HEADER, SESSION_ID as NAME, cookies, elements},
    layer::resume::{frame::SUBPROTOCOL as RESUME, secret::SessionId},
    server::{
        http::{rejection::Rejection, response::HttpResponse},
        registry::event::RejectReason,
    },
};

/// Policy for the session ids of clients that do not speak
/// [`mcp.resume.v1`](crate::guide::resume_v1).
///
/// Such a client brings the id as `mcp_session_id` in the query of the URL, else as a subprotocol
/// `mcp.session-id.<id>`, else in the header `mcp-session-id`, else in a cookie `mcp_session_id`.
/// An id is 1 to 128 of the characters `A-Z a-z 0-9 - . _ ~`, and belongs to the identity that uses
/// it first: 403 for everyone else. Where nobody is authenticated, whoever knows it has the
/// session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SessionIdPolicy {
    /// An id is required: 400 without.
    Required,
    /// A client without an id is issued one, in the header `mcp-session-id` of the 101 and as a
    /// cookie. So is one whose id is in either and not known here. The default.
    ///
    /// Two kinds of clients are known to bring it back: browsers send the cookie by themselves, so
    /// that a page with a reconnecting WebSocket (PartySocket, reconnecting-websocket) finds its
    /// session without `initialize`; and clients that speak [SEP-1288's
    /// members](crate::framing::JsonRpc::session_fields) read it in the result of `initialize`, and
    /// offer it as a subprotocol. Since others do not, an issued id is kept for 5 s at most until
    /// it was brought back once.
    #[default]
    Issued,
    /// Ids are not used: the connection of such a client is its session.
    None,
}

/// Session id that a client brings, or is issued.
#[derive(Debug, Clone)]
pub(in crate::server) struct RequestedId {
    pub(in crate::server) id: SessionId,
    source: IdSource,
}

/// Source of a session id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IdSource {
    Query,
    Subprotocol,
    /// The header, in which clients bring ids that were issued to them.
    Header,
    /// The cookie, which a browser sends by itself: the id need not be this page's own.
    Cookie,
    /// Issued for this very request.
    Issued,
}

impl IdSource {
    /// Returns `true` where clients bring ids that were issued to them, here or by another server.
    fn is_replaceable(self) -> bool {
        matches!(self, Self::Header | Self::Cookie)
    }
}

impl RequestedId {
    /// Returns the id that the request of these `parts` brings or is issued under this `policy`, at
    /// this `instance`.
    pub(super) fn of(
        parts: &Parts,
        policy: SessionIdPolicy,
        instance: Option<&InstanceTag>,
    ) -> Result<Option<Self>, Box<Rejection>> {
        if policy == SessionIdPolicy::None {
            return Ok(None);
        }
        let headers = &parts.headers;
        let brought = in_query(parts)
            .map(|id| (id, IdSource::Query))
            .or_else(|| Some((in_subprotocol(headers)?, IdSource::Subprotocol)))
            .or_else(|| Some((in_header(headers)?, IdSource::Header)))
            .or_else(|| Some((in_cookie(headers)?, IdSource::Cookie)));
        match brought.map(|(id, source)| (SessionId::try_from(id), source)) {
            Some((Ok(id), source)) => Ok(Some(Self { id, source })),
            // That of another application.
            Some((Err(_), source))
                if source.is_replaceable() && policy == SessionIdPolicy::Issued =>
            {
                Ok(Some(Self::issue(instance)))
            }
            Some((Err(_), _)) => Err(reject("a session id is 1 to 128 unreserved characters")),
            None if policy == SessionIdPolicy::Required => {
                Err(reject("mcp_session_id is required"))
            }
            None => Ok(Some(Self::issue(instance))),
        }
    }

    /// Issues a new id, which no other session has, at this `instance`.
    pub(super) fn issue(instance: Option<&InstanceTag>) -> Self {
        let id = instance.map_or_else(SessionId::random, InstanceTag::issue);
        Self { id, source: IdSource::Issued }
    }

    /// Returns `true` if the id was issued for this request.
    pub(in crate::server) fn is_issued(&self) -> bool {
        self.source == IdSource::Issued
    }

    /// Returns `true` if the id came in a cookie.
    pub(super) fn is_from_cookie(&self) -> bool {
        self.source == IdSource::Cookie
    }

    /// Returns `true` if the client takes another id where its session is gone.
    pub(super) fn is_replaceable(&self) -> bool {
        self.source.is_replaceable()
    }

    /// Returns how a client without the extension comes back by this id.
    pub(super) fn returns_by(&self) -> ReturnsBy {
        if self.is_issued() { ReturnsBy::IssuedId } else { ReturnsBy::KnownId }
    }

    /// Returns the reason to close a connection with whose session is taken over by this id: 4409.
    ///
    /// It is 1000 where the id came as a subprotocol, as SEP-1288 has it.
    pub(super) fn superseded_reason(&self) -> CloseReason {
        let taken_over = LinkError::taken_over().close_reason();
        match self.source {
            IdSource::Subprotocol => CloseReason { code: CloseCode::Normal, ..taken_over },
            _ => taken_over,
        }
    }

    /// Sets the headers that tell a client its id, if that was issued.
    pub(in crate::server) fn set_headers(
        &self,
        response: &mut HttpResponse,
        path: &str,
        secure: bool,
    ) {
        if !self.is_issued() {
            return;
        }
        let secure = if secure { "; Secure" } else { "" };
        let path = if path.contains(';') { "/" } else { path };
        let id = self.id.as_str();
        let cookie = format!("{NAME}={id}; Path={path}; HttpOnly; SameSite=Strict{secure}");
        for (name, value) in [(SESSION_HEADER, id.to_owned()), (SET_COOKIE, cookie)] {
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

/// Returns the id in the header, unless the client speaks the extension: then `@open` has the id,
/// and the header is for load balancers.
fn in_header(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(SESSION_HEADER)?.to_str().ok()?;
    let resumes = elements(headers, SEC_WEBSOCKET_PROTOCOL).any(|offer| offer == RESUME);
    (!resumes).then(|| id.to_owned())
}

fn in_cookie(headers: &HeaderMap) -> Option<String> {
    cookies(headers)
        .find(|(key, value)| *key == NAME && !value.is_empty())
        .map(|(_, id)| id.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use http::{
        Request, Response,
        header::{COOKIE, HeaderName},
    };

    use super::*;

    fn parts(path: &str, headers: &[(HeaderName, &str)]) -> Parts {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn name(path: &str, headers: &[(HeaderName, &str)]) -> RequestedId {
        RequestedId::of(&parts(path, headers), SessionIdPolicy::Issued, None)
            .ok()
            .flatten()
            .unwrap()
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
                name.is_issued(),
                name.is_from_cookie(),
                u16::from(name.superseded_reason().code),
            )
        };
        let (q, o, c) = ("q".to_owned(), "o".to_owned(), "c".to_owned());
        assert_eq!(found("/?a&mcp_session_id=q&mcp_session_id=r", all), (q, false, false, 4409));
        assert_eq!(found("/?amcp_session_id=q", all), (o, false, false, 1000));
        assert_eq!(found("/", &[cookie]), (c, false, true, 4409));
        let beside = [(COOKIE, "user=Jos\u{e9}; mcp_session_id=c")];
        assert_eq!(found("/", &beside).0, "c");
        assert!(name("/", &[(COOKIE, "mcp_session_id=\u{e9}")]).is_issued());
        assert!(name("/", &[(COOKIE, "mcp_session_id=; mcp_session=1")]).is_issued());
    }

    #[test]
    fn the_header_comes_before_the_cookie_but_not_beside_an_offer_to_resume() {
        let header = (SESSION_HEADER, "h");
        let cookie = (COOKIE, "mcp_session_id=c");
        let offer = |offer| (SEC_WEBSOCKET_PROTOCOL, offer);
        let found = |path, headers: &[_]| name(path, headers).id.as_str().to_owned();
        let both = [cookie.clone(), header.clone()];
        assert_eq!(found("/", &both), "h");
        assert_eq!(found("/?mcp_session_id=q", &both), "q");
        let offered = offer("mcp, mcp.session-id.o");
        assert_eq!(found("/", &[offered, header.clone()]), "o");
        let resumes = offer("mcp, mcp.resume.v1");
        assert_eq!(found("/", &[resumes.clone(), header.clone(), cookie]), "c");
        assert!(name("/", &[resumes, header]).is_issued());
        assert!(name("/", &[(SESSION_HEADER, "no id")]).is_issued());
    }

    #[test]
    fn a_cookie_is_for_where_it_was_given_and_as_secret_as_that() {
        let cookie = |path, secure| {
            let mut answer = Response::default();
            let name = RequestedId::issue(None);
            name.set_headers(&mut answer, path, secure);
            let headers = answer.headers();
            assert_eq!(headers[SESSION_HEADER], name.id.as_str());
            assert!(headers[SESSION_HEADER].is_sensitive() && headers[SET_COOKIE].is_sensitive());
            let cookie = headers[SET_COOKIE].to_str().unwrap();
            cookie.replace(name.id.as_str(), "id")
        };
        let begin = "mcp_session_id=id; Path=/a/b; HttpOnly; SameSite=Strict";
        assert_eq!(cookie("/a/b", false), begin);
        assert_eq!(cookie("/a/b", true), format!("{begin}; Secure"));
        assert!(cookie("/a;Domain=example.com", false).contains("; Path=/; HttpOnly;"));
    }
}
