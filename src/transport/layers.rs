//! [`Layers`]: the layers of one link, from the byte stream to [`Heartbeat`].

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::config::Config;
use crate::{
    duplex::BoxLink,
    handshake::extensions::WsExtensions,
    layer::{
        heartbeat::Heartbeat,
        socket::{Socket, side::Side},
    },
    message::Message,
    stats::Stats,
};

#[cfg(feature = "client")]
use crate::{layer::socket, link::MessageLimits};

/// Builds the layers of a link: all below [`SharedLink`](crate::layer::SharedLink) that are made anew
/// for each connection.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    pub(super) config: Config,
    pub(super) stats: Stats,
    pub(super) ping_message: Option<fn() -> Message>,
}

impl Layers {
    /// Returns the settings that the opening handshake needs.
    #[cfg(feature = "client")]
    pub(crate) fn socket(&self) -> &socket::Config {
        &self.config.socket
    }

    /// Returns the limits that the side that dialled announces.
    #[cfg(feature = "client")]
    pub(crate) fn limits(&self) -> MessageLimits {
        self.config.limits(Side::Client)
    }

    /// Builds the layers over a byte stream on which the opening handshake is done. They have the
    /// extensions agreed on in it.
    pub(crate) fn link<S>(
        &self,
        stream: S,
        leftover: Bytes,
        side: Side,
        extensions: WsExtensions,
    ) -> BoxLink
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (config, stats) = (self.config.socket.clone(), self.stats.clone());
        let socket = extensions.socket(stream, leftover, side, config, stats);
        self.over_socket(socket, side)
    }

    /// Builds the socket of an unauthenticated peer, whose messages have at most `max_message_size`
    /// bytes.
    #[cfg(feature = "server")]
    pub(crate) fn unauthenticated<S>(
        &self,
        stream: S,
        leftover: &Bytes,
        side: Side,
        max_message_size: usize,
    ) -> Socket<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (config, stats) = (self.config.socket.clone(), self.stats.clone());
        Socket::unauthenticated(stream, leftover, side, config, stats, max_message_size)
    }

    /// Builds the layers over a socket.
    pub(crate) fn over_socket<S>(&self, socket: Socket<S>, side: Side) -> BoxLink
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let config = self.config.heartbeat.clone();
        let heartbeat = Heartbeat::with_stats(socket, config, self.stats.clone());
        let heartbeat = heartbeat.with_ping_message(self.ping_message);
        // Servers do not sleep.
        self.config.extend(Box::pin(match side {
            Side::Client => heartbeat.before_the_peer().detect_suspend(),
            Side::Server => heartbeat,
        }))
    }
}
