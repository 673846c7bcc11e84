//! [`Allowed`]: the hosts and origins that are served (RFC 6454; RFC 6455, section 10.2).
//!
//! A browser lets any page open a WebSocket to any host, and names the page's origin in `Origin`
//! alone. A page may also let its own name resolve to the visitor's machine (DNS rebinding), which
//! shows in `Host` alone. So both are checked.

mod pattern;
pub(in crate::server) mod source;
#[cfg(test)]
mod tests;

use std::{
    fmt::{self, Write as _},
    panic::{AssertUnwindSafe, catch_unwind},
    slice,
    sync::Arc,
};

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_TYPE, HOST, HeaderName, ORIGIN, X_CONTENT_TYPE_OPTIONS},
};

use self::{
    pattern::{HostPattern, OriginPattern},
    source::{HostPort, Origin, Source},
};
use super::rejection::Rejection;
use crate::server::registry::event::RejectReason;

/// Hosts that are served, and origins whose pages may connect.
#[derive(Debug, Clone)]
pub(in crate::server) struct Allowed {
    /// `None` serves every host.
    hosts: Option<Vec<HostPattern>>,
    origins: Vec<OriginPattern>,
    predicate: Option<Predicate>,
    /// `true` if connections come by TLS.
    ///
    /// A `Host` without a port is at 443 then, and the hosts' own pages are those of `https` alone,
    /// so that nobody on the way can have written them.
    secure: bool,
    /// First entry that could not be parsed, and why.
    invalid: Option<String>,
}

#[derive(Clone)]
struct Predicate(Arc<dyn Fn(&Origin) -> bool + Send + Sync>);

impl fmt::Debug for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Predicate")
    }
}

/// Rejection of a `Host` or `Origin` that is not allowed.
#[derive(Debug)]
pub(in crate::server) struct NotAllowed {
    cause: RejectReason,
    what: String,
}

impl Default for Allowed {
    fn default() -> Self {
        let loopback = ["localhost", "127.0.0.1", "::1"];
        Self {
            hosts: Some(loopback.map(HostPattern::one).into()),
            origins: Vec::new(),
            predicate: None,
            secure: false,
            invalid: None,
        }
    }
}

impl Allowed {
    /// Sets the hosts that are served.
    pub(in crate::server) fn hosts<T: Into<String>>(&mut self, hosts: impl IntoIterator<Item = T>) {
        let hosts = hosts.into_iter().filter_map(|host| {
            let host = host.into();
            HostPattern::parse(&host)
                .map_err(|fault| {
                    self.note(&format!(
                        "allowed_hosts: {host:?} is no host ({fault}); write it as \"example.com\" for any \
                         port, \"example.com:8443\", \"*.example.com\" or \"[::1]:8443\""
                    ));
                })
                .ok()
        });
        self.hosts = Some(hosts.collect());
    }

    /// Serves every host.
    pub(in crate::server) fn every_host(&mut self) {
        self.hosts = None;
    }

    /// Sets the origins whose pages may connect.
    pub(in crate::server) fn origins<T: Into<String>>(
        &mut self,
        origins: impl IntoIterator<Item = T>,
    ) {
        let origins = origins.into_iter().filter_map(|origin| {
            let origin = origin.into();
            OriginPattern::parse(&origin)
                .map_err(|fault| {
                    self.note(&format!(
                        "allowed_origins: {origin:?} is no origin ({fault}); write it as \
                         \"https://app.example.com\", \"https://*.example.com\", \"http://localhost:*\", \
                         \"chrome-extension://*\" or \"null\""
                    ));
                })
                .ok()
        });
        self.origins = origins.collect();
    }

    /// Allows those origins, too, that `predicate` chooses.
    pub(in crate::server) fn origins_if(
        &mut self,
        predicate: Arc<dyn Fn(&Origin) -> bool + Send + Sync>,
    ) {
        self.predicate = Some(Predicate(predicate));
    }

    /// Returns `true` if connections come by TLS.
    pub(in crate::server) fn is_secure(&self) -> bool {
        self.secure
    }

    /// Takes all connections for such that come by TLS.
    pub(in crate::server) fn assume_https(&mut self) {
        self.secure = true;
    }

    /// Records the fault of an entry, unless there was one before.
    fn note(&mut self, fault: &str) {
        self.invalid.get_or_insert_with(|| fault.to_owned());
    }

    /// Fails with the first entry that could not be parsed.
    pub(in crate::server) fn validate(&self) -> Result<(), String> {
        self.invalid.clone().map_or(Ok(()), Err)
    }

    /// Checks the `Host` and `Origin` of a request.
    pub(in crate::server) fn check(&self, headers: &HeaderMap) -> Result<(), NotAllowed> {
        single_value(headers, HOST).and_then(|host| self.decide(host, headers))
    }

    /// Checks a request whose host is that of its target, as in HTTP/2.
    pub(in crate::server) fn check_at(
        &self,
        authority: &str,
        headers: &HeaderMap,
    ) -> Result<(), NotAllowed> {
        self.decide(Some(authority.as_bytes()), headers)
    }

    fn decide(&self, host: Option<&[u8]>, headers: &HeaderMap) -> Result<(), NotAllowed> {
        let host_port = host.and_then(text).and_then(HostPort::parse);
        if self.hosts.is_some()
            && !host_port.as_ref().is_some_and(|host_port| self.lists(host_port))
        {
            return Err(NotAllowed::host(host));
        }
        let Some(origin) = single_value(headers, ORIGIN)? else { return Ok(()) };
        let Some(source) = text(origin).and_then(Source::parse) else {
            return Err(NotAllowed::origin(origin));
        };
        let listed = self.origins.iter().any(|allowed| allowed.covers(&source));
        let own = || host_port.is_some_and(|host_port| self.is_own_page(&host_port, &source));
        if listed || own() || self.is_chosen(&source) {
            Ok(())
        } else {
            Err(NotAllowed::origin(origin))
        }
    }

    /// Returns `true` if `host` is in the list of hosts.
    ///
    /// Clients leave out the default port of their scheme (RFC 9110, section 7.2), and without TLS
    /// here the scheme is not known: a proxy may speak `https`.
    fn lists(&self, host: &HostPort) -> bool {
        let default: &[u16] = if self.secure { &[443] } else { &[80, 443] };
        let ports = host.port.as_ref().map_or(default, slice::from_ref);
        self.hosts.iter().flatten().any(|allowed| allowed.covers(&host.host, ports))
    }

    /// Returns `true` if a page of `source` is the `host`'s own.
    ///
    /// Only the pages of a listed host count as its own; and since a `Host` may leave its port
    /// open, that of the page must be listed too.
    fn is_own_page(&self, host: &HostPort, source: &Source) -> bool {
        let Source::Page(Origin { scheme, host_port }) = source else { return false };
        let default = match (scheme.as_str(), self.secure) {
            ("https", _) => 443,
            ("http", false) => 80,
            _ => return false,
        };
        host_port.host == host.host
            && host_port.port == Some(host.port.unwrap_or(default))
            && self.lists(host_port)
    }

    /// Returns `true` if there is a predicate, and it allows `source`.
    fn is_chosen(&self, source: &Source) -> bool {
        let (Some(Predicate(predicate)), Source::Page(origin)) = (&self.predicate, source) else {
            return false;
        };
        catch_unwind(AssertUnwindSafe(|| predicate(origin))).unwrap_or_else(|_| {
            tracing::error!("the predicate of allowed origins panicked");
            false
        })
    }
}

impl NotAllowed {
    fn host(host: Option<&[u8]>) -> Self {
        let what = match host {
            Some(host) => format!(
                "the Host {} is not served here; allowed_hosts lists those that are",
                shown(host)
            ),
            None => "a request without a Host is not served here".to_owned(),
        };
        Self { cause: RejectReason::Host, what }
    }

    fn origin(origin: &[u8]) -> Self {
        let what = format!(
            "web pages of the Origin {} may not connect; allowed_origins lists those that may",
            shown(origin)
        );
        Self { cause: RejectReason::Origin, what }
    }

    fn several(name: &HeaderName) -> Self {
        let (cause, name) = if *name == HOST {
            (RejectReason::Host, "Host")
        } else {
            (RejectReason::Origin, "Origin")
        };
        Self { cause, what: format!("more than one {name}") }
    }

    /// Returns the 403, which quotes the request, so that browsers must not take it for a page.
    pub(in crate::server) fn reject(self) -> Box<Rejection> {
        Rejection::with_text(self.cause, StatusCode::FORBIDDEN, self.what)
            .with(CONTENT_TYPE, "text/plain; charset=utf-8")
            .with(X_CONTENT_TYPE_OPTIONS, "nosniff")
    }
}

/// Quotes `value` for logs and responses.
///
/// Bytes that a terminal or a browser may act on are escaped, a long value is cut, and user
/// information, which may hold a password, is left out.
fn shown(value: &[u8]) -> String {
    const MAX: usize = 100;
    let host = value.iter().rposition(|byte| *byte == b'@').map(|at| &value[at..]);
    let (mut text, value) = match host {
        Some(host) => ("\"…".to_owned(), host),
        None => ("\"".to_owned(), value),
    };
    for byte in value.iter().take(MAX) {
        match byte {
            b'"' | b'\'' | b'<' | b'>' | b'&' | b'`' | b'\\' => _ = write!(text, "\\x{byte:02x}"),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => _ = write!(text, "\\x{byte:02x}"),
        }
    }
    if value.len() > MAX {
        text.push('…');
    }
    text + "\""
}

/// Returns a header value as text, if it is printable ASCII.
fn text(value: &[u8]) -> Option<&str> {
    str::from_utf8(value)
        .ok()
        .filter(|text| text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~')))
}

/// Returns the value of a header, if there is one; several are not allowed.
fn single_value(headers: &HeaderMap, name: HeaderName) -> Result<Option<&[u8]>, NotAllowed> {
    let mut values = headers.get_all(&name).iter().map(HeaderValue::as_bytes);
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        (_, Some(_)) => Err(NotAllowed::several(&name)),
    }
}
