//! Which web pages may connect (RFC 6454; RFC 6455, section 10.2).

use http::{
    HeaderMap, Uri,
    header::{HOST, ORIGIN},
    uri::Authority,
};

/// Whether the request comes from no web page, or from one of the very host that it asks.
pub(super) fn allowed(headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else { return true };
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None, None) = (hosts.next(), hosts.next(), origins.next()) else {
        return false;
    };
    let (Ok(origin), Ok(host)) = (origin.to_str(), host.to_str()) else { return false };
    let (Ok(origin), Ok(host)) = (origin.parse::<Uri>(), host.parse::<Authority>()) else {
        return false;
    };
    let default_port = match origin.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return false,
    };
    let bare = matches!(origin.path(), "" | "/") && origin.query().is_none();
    let Some(authority) = origin.authority().filter(|_| bare) else { return false };
    if authority.as_str().contains('@') || host.as_str().contains('@') {
        return false;
    }
    let port = |authority: &Authority| authority.port_u16().unwrap_or(default_port);
    authority.host().eq_ignore_ascii_case(host.host()) && port(authority) == port(&host)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, header::HeaderName};

    use super::*;

    fn check(lines: &[(HeaderName, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_static(value));
        }
        allowed(&headers)
    }

    #[test]
    fn only_the_own_host_s_pages_and_programs_may_connect() {
        for (origin, host, expected) in [
            ("http://localhost:8080", "localhost:8080", true),
            ("http://LOCALHOST:8080", "localhost:8080", true),
            ("http://example.com", "example.com", true),
            ("https://example.com", "example.com:443", true),
            ("http://[::1]:8080", "[::1]:8080", true),
            ("http://localhost:8081", "localhost:8080", false),
            ("http://localhost.evil.com:8080", "localhost:8080", false),
            ("http://evil-localhost:8080", "localhost:8080", false),
            ("http://user@localhost:8080", "localhost:8080", false),
            ("http://evil.com", "localhost:8080", false),
            ("https://localhost", "localhost", true),
            ("file://localhost", "localhost", false),
            ("null", "localhost:8080", false),
            ("", "localhost:8080", false),
            ("http://localhost:8080/path", "localhost:8080", false),
        ] {
            assert_eq!(check(&[(HOST, host), (ORIGIN, origin)]), expected, "{origin} {host}");
        }
        assert!(check(&[(HOST, "localhost")]));
        assert!(!check(&[(ORIGIN, "http://localhost")]));
        let twice = [(HOST, "a"), (ORIGIN, "http://a"), (ORIGIN, "http://b")];
        assert!(!check(&twice));
    }
}
