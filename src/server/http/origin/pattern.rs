//! Patterns of the allowed hosts and origins.

use std::net::Ipv6Addr;

use super::source::{HostPort, Source};

/// Hosts that a pattern matches: one, or all below a domain.
#[derive(Debug, Clone)]
enum Hosts {
    One(String),
    /// Hosts that end with this suffix, which begins with a dot.
    Below(String),
    Every,
}

/// Pattern of an allowed host, at one port or at any.
#[derive(Debug, Clone)]
pub(super) struct HostPattern {
    hosts: Hosts,
    port: Option<u16>,
}

/// Pattern of an allowed origin.
#[derive(Debug, Clone)]
pub(super) struct OriginPattern(Sources);

#[derive(Debug, Clone)]
enum Sources {
    One(Source),
    Pages {
        scheme: String,
        hosts: Hosts,
        /// `None` matches any port, and no port.
        port: Option<Option<u16>>,
    },
}

impl Hosts {
    /// Matches the subdomains of `domain`, which must not be an address.
    ///
    /// The domain has a dot in it, or is `localhost`: a single label would cover a whole registry.
    fn below(domain: &str) -> Result<Self, &'static str> {
        let last = domain.rsplit('.').next().unwrap_or_default();
        let is_number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
        let is_domain = domain.contains('.') && domain.split('.').all(|label| !label.is_empty());
        if domain == "localhost" || is_domain && !is_number {
            Ok(Self::Below(format!(".{domain}")))
        } else {
            Err(
                "`*.` stands for the subdomains of a domain that has a dot in it, or of `localhost`",
            )
        }
    }

    fn cover(&self, host: &str) -> bool {
        match self {
            Self::One(own) => own == host,
            Self::Below(suffix) => host
                .strip_suffix(suffix.as_str())
                .is_some_and(|labels| labels.split('.').all(|label| !label.is_empty())),
            Self::Every => true,
        }
    }
}

impl HostPattern {
    /// Matches this host, at any port.
    pub(super) fn one(host: &str) -> Self {
        Self { hosts: Hosts::One(host.to_owned()), port: None }
    }

    /// Parses `[*.]host[:port|:*]`.
    ///
    /// # Errors
    /// The fault of the host.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        // An IPv6 address may stand there without brackets, as in rmcp's configuration.
        let bare = text.parse().map(|address: Ipv6Addr| format!("[{address}]"));
        let text = bare.as_deref().unwrap_or(text);
        let (rest, any_port) = strip_any_port(text);
        let (host, is_below) = strip_below(rest);
        let HostPort { host, port } = HostPort::parse(host).ok_or_else(|| host_fault(rest))?;
        if any_port && port.is_some() {
            return Err("it has two ports");
        }
        let hosts = if is_below { Hosts::below(&host)? } else { Hosts::One(host) };
        Ok(Self { hosts, port })
    }

    /// Returns `true` if `host` is allowed at one of these `ports`.
    pub(super) fn covers(&self, host: &str, ports: &[u16]) -> bool {
        self.hosts.cover(host) && self.port.is_none_or(|port| ports.contains(&port))
    }
}

impl OriginPattern {
    /// Parses an origin whose host may begin with `*.` or be `*`, and whose port may be `*`.
    ///
    /// # Errors
    /// The fault of the origin.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(Source::Null) = Source::parse(text) {
            return Ok(Self(Sources::One(Source::Null)));
        }
        let (rest, any_port) = strip_any_port(text);
        let (scheme, authority) = rest.split_once("://").ok_or_else(|| scheme_fault(text))?;
        let (host, is_below) = strip_below(authority);
        let is_every = host == "*" && !is_below;
        let example = if is_every { "host" } else { host };
        let Some(Source::Page(origin)) = Source::parse(&format!("{scheme}://{example}")) else {
            return Err(match scheme.to_ascii_lowercase().as_str() {
                "ws" | "wss" => "the scheme of a page is http or https",
                _ => host_fault(authority),
            });
        };
        if is_every && matches!(origin.scheme(), "http" | "https") {
            return Err("it would let in every web page that there is");
        }
        if any_port && HostPort::parse(example).is_none_or(|host_port| host_port.port.is_some()) {
            return Err("it has two ports");
        }
        let port = (!any_port && !is_every).then_some(origin.port());
        let scheme = origin.scheme().to_owned();
        let hosts = match (is_every, is_below) {
            (true, _) => Hosts::Every,
            (_, true) => Hosts::below(origin.host())?,
            _ => Hosts::One(origin.host().to_owned()),
        };
        Ok(Self(Sources::Pages { scheme, hosts, port }))
    }

    /// Returns `true` if pages of `source` are allowed.
    pub(super) fn covers(&self, source: &Source) -> bool {
        match (&self.0, source) {
            (Sources::Pages { scheme, hosts, port }, Source::Page(origin)) => {
                scheme == origin.scheme()
                    && hosts.cover(origin.host())
                    && port.is_none_or(|port| port == origin.port())
            }
            (Sources::One(own), source) => own == source,
            (Sources::Pages { .. }, Source::Null) => false,
        }
    }
}

fn strip_any_port(text: &str) -> (&str, bool) {
    text.strip_suffix(":*").map_or((text, false), |rest| (rest, true))
}

fn strip_below(text: &str) -> (&str, bool) {
    text.strip_prefix("*.").map_or((text, false), |rest| (rest, true))
}

fn scheme_fault(text: &str) -> &'static str {
    match text {
        "" => "it is empty",
        "*" => "it would let in every web page that there is",
        text if text.starts_with("null:") => "`null` has no port",
        _ => "it has no scheme",
    }
}

/// Returns the fault of a host that cannot be parsed.
fn host_fault(host: &str) -> &'static str {
    let has = |characters: &[char]| host.contains(characters);
    match host {
        "" => "it has no host",
        "*" => "it would let in every host: that is `disable_allowed_hosts`",
        _ if host.contains("://") => "a host has no scheme",
        _ if has(&['/', '?', '#']) => "it ends with its host or port, without a path",
        _ if has(&['@']) => "it has no user",
        _ if has(&[',', ' ', '\t']) => "each is an entry of its own",
        _ if has(&['*']) => "`*` stands in front of a domain, as in `*.example.com`, or for a port",
        _ => "its host or port is none",
    }
}
