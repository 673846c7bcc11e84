//! [`ExactCase`]: header names on the wire as RFC 6455 writes them.
//!
//! Header names are case-insensitive (RFC 9110, section 5.1), but small devices compare bytes.
//! hyper writes `sec-websocket-accept`, or `Sec-Websocket-Accept` at best. The right form has the
//! same length, so the head of a message is rewritten as it is written; everything after it passes
//! unchanged.

#[cfg(feature = "server")]
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::Io;

/// Prefix of header names whose capitals are not just one per word.
const PREFIX: &[u8] = b"Sec-WebSocket-";

/// Position of the next byte within the head of a message.
///
/// | from | to | at |
/// |---|---|---|
/// | `FirstLine` | `Name` | the end of the line |
/// | `Name` | `Value` | a colon |
/// | `Name` | `End` | an empty line |
/// | `Value` | `Name` | the end of the line |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    FirstLine,
    /// A header name. It holds the bytes `written` so far, whether they match `PREFIX`, and whether
    /// the next byte starts a word.
    Name {
        written: usize,
        is_prefix: bool,
        is_start: bool,
    },
    Value,
    End,
}

impl Place {
    const LINE: Self = Self::Name { written: 0, is_prefix: true, is_start: true };

    /// Rewrites `bytes`, which begin at this position. Returns the position after them.
    fn rewrite(mut self, bytes: &mut [u8]) -> Self {
        let mut at = 0;
        while let Some(byte) = bytes.get_mut(at) {
            match self {
                Self::End => break,
                Self::FirstLine | Self::Value if *byte != b'\n' => {
                    let rest = bytes.get(at..).unwrap_or_default();
                    at += memchr(b'\n', rest).unwrap_or(rest.len());
                }
                _ => {
                    (*byte, self) = self.write(*byte);
                    at += 1;
                }
            }
        }
        self
    }

    /// Returns `byte` as it is to be written at this position, and the next position.
    fn write(self, byte: u8) -> (u8, Self) {
        match self {
            Self::FirstLine | Self::Value if byte == b'\n' => (byte, Self::LINE),
            Self::FirstLine | Self::Value | Self::End => (byte, self),
            Self::Name { .. } if byte == b':' => (byte, Self::Value),
            Self::Name { written: 0, .. } if byte == b'\n' => (byte, Self::End),
            Self::Name { .. } if byte == b'\r' => (byte, self),
            Self::Name { written, is_prefix, is_start } => {
                let exact = PREFIX.get(written).filter(|exact| exact.eq_ignore_ascii_case(&byte));
                let is_prefix = is_prefix && (exact.is_some() || written >= PREFIX.len());
                let written_as = match exact {
                    Some(exact) if is_prefix => *exact,
                    _ if is_start => byte.to_ascii_uppercase(),
                    _ => byte,
                };
                let is_start = byte == b'-';
                (written_as, Self::Name { written: written + 1, is_prefix, is_start })
            }
        }
    }
}

/// Start of the head whose header names are rewritten.
#[derive(Debug, Clone)]
enum Begins {
    /// The first byte written: the head is a request.
    #[cfg(feature = "client")]
    AtOnce,
    /// The first byte written after the flag was set: the head is the response that upgrades.
    #[cfg(feature = "server")]
    When(Arc<AtomicBool>),
}

/// A stream on which one head is written in the right case.
#[derive(Debug)]
pub(crate) struct ExactCase<S> {
    stream: S,
    begins: Begins,
    /// Position within the head; `None` before it.
    place: Option<Place>,
    /// `true` while everything written is flushed, so that the next byte starts a message.
    is_flushed: bool,
}

impl<S: Io> ExactCase<S> {
    /// Wraps the stream of a client: the first head is rewritten.
    #[cfg(feature = "client")]
    pub(crate) fn request(stream: S) -> Self {
        Self { stream, begins: Begins::AtOnce, place: None, is_flushed: true }
    }

    /// Wraps the stream of a server: the head that follows once `granted` is set is rewritten.
    #[cfg(feature = "server")]
    pub(crate) fn answer(stream: S, granted: Arc<AtomicBool>) -> Self {
        Self { stream, begins: Begins::When(granted), place: None, is_flushed: true }
    }

    pub(crate) fn into_inner(self) -> S {
        self.stream
    }

    /// Returns the position within the head, if the next byte belongs to it or starts it.
    fn place(&mut self) -> Option<Place> {
        let begins = || match &self.begins {
            #[cfg(feature = "client")]
            Begins::AtOnce => true,
            #[cfg(feature = "server")]
            Begins::When(granted) => granted.load(Relaxed),
        };
        if self.place.is_none() && self.is_flushed && begins() {
            self.place = Some(Place::FirstLine);
        }
        self.is_flushed = false;
        self.place.filter(|place| *place != Place::End)
    }
}

impl<S: Io> AsyncRead for ExactCase<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: Io> AsyncWrite for ExactCase<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(place) = self.place() else {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        };
        let mut rewritten = bytes.to_vec();
        let after = place.rewrite(&mut rewritten);
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &rewritten))?;
        self.place = Some(match rewritten.get_mut(..written) {
            Some(part) if written < bytes.len() => place.rewrite(part),
            _ => after,
        });
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.place().is_none() {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        }
        let first = slices.iter().find(|slice| !slice.is_empty());
        // The position is known by now, and not searched for anew.
        self.poll_write(cx, first.map_or(&[], |slice| &**slice))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.is_flushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const HEAD: &str = "GET /connection:upgrade HTTP/1.1\r\nhost: sec-websocket-key\r\n\
        sec-websocket-key: sec-websocket-key: upgrade\r\nsec-websocket-protocol: mcp\r\n\
        SEC-WEBSOCKET-VERSION: 13\r\nSec-Websocket-Extensions: x\r\nuser-agent: a\r\n\
        sec-fetch-mode: b\r\nsec-websocketish: c\r\nempty:\r\nconnection: upgrade\r\n\
        upgrade: websocket\r\n\r\n";
    const MENDED: &str = "GET /connection:upgrade HTTP/1.1\r\nHost: sec-websocket-key\r\n\
        Sec-WebSocket-Key: sec-websocket-key: upgrade\r\nSec-WebSocket-Protocol: mcp\r\n\
        Sec-WebSocket-VERSION: 13\r\nSec-WebSocket-Extensions: x\r\nUser-Agent: a\r\n\
        Sec-Fetch-Mode: b\r\nSec-WebSocketish: c\r\nEmpty:\r\nConnection: upgrade\r\n\
        Upgrade: websocket\r\n\r\n";
    const REST: &str = "sec-websocket-key: 1\r\n\r\nhost: x\r\n";

    /// Writes `text` in steps of this size through a stream that takes no more bytes at once than
    /// `room`.
    async fn write(stream: &mut (impl AsyncWrite + Unpin), text: &str, step: usize) {
        for step in text.as_bytes().chunks(step) {
            stream.write_all(step).await.unwrap();
        }
    }

    #[tokio::test]
    async fn one_head_is_mended_however_it_is_cut_and_nothing_else() {
        for (step, room) in [(1, 1), (1, 1000), (7, 3), (1000, 1000), (1000, 5), (13, 13)] {
            let (near, mut far) = duplex(room);
            #[cfg(feature = "client")]
            let mut stream = ExactCase::request(near);
            #[cfg(not(feature = "client"))]
            let mut stream = ExactCase::answer(near, Arc::new(true.into()));
            let writing = async move {
                write(&mut stream, HEAD, step).await;
                write(&mut stream, REST, step).await;
            };
            let mut written = String::new();
            let (read, ()) = tokio::join!(far.read_to_string(&mut written), writing);
            read.unwrap();
            assert_eq!(written, format!("{MENDED}{REST}"), "{step}, {room}");
        }
    }

    #[cfg(feature = "server")]
    #[tokio::test]
    async fn of_several_answers_the_last_is_mended_unless_it_is_written_with_another() {
        for (flushes, last) in [(true, MENDED), (false, HEAD)] {
            let (near, mut far) = duplex(9999);
            let granted = Arc::new(AtomicBool::new(false));
            let mut stream = ExactCase::answer(near, granted.clone());
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 33\r\n\r\n{REST}");
            stream.write_all(answer.as_bytes()).await.unwrap();
            if flushes {
                stream.flush().await.unwrap();
            }
            granted.store(true, Relaxed);
            stream.write_all(HEAD.as_bytes()).await.unwrap();
            drop(stream);
            let mut written = String::new();
            far.read_to_string(&mut written).await.unwrap();
            assert_eq!(written, format!("{answer}{last}"));
        }
    }
}
