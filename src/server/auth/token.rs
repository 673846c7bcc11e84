//! [`Token`]: the secret of a request, and the places where it may stand.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{
    HeaderMap, HeaderValue,
    header::{AUTHORIZATION, ORIGIN, SEC_WEBSOCKET_PROTOCOL},
};
use subtle::ConstantTimeEq as _;

use crate::handshake::headers::{cookies, elements};

/// Secret that a client has presented; never empty.
///
/// `Debug` does not print it, and comparing it does not tell how much of it was right.
#[derive(Clone)]
pub struct Token(Box<str>);

impl Token {
    /// Creates a token; `None` if it is empty, as the secret of an incomplete configuration may be.
    pub(in crate::server) fn new(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.into()))
    }

    /// Returns the token itself, which must not be logged.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns `true` if it equals `secret`. The time depends on the lengths alone.
    #[must_use]
    pub fn is(&self, secret: &str) -> bool {
        self.0.as_bytes().ct_eq(secret.as_bytes()).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Prefix of a subprotocol that carries a token.
const PREFIX: &str = "mcp.auth.";

/// Prefix of a subprotocol that carries a token in base64url without padding (RFC 4648, section 5):
/// a subprotocol cannot have every character that a token has, such as `/` and `=`.
const ENCODED_PREFIX: &str = "mcp.auth-base64url.";

/// Returns the token in `headers`, if there is one.
///
/// A cookie, which browsers send by themselves, counts only beside an `Origin`, which is allowed.
///
/// # Errors
/// Several tokens, of which none can be preferred.
pub(in crate::server) fn of(
    headers: &HeaderMap,
    cookie: Option<&str>,
) -> Result<Option<Token>, ()> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let line = lines.next();
    if lines.next().is_some() {
        return Err(());
    }
    let mut offers = elements(headers, SEC_WEBSOCKET_PROTOCOL).filter_map(in_offer);
    let (offer, another) = (offers.next(), offers.next());
    match (line.and_then(bearer), offer, another) {
        (_, _, Some(_)) | (Some(_), Some(_), _) => Err(()),
        (Some(token), ..) | (_, Some(token), _) => Ok(Some(token)),
        // Another scheme, such as Basic, is for the authenticator to read.
        (None, None, None) if line.is_some() => Ok(None),
        (None, None, None) => match cookie.filter(|_| headers.contains_key(ORIGIN)) {
            Some(name) => in_cookie(headers, name),
            None => Ok(None),
        },
    }
}

/// Returns the token that a subprotocol carries.
fn in_offer(offer: &str) -> Option<Token> {
    let Some(encoded) = offer.strip_prefix(ENCODED_PREFIX) else {
        return Token::new(offer.strip_prefix(PREFIX)?);
    };
    let token = URL_SAFE_NO_PAD.decode(encoded).ok()?;
    Token::new(str::from_utf8(&token).ok()?)
}

/// Returns the token in `Bearer <token>` (RFC 6750, section 2.1).
fn bearer(value: &HeaderValue) -> Option<Token> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = Token::new(token.trim_matches(' '));
    token.filter(|_| scheme.eq_ignore_ascii_case("bearer"))
}

/// Returns the token in the cookie `name` (RFC 6265, section 4.2.1); an error if there are several.
fn in_cookie(headers: &HeaderMap, name: &str) -> Result<Option<Token>, ()> {
    let mut values = cookies(headers)
        .filter(|(key, value)| *key == name && !value.is_empty())
        .map(|(_, value)| value.trim_matches('"'));
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(Token::new(value)),
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the token that is found in these header lines; an error if there are several.
    fn found(lines: &[(&'static str, &'static [u8])]) -> Result<Option<String>, ()> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        of(&headers, Some("session")).map(|token| token.map(|token| token.as_str().to_owned()))
    }

    #[test]
    fn a_token_is_found_in_three_places() {
        let some = |token: &str| Ok(Some(token.to_owned()));
        assert_eq!(found(&[("authorization", b"Bearer abc")]), some("abc"));
        assert_eq!(found(&[("authorization", b"bearer  a.b~c+d/e== ")]), some("a.b~c+d/e=="));
        assert_eq!(found(&[("sec-websocket-protocol", b"mcp, mcp.auth.abc")]), some("abc"));
        let encoded = |value| found(&[("sec-websocket-protocol", value)]);
        assert_eq!(encoded(b"mcp, mcp.auth-base64url.YSsvPT0_fg"), some("a+/==?~"));
        assert_eq!(
            encoded("mcp.auth-base64url.8J-mgCB8IMOp".as_bytes()),
            some("\u{1f980} | \u{e9}")
        );
        // The prefix of the one is none of the other's.
        assert_eq!(encoded(b"mcp.auth.base64url.YQ"), some("base64url.YQ"));
        let cookie: (_, &[u8]) = ("cookie", b"a=b; session=abc=; sessions=x");
        assert_eq!(found(&[cookie, ("origin", b"https://app.example")]), some("abc="));
        assert_eq!(found(&[cookie]), Ok(None));
        let origin: (_, &[u8]) = ("origin", b"https://app.example");
        for beside in ["user=Jos\u{e9}; session=abc".as_bytes(), b"user=\xff; session=abc"] {
            assert_eq!(found(&[("cookie", beside), origin]), some("abc"));
        }
    }

    #[test]
    fn what_is_no_token_is_none() {
        for value in [
            &b"Bearer"[..],
            b"Bearer ",
            b"Bearer   ",
            b"Basic YTpi",
            b"abc",
            b"Bearer \xffabc",
            b"Bearerabc",
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
            assert!(of(&headers, None).unwrap().is_none(), "{value:?}");
        }
        assert_eq!(found(&[("sec-websocket-protocol", b"mcp.auth., mcp")]), Ok(None));
        // Nothing, padding, what is not base64url, bits left over, and what is not UTF-8.
        for encoded in ["", "YQ==", "a+b/", "Y", "YR", "_w"] {
            let line = format!("mcp, mcp.auth-base64url.{encoded}").leak().as_bytes();
            assert_eq!(found(&[("sec-websocket-protocol", line)]), Ok(None), "{encoded}");
        }
        let origin: (_, &[u8]) = ("origin", b"https://app.example");
        for cookie in [&b"session="[..], b"session=\"", b"session=\"\""] {
            assert_eq!(found(&[("cookie", cookie), origin]), Ok(None));
        }
    }

    #[test]
    fn several_are_none_that_can_be_trusted() {
        let bearer: (_, &[u8]) = ("authorization", b"Bearer a");
        let offer: (_, &[u8]) = ("sec-websocket-protocol", b"mcp.auth.a");
        let origin: (_, &[u8]) = ("origin", b"https://app.example");
        assert_eq!(found(&[bearer, bearer]), Err(()));
        assert_eq!(found(&[bearer, offer]), Err(()));
        assert_eq!(found(&[("sec-websocket-protocol", b"mcp.auth.a, mcp.auth.b")]), Err(()));
        let both = b"mcp.auth.a, mcp.auth-base64url.YQ";
        assert_eq!(found(&[("sec-websocket-protocol", both)]), Err(()));
        assert_eq!(found(&[("cookie", b"session=a; session=b"), origin]), Err(()));
        assert_eq!(found(&[("cookie", b"session=a; session=\"\""), origin]), Err(()));
    }

    #[test]
    fn a_token_does_not_show() {
        let token = Token::new("canary").unwrap();
        assert_eq!(format!("{token:?}"), "Token");
        assert!(token.is("canary") && !token.is("canar") && !token.is("canarz") && !token.is(""));
    }
}
