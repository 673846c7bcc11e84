//! [`SmallMessages`]: bounds the input of an unauthenticated peer *before* any of it is buffered.
//!
//! The WebSocket library allocates a whole frame as soon as it has read its header. Therefore its
//! input passes through [`SmallMessages`] first, which never reads beyond the end of a frame and
//! fails at a header that announces too much.

use std::{
    fmt, io,
    task::{Context, Poll, ready},
};

#[cfg(any(test, feature = "server"))]
use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use super::{frames::Frames, stream::Counted};

/// Bytes that are read at once, and buffered in each direction.
pub(super) const STEP: usize = 256;

/// The longest header of a frame.
#[cfg(any(test, feature = "server"))]
const HEADER: usize = 14;

/// Error of a message that is larger than allowed before authentication.
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

/// Filter that passes only the frames of messages within a limit.
#[derive(Debug)]
pub(super) struct SmallMessages {
    limit: usize,
    frames: Frames,
    /// Bytes read and not passed on yet, from `start`.
    ahead: Vec<u8>,
    start: usize,
    /// Number of bytes that followed the handshake, if too many.
    excess: Option<usize>,
}

impl SmallMessages {
    /// Creates the filter; `leftover` holds the bytes that followed the handshake.
    #[cfg(any(test, feature = "server"))]
    pub(super) fn new(limit: usize, leftover: &Bytes) -> Self {
        // A client sends nothing before the answer to its handshake (RFC 6455, section 4.1).
        let length = leftover.len();
        let excess = (length > limit.saturating_add(HEADER)).then_some(length);
        let ahead = if excess.is_some() { Vec::new() } else { leftover.to_vec() };
        Self { limit, frames: Frames::default(), ahead, start: 0, excess }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Returns the bytes read ahead; `None` in the middle of a frame.
    #[cfg(any(test, feature = "server"))]
    pub(super) fn into_rest(self) -> Option<Vec<u8>> {
        let Self { frames, mut ahead, start, .. } = self;
        frames.is_between_frames().then(|| ahead.split_off(start.min(ahead.len())))
    }

    /// Reads from `stream` until something can be passed to `buffer`.
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
