//! [`Origin`]: the source of a request, and the host that it asks for.

use std::{fmt, net::Ipv6Addr};

use http::{Uri, uri::Authority};

/// Host and port; the port is `None` where a `Host` leaves it out, and where an origin has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostPort {
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

/// Origin of a web page, as its browser reports it (RFC 6454): scheme, host and port. `Display`
/// writes it as in the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub(super) scheme: String,
    pub(super) host_port: HostPort,
}

/// Source of a request with an `Origin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A page without an origin of its own, such as a file.
    Null,
    Page(Origin),
}

impl HostPort {
    /// Parses `host[:port]`; the host is lower case afterwards.
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
        // An authority may hold characters that no host has.
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
        &self.host_port.host
    }

    /// Returns the port: that of `http` or `https` if the browser left it out, else `None`.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.host_port.port
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host_port: HostPort { host, port } } = self;
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

/// Returns the default port of a scheme.
pub(super) fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        // An app, an extension.
        _ => None,
    }
}

impl Source {
    /// Parses an `Origin` as browsers send it (RFC 6454, section 6.2), and adds the default port.
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
        // The URL of a WebSocket, taken for the origin of a page by mistake.
        if matches!(scheme.as_str(), "ws" | "wss") {
            return None;
        }
        let mut host_port = HostPort::parse(parts.authority?.as_str())?;
        host_port.port = host_port.port.or(default_port(&scheme));
        Some(Self::Page(Origin { scheme, host_port }))
    }
}
