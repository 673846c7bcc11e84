//! [`Url`]: the address of a WebSocket server (RFC 6455, section 3).

use std::{fmt, net::Ipv6Addr};

use http::{
    Uri,
    uri::{Authority, PathAndQuery},
};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// Characters that a path or a query cannot have, besides those that are not ASCII.
const ENCODED: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'`').add(b'{').add(b'}');

/// Address of a WebSocket server, without a fragment.
#[derive(Clone)]
pub(super) struct Url {
    is_secure: bool,
    /// User and password as they stand in it, percent-encoded and with a `:` between them.
    userinfo: Option<String>,
    /// Name or address in lower case; an IPv6 address is in brackets.
    host: String,
    /// Port, unless it is the scheme's own.
    port: Option<u16>,
    target: PathAndQuery,
}

impl Url {
    /// Parses an absolute URL with the scheme `ws` or `wss`. A host has to be in ASCII; what a path
    /// or a query cannot have is percent-encoded.
    ///
    /// # Errors
    /// What is wrong with it, without the part that may be secret.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = split_scheme(text.trim()) else {
            return Err("it has no scheme; it begins with ws:// or wss://".into());
        };
        let is_secure = match scheme.to_ascii_lowercase().as_str() {
            "ws" => false,
            "wss" => true,
            "http" => return Err("the scheme is http; for WebSockets it is ws".into()),
            "https" => return Err("the scheme is https; for WebSockets it is wss".into()),
            other => {
                return Err(format!(
                    "the scheme {other:?} is not ws or wss; if it is a host, put ws:// or wss:// \
                     before it"
                ));
            }
        };
        let Some(rest) = rest.strip_prefix("//") else { return Err(NO_HOST.into()) };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (userinfo, host) = match authority.rsplit_once('@') {
            Some((userinfo, host)) => (Some(userinfo.to_owned()), host),
            None => (None, authority),
        };
        let (host, port) = host_and_port(host)?;
        let port = port.filter(|port| *port != default_port(is_secure));
        Ok(Self { is_secure, userinfo, host, port, target: parse_target(target)? })
    }

    /// Resolves a reference (RFC 3986, section 5.2), whose scheme may also be `http` or `https`.
    /// Returns `None` for one with another scheme, or that cannot be read.
    pub(super) fn join(&self, reference: &str) -> Option<Self> {
        let reference = reference.trim();
        if let Some((scheme, rest)) = split_scheme(reference) {
            let scheme = match scheme.to_ascii_lowercase().as_str() {
                "http" | "ws" => "ws",
                "https" | "wss" => "wss",
                _ => return None,
            };
            return Self::parse(&format!("{scheme}:{rest}")).ok();
        }
        if reference.starts_with("//") {
            return Self::parse(&format!("{}:{reference}", self.scheme())).ok();
        }
        let reference = reference.split('#').next().unwrap_or_default();
        let path = self.path();
        let target = match reference.as_bytes().first() {
            None => return Some(self.clone()),
            Some(b'/') => reference.to_owned(),
            Some(b'?') => format!("{path}{reference}"),
            Some(_) => {
                let (folder, _) = path.rsplit_once('/').unwrap_or_default();
                format!("{folder}/{reference}")
            }
        };
        Some(Self { target: parse_target(&target).ok()?, ..self.clone() })
    }

    /// Returns `true` if both have the same scheme, host and port (RFC 6454).
    pub(super) fn is_same_origin(&self, other: &Self) -> bool {
        (self.is_secure, &self.host, self.port) == (other.is_secure, &other.host, other.port)
    }

    pub(super) fn is_secure(&self) -> bool {
        self.is_secure
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.is_secure { "wss" } else { "ws" }
    }

    /// Returns the name or address to connect to.
    pub(super) fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Returns the port, that of the scheme where it has none.
    pub(super) fn port(&self) -> u16 {
        self.port.unwrap_or(default_port(self.is_secure))
    }

    /// Returns host and port as they stand in the header `Host`.
    pub(super) fn authority(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}", self.host),
            None => self.host.clone(),
        }
    }

    pub(super) fn path(&self) -> &str {
        self.target.path()
    }

    /// Returns path and query.
    pub(super) fn target(&self) -> &PathAndQuery {
        &self.target
    }

    /// Returns user and password, decoded, with a `:` between them.
    pub(super) fn credentials(&self) -> Option<String> {
        let userinfo =
            self.userinfo.as_deref().filter(|userinfo| !matches!(*userinfo, "" | ":"))?;
        let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
        let decode = |text| percent_decode_str(text).decode_utf8_lossy();
        Some(format!("{}:{}", decode(user), decode(password)))
    }

    /// Takes over user and password of another URL where it has none of its own.
    pub(super) fn with_credentials_of(mut self, other: &Self) -> Self {
        if self.credentials().is_none() {
            self.userinfo.clone_from(&other.userinfo);
        }
        self
    }

    /// Returns it without user and password.
    pub(super) fn to_uri(&self) -> Option<Uri> {
        format!("{}://{}{}", self.scheme(), self.authority(), self.target).parse().ok()
    }
}

/// Shows it without what may be secret: user, password and query.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme(), self.authority(), self.path())
    }
}

const NO_HOST: &str = "no host; it stands after ws:// or wss://";

fn default_port(is_secure: bool) -> u16 {
    if is_secure { 443 } else { 80 }
}

/// Splits a URL behind its scheme, if it begins with one (RFC 3986, section 3.1).
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let is_first = scheme.starts_with(|first: char| first.is_ascii_alphabetic());
    let is_scheme =
        scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    (is_first && is_scheme).then_some((scheme, rest))
}

/// Parses a host, as it is kept, and the port behind it.
fn host_and_port(text: &str) -> Result<(String, Option<u16>), String> {
    let end = match text.strip_prefix('[') {
        Some(_) => text.find(']').map(|end| end + 1),
        None => text.find(':'),
    };
    let (host, rest) = text.split_at(end.unwrap_or(text.len()));
    if host.is_empty() {
        return Err(NO_HOST.into());
    }
    let port = match rest {
        "" | ":" => None,
        rest => {
            let port = rest.strip_prefix(':').and_then(|port| port.parse().ok());
            Some(port.ok_or("the port is not a number up to 65535")?)
        }
    };
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr =
            address.parse().map_err(|_| "what stands in brackets is not an IPv6 address")?;
        return Ok((format!("[{address}]"), port));
    }
    if !host.is_ascii() {
        return Err("the host is not ASCII; write it in its ASCII form, which begins with xn--, \
                    or has a part that does"
            .into());
    }
    match host.parse::<Authority>() {
        Ok(authority) if authority.host() == host => Ok((host.to_ascii_lowercase(), port)),
        _ => Err("the host has a character that no host has".into()),
    }
}

/// Parses path and query, which may be empty.
fn parse_target(text: &str) -> Result<PathAndQuery, String> {
    let (path, query) = text.split_at(text.find('?').unwrap_or(text.len()));
    let target = format!("{}{query}", without_dots(path));
    let target = utf8_percent_encode(&target, ENCODED).to_string();
    target.parse::<PathAndQuery>().map_err(|error| format!("path or query: {error}"))
}

/// Removes the segments `.` and `..` of a path (RFC 3986, section 5.2.4). Returns an absolute one.
fn without_dots(path: &str) -> String {
    let mut kept = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if segments.peek().is_none() {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &Url) -> String {
        format!("{}://{}{}", url.scheme(), url.authority(), url.target())
    }

    fn parsed(text: &str) -> Result<String, String> {
        Url::parse(text).map(|url| shown(&url))
    }

    #[test]
    fn urls_are_read_as_they_are_written_by_people() {
        for (text, expected) in [
            ("ws://example.com", "ws://example.com/"),
            (" WSS://Example.COM:443/MCP\n", "wss://example.com/MCP"),
            ("ws://example.com:80?a=b#c", "ws://example.com/?a=b"),
            ("ws://example.com:/", "ws://example.com/"),
            ("wss://example.com:80/", "wss://example.com:80/"),
            ("ws://user:pass@word@example.com:1/", "ws://example.com:1/"),
            ("ws://[::1]:8080/mcp", "ws://[::1]:8080/mcp"),
            ("ws://[2001:DB8:0::1]", "ws://[2001:db8::1]/"),
            ("ws://a_b/../x/./y/..?z=..", "ws://a_b/x/?z=.."),
            ("ws://a/b c/é?q={\"a\"}&r=%C3%A9", "ws://a/b%20c/%C3%A9?q=%7B%22a%22%7D&r=%C3%A9"),
            ("ws://xn--bcher-kva.example/", "ws://xn--bcher-kva.example/"),
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(expected), "{text}");
        }
        let url = Url::parse("ws://[::1]/").unwrap();
        assert_eq!((url.host(), url.port()), ("::1", 80));
    }

    #[test]
    fn what_cannot_be_dialled_is_said() {
        for (text, words) in [
            ("", "no scheme"),
            ("127.0.0.1:8080/mcp", "no scheme"),
            ("/mcp?a=b:c", "no scheme"),
            ("localhost:8080", "\"localhost\" is not ws"),
            ("ws:example.com", "no host"),
            ("ws://", "no host"),
            ("ws:///mcp", "no host"),
            ("ws://user@/", "no host"),
            ("ws://:80/", "no host"),
            ("ws://a:65536/", "port"),
            ("ws://a:b/", "port"),
            ("ws://[::1/", "host"),
            ("ws://[::1%25eth0]/", "IPv6"),
            ("ws://::1/", "host"),
            ("ws://a b/", "host"),
            ("ws://a%62/", "host"),
            ("ws://b\u{fc}cher.example/", "xn--"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn references_are_resolved() {
        let from = Url::parse("ws://u:p@example.com/a/b?c").unwrap();
        for (reference, expected) in [
            ("", Some("ws://example.com/a/b?c")),
            ("?d", Some("ws://example.com/a/b?d")),
            ("d", Some("ws://example.com/a/d")),
            ("../d?e#f", Some("ws://example.com/d?e")),
            ("../../../d", Some("ws://example.com/d")),
            ("/d/", Some("ws://example.com/d/")),
            ("//other:8/d", Some("ws://other:8/d")),
            ("http://example.com:80/d", Some("ws://example.com/d")),
            ("HTTPS://example.com", Some("wss://example.com/")),
            ("ftp://example.com/", None),
            ("http://", None),
        ] {
            assert_eq!(from.join(reference).map(|url| shown(&url)).as_deref(), expected);
        }
        assert!(from.join("d").unwrap().is_same_origin(&from));
        assert!(!from.join("https://example.com:80/").unwrap().is_same_origin(&from));
    }

    #[test]
    fn credentials_are_decoded_and_not_shown() {
        let of = |text: &str| Url::parse(text).unwrap().credentials();
        assert_eq!(of("ws://us%20er:pa%3Ass@a/").as_deref(), Some("us er:pa:ss"));
        assert_eq!(of("ws://user@a/").as_deref(), Some("user:"));
        assert_eq!(of("ws://:pass@a/").as_deref(), Some(":pass"));
        assert_eq!((of("ws://@a/"), of("ws://:@a/"), of("ws://a/")), (None, None, None));
        let url = Url::parse("ws://c4n4ry:c4n4ry@a/b?c4n4ry").unwrap();
        assert_eq!(url.to_string(), "ws://a/b");
        assert_eq!(url.to_uri().unwrap(), "ws://a/b?c4n4ry");
    }
}
