//! [`Connect`]: the options of a connection, and the way to it.

use std::{fmt, future::IntoFuture, io, path::PathBuf, sync::Arc, time::Duration};

use async_nats::{
    ConnectErrorKind, ConnectOptions,
    connection::State,
    rustls::crypto::{CryptoProvider, ring},
};
use futures::future::{BoxFuture, FutureExt};
use mcp_ws_transport::cluster::Subject;
use tokio::sync::Semaphore;

use crate::{link::Link, nats::Nats};

/// Connection to NATS that is yet to be made, with its options; awaited, it is a [`Nats`].
#[must_use = "futures do nothing unless awaited"]
pub struct Connect {
    servers: Vec<String>,
    options: ConnectOptions,
    credentials: Option<PathBuf>,
    inbox_prefix: String,
    max_queued_bytes: usize,
    in_background: bool,
}

/// Error of the first connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// A URL is no address of a NATS server.
    #[error("no address of a NATS server, such as nats://127.0.0.1:4222: {0}")]
    Address(String),
    /// The server does not let this client in.
    #[error("NATS refuses the credentials: {0}")]
    Unauthorized(String),
    /// A file that was named cannot be used.
    #[error("the credentials file {path}: {source}")]
    Credentials {
        /// Path of the file.
        path: PathBuf,
        /// Cause of the failure.
        source: io::Error,
    },
    /// No server was reached.
    #[error("cannot connect to NATS: {0}")]
    Unreachable(String),
}

impl Connect {
    /// Messages that the client library takes beside those that it is writing.
    const TAKEN_MESSAGES: usize = 16;

    /// The longest wait between two attempts to connect.
    const MAX_DELAY: Duration = Duration::from_secs(1);

    pub(crate) fn new(server: String) -> Self {
        let options = ConnectOptions::new()
            .ping_interval(Duration::from_secs(5))
            .client_capacity(Self::TAKEN_MESSAGES)
            // What arrives is taken at once, and then bounded in bytes. The library would drop
            // messages, and not always say so.
            .subscription_capacity(Semaphore::MAX_PERMITS)
            .reconnect_delay_callback(|attempts| {
                let doubled = 1 << attempts.min(10);
                if attempts < 2 {
                    Duration::ZERO
                } else {
                    Self::MAX_DELAY.min(Duration::from_millis(10 * doubled))
                }
            });
        Self {
            servers: vec![server],
            options,
            credentials: None,
            inbox_prefix: "_INBOX".into(),
            max_queued_bytes: 8 << 20,
            in_background: false,
        }
    }

    /// Adds another server of the same NATS cluster.
    pub fn server(mut self, url: impl Into<String>) -> Self {
        self.servers.push(url.into());
        self
    }

    /// Sets the prefix of the cluster's subjects: answers arrive below `{prefix}.inbox`, so that a
    /// user needs the right to `{prefix}.>` and no other. By default they arrive below `_INBOX`.
    pub fn prefix(mut self, prefix: &Subject) -> Self {
        self.inbox_prefix = format!("{prefix}.inbox");
        self
    }

    /// Sets the name under which NATS lists the connection.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options = self.options.name(name.into());
        self
    }

    /// Sets a user and their password. A URL may also have them.
    pub fn user_and_password(
        mut self,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        self.options = self.options.user_and_password(user.into(), password.into());
        self
    }

    /// Sets a token.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.options = self.options.token(token.into());
        self
    }

    /// Sets the seed of an nkey (`SU…`).
    #[cfg(feature = "nkeys")]
    pub fn nkey(mut self, seed: impl Into<String>) -> Self {
        self.options = self.options.nkey(seed.into());
        self
    }

    /// Sets a credentials file, as `nsc` writes it: a JWT and the seed of its nkey.
    #[cfg(feature = "nkeys")]
    pub fn credentials_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.credentials = Some(path.into());
        self
    }

    /// Trusts the certificate authorities in this PEM file, in place of the operating system's.
    pub fn root_certificates(mut self, path: impl Into<PathBuf>) -> Self {
        self.options = self.options.add_root_certificates(path.into());
        self
    }

    /// Shows the server this certificate; paths of PEM files.
    pub fn client_certificate(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.options = self.options.add_client_certificate(certificate.into(), key.into());
        self
    }

    /// Sets whether TLS is used in any case. By default it is where the URL begins with `tls://`,
    /// or the server asks for it.
    pub fn require_tls(mut self, is_required: bool) -> Self {
        self.options = self.options.require_tls(is_required);
        self
    }

    /// Sets how often the server is pinged while nothing arrives from it; 5 s by default.
    ///
    /// A connection is lost when the third ping is due and none was answered.
    pub fn ping_interval(mut self, interval: Duration) -> Self {
        self.options = self.options.ping_interval(interval);
        self
    }

    /// Sets how many bytes of messages may wait to be written; 8 MiB by default.
    pub fn max_queued_bytes(mut self, bytes: usize) -> Self {
        self.max_queued_bytes = bytes;
        self
    }

    /// Sets whether the [`Nats`] is returned at once, and connects when a server is there; by
    /// default, the first connection must succeed.
    pub fn in_background(mut self, in_background: bool) -> Self {
        self.in_background = in_background;
        self
    }

    async fn connect(mut self) -> Result<Nats, ConnectError> {
        // Where several providers are compiled in, rustls has none until one is chosen.
        if CryptoProvider::get_default().is_none() {
            let _ = ring::default_provider().install_default();
        }
        #[cfg(feature = "nkeys")]
        if let Some(path) = self.credentials.take() {
            let with = self.options.credentials_file(&path).await;
            self.options = with.map_err(|source| ConnectError::Credentials { path, source })?;
        }
        if self.in_background {
            self.options = self.options.retry_on_initial_connect();
        }
        let link = Arc::new(Link::new(self.max_queued_bytes));
        let watched = link.clone();
        let client = self
            .options
            .custom_inbox_prefix(self.inbox_prefix)
            .event_callback(move |event| {
                watched.on_event(&event);
                std::future::ready(())
            })
            .connect(self.servers.as_slice())
            .await?;
        if client.connection_state() == State::Connected {
            link.set_up(true);
        }
        Nats::start(client, link).await
    }
}

impl IntoFuture for Connect {
    type Output = Result<Nats, ConnectError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.connect().boxed()
    }
}

impl From<async_nats::ConnectError> for ConnectError {
    fn from(error: async_nats::ConnectError) -> Self {
        let text = error.to_string();
        match error.kind() {
            ConnectErrorKind::ServerParse => Self::Address(text),
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                Self::Unauthorized(text)
            }
            _ => Self::Unreachable(text),
        }
    }
}

impl fmt::Debug for Connect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither the URLs, which may have a password, nor the options, for the same reason.
        f.debug_struct("Connect")
            .field("servers", &self.servers.len())
            .field("credentials", &self.credentials)
            .field("inbox_prefix", &self.inbox_prefix)
            .field("max_queued_bytes", &self.max_queued_bytes)
            .field("in_background", &self.in_background)
            .finish_non_exhaustive()
    }
}
