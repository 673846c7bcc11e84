//! [`Origin`]: the source of a request, and the host that it asks for.

use std::{fmt, net::Ipv6Addr};

use http::{Uri, uri::Authority};

/// Host and port; the port is `None` where a `Host` leaves it out, and where an origin has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

/// Origin of a web page, as its browser reports it (RFC 6454): scheme, host and port. `Display`
/// writes it as in the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub(super) scheme: String,
    pub(super) place: Place,
}

/// Source of a request with an `Origin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A page without an origin of its own, such as a file.
    Null,
    Page(Origin),
}

impl Place {
    pub(super) fn parse(authority: &str) -> Option<Self> {
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
}

impl Origin {
    /// Returns the scheme, in lower case: `https`, or that of an app such as `vscode-webview`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Returns the host, in lower case; an IPv6 address has no brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.place.host
    }

    /// Returns the port: that of `http` or `https` if the browser left it out, else `None`.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.place.port
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, place: Place { host, port } } = self;
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]")?;
        } else {
            write!(f, "{scheme}://{host}")?;
        }
        match port {
            Some(port) if default_port(scheme) != Some(*port) => write!(f, ":{port}"),
            _ => Ok(()),
        }
    }
}

pub(super) fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        // An app, an extension.
        _ => None,
    }
}

impl Source {
    /// An `Origin` as a browser sends it (RFC 6454, section 6.2), with the port that it leaves out.
    pub(super) fn parse(text: &str) -> Option<Self> {
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
        // What is opened from a page, and by mistake taken for its origin.
        if matches!(scheme.as_str(), "ws" | "wss") {
            return None;
        }
        let mut place = Place::parse(parts.authority?.as_str())?;
        place.port = place.port.or(default_port(&scheme));
        Some(Self::Page(Origin { scheme, place }))
    }
}
