//! [`Proxy`]: connections by way of an HTTP or SOCKS5 proxy.

pub(super) mod environment;
mod socks;
mod tunnel;
mod uri;

use std::{fmt, io, net::SocketAddr};

use futures::{FutureExt, future::BoxFuture};
use http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use tokio::net::lookup_host;

use self::uri::ProxyUri;
use super::{
    authorization::basic,
    box_io::BoxIo,
    connector::{DynConnector, Target},
    tcp,
    tls::{self, ClientTls},
};
use crate::{error::HandshakeError, handshake::stream::set_tcp_options};

/// Proxy that a client goes by way of; see [`Connect::proxy`](super::Connect::proxy).
///
/// | URL | proxy |
/// |---|---|
/// | `http://host:port` | an HTTP proxy that is asked to `CONNECT`, for `ws` too; port 80 if none is given |
/// | `https://host:port` | the same over TLS; port 443 |
/// | `socks5h://host:port` | a SOCKS5 proxy, which resolves the name of the server; port 1080 |
/// | `socks5://host:port` | the same, but this side resolves the name |
///
/// User and password stand in it as in any URL, percent-encoded, or are given by
/// [`basic_auth`](Self::basic_auth). They are shown nowhere. The proxy can read and
/// change what goes by `ws`, tokens included, and not what goes by TLS, so `wss`.
///
/// # The environment
///
/// With the feature `proxy`, a client for which neither a proxy nor a
/// [connector](super::Connect::connector) is set goes by way of what the environment names, as curl,
/// reqwest, Go and Python's `websockets` do: `HTTPS_PROXY` for `wss`, `HTTP_PROXY` for `ws`, and
/// `ALL_PROXY` for both, in upper or lower case, but not to the hosts in `NO_PROXY`; nor to the
/// loopback interface, whatever `NO_PROXY` says; nor where `REQUEST_METHOD` is set, since in a CGI
/// program a stranger sets `HTTP_PROXY` by a header.
/// [`Connect::no_proxy`](super::Connect::no_proxy) heeds none of it. A value that is no proxy is an
/// error.
#[derive(Clone)]
pub struct Proxy {
    /// `None` if the URL was not understood.
    at: Option<Intercept>,
    credentials: Option<Credentials>,
    tls: ClientTls,
    /// Variable of the environment that the proxy is from, if it is from one.
    variable: Option<&'static str>,
}

/// User and password.
#[derive(Clone)]
struct Credentials {
    user: String,
    password: String,
}

impl Proxy {
    /// Creates the proxy of this URL. One that is not understood is an error of the connection.
    #[must_use]
    pub fn new(url: impl AsRef<str>) -> Self {
        let url = url.as_ref();
        let at = Matcher::builder().all(url).build();
        let at = at.intercept(&Uri::from_static("http://any.invalid/"));
        let at = at.filter(|at| are_credentials_whole(url, at));
        Self { at, credentials: None, tls: ClientTls::default(), variable: None }
    }

    /// Sets user and password, in place of those in the URL: for an HTTP proxy as `Basic` (RFC
    /// 7617), for a SOCKS5 proxy by RFC 1929.
    #[must_use]
    pub fn basic_auth(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some(Credentials { user: user.into(), password: password.into() });
        self
    }

    /// Sets whom to trust on `https://`: the default of [`ClientTls`], whatever is set for the
    /// server.
    #[must_use]
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.tls = tls;
        self
    }

    /// Connects to `target` by way of the proxy.
    async fn connect(&self, target: &Target) -> Result<BoxIo, HandshakeError> {
        let at = self.at.as_ref().ok_or_else(|| self.not_understood())?;
        let uri = self.uri(at);
        match uri.scheme() {
            "http" | "https" => {
                let authorization = match &self.credentials {
                    Some(Credentials { user, password }) => Some(basic(user, password)?),
                    None => at.basic_auth().cloned(),
                };
                let stream = self.reach(uri).await?;
                tunnel::open(stream, uri, target, authorization).await
            }
            "socks5h" => self.socks(at, &target.to_string()).await,
            "socks5" => {
                let mut last = None;
                for address in resolve(target).await? {
                    match self.socks(at, &address.to_string()).await {
                        Err(error) if error.is_retryable() => last = Some(error),
                        connected => return connected,
                    }
                }
                Err(last.unwrap_or_else(|| self.not_understood()))
            }
            _ => Err(self.not_understood()),
        }
    }

    fn uri<'a>(&self, at: &'a Intercept) -> ProxyUri<'a> {
        ProxyUri { uri: at.uri(), variable: self.variable }
    }

    /// Builds the error for a value that is no proxy. Does not show it: a password may be in it.
    fn not_understood(&self) -> HandshakeError {
        let what = match self.variable {
            Some(variable) => format!("the value of {variable}, which is to name a proxy,"),
            None => "the URL of the proxy".into(),
        };
        HandshakeError::Invalid(format!(
            "{what} is not one of http://, https://, socks5:// and socks5h://, with host and port, \
             and user and password, percent-encoded, before these if it wants them"
        ))
    }

    /// Asks a SOCKS5 proxy for `destination`, a host and a port.
    async fn socks(&self, at: &Intercept, destination: &str) -> Result<BoxIo, HandshakeError> {
        let given = self.credentials.as_ref();
        let given = given.map(|Credentials { user, password }| (&**user, &**password));
        let credentials = given.or_else(|| at.raw_auth());
        let uri = self.uri(at);
        let stream = self.reach(uri).await?;
        socks::connect(stream, uri, destination, credentials).await
    }

    /// Connects to the proxy itself.
    async fn reach(&self, uri: ProxyUri<'_>) -> Result<BoxIo, HandshakeError> {
        let port = uri.port().filter(|_| !uri.host().is_empty());
        let port = port.ok_or_else(|| self.not_understood())?;
        let tcp = tcp::connect(uri.host(), port).await;
        let tcp =
            tcp.map_err(|error| io::Error::new(error.kind(), format!("the proxy {uri}: {error}")))?;
        set_tcp_options(&tcp);
        if uri.scheme() != "https" {
            return Ok(BoxIo::new(tcp));
        }
        match tls::handshake(&self.tls, uri.host(), tcp).await {
            Ok(stream) => Ok(BoxIo::new(stream)),
            Err(HandshakeError::Tls(error)) => {
                Err(HandshakeError::Tls(format!("the proxy {uri}: {error}")))
            }
            Err(error) => Err(error),
        }
    }
}

impl DynConnector for Proxy {
    fn connect_boxed(&self, target: Target) -> BoxFuture<'_, Result<BoxIo, HandshakeError>> {
        async move { self.connect(&target).await }.boxed()
    }
}

impl From<&str> for Proxy {
    fn from(url: &str) -> Self {
        Self::new(url)
    }
}

impl From<String> for Proxy {
    fn from(url: String) -> Self {
        Self::new(url)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.at.as_ref().map(|at| self.uri(at).to_string());
        f.debug_tuple("Proxy").field(&url.unwrap_or_default()).finish()
    }
}

/// Returns `true` if each `@` in `url` separates credentials from a host. By an unencoded `/`, `?`,
/// `#` or `@` in a password, part of it would be dialed and shown as the host and port.
fn are_credentials_whole(url: &str, at: &Intercept) -> bool {
    let has_credentials = at.basic_auth().is_some() || at.raw_auth().is_some();
    url.matches('@').count() == usize::from(has_credentials)
}

/// Resolves the name of the server here. Returns one address at least.
async fn resolve(target: &Target) -> io::Result<Vec<SocketAddr>> {
    let found = lookup_host(target.to_string()).await;
    let found = found.map(Iterator::collect).unwrap_or_else(|_| Vec::new());
    if found.is_empty() {
        let what = "does not resolve here; by socks5h:// the proxy resolves it";
        let what = format!("the name {} {what}", target.host());
        return Err(io::Error::new(io::ErrorKind::NotFound, what));
    }
    Ok(found)
}
