use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{HeaderMap, request::Parts};
use rmcp::RoleServer;
use tokio_util::sync::CancellationToken;

#[cfg(feature = "cluster")]
use super::cluster::Cluster;
use super::{
    auth::{Authenticator, DynAuthenticator},
    http::{
        forwarded::TrustedProxies,
        limits::Limits,
        origin::{Allowed, NotAllowed, source::Origin},
        peer::PeerAddress,
    },
    registry::{Encode, Registry},
    sessions::{config::SessionConfig, instance::InstanceTag},
    shutdown::Drain,
};
#[cfg(feature = "cluster")]
use crate::layer::socket::side::Side;
use crate::{
    error::MessageError,
    framing::{Framing, json_rpc::JsonRpc, properties::FramingProperties},
    message::Message,
    role::McpRole,
    transport::{self, WebSocketTransport, builder::Builder},
};

/// Settings of a server: who may connect, how fast they must be, and what connections are made of.
pub struct Config<R: McpRole = RoleServer> {
    pub(super) allowed: Allowed,
    /// Time for the opening handshake, and again for the first message.
    pub(super) timeout: Duration,
    pub(super) request_timeout: Option<Duration>,
    pub(super) stop: CancellationToken,
    pub(super) authenticator: Option<Arc<dyn DynAuthenticator>>,
    pub(super) in_band: bool,
    /// `true` once a guard was made of this configuration, or of a clone.
    pub(super) has_guard: Arc<AtomicBool>,
    /// Largest message before authentication, in bytes.
    pub(super) max_unauthenticated_message_size: usize,
    pub(super) cookie: Option<Arc<str>>,
    pub(super) limits: Limits,
    pub(super) drain: Drain,
    pub(super) sessions: Option<SessionConfig>,
    pub(super) instance: Option<InstanceTag>,
    #[cfg(feature = "cluster")]
    pub(super) cluster: Option<Cluster>,
    pub(super) registry: Registry<R>,
    pub(super) peer: PeerAddress,
    pub(super) transport: transport::Config,
    framing: NewFraming<R>,
}

/// Makes the framing of one connection.
type NewFraming<R> = Arc<dyn Fn() -> Box<dyn Framing<R>> + Send + Sync>;

impl<R: McpRole> Default for Config<R> {
    fn default() -> Self {
        Self {
            allowed: Allowed::default(),
            timeout: Duration::from_secs(10),
            request_timeout: None,
            stop: CancellationToken::new(),
            authenticator: None,
            in_band: false,
            has_guard: Arc::default(),
            max_unauthenticated_message_size: 4 << 10,
            cookie: None,
            limits: Limits::default(),
            drain: Drain::default(),
            sessions: Some(SessionConfig::default()),
            instance: None,
            #[cfg(feature = "cluster")]
            cluster: None,
            registry: Registry::default(),
            peer: PeerAddress::default(),
            transport: transport::Config::default(),
            framing: Arc::new(|| Box::new(JsonRpc::default())),
        }
    }
}

impl<R: McpRole> Config<R> {
    /// Sets the hosts that may be asked for: by default the names of the loopback interface,
    /// `localhost`, `127.0.0.1` and `::1`. Any other `Host` gets 403, since a web page can let a
    /// name of its own point here (DNS rebinding).
    ///
    /// | entry | allows | but not |
    /// |---|---|---|
    /// | `example.com`, `example.com:*` | this host at any port | its subdomains |
    /// | `example.com:8443` | this host at this port | `example.com` without a port |
    /// | `*.example.com`, with a port if you like | all hosts below it, `a.b.example.com` too | `example.com` itself, `notexample.com` |
    /// | `[::1]:8443`, `::1` | this address | other ways to reach this machine |
    ///
    /// `*.` stands in front of a domain that has a dot in it, or of `localhost`. Upper and lower
    /// case are the same. An entry that cannot be read is an error when the server starts.
    ///
    /// A `Host` without a port is at that of its scheme: 443 where the server itself speaks TLS;
    /// elsewhere a proxy may, so that an allowed 80 and an allowed 443 will both do.
    #[must_use]
    pub fn allowed_hosts<T: Into<String>>(mut self, hosts: impl IntoIterator<Item = T>) -> Self {
        self.allowed.hosts(hosts);
        self
    }

    /// Serves every `Host`, as behind a proxy that has checked it. Web pages must then be listed in
    /// [`allowed_origins`](Self::allowed_origins), even the server's own.
    #[must_use]
    pub fn disable_allowed_hosts(mut self) -> Self {
        self.allowed.every_host();
        self
    }

    /// Sets the origins whose web pages may connect, besides those of the allowed hosts themselves:
    /// by default none. Programs send no `Origin` and are not concerned.
    ///
    /// | entry | allows pages of | but not of |
    /// |---|---|---|
    /// | `https://app.example.com` | this scheme and host, at the scheme's own port | `http://app.example.com`, `https://app.example.com:8443` |
    /// | `https://app.example.com:8443` | this port | any other |
    /// | `http://localhost:*` | this scheme and host, at any port | `http://localhost.example.com:80`, `http://127.0.0.1` |
    /// | `https://*.example.com`, with a port or `:*` if you like | every host below it, `a.b.example.com` too | `https://example.com`, `https://notexample.com`, `https://example.com.evil.com` |
    /// | `chrome-extension://<id>`, `tauri://localhost` | this extension, this app | others of the scheme |
    /// | `chrome-extension://*`, `vscode-webview://*` | every extension, every webview | `moz-extension://<id>`, `https://…` |
    /// | `null` | files, sandboxed frames and whatever else has no origin | `http://null` |
    ///
    /// `*` stands nowhere else: not for a part of a name, nor for every host of `http` or `https`,
    /// nor in front of a domain without a dot (but for `localhost`). Upper and lower case are the
    /// same. An entry that cannot be read is an error when the server starts.
    /// [`allowed_origins_if`](Self::allowed_origins_if) takes a function for what these cannot say.
    #[must_use]
    pub fn allowed_origins<T: Into<String>>(
        mut self,
        origins: impl IntoIterator<Item = T>,
    ) -> Self {
        self.allowed.origins(origins);
        self
    }

    /// Allows the web pages of those origins, too, for which `predicate` returns `true`. It is
    /// called when no entry of [`allowed_origins`](Self::allowed_origins) matches, for origins that
    /// can be parsed, and not for `null`. If it panics, the page is refused.
    ///
    /// ```
    /// # use mcp_ws_transport::server::Config;
    /// let config: Config = Config::default().allowed_origins_if(|origin| {
    ///     origin.scheme() == "https"
    ///         && origin.port() == Some(443)
    ///         && origin.host().strip_suffix(".pages.example.com").is_some_and(|preview| {
    ///             preview.starts_with("preview-") && !preview.contains('.')
    ///         })
    /// });
    /// ```
    #[must_use]
    pub fn allowed_origins_if(
        mut self,
        predicate: impl Fn(&Origin) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.allowed.origins_if(Arc::new(predicate));
        self
    }

    /// Takes every request for one that came by TLS: of the server's own web pages only those of
    /// `https` may connect, and cookies are `Secure`.
    ///
    /// [`Serve::tls`](crate::server::Serve) does that to its own configuration. A
    /// [`WebSocketService`](crate::server::WebSocketService) has to be told, where it is mounted
    /// beside it or behind a proxy that does TLS.
    #[must_use]
    pub fn assume_https(mut self) -> Self {
        self.allowed.assume_https();
        self
    }

    /// Fails when an allowed host or origin, a trusted proxy or the instance's tag cannot be read.
    pub(super) fn validate(&self) -> io::Result<()> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        self.allowed.validate().map_err(invalid)?;
        self.peer.validate().map_err(invalid)?;
        self.instance.as_ref().map_or(Ok(()), InstanceTag::validate).map_err(invalid)?;
        #[cfg(feature = "cluster")]
        self.check_instance_of_cluster().map_err(invalid)?;
        Ok(())
    }

    /// Returns the tag with which the session ids begin that are issued, if there is one.
    pub(super) fn instance_tag(&self) -> Option<InstanceTag> {
        #[cfg(feature = "cluster")]
        if let Some(cluster) = &self.cluster {
            return Some(InstanceTag::new(cluster.instance()));
        }
        self.instance.clone()
    }

    /// Returns the largest message, inbound or outbound, in bytes.
    #[cfg(feature = "cluster")]
    pub(super) fn max_message(&self) -> usize {
        let inbound = self.transport.socket.limit(Side::Server);
        inbound.max(self.transport.framed.max_message_size)
    }

    /// Fails when the tag of this instance is not the one that it has in its cluster.
    #[cfg(feature = "cluster")]
    fn check_instance_of_cluster(&self) -> Result<(), String> {
        match (&self.instance, &self.cluster) {
            (Some(tag), Some(cluster)) if tag.as_str() != cluster.instance() => Err(format!(
                "the instance is {:?}, and has joined its cluster as {:?}; leave out \
                 `Config::instance`, or give the same to `Cluster::join(…).instance(…)`",
                tag.as_str(),
                cluster.instance(),
            )),
            _ => Ok(()),
        }
    }

    /// Warns if there is an authenticator and no guard was made, while `what` is unguarded.
    pub(super) fn warn_of_unguarded(&self, what: &str) {
        if self.authenticator.is_some() && !self.has_guard.load(Relaxed) {
            tracing::warn!(
                "{what} is unguarded: it answers whoever asks, without the authenticator; \
                 use `{what}` instead of `{what}_unguarded`, or put `Config::guard` before its routes"
            );
        }
    }

    /// Returns `true` if a request with these headers may be served, by its `Host` and `Origin`.
    ///
    /// The host has to be allowed and, if the request is from a web page, the page too. An upgrade
    /// is checked in the same way; this is for what else is served beside it.
    #[must_use]
    pub fn allows(&self, headers: &HeaderMap) -> bool {
        let checked = self.allowed.check(headers).map_err(NotAllowed::reject);
        if let Err(rejection) = &checked {
            self.registry.log_refusal(&rejection.refusal(), None);
        }
        checked.is_ok()
    }

    /// Asks `authenticator` about everyone who wants to connect, before the upgrade. By default
    /// nobody is asked.
    #[must_use]
    pub fn authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.authenticator = Some(Arc::new(authenticator));
        self
    }

    /// Lets clients without a token connect, and authenticate within the connection: for those that
    /// cannot send headers. Off by default.
    ///
    /// They call the method `authenticate` with the parameter `token`. Until then every other
    /// request is answered with the error `-32001`. They have the time of the handshake for it; who
    /// fails is closed with 4401 or 4403, who does not try with 1008, and everyone with 1013 while
    /// the authenticator fails.
    #[must_use]
    pub fn in_band_authentication(mut self) -> Self {
        self.in_band = true;
        self
    }

    /// Sets the largest message that a client may send before it has authenticated, in bytes:
    /// 4 KiB, most of which is for the token.
    ///
    /// It is for clients that authenticate [within the connection](Self::in_band_authentication). A
    /// larger message is closed with 1009. Such a client makes the server keep about three times as
    /// much in all.
    #[must_use]
    pub fn max_unauthenticated_message_size(mut self, bytes: usize) -> Self {
        self.max_unauthenticated_message_size = bytes;
        self
    }

    /// Takes the token from the cookie of this name, where the request has no other: off by default.
    /// The cookie counts only where the request comes from an allowed web page.
    #[must_use]
    pub fn token_cookie(mut self, name: impl Into<Arc<str>>) -> Self {
        self.cookie = Some(name.into());
        self
    }

    /// Sets how many clients there may be.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how the server stops.
    #[must_use]
    pub fn drain(mut self, drain: Drain) -> Self {
        self.drain = drain;
        self
    }

    /// Sets how long the sessions of clients that lose their connection are kept, and how many;
    /// `None` keeps none. A client comes back to its session if it speaks
    /// [`mcp.resume.v1`](crate::guide::resume_v1), as those of this crate do, or knows the
    /// session's [id](SessionConfig::ids); not if it authenticates [within the
    /// connection](Self::in_band_authentication).
    #[must_use]
    pub fn sessions(mut self, sessions: impl Into<Option<SessionConfig>>) -> Self {
        self.sessions = sessions.into();
        self
    }

    /// Sets the tag of this process, where several serve the same clients: the session ids that it
    /// issues begin with the tag and a dot. So a proxy can lead a client that comes back to the
    /// instance that has its session, as the [`deployment`
    /// guide](crate::guide::deployment#which-instance-has-the-session) shows. By default there is
    /// none.
    ///
    /// A tag has 1 to 64 of the characters `A-Z a-z 0-9 - _`; any other is an error when the server
    /// starts. It is no secret. No two processes may have the same.
    ///
    /// ```
    /// # use mcp_ws_transport::server::Config;
    /// let config: Config = Config::default().instance("a");
    /// ```
    #[must_use]
    pub fn instance(mut self, tag: impl Into<Arc<str>>) -> Self {
        self.instance = Some(InstanceTag::new(tag));
        self
    }

    /// Makes this server an instance of a [`cluster`](crate::cluster), which this process has
    /// joined. The session ids that it issues begin with the tag that it has joined with, so that
    /// [`instance`](Self::instance) need not be set. By default there is none.
    #[cfg(feature = "cluster")]
    #[cfg_attr(docsrs, doc(cfg(feature = "cluster")))]
    #[must_use]
    pub fn cluster(mut self, cluster: Cluster) -> Self {
        self.cluster = Some(cluster);
        self
    }

    /// Lists the connections in `registry`, of which there may be clones elsewhere.
    #[must_use]
    pub fn registry(mut self, registry: Registry<R>) -> Self {
        self.registry = registry;
        self
    }

    /// Takes the address of a client from the header that these proxies set. The limits per
    /// address, the registry and the authenticator go by it. By default no header is believed,
    /// since whoever reaches the port can send it.
    ///
    /// ```
    /// # use mcp_ws_transport::server::{Config, TrustedProxies};
    /// let proxies = TrustedProxies::x_forwarded_for(["127.0.0.1", "10.0.0.0/8"]);
    /// let config: Config = Config::default().trusted_proxies(proxies);
    /// ```
    #[must_use]
    pub fn trusted_proxies(mut self, proxies: TrustedProxies) -> Self {
        self.peer.trust(proxies);
        self
    }

    /// Sets the function that tells from which address a connection comes. By default it is the one
    /// that [`serve`](crate::serve()) has accepted, and unknown in a
    /// [`WebSocketService`](crate::server::WebSocketService) elsewhere: there the function may read
    /// it from an extension of the request, such as axum's `ConnectInfo`. If it returns the address
    /// of a [trusted proxy](Self::trusted_proxies), that proxy's header counts. If it panics,
    /// nobody is let in: 500, counted as
    /// [`RejectReason::Unavailable`](super::RejectReason::Unavailable).
    #[must_use]
    pub fn peer_addr(
        mut self,
        peer: impl Fn(&Parts) -> Option<SocketAddr> + Send + Sync + 'static,
    ) -> Self {
        self.peer.tell_by(Arc::new(peer));
        self
    }

    /// Sets the time for each step until the service of a client runs: 10 s.
    ///
    /// The steps are its opening handshake and the initialization of MCP, or its first request in
    /// the lifecycle without one. An answer before the upgrade may wait as long until the client
    /// takes some more of it.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the time that the service may take for a request: by default as long as it likes. Then
    /// its handler is dropped, and the client told `-32001` with `data.reason` `timed_out`.
    /// `subscriptions/listen`, which has no end of its own, is not concerned.
    #[must_use]
    pub fn request_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.request_timeout = timeout.into();
        self
    }

    /// Sets the settings of each connection's layers.
    #[must_use]
    pub fn transport(mut self, transport: transport::Config) -> Self {
        self.transport = transport;
        self
    }

    /// Sets the framing of the messages, in place of JSON-RPC itself. Each connection has a clone.
    #[must_use]
    pub fn framing(mut self, framing: impl Framing<R> + Clone + Sync + 'static) -> Self {
        self.framing = Arc::new(move || Box::new(framing.clone()));
        self
    }

    /// Sets the token that stops the server when it is cancelled; see [`Drain`].
    #[must_use]
    pub fn cancellation_token(mut self, token: CancellationToken) -> Self {
        self.stop = token;
        self
    }

    /// Encodes for all connections alike.
    pub(super) fn encode(&self) -> Encode<R> {
        let (framing, limit) = (self.framing.clone(), self.transport.framed.max_message_size);
        Arc::new(move |message| {
            let message = framing().encode(message)?;
            match message.as_ref().map(Message::len) {
                Some(size) if size > limit => Err(MessageError::TooBig { size, limit }.into()),
                _ => Ok(message),
            }
        })
    }

    /// Returns how connections with this framing behave.
    pub(super) fn framing_properties(&self) -> FramingProperties {
        (self.framing)().properties()
    }

    pub(super) fn builder(&self) -> Builder<R> {
        WebSocketTransport::builder().transport(self.transport.clone()).framing((self.framing)())
    }
}

impl<R: McpRole> Clone for Config<R> {
    fn clone(&self) -> Self {
        Self {
            allowed: self.allowed.clone(),
            timeout: self.timeout,
            request_timeout: self.request_timeout,
            stop: self.stop.clone(),
            authenticator: self.authenticator.clone(),
            in_band: self.in_band,
            has_guard: self.has_guard.clone(),
            max_unauthenticated_message_size: self.max_unauthenticated_message_size,
            cookie: self.cookie.clone(),
            limits: self.limits.clone(),
            drain: self.drain.clone(),
            sessions: self.sessions.clone(),
            instance: self.instance.clone(),
            #[cfg(feature = "cluster")]
            cluster: self.cluster.clone(),
            registry: self.registry.clone(),
            peer: self.peer.clone(),
            transport: self.transport.clone(),
            framing: self.framing.clone(),
        }
    }
}

impl<R: McpRole> fmt::Debug for Config<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("allowed", &self.allowed)
            .field("authenticates", &self.authenticator.is_some())
            .field("handshake_timeout", &self.timeout)
            .field("limits", &self.limits)
            .field("drain", &self.drain)
            .field("sessions", &self.sessions)
            .field("instance", &self.instance_tag())
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}
