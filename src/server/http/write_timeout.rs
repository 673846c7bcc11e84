//! [`WriteTimeout`]: the stream of an HTTP connection, with a bound on writes and on heads.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep_until},
};

use super::progress::{MAX_HEAD_BYTES, Progress};
use crate::{
    handshake::{header_case::ExactCase, stream::Io},
    time::deadline_in,
};

/// Stream of an HTTP connection before the upgrade, with a write timeout and a bound on heads.
///
/// A client that reads nothing of a response for too long is cut, but not once it is upgraded.
pub(in crate::server) struct WriteTimeout<I> {
    stream: ExactCase<I>,
    progress: Arc<Progress>,
    timeout: Duration,
    /// Timer that runs while nothing can be written.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Bytes read of the current head, and possibly of what follows.
    head: usize,
    /// Number of requests before that head.
    requests: u64,
}

impl<I: Io> WriteTimeout<I> {
    /// Wraps `stream`; each write may take as long as `timeout`.
    pub(in crate::server) fn new(stream: I, progress: Arc<Progress>, timeout: Duration) -> Self {
        let stream = ExactCase::answer(stream, progress.upgrading());
        Self { stream, progress, timeout, stalled: None, head: 0, requests: 0 }
    }

    /// Returns the stream itself, without bounds.
    pub(in crate::server) fn into_inner(self) -> I {
        self.stream.into_inner()
    }

    /// Reads part of a head, up to [`MAX_HEAD_BYTES`] in all.
    fn poll_read_head(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Where requests are pipelined, nothing else is read between two heads.
        let requests = self.progress.requests();
        if std::mem::replace(&mut self.requests, requests) != requests {
            self.head = 0;
        }
        let mut step = [0; 4 << 10];
        let room = buffer.remaining().min(step.len()).min(MAX_HEAD_BYTES - self.head);
        if room == 0 && buffer.remaining() > 0 {
            self.progress.set_too_large();
            let what = "the head of the request is too large";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, what)));
        }
        let mut step = ReadBuf::new(&mut step[..room]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut step))?;
        buffer.put_slice(step.filled());
        self.head += step.filled().len();
        Poll::Ready(Ok(()))
    }

    /// Returns the `outcome` of an attempt to write, or an error if none succeeded for too long.
    fn timed<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() || self.progress.is_upgraded() {
            self.stalled = None;
            return outcome;
        }
        let timeout = self.timeout;
        let stalled =
            self.stalled.get_or_insert_with(|| Box::pin(sleep_until(deadline_in(timeout))));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: Io> AsyncRead for WriteTimeout<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.progress.is_upgrading() && self.progress.is_at_head() {
            return self.poll_read_head(cx, buffer);
        }
        self.head = 0;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<I: Io> AsyncWrite for WriteTimeout<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.timed(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.timed(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        // hyper flushes when it has nothing more to write.
        if matches!(outcome, Poll::Ready(Ok(()))) {
            self.progress.set_flushed();
        }
        self.timed(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.timed(cx, outcome)
    }
}
