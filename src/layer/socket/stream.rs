//! [`Counted`]: the byte stream below the WebSocket library, which is counted.
//!
//! It is read in larger steps than the library's own buffer allows, since that one is held by idle
//! connections too and is small.

use std::{
    io,
    mem::MaybeUninit,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::coop::poll_proceed,
};

use super::frames::Frames;
use crate::stats::Stats;

/// The size of the library's own buffer, in bytes.
pub(super) const LIBRARY: usize = 1 << 10;

/// The largest small step, in bytes, for which there is room on the stack.
const SMALL: usize = 8 << 10;

/// The size of a large step, in bytes.
const LARGE: usize = 64 << 10;

/// Number of full small steps in a row after which large steps begin.
const GROW: u32 = 2;
/// Number of smaller steps in a row after which large steps end.
///
/// Between both, neither a single large message nor a pause within one makes the buffer come and
/// go.
const SHRINK: u32 = 16;

#[derive(Debug)]
pub(super) struct Counted<S> {
    pub(super) stream: S,
    /// Number of bytes written.
    pub(super) written: u64,
    pub(super) stats: Stats,
    /// The size of a small step.
    step: usize,
    /// The rest of a small step, or the buffer for large ones, which is initialised once.
    ahead: Vec<u8>,
    /// Part of it that was read ahead and not taken.
    unread: Range<usize>,
    /// Number of reads in a row that speak for the other size of steps.
    streak: u32,
    /// Frame boundaries in what was read.
    pub(super) frames: Frames,
}

impl<S> Counted<S> {
    /// Creates a stream that is read in steps of this many bytes while little arrives.
    pub(super) fn new(stream: S, stats: Stats, step: usize) -> Self {
        Self {
            stream,
            written: 0,
            stats,
            step: step.clamp(1, SMALL),
            ahead: Vec::new(),
            unread: 0..0,
            streak: 0,
            frames: Frames::default(),
        }
    }

    fn is_large(&self) -> bool {
        self.ahead.len() == LARGE
    }

    /// Records whether a read speaks for the other size. Returns `true` if it is time to change.
    fn votes(&mut self, to_change: bool, needed: u32) -> bool {
        self.streak = if to_change { self.streak + 1 } else { 0 };
        let change = self.streak >= needed;
        if change {
            self.streak = 0;
        }
        change
    }
}

impl<S: AsyncRead + Unpin> Counted<S> {
    /// Reads once from the peer. Returns the number of bytes read.
    pub(super) fn poll_once(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let read = &buffer.filled()[before..];
        self.stats.record_bytes_received(read.len());
        self.frames.follow(read);
        Poll::Ready(Ok(read.len()))
    }

    /// Reads from the peer, in large steps while much arrives.
    pub(super) fn poll_wire(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            if !self.is_large() {
                return self.poll_small_step(cx, buffer);
            }
            ready!(self.poll_large_step(cx))?;
        }
        // One step of the socket is many of the library's.
        ready!(poll_proceed(cx)).made_progress();
        let taken = buffer.remaining().min(self.unread.len());
        buffer.put_slice(&self.ahead[self.unread.start..self.unread.start + taken]);
        self.unread.start += taken;
        if self.unread.is_empty() {
            let was_small = self.unread.end <= self.step;
            if !self.is_large() || self.votes(was_small, SHRINK) {
                self.ahead = Vec::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads a small step into `buffer`, and keeps what it has no room for.
    fn poll_small_step(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.remaining();
        if room >= self.step {
            let read = ready!(self.poll_once(cx, buffer))?;
            if self.votes(read == room, GROW) {
                self.ahead = vec![0; LARGE];
            }
            return Poll::Ready(Ok(()));
        }
        let mut step = [const { MaybeUninit::uninit() }; SMALL];
        let mut step = ReadBuf::uninit(&mut step[..self.step]);
        let read = ready!(self.poll_once(cx, &mut step))?;
        let (taken, rest) = step.filled().split_at(read.min(room));
        buffer.put_slice(taken);
        let grows = self.votes(read == self.step, GROW);
        if !rest.is_empty() || grows {
            self.ahead = rest.to_vec();
            self.ahead.resize(if grows { LARGE } else { rest.len() }, 0);
            self.unread = 0..rest.len();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_large_step(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut ahead = ReadBuf::new(&mut self.ahead);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut ahead))?;
        let read = ahead.filled();
        self.stats.record_bytes_received(read.len());
        self.frames.follow(read);
        self.unread = 0..read.len();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.written += written as u64;
        self.stats.record_bytes_sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    /// Reads `bytes` bytes that count up, in steps of 3 bytes.
    async fn read(stream: &mut Counted<tokio_test::io::Mock>, bytes: usize) {
        let mut read = Vec::new();
        while read.len() < bytes {
            let mut step = [0; 3];
            let mut step = ReadBuf::new(&mut step);
            poll_fn(|cx| stream.poll_wire(cx, &mut step)).await.unwrap();
            read.extend_from_slice(step.filled());
        }
        assert!(read.iter().enumerate().all(|(at, byte)| *byte == at as u8));
    }

    #[tokio::test]
    async fn steps_grow_while_much_arrives_and_shrink_when_it_does_not() {
        let counting: Vec<u8> = (0..100).collect();
        let mut mock = tokio_test::io::Builder::new();
        mock.read(&counting);
        for _ in 0..SHRINK {
            mock.read(&counting[..1]);
        }
        for step in [1, 3, 8] {
            let stats = Stats::default();
            let mut stream = Counted::new(mock.build(), stats.clone(), step);
            read(&mut stream, 100).await;
            assert_eq!(stream.ahead.len(), LARGE);
            for _ in 0..SHRINK {
                assert_eq!(stream.ahead.len(), LARGE);
                read(&mut stream, 1).await;
            }
            assert_eq!(stream.ahead.capacity(), 0);
            assert_eq!(stats.snapshot().bytes_received, 100 + u64::from(SHRINK));
        }
    }

    #[tokio::test]
    async fn nothing_is_held_between_small_messages() {
        let counting: Vec<u8> = (0..100).collect();
        let mut mock = tokio_test::io::Builder::new();
        for size in [100, 1, 7] {
            mock.read(&counting[..size]);
        }
        let mut stream = Counted::new(mock.build(), Stats::default(), SMALL);
        for size in [100, 1, 7] {
            read(&mut stream, size).await;
            assert_eq!(stream.ahead.capacity(), 0);
        }
    }
}
