//! The connection of a peer that has not authenticated: what it may send is bounded *before* any of
//! it is kept.
//!
//! The WebSocket library makes room for a whole frame as soon as it has read the header. So what it
//! is to read passes through here first, never beyond the end of a frame, and ends where a header
//! tells of more than is allowed. When the peer has authenticated, a larger library's socket takes
//! over with what was read ahead, of which the first has seen nothing.

use std::{
    fmt, io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
#[cfg(any(test, feature = "server"))]
use tokio::io::AsyncWrite;
use tokio::io::{AsyncRead, ReadBuf};

#[cfg(any(test, feature = "server"))]
use super::{Config, Phase, Side, Socket, ending::ended};
use super::{frames::Frames, stream::Counted};
#[cfg(any(test, feature = "server"))]
use crate::{error::Error, stats::Stats};

/// How much is read at once, and kept in each direction.
pub(super) const STEP: usize = 256;

/// The longest header of a frame.
const HEADER: usize = 14;

/// A message is larger than what may be sent before authentication.
#[derive(Debug, Clone, Copy)]
pub(super) struct TooBig {
    pub(super) size: usize,
    pub(super) limit: usize,
}

impl fmt::Display for TooBig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "before authentication a message has at most {} bytes", self.limit)
    }
}

impl std::error::Error for TooBig {}

/// Lets through the frames of messages that are small enough.
#[derive(Debug)]
pub(super) struct SmallMessages {
    limit: usize,
    frames: Frames,
    /// What was read and not let through yet, from `start`.
    ahead: Vec<u8>,
    start: usize,
    /// Bytes behind the handshake, where those are too many.
    excess: Option<usize>,
}

impl SmallMessages {
    /// `leftover` is what was read behind the handshake.
    pub(super) fn new(limit: usize, leftover: &Bytes) -> Self {
        // A peer waits for the answer to its handshake before it says anything (RFC 6455, section 4.1).
        let length = leftover.len();
        let excess = (length > limit.saturating_add(HEADER)).then_some(length);
        let ahead = if excess.is_some() { Vec::new() } else { leftover.to_vec() };
        Self { limit, frames: Frames::default(), ahead, start: 0, excess }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// What was read ahead, once nothing of a frame has been let through whose rest has not.
    pub(super) fn into_rest(self) -> Option<Vec<u8>> {
        let Self { frames, mut ahead, start, .. } = self;
        frames.is_between_frames().then(|| ahead.split_off(start.min(ahead.len())))
    }

    /// Reads `stream` as far as it takes to have something for `buffer`.
    pub(super) fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut Counted<S>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(size) = self.excess {
            return Poll::Ready(Err(self.too_big(size as u64)));
        }
        if self.start == self.ahead.len() {
            self.start = 0;
            self.ahead.clear();
            self.ahead.shrink_to(STEP);
            let mut step = [0; STEP];
            let mut step = ReadBuf::new(&mut step);
            ready!(stream.poll_once(cx, &mut step))?;
            self.ahead.extend_from_slice(step.filled());
        }
        let ready = &self.ahead[self.start..];
        let ready = &ready[..ready.len().min(buffer.remaining())];
        let mut taken = 0;
        while taken < ready.len() {
            taken += self.frames.step(&ready[taken..]);
            if self.frames.size() > self.limit as u64 {
                return Poll::Ready(Err(self.too_big(self.frames.size())));
            }
            if self.frames.is_between_frames() {
                break;
            }
        }
        buffer.put_slice(&ready[..taken]);
        self.start += taken;
        Poll::Ready(Ok(()))
    }

    fn too_big(&self, size: u64) -> io::Error {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        io::Error::new(io::ErrorKind::InvalidData, TooBig { size, limit: self.limit })
    }
}

#[cfg(any(test, feature = "server"))]
impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// A socket whose peer has yet to authenticate: no message of it may be larger than `limit`, nothing
    /// is compressed, and the buffers are small. See [`authenticated`](Self::authenticated).
    pub(crate) fn unauthenticated(
        stream: S,
        leftover: &Bytes,
        side: Side,
        config: Config,
        stats: Stats,
        limit: usize,
    ) -> Self {
        stats.bytes_received(leftover.len());
        let mut stream = Counted::new(stream, stats);
        stream.frames.follow(leftover);
        stream.small = Some(Box::new(SmallMessages::new(limit, leftover)));
        Self::assemble(stream, Vec::new(), side, config)
    }

    /// The socket of a peer that has authenticated, once all is flushed and no more was read than the
    /// messages that it has returned.
    ///
    /// # Errors
    /// [`LinkError::Closed`] when the connection is closing, or is in the middle of a frame.
    pub(crate) fn authenticated(self) -> Result<Self, Error> {
        let Self { websocket, side, config, phase, .. } = self;
        let mut stream = websocket.into_inner();
        let rest = stream.small.take().map_or(Some(Vec::new()), |small| small.into_rest());
        match (phase, rest) {
            (Phase::Open, Some(rest)) => Ok(Self::assemble(stream, rest, side, config)),
            _ => Err(ended()),
        }
    }
}
