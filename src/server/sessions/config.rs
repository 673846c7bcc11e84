//! [`SessionConfig`]: bounds on the sessions that are kept without a connection.

use std::time::Duration;

use super::id::SessionIdPolicy;

/// Settings for sessions that outlive their connections.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    pub(crate) window: Duration,
    pub(crate) max_sessions: usize,
    pub(crate) max_bytes: usize,
    pub(crate) ids: SessionIdPolicy,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(120),
            max_sessions: 1024,
            max_bytes: 64 << 20,
            ids: SessionIdPolicy::default(),
        }
    }
}

impl SessionConfig {
    /// Sets the time for which a session is kept without a connection: 120 s. Its calls go on
    /// meanwhile.
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets the number of sessions kept without a connection: 1,024. Beyond it, the address with
    /// the most (one of IPv4, or a /64 of IPv6) loses the session that has been without a
    /// connection for the longest. Behind a proxy all clients share one address, unless
    /// [`Config::trusted_proxies`](crate::server::Config::trusted_proxies) tells them apart.
    #[must_use]
    pub fn max_sessions(mut self, sessions: usize) -> Self {
        self.max_sessions = sessions;
        self
    }

    /// Sets the memory that all of them take, in bytes: 64 MiB. It is that of the messages that
    /// wait for their clients, of the upgrade requests and, as far as it is known, of what the
    /// clients have asked and is still being handled. Beyond it, the oldest session of the address
    /// with the most bytes ends.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Sets the policy for the ids by which clients come back that do not speak
    /// [`mcp.resume.v1`](crate::guide::resume_v1): [`SessionIdPolicy::Issued`].
    #[must_use]
    pub fn ids(mut self, ids: SessionIdPolicy) -> Self {
        self.ids = ids;
        self
    }
}
