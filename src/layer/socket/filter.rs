//! [`Filtered`]: what the WebSocket library reads and writes.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[cfg(feature = "deflate")]
use super::deflate::inflate::Inflater;
use super::{small_messages::SmallMessages, stream::Counted};

/// A byte stream whose inbound bytes pass a filter.
#[derive(Debug)]
pub(super) struct Filtered<S> {
    pub(super) stream: Counted<S>,
    pub(super) filter: Filter,
    /// `true` while the library reads. It writes pongs then, and gives up reading if that fails,
    /// whatever has arrived: a failure waits for the next write that is asked for.
    pub(super) is_reading: bool,
    /// Failure of a write while reading, after which nothing is written.
    write_error: Option<io::ErrorKind>,
}

impl<S> Filtered<S> {
    pub(super) fn new(stream: Counted<S>, filter: Filter) -> Self {
        Self { stream, filter, is_reading: false, write_error: None }
    }

    /// Returns the outcome of a write that the library is to be told; `done` is success.
    fn outcome<T>(&mut self, polled: Poll<io::Result<T>>, done: T) -> Poll<io::Result<T>> {
        match polled {
            Poll::Ready(Err(error)) if self.is_reading => {
                self.write_error = Some(error.kind());
                Poll::Ready(Ok(done))
            }
            polled => polled,
        }
    }
}

/// Filter between the byte stream and the WebSocket library.
#[derive(Debug)]
pub(super) enum Filter {
    None,
    /// Bounds the frames of a peer that has yet to authenticate.
    #[cfg_attr(not(any(test, feature = "server")), expect(dead_code, reason = "servers use it"))]
    SmallMessages(Box<SmallMessages>),
    /// Inflates compressed messages.
    #[cfg(feature = "deflate")]
    Inflate(Box<Inflater>),
}

impl<S: AsyncRead + Unpin> AsyncRead for Filtered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, filter, .. } = self.get_mut();
        match filter {
            Filter::None => stream.poll_wire(cx, buffer),
            Filter::SmallMessages(small) => small.poll_read(stream, cx, buffer),
            #[cfg(feature = "deflate")]
            Filter::Inflate(inflater) => inflater.poll_read(stream, cx, buffer),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Filtered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = match self.write_error {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None => Pin::new(&mut self.stream).poll_write(cx, bytes),
        };
        self.outcome(polled, bytes.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = match self.write_error {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None => Pin::new(&mut self.stream).poll_flush(cx),
        };
        self.outcome(polled, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
