//! [`Connect`]: the options of a connection, and the way to it.

use std::{
    fmt,
    future::IntoFuture,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt};
use mcp_ws_transport::cluster::{InvalidSubject, Subject};
use redis::{Client, ConnectionInfo, ErrorKind, IntoConnectionInfo, ProtocolVersion, RedisError};

use crate::{bus::Redis, link::Link, run::Runner};

/// Connection to Redis that is yet to be made, with its options; awaited, it is a [`Redis`].
#[must_use = "futures do nothing unless awaited"]
pub struct Connect {
    url: String,
    user_and_password: Option<(String, String)>,
    prefix: Option<Subject>,
    max_payload: usize,
    max_queued_bytes: usize,
    ping_interval: Duration,
    in_background: bool,
    #[cfg(feature = "rustls-tls")]
    tls: Tls,
}

/// Paths of PEM files.
#[cfg(feature = "rustls-tls")]
#[derive(Default)]
struct Tls {
    root_certificates: Option<PathBuf>,
    client_certificate: Option<(PathBuf, PathBuf)>,
}

/// Error of the first connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is no address of a Redis server.
    #[error("no address of a Redis server, such as redis://127.0.0.1:6379: {0}")]
    Address(String),
    /// The prefix leaves no room for the subjects of answers.
    #[error("the prefix is too long: {0}")]
    Prefix(InvalidSubject),
    /// The server does not let this client in.
    #[error("Redis refuses: {0}")]
    Refused(String),
    /// A file that was named cannot be used.
    #[error("cannot read {path}: {source}")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Cause of the failure.
        source: io::Error,
    },
    /// The server was not reached.
    #[error("cannot connect to Redis: {0}")]
    Unreachable(String),
}

impl Connect {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            user_and_password: None,
            prefix: None,
            max_payload: 1 << 20,
            max_queued_bytes: 8 << 20,
            ping_interval: Duration::from_secs(5),
            in_background: false,
            #[cfg(feature = "rustls-tls")]
            tls: Tls::default(),
        }
    }

    /// Sets the prefix of the cluster's subjects: answers arrive below `{prefix}.inbox`, so that a
    /// user needs the right to the channels `{prefix}.*` and no other. By default they arrive below
    /// `inbox`.
    ///
    /// All instances have the same.
    pub fn prefix(mut self, prefix: &Subject) -> Self {
        self.prefix = Some(prefix.clone());
        self
    }

    /// Sets a user and their password. The URL may also have them.
    pub fn user_and_password(
        mut self,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        self.user_and_password = Some((user.into(), password.into()));
        self
    }

    /// Trusts the certificate authorities in this PEM file, in place of the operating system's.
    #[cfg(feature = "rustls-tls")]
    pub fn root_certificates(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.root_certificates = Some(path.into());
        self
    }

    /// Shows the server this certificate; paths of PEM files.
    #[cfg(feature = "rustls-tls")]
    pub fn client_certificate(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.tls.client_certificate = Some((certificate.into(), key.into()));
        self
    }

    /// Sets the size of the largest payload, in bytes; 1 MiB by default.
    pub fn max_payload(mut self, bytes: usize) -> Self {
        self.max_payload = bytes;
        self
    }

    /// Sets how many bytes of messages may wait for Redis to confirm them; 8 MiB by default.
    pub fn max_queued_bytes(mut self, bytes: usize) -> Self {
        self.max_queued_bytes = bytes;
        self
    }

    /// Sets how often the server is pinged; 5 s by default. A connection is lost when an answer
    /// takes that long.
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.ping_interval = interval;
        self
    }

    /// Sets whether the [`Redis`] is returned at once, and connects when the server is there; by
    /// default, the first connection must succeed.
    pub fn in_background(mut self, in_background: bool) -> Self {
        self.in_background = in_background;
        self
    }

    async fn connect(self) -> Result<Redis, ConnectError> {
        let address = |error: RedisError| ConnectError::Address(error.to_string());
        let info = self.url.as_str().into_connection_info().map_err(address)?;
        let mut settings = info
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3)
            .set_skip_set_lib_name();
        if let Some((user, password)) = &self.user_and_password {
            settings = settings.set_username(user).set_password(password);
        }
        let client = self.client(info.set_redis_settings(settings))?;
        let link = Arc::new(Link::new(self.inbox()?, self.max_queued_bytes));
        let runner = Runner { client, link, ping_interval: self.ping_interval };
        let connection = if self.in_background { None } else { Some(runner.connect().await?) };
        Ok(Redis::start(runner, connection, self.max_payload))
    }

    /// Returns a channel of this connection alone.
    fn inbox(&self) -> Result<Subject, ConnectError> {
        let random = format!("inbox.{:032x}", rand::random::<u128>());
        let inbox = match &self.prefix {
            Some(prefix) => prefix.join(&random),
            None => Subject::new(random),
        };
        let has_room = |inbox: Subject| inbox.join(&u64::MAX.to_string()).map(|_| inbox);
        inbox.and_then(has_room).map_err(ConnectError::Prefix)
    }

    #[cfg(not(feature = "rustls-tls"))]
    fn client(&self, info: ConnectionInfo) -> Result<Client, ConnectError> {
        Ok(Client::open(info)?)
    }

    #[cfg(feature = "rustls-tls")]
    fn client(&self, info: ConnectionInfo) -> Result<Client, ConnectError> {
        use redis::{ClientTlsConfig, ConnectionAddr, TlsCertificates};
        use rustls::crypto::{CryptoProvider, ring};

        if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            return Ok(Client::open(info)?);
        }
        // Where several providers are compiled in, rustls has none until one is chosen.
        if CryptoProvider::get_default().is_none() {
            let _ = ring::default_provider().install_default();
        }
        let root_cert = self.tls.root_certificates.as_deref().map(read).transpose()?;
        let client_tls = match &self.tls.client_certificate {
            Some((certificate, key)) => {
                Some(ClientTlsConfig { client_cert: read(certificate)?, client_key: read(key)? })
            }
            None => None,
        };
        Ok(Client::build_with_tls(info, TlsCertificates { client_tls, root_cert })?)
    }
}

#[cfg(feature = "rustls-tls")]
fn read(path: &Path) -> Result<Vec<u8>, ConnectError> {
    std::fs::read(path).map_err(|source| ConnectError::File { path: path.into(), source })
}

impl IntoFuture for Connect {
    type Output = Result<Redis, ConnectError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.connect().boxed()
    }
}

impl From<RedisError> for ConnectError {
    fn from(error: RedisError) -> Self {
        let text = error.to_string();
        match error.kind() {
            ErrorKind::InvalidClientConfig => Self::Address(text),
            ErrorKind::AuthenticationFailed
            | ErrorKind::Server(_)
            | ErrorKind::Extension
            | ErrorKind::RESP3NotSupported => Self::Refused(text),
            _ => Self::Unreachable(text),
        }
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the URL, which may have a password.
        f.debug_struct("Connect")
            .field("prefix", &self.prefix)
            .field("max_payload", &self.max_payload)
            .field("max_queued_bytes", &self.max_queued_bytes)
            .field("ping_interval", &self.ping_interval)
            .field("in_background", &self.in_background)
            .finish_non_exhaustive()
    }
}
