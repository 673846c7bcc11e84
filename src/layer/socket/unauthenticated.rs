//! Socket of an unauthenticated peer: small messages, small buffers, no compression. Once the peer
//! has authenticated, a socket with large buffers takes over, with what was read ahead.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Phase, Socket,
    config::Config,
    ending::ended,
    filter::{Filter, Filtered},
    side::Side,
    small_messages::SmallMessages,
    stream::Counted,
};
use crate::{error::Error, stats::Stats};

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Creates a socket for an unauthenticated peer. Its messages are bounded by `limit` bytes,
    /// nothing is compressed, and the buffers are small. See
    /// [`authenticated`](Self::authenticated).
    pub(crate) fn unauthenticated(
        stream: S,
        leftover: &Bytes,
        side: Side,
        config: Config,
        stats: Stats,
        limit: usize,
    ) -> Self {
        stats.record_bytes_received(leftover.len());
        let mut stream = Counted::new(stream, stats, config.buffer_size);
        stream.frames.follow(leftover);
        let filter = Filter::SmallMessages(Box::new(SmallMessages::new(limit, leftover)));
        Self::assemble(Filtered::new(stream, filter), Vec::new(), side, config)
    }

    /// Converts the socket once the peer has authenticated. By then all is flushed, and no more was
    /// read than the messages returned.
    ///
    /// # Errors
    /// [`LinkError::Closed`] when the connection is closing, or is in the middle of a frame.
    pub(crate) fn authenticated(self) -> Result<Self, Error> {
        let Self { websocket, side, config, phase, .. } = self;
        let Filtered { stream, filter, .. } = websocket.into_inner();
        let rest = match filter {
            Filter::SmallMessages(small) => small.into_rest(),
            _ => Some(Vec::new()),
        };
        match (phase, rest) {
            (Phase::Open, Some(rest)) => {
                let stream = Filtered::new(stream, Filter::None);
                Ok(Self::assemble(stream, rest, side, config))
            }
            _ => Err(ended()),
        }
    }
}
