//! The byte stream of a connection: its options, and how it is had back from hyper.

use std::any::Any;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// Byte stream that a connection can run over.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Io for S {}

/// Returns the stream that was given to hyper, and what it read of the new protocol.
pub(crate) fn reclaim<S: Io>(upgraded: Upgraded) -> Option<(S, Bytes)> {
    let parts = upgraded.downcast::<TokioIo<S>>().ok()?;
    Some((parts.io.into_inner(), parts.read_buf))
}

/// Bytes that the kernel takes of a TCP connection beyond those that are on their way.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 64 << 10;

/// Sets the options of the stream where it is a TCP connection.
///
/// Nagle's algorithm is switched off: with it, a short message behind another waits for the peer's
/// delayed acknowledgement, some 40 ms. And the kernel takes no more than it is about to send.
/// Otherwise it takes more only once a third of its buffer, which may be megabytes, is empty: a
/// peer that reads steadily, but slowly, would not seem to read at all for minutes.
pub(crate) fn set_tcp_options<S: 'static>(stream: &S) {
    let Some(tcp) = (stream as &dyn Any).downcast_ref::<TcpStream>() else { return };
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY not set");
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Err(error) = socket2::SockRef::from(tcp).set_tcp_notsent_lowat(UNSENT) {
        tracing::debug!(%error, "TCP_NOTSENT_LOWAT not set");
    }
}
