//! Which hosts are served, and which web pages may connect (RFC 6454; RFC 6455, section 10.2).
//!
//! A browser lets any page open a WebSocket to any host, and tells only in `Origin` whose page it
//! is. And a page may let its own name point to the visitor's machine (DNS rebinding), which shows
//! only in `Host`. So both are looked at.

use std::{net::Ipv6Addr, slice};

use http::{
    HeaderMap, HeaderValue, Uri,
    header::{HOST, HeaderName, ORIGIN},
    uri::Authority,
};

use super::registry::Cause;

const NOT_SERVED: (Cause, &str) = (Cause::Host, "this Host is not served here");
const NOT_ALLOWED: (Cause, &str) = (Cause::Origin, "this Origin may not connect");

/// Hosts and origins that are let in.
#[derive(Debug, Clone)]
pub(super) struct Allowed {
    /// `None` serves every host.
    hosts: Option<Vec<Place>>,
    origins: Vec<Pattern>,
    /// Connections come by TLS: 443 is the port of a `Host` without one, and a host's own pages come by
    /// `https` only, so that nobody on the way can have written them.
    secure: bool,
    /// The first entry that could not be read.
    invalid: Option<String>,
}

/// A host, and a port: `None` where any is allowed, where a `Host` leaves it out, and where an origin has
/// none.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    host: String,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    /// A page without an origin of its own, such as a file.
    Null,
    Page {
        scheme: String,
        place: Place,
    },
}

/// An origin of the list.
#[derive(Debug, Clone)]
struct Pattern {
    origin: Origin,
    any_port: bool,
}

impl Default for Allowed {
    fn default() -> Self {
        let loopback = ["localhost", "127.0.0.1", "::1"];
        let place = |host: &str| Place { host: host.to_owned(), port: None };
        Self {
            hosts: Some(loopback.map(place).into()),
            origins: Vec::new(),
            secure: false,
            invalid: None,
        }
    }
}

impl Allowed {
    pub(super) fn hosts<T: Into<String>>(&mut self, hosts: impl IntoIterator<Item = T>) {
        let hosts = hosts.into_iter().filter_map(|host| {
            let host = host.into();
            // An IPv6 address may stand there without brackets, as in rmcp's configuration.
            let bare = host.parse().map(|address: Ipv6Addr| format!("[{address}]"));
            let place = Place::parse(bare.as_deref().unwrap_or(&host));
            self.note(place, &host)
        });
        self.hosts = Some(hosts.collect());
    }

    pub(super) fn every_host(&mut self) {
        self.hosts = None;
    }

    pub(super) fn origins<T: Into<String>>(&mut self, origins: impl IntoIterator<Item = T>) {
        self.origins.clear();
        for origin in origins {
            let origin = origin.into();
            let parsed = Pattern::parse(&origin);
            let parsed = self.note(parsed, &origin);
            self.origins.extend(parsed);
        }
    }

    pub(super) fn is_secure(&self) -> bool {
        self.secure
    }

    pub(super) fn only_https(&mut self) {
        self.secure = true;
    }

    fn note<T>(&mut self, parsed: Option<T>, entry: &str) -> Option<T> {
        if parsed.is_none() {
            self.invalid.get_or_insert_with(|| entry.to_owned());
        }
        parsed
    }

    /// The configuration itself, if it can be read.
    pub(super) fn validate(&self) -> Result<(), String> {
        match &self.invalid {
            Some(entry) => Err(format!("{entry:?} is neither a host nor an origin")),
            None => Ok(()),
        }
    }

    /// Whether a request with these headers may be upgraded, or what is to be said instead.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), (Cause, &'static str)> {
        self.check_host(only(headers, HOST)?, headers)
    }

    /// The same for a request whose host is that of its target, as in HTTP/2.
    pub(super) fn check_at(
        &self,
        authority: &str,
        headers: &HeaderMap,
    ) -> Result<(), (Cause, &'static str)> {
        self.check_host(Some(authority), headers)
    }

    fn check_host(
        &self,
        host: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<(), (Cause, &'static str)> {
        let host = host.and_then(Place::parse);
        if self.hosts.is_some() && !host.as_ref().is_some_and(|host| self.lists(host)) {
            return Err(NOT_SERVED);
        }
        let Some(origin) = only(headers, ORIGIN)? else { return Ok(()) };
        let Some(origin) = Origin::parse(origin) else { return Err(NOT_ALLOWED) };
        let listed = self.origins.iter().any(|allowed| allowed.covers(&origin));
        let own = host.is_some_and(|host| self.vouches(&host, &origin));
        if listed || own { Ok(()) } else { Err(NOT_ALLOWED) }
    }

    /// Whether `host` is in the list of hosts. Clients leave out the port that is their scheme's own (RFC
    /// 9110, section 7.2), and without TLS here the scheme is not known: a proxy may speak `https`.
    fn lists(&self, host: &Place) -> bool {
        let default: &[u16] = if self.secure { &[443] } else { &[80, 443] };
        let ports = host.port.as_ref().map_or(default, slice::from_ref);
        self.hosts.iter().flatten().any(|allowed| allowed.covers(&host.host, ports))
    }

    /// Whether a page of `origin` is the `host`'s own. Only a host in the list vouches for its pages; and
    /// since a `Host` may leave its port open, the page's must be in the list too.
    fn vouches(&self, host: &Place, origin: &Origin) -> bool {
        let Origin::Page { scheme, place } = origin else { return false };
        let default = match (scheme.as_str(), self.secure) {
            ("https", _) => 443,
            ("http", false) => 80,
            _ => return false,
        };
        place.host == host.host
            && place.port == Some(host.port.unwrap_or(default))
            && self.lists(place)
    }
}

impl Place {
    fn parse(authority: &str) -> Option<Self> {
        let parsed: Authority = authority.parse().ok()?;
        let port = match authority.strip_prefix(parsed.host())?.strip_prefix(':') {
            // `host:`, `host:+80` and `host:99999` have a port that is none.
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(port.parse().ok()?)
            }
            None if authority == parsed.host() => None,
            _ => return None,
        };
        let host = match parsed.host().strip_prefix('[') {
            Some(address) => address.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.to_string(),
            None => parsed.host().to_ascii_lowercase(),
        };
        // An authority may have more in it than any host has: a wildcard, a whole list.
        let of_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        (!host.is_empty() && host.bytes().all(of_host)).then_some(Self { host, port })
    }

    /// Whether it is allowed to ask for `host` at one of these ports.
    fn covers(&self, host: &str, ports: &[u16]) -> bool {
        self.host == host && self.port.is_none_or(|port| ports.contains(&port))
    }
}

impl Origin {
    /// An `Origin` as a browser sends it (RFC 6454, section 6.2), with the port that it leaves out.
    fn parse(text: &str) -> Option<Self> {
        if text == "null" {
            return Some(Self::Null);
        }
        let uri: Uri = text.parse().ok()?;
        let parts = uri.into_parts();
        if parts.path_and_query.is_some_and(|path| path != "/")
            || text.contains('#')
            || text.ends_with('/')
        {
            return None;
        }
        let scheme = parts.scheme?.as_str().to_ascii_lowercase();
        let default = match scheme.as_str() {
            "http" => Some(80),
            "https" => Some(443),
            // What is opened from a page, and by mistake taken for its origin.
            "ws" | "wss" => return None,
            // An app, an extension.
            _ => None,
        };
        let mut place = Place::parse(parts.authority?.as_str())?;
        place.port = place.port.or(default);
        Some(Self::Page { scheme, place })
    }
}

impl Pattern {
    /// An entry of the list: an origin, or one with `:*` for its port.
    fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix(":*") {
            Some("null") => None,
            Some(any) => Some(Self { origin: Origin::parse(any)?, any_port: true }),
            None => Some(Self { origin: Origin::parse(text)?, any_port: false }),
        }
    }

    fn covers(&self, other: &Origin) -> bool {
        match (&self.origin, other) {
            (Origin::Page { scheme, place }, Origin::Page { scheme: other, place: at })
                if self.any_port =>
            {
                scheme == other && place.host == at.host
            }
            (origin, other) => origin == other,
        }
    }
}

/// The value of a header that may stand there once at most.
fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, (Cause, &'static str)> {
    let mut values = headers.get_all(&name).iter().map(HeaderValue::to_str);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value)),
        _ if name == HOST => Err(NOT_SERVED),
        _ => Err(NOT_ALLOWED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allowed: &Allowed, host: &[&str], origin: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, values) in [(HOST, host), (ORIGIN, origin)] {
            for value in values {
                headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
            }
        }
        allowed.check(&headers).is_ok()
    }

    #[test]
    fn by_default_only_loopback_is_served_and_only_its_own_pages_connect() {
        for (host, origin, expected) in [
            ("localhost:8080", "http://localhost:8080", true),
            ("LocalHost:8080", "http://LOCALHOST:8080", true),
            ("127.0.0.1", "http://127.0.0.1", true),
            ("127.0.0.1", "http://127.0.0.1:80", true),
            ("127.0.0.1:443", "https://127.0.0.1", true),
            ("[::1]:8080", "http://[::1]:8080", true),
            ("localhost:8080", "http://localhost:8081", false),
            ("localhost:8080", "http://127.0.0.1:8080", false),
            ("localhost:8080", "http://localhost.evil.com:8080", false),
            ("localhost:8080", "http://evil-localhost:8080", false),
            ("localhost:8080", "http://localhost@evil.com:8080", false),
            ("localhost:8080", "http://user@localhost:8080", false),
            ("localhost:8080", "http://evil.com", false),
            ("localhost:8080", "file://localhost:8080", false),
            ("localhost:80", "tauri://localhost:80", false),
            ("localhost", "tauri://localhost", false),
            ("localhost:8080", "null", false),
            ("localhost:8080", "", false),
            ("localhost:8080", "localhost:8080", false),
            ("localhost:8080", "http://localhost:8080/", false),
            ("localhost:8080", "http://localhost:8080/path", false),
            ("localhost:8080", "http://localhost:8080?", false),
            ("localhost:8080", "http://localhost:99999", false),
            ("localhost:8080", "http://localhost:8080, http://evil.com", false),
            ("evil.com", "http://evil.com", false),
            ("localhost.evil.com", "http://localhost.evil.com", false),
        ] {
            assert_eq!(check(&Allowed::default(), &[host], &[origin]), expected, "{host} {origin}");
        }
    }

    #[test]
    fn a_program_sends_no_origin_and_its_host_counts_all_the_same() {
        for (host, expected) in [
            ("localhost", true),
            ("localhost:1", true),
            ("127.0.0.1:65535", true),
            ("[::1]", true),
            ("::1", false),
            ("localhost.", false),
            ("127.0.0.1.nip.io", false),
            ("192.168.0.1", false),
            ("0.0.0.0", false),
            ("user@localhost", false),
            ("localhost:", false),
            ("localhost:99999", false),
            ("", false),
        ] {
            assert_eq!(check(&Allowed::default(), &[host], &[]), expected, "{host}");
        }
        assert!(!check(&Allowed::default(), &[], &[]));
        assert!(!check(&Allowed::default(), &["localhost", "localhost"], &[]));
        let twice = ["http://localhost", "http://localhost"];
        assert!(!check(&Allowed::default(), &["localhost"], &twice));
    }

    #[test]
    fn hosts_are_allowed_with_a_port_or_with_any() {
        let mut allowed = Allowed::default();
        allowed.hosts(["Example.com", "other.com:8443", "::1"]);
        allowed.validate().unwrap();
        for (host, expected) in [
            ("example.com", true),
            ("example.com:444", true),
            ("other.com:8443", true),
            ("other.com", false),
            ("other.com:444", false),
            ("[::1]:80", true),
            ("sub.example.com", false),
            ("localhost", false),
        ] {
            assert_eq!(check(&allowed, &[host], &[]), expected, "{host}");
        }
        assert!(check(&allowed, &["example.com"], &["https://example.com"]));
        assert!(check(&allowed, &["example.com"], &["http://example.com"]));
    }

    #[test]
    fn a_host_without_a_port_may_be_at_that_of_http_or_https() {
        let mut allowed = Allowed::default();
        allowed.hosts(["a.com:443", "b.com:80", "c.com:8443"]);
        for (host, origin, expected) in [
            ("a.com", None, true),
            ("b.com", None, true),
            ("c.com", None, false),
            ("a.com:80", None, false),
            ("a.com", Some("https://a.com"), true),
            ("a.com", Some("http://a.com"), false),
            ("a.com", Some("http://a.com:443"), false),
            ("b.com", Some("http://b.com"), true),
            ("b.com", Some("https://b.com"), false),
        ] {
            assert_eq!(check(&allowed, &[host], origin.as_slice()), expected, "{host} {origin:?}");
        }
    }

    #[test]
    fn origins_are_allowed_by_scheme_host_and_port() {
        let mut allowed = Allowed::default();
        allowed.origins([
            "https://app.example.com",
            "http://localhost:*",
            "null",
            "Tauri://Localhost",
            "app://-:*",
        ]);
        allowed.validate().unwrap();
        for (origin, expected) in [
            ("https://app.example.com", true),
            ("https://app.example.com:443", true),
            ("https://app.example.com:444", false),
            ("http://app.example.com", false),
            ("http://localhost:3000", true),
            ("https://localhost:3000", false),
            ("null", true),
            ("tauri://localhost", true),
            ("TAURI://LOCALHOST", true),
            ("tauri://localhost:80", false),
            ("tauri://127.0.0.1", false),
            ("app://-", true),
            ("app://-:3000", true),
        ] {
            assert_eq!(check(&allowed, &["127.0.0.1"], &[origin]), expected, "{origin}");
        }
    }

    #[test]
    fn where_every_host_is_served_none_vouches_for_its_pages() {
        let mut allowed = Allowed::default();
        allowed.every_host();
        assert!(check(&allowed, &["anything.example"], &[]));
        assert!(check(&allowed, &[], &[]));
        assert!(!check(&allowed, &["evil.com"], &["http://evil.com"]));
        allowed.origins(["http://good.com"]);
        assert!(check(&allowed, &["evil.com"], &["http://good.com"]));
    }

    #[cfg(feature = "rustls-tls")]
    #[test]
    fn under_tls_only_pages_that_came_by_tls_are_a_hosts_own() {
        let mut allowed = Allowed::default();
        allowed.only_https();
        assert!(check(&allowed, &["localhost:8443"], &["https://localhost:8443"]));
        assert!(check(&allowed, &["localhost"], &["https://localhost"]));
        assert!(!check(&allowed, &["localhost"], &["http://localhost"]));
        assert!(!check(&allowed, &["localhost:8443"], &["http://localhost:8443"]));
        allowed.origins(["http://localhost"]);
        assert!(check(&allowed, &["localhost"], &["http://localhost"]));
        allowed.hosts(["a.com:443", "b.com:80"]);
        assert!(check(&allowed, &["a.com"], &[]));
        assert!(check(&allowed, &["a.com"], &["https://a.com"]));
        assert!(check(&allowed, &["a.com"], &["http://localhost"]));
        assert!(!check(&allowed, &["a.com"], &["http://a.com"]));
        assert!(!check(&allowed, &["b.com"], &[]));
        assert!(!check(&allowed, &["b.com"], &["https://b.com"]));
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        for entry in [
            "",
            "a b",
            "http://",
            "app.example.com",
            "https://a/path",
            "ws://a",
            "wss://a",
            "file://",
            "chrome-extension://",
            "chrome-extension://*",
            "tauri:a",
            "tauri://a/",
            "null:*",
            "*",
            "https://*.a",
            "https://a#b",
            "https://a,b",
        ] {
            let mut allowed = Allowed::default();
            allowed.origins([entry]);
            assert!(allowed.validate().is_err(), "{entry}");
        }
        for entry in ["http://a", "*", "*.a", "a,b", "a:*", "a/b", "u@a", "a:", "[::1"] {
            let mut allowed = Allowed::default();
            allowed.hosts([entry]);
            assert!(allowed.validate().is_err(), "{entry}");
        }
    }
}
