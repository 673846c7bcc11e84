//! [`Config`]: the settings of every layer.

use std::{fmt, sync::Arc};

use crate::{
    duplex::{BoxLink, Duplex},
    layer::{correlation, framed, heartbeat, resume, shared_link, socket},
    message::Message,
};

#[cfg(feature = "__http")]
use crate::{layer::socket::side::Side, link::MessageLimits};

/// The settings of every layer of a connection.
///
/// ```
/// use mcp_ws_transport::{layer::{correlation, socket}, transport};
///
/// let config = transport::Config::default()
///     .socket(socket::Config::default().max_message_size(1 << 20))
///     .correlation(correlation::Config::default().max_inbound(64));
/// # drop(config);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Config {
    pub(crate) socket: socket::Config,
    pub(crate) heartbeat: heartbeat::Config,
    pub(crate) resume: resume::Config,
    pub(crate) shared_link: shared_link::Config,
    pub(crate) framed: framed::Config,
    pub(crate) correlation: correlation::Config,
    extra: Option<Extra>,
}

/// A layer of the user's own.
#[derive(Clone)]
struct Extra(Arc<dyn Fn(BoxLink) -> BoxLink + Send + Sync>);

impl fmt::Debug for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Extra")
    }
}

impl Config {
    /// Sets the limits, buffers and timeouts of the WebSocket itself.
    #[must_use]
    pub fn socket(mut self, config: socket::Config) -> Self {
        self.socket = config;
        self
    }

    /// Sets when the peer is pinged, and when it is given up.
    #[must_use]
    pub fn heartbeat(mut self, config: heartbeat::Config) -> Self {
        self.heartbeat = config;
        self
    }

    /// Sets how much is kept for a peer that resumes, and how long it may leave that
    /// unacknowledged.
    #[must_use]
    pub fn resume(mut self, config: resume::Config) -> Self {
        self.resume = config;
        self
    }

    /// Sets the size of the outbound queue.
    #[must_use]
    pub fn shared_link(mut self, config: shared_link::Config) -> Self {
        self.shared_link = config;
        self
    }

    /// Sets the limits of messages: their size when they are sent, and once they are decoded.
    #[must_use]
    pub fn framed(mut self, config: framed::Config) -> Self {
        self.framed = config;
        self
    }

    /// Sets deadlines, and how many of the peer's requests may be in flight.
    #[must_use]
    pub fn correlation(mut self, config: correlation::Config) -> Self {
        self.correlation = config;
        self
    }

    /// Puts a layer of your own on each link. A second call puts the next one on top of it.
    ///
    /// It is above [`Heartbeat`](crate::layer::Heartbeat) and below
    /// [`Reconnect`](crate::layer::Reconnect).
    #[must_use]
    pub fn layer<L>(mut self, layer: impl Fn(BoxLink) -> L + Send + Sync + 'static) -> Self
    where
        L: Duplex<Message, Message> + Send + 'static,
    {
        let below = self.extra.take();
        self.extra = Some(Extra(Arc::new(move |link| {
            let link = match &below {
                Some(Extra(below)) => below(link),
                None => link,
            };
            Box::pin(layer(link))
        })));
        self
    }
}

impl Config {
    /// Puts the layers of the user's own on a link.
    pub(super) fn extend(&self, link: BoxLink) -> BoxLink {
        match &self.extra {
            Some(Extra(layer)) => layer(link),
            None => link,
        }
    }
}

#[cfg(feature = "__http")]
impl Config {
    /// Returns the limits that this `side` announces.
    pub(crate) fn limits(&self, side: Side) -> MessageLimits {
        let (max_message, max_inbound) = (self.socket.limit(side), self.correlation.max_inbound);
        MessageLimits { max_message: Some(max_message), max_inbound: Some(max_inbound) }
    }
}
