//! The byte stream below the WebSocket library: what crosses it is counted, and while much arrives
//! it is read in larger steps than the buffer of an idle connection allows.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::coop::poll_proceed,
};

use super::{frames::Frames, unauthenticated::SmallMessages};
use crate::stats::Stats;

/// The size of a large step, in bytes.
const LARGE: usize = 64 << 10;

/// How many reads in a row must fill the library's buffer before large steps are made, and how many
/// must be smaller before they are made no more: between them, neither a single large message nor a
/// pause within one makes the buffer come and go.
const GROW: u32 = 2;
const SHRINK: u32 = 16;

#[derive(Debug)]
pub(super) struct Counted<S> {
    pub(super) stream: S,
    /// How many bytes were written.
    pub(super) written: u64,
    pub(super) stats: Stats,
    /// What was read ahead, from `start`; without a capacity while steps are small.
    ahead: Vec<u8>,
    start: usize,
    /// How many reads in a row speak for the other size of steps.
    streak: u32,
    /// Frame boundaries in what was read.
    pub(super) frames: Frames,
    /// Filter for the frames of a peer that has yet to authenticate.
    pub(super) small: Option<Box<SmallMessages>>,
    /// What the library reads is inflated by this.
    #[cfg(feature = "deflate")]
    pub(super) inflater: Option<Box<super::deflate::Inflater>>,
}

impl<S> Counted<S> {
    pub(super) fn new(stream: S, stats: Stats) -> Self {
        Self {
            stream,
            written: 0,
            stats,
            ahead: Vec::new(),
            start: 0,
            streak: 0,
            frames: Frames::default(),
            small: None,
            #[cfg(feature = "deflate")]
            inflater: None,
        }
    }

    /// Notes whether a read speaks for the other size; whether it is time to change.
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
        self.stats.bytes_received(read.len());
        self.frames.follow(read);
        Poll::Ready(Ok(read.len()))
    }

    /// Reads from the peer, in large steps while much arrives.
    pub(super) fn poll_wire(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let room = buffer.remaining();
        if this.ahead.capacity() == 0 {
            let read = ready!(this.poll_once(cx, buffer))?;
            if this.votes(read == room, GROW) {
                this.ahead.reserve_exact(LARGE);
            }
            return Poll::Ready(Ok(()));
        }
        if this.start == this.ahead.len() {
            this.start = 0;
            this.ahead.resize(LARGE, 0);
            let mut large = ReadBuf::new(&mut this.ahead);
            let polled = Pin::new(&mut this.stream).poll_read(cx, &mut large);
            let read = large.filled().len();
            this.ahead.truncate(read);
            ready!(polled)?;
            this.stats.bytes_received(read);
            this.frames.follow(&this.ahead);
        }
        // What was read ahead is one step of the socket and many of the library's.
        ready!(poll_proceed(cx)).made_progress();
        let taken = room.min(this.ahead.len() - this.start);
        buffer.put_slice(&this.ahead[this.start..this.start + taken]);
        this.start += taken;
        if this.start == this.ahead.len() && this.votes(this.ahead.len() <= room, SHRINK) {
            this.ahead = Vec::new();
            this.start = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(mut small) = this.small.take() {
            let polled = small.poll_read(this, cx, buffer);
            this.small = Some(small);
            return polled;
        }
        #[cfg(feature = "deflate")]
        if let Some(mut inflater) = this.inflater.take() {
            let polled = inflater.poll_read(this, cx, buffer);
            this.inflater = Some(inflater);
            return polled;
        }
        Pin::new(this).poll_wire(cx, buffer)
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
        self.stats.bytes_sent(written);
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
    use tokio::io::AsyncReadExt;

    use super::*;

    /// Reads all of `sizes`, each arriving at once, in steps of 8 bytes.
    async fn read(stream: &mut Counted<tokio_test::io::Mock>, bytes: usize) {
        let mut read = Vec::new();
        while read.len() < bytes {
            let mut step = [0; 8];
            let taken = stream.read(&mut step).await.unwrap();
            read.extend_from_slice(&step[..taken]);
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
        let stats = Stats::default();
        let mut stream = Counted::new(mock.build(), stats.clone());
        read(&mut stream, 100).await;
        assert_eq!(stream.ahead.capacity(), LARGE);
        for _ in 0..SHRINK {
            assert_eq!(stream.ahead.capacity(), LARGE);
            read(&mut stream, 1).await;
        }
        assert_eq!(stream.ahead.capacity(), 0);
        assert_eq!(stats.snapshot().bytes_received, 100 + u64::from(SHRINK));
    }
}
