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
        write!(f, "{}://{}", self.scheme(), authority.unwrap_or_default())?;
        match self.variable {
            Some(variable) => write!(f, " ({variable})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::client::proxy::Proxy;

    #[test]
    fn host_and_port_are_those_to_connect_to_and_no_secret_is_shown() {
        for (url, host, port, shown) in [
            ("http://proxy", "proxy", 80, "http://proxy"),
            ("https://proxy", "proxy", 443, "https://proxy"),
            ("socks5://proxy", "proxy", 1080, "socks5://proxy"),
            ("socks5h://proxy:99", "proxy", 99, "socks5h://proxy:99"),
            ("proxy:3128", "proxy", 3128, "http://proxy:3128"),
            ("http://[::1]:3128", "::1", 3128, "http://[::1]:3128"),
            ("http://[2001:db8::1]", "2001:db8::1", 80, "http://[2001:db8::1]"),
            ("http://alice:canary@proxy:3128", "proxy", 3128, "http://proxy:3128"),
        ] {
            let proxy = Proxy::new(url);
            let uri = proxy.uri(proxy.at.as_ref().unwrap());
            assert_eq!((uri.host(), uri.port()), (host, Some(port)), "{url}");
            assert_eq!(uri.to_string(), shown);
        }
    }

    #[test]
    fn credentials_that_are_not_encoded_are_refused_and_not_shown() {
        for scheme in ["http", "https", "socks5", "socks5h"] {
            for rest in [
                "canary:2024/canary@proxy:3128",
                "canary:2024?canary@proxy:3128",
                "canary:2024#canary@proxy:3128",
                "canary#canary@proxy:3128",
                "canary:canary@canary@proxy:3128",
                "canary:canary@2024/canary@proxy:3128",
                "canary:canary@canary:2024#canary@proxy:3128",
            ] {
                let url = format!("{scheme}://{rest}");
                let proxy = Proxy { variable: Some("HTTP_PROXY"), ..Proxy::new(&url) };
                assert!(proxy.at.is_none(), "{url}");
                let error = proxy.not_understood().to_string();
                assert!(error.contains("HTTP_PROXY"), "{error}");
                for shown in [error, format!("{proxy:?}")] {
                    assert!(!shown.contains("canary") && !shown.contains("2024"), "{shown}");
                }
            }
            let encoded = Proxy::new(format!("{scheme}://alice:2024%2F%3F%23%40pw@proxy:3128"));
            assert_eq!(encoded.uri(encoded.at.as_ref().unwrap()).host(), "proxy");
        }
    }
}
