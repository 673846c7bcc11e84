//! [`Connector`]: the way from a client to the host of its URL.

use std::{fmt, panic::AssertUnwindSafe, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use tokio::io::{AsyncRead, AsyncWrite};
use url::{Host, Url};

use super::box_io::BoxIo;
use crate::{error::HandshakeError, handshake::stream::set_tcp_options};

/// Maker of the byte stream that each connection of a client runs over.
///
/// Every `Fn(Target) -> impl Future<Output = Result<S, E>>` is one, where `S` is a byte stream and
/// `E` converts into a [`HandshakeError`], as an [`io::Error`](std::io::Error) does. It is called
/// for the first connection, for each that follows a lost one, and for redirects; within the
/// [handshake timeout](crate::client::Connect::handshake_timeout), after which it is dropped. TLS
/// is up to the client: for `wss://`, it is spoken over this stream.
///
/// An error counts as a failed attempt, and decides by
/// [`is_retryable`](HandshakeError::is_retryable) whether there is another: an I/O error is retried,
/// [`HandshakeError::Invalid`] is final. So is a panic.
pub trait Connector: Send + Sync + 'static {
    /// Type of the stream.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Connects to `target`.
    ///
    /// # Errors
    /// The reason why there is no connection.
    fn connect(
        &self,
        target: Target,
    ) -> impl Future<Output = Result<Self::Io, HandshakeError>> + Send;
}

impl<F, A, S, E> Connector for F
where
    F: Fn(Target) -> A + Send + Sync + 'static,
    A: Future<Output = Result<S, E>> + Send,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    E: Into<HandshakeError>,
{
    type Io = S;

    async fn connect(&self, target: Target) -> Result<S, HandshakeError> {
        self(target).await.map_err(Into::into)
    }
}

/// Host and port that a [`Connector`] connects to. `Display` writes `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
    is_tls: bool,
}

impl Target {
    /// Returns the target of a URL whose scheme is `ws` or `wss`.
    pub(super) fn of(url: &Url) -> Result<Self, HandshakeError> {
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => return Err(HandshakeError::Invalid("URL: no host".into())),
        };
        let port = url.port_or_known_default().unwrap_or(80);
        Ok(Self { host, port, is_tls: url.scheme() == "wss" })
    }

    /// Returns the host: a name, in the form of DNS, or an address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port: that of the URL, else 80 for `ws` and 443 for `wss`.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns `true` for `wss`: the client will speak TLS over the stream.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Dyn-compatible form of [`Connector`].
pub(super) trait DynConnector: Send + Sync {
    /// Returns the future of [`Connector::connect`], boxed. A panic is an error.
    fn connect_boxed(&self, target: Target) -> BoxFuture<'_, Result<BoxIo, HandshakeError>>;
}

impl<C: Connector> DynConnector for C {
    fn connect_boxed(&self, target: Target) -> BoxFuture<'_, Result<BoxIo, HandshakeError>> {
        let connecting = AssertUnwindSafe(async move {
            let stream = self.connect(target).await?;
            set_tcp_options(&stream);
            Ok(BoxIo::new(stream))
        });
        let panicked = |_| Err(HandshakeError::Invalid("the connector panicked".into()));
        async move { connecting.catch_unwind().await.unwrap_or_else(panicked) }.boxed()
    }
}

/// Way that the connections of a client take.
#[derive(Clone, Default)]
pub(super) enum Route {
    /// TCP or a proxy, as the URL and the environment say.
    #[default]
    Unset,
    /// Straight to the host of the URL.
    #[cfg(feature = "proxy")]
    Direct,
    Connector(Arc<dyn DynConnector>),
}

impl Route {
    pub(super) fn by(connector: impl Connector) -> Self {
        Self::Connector(Arc::new(connector))
    }
}
