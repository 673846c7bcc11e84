//! [`ProxyUri`]: where a proxy is.

use std::fmt;

use http::Uri;

/// Scheme, host and port of a proxy. `Display` writes just these, and the variable that names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProxyUri<'a> {
    pub(super) uri: &'a Uri,
    /// Variable of the environment that the proxy is from, if it is from one.
    pub(super) variable: Option<&'static str>,
}

impl ProxyUri<'_> {
    pub(super) fn scheme(self) -> &'static str {
        match self.uri.scheme_str() {
            Some("http") => "http",
            Some("https") => "https",
            Some("socks5") => "socks5",
            Some("socks5h") => "socks5h",
            _ => "",
        }
    }

    /// Returns the host, without the brackets of an address.
    pub(super) fn host(&self) -> &str {
        let host = self.uri.host().unwrap_or_default();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// Returns the port; `None` where what stands there is none.
    pub(super) fn port(self) -> Option<u16> {
        let authority = self.uri.authority()?;
        match authority.as_str().strip_prefix(authority.host())? {
            "" => Some(match self.scheme() {
                "http" => 80,
                "https" => 443,
                _ => 1080,
            }),
            _ => authority.port_u16(),
        }
    }
}

impl fmt::Display for ProxyUri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authority = self.uri.authority().map(|authority| authority.as_str());
        // A password with an `@` may have been taken for the host.
        let authority = authority.and_then(|authority| authority.rsplit('@').next());
        write!(f, "{}://{}", self.scheme(), authority.unwrap_or_default())?;
        match self.variable {
            Some(variable) => write!(f, " ({variable})"),
            None => Ok(()),
        }
    }
}
