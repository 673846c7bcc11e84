//! What is built over the stream of an upgraded connection, out of hyper's box.

use bytes::Bytes;
use hyper_util::{rt::TokioIo, server::conn::auto};
use tokio::net::TcpStream;

use super::write_timeout::WriteTimeout;
use crate::{
    duplex::{BoxLink, Duplex},
    error::Error,
    handshake::{
        extensions::WsExtensions,
        stream::{Io, set_tcp_options},
    },
    layer::socket::{Socket, side::Side},
    message::Message,
    transport::builder::Layers,
};

/// Connection of an unauthenticated client: a socket without layers above it, whose messages are
/// small and uncompressed.
pub(in crate::server) trait Unauthenticated:
    Duplex<Message, Message> + Send + Unpin
{
    /// Builds all layers, once the client has authenticated and everything was written to it.
    fn authenticated(self: Box<Self>, layers: &Layers) -> Result<BoxLink, Error>;
}

impl<S: Io> Unauthenticated for Socket<S> {
    fn authenticated(self: Box<Self>, layers: &Layers) -> Result<BoxLink, Error> {
        Ok(layers.over_socket((*self).authenticated()?, Side::Server))
    }
}

/// Builder of what runs over the stream of an upgraded connection.
pub(in crate::server) trait BuildOverStream {
    type Output;

    fn build<S: Io>(self, stream: S, leftover: Bytes) -> Self::Output;
}

/// Builds all layers, for a client that is admitted.
pub(in crate::server) struct AllLayers<'a> {
    pub(in crate::server) layers: &'a Layers,
    pub(in crate::server) extensions: WsExtensions,
}

impl BuildOverStream for AllLayers<'_> {
    type Output = BoxLink;

    fn build<S: Io>(self, stream: S, leftover: Bytes) -> BoxLink {
        self.layers.link(stream, leftover, Side::Server, self.extensions)
    }
}

/// Builds the socket alone, for an unauthenticated client or one to be refused, whose messages have
/// at most `limit` bytes.
pub(in crate::server) struct BeforeAuthentication<'a> {
    pub(in crate::server) layers: &'a Layers,
    pub(in crate::server) limit: usize,
}

impl BuildOverStream for BeforeAuthentication<'_> {
    type Output = Box<dyn Unauthenticated>;

    fn build<S: Io>(self, stream: S, leftover: Bytes) -> Box<dyn Unauthenticated> {
        Box::new(self.layers.unauthenticated(stream, &leftover, Side::Server, self.limit))
    }
}

/// Builds something over an upgraded connection. A stream of a known type is unboxed, so that
/// messages pass without dynamic dispatch; any other stays in its box.
pub(in crate::server) fn build_over_upgraded<B: BuildOverStream>(
    upgraded: hyper::upgrade::Upgraded,
    what: B,
) -> B::Output {
    let upgraded = match downcast_stream::<TcpStream>(upgraded) {
        Ok((stream, leftover)) => {
            set_tcp_options(&stream);
            return what.build(stream, leftover);
        }
        Err(upgraded) => upgraded,
    };
    #[cfg(feature = "rustls-tls")]
    let upgraded = match downcast_stream::<tokio_rustls::server::TlsStream<TcpStream>>(upgraded) {
        Ok((stream, leftover)) => {
            set_tcp_options(stream.get_ref().0);
            return what.build(stream, leftover);
        }
        Err(upgraded) => upgraded,
    };
    #[cfg(unix)]
    let upgraded = match downcast_stream::<tokio::net::UnixStream>(upgraded) {
        Ok((stream, leftover)) => return what.build(stream, leftover),
        Err(upgraded) => upgraded,
    };
    what.build(TokioIo::new(upgraded), Bytes::new())
}

/// The stream that hyper, or hyper-util, or the [`Acceptor`](crate::server::listen::acceptor::Acceptor) was given, and what it read beyond the request.
fn downcast_stream<S: Io>(
    upgraded: hyper::upgrade::Upgraded,
) -> Result<(S, Bytes), hyper::upgrade::Upgraded> {
    let upgraded = match upgraded.downcast::<TokioIo<WriteTimeout<S>>>() {
        Ok(parts) => return Ok((parts.io.into_inner().into_inner(), parts.read_buf)),
        Err(upgraded) => upgraded,
    };
    match upgraded.downcast::<TokioIo<S>>() {
        Ok(parts) => Ok((parts.io.into_inner(), parts.read_buf)),
        Err(upgraded) => auto::upgrade::downcast::<TokioIo<S>>(upgraded)
            .map(|parts| (parts.io.into_inner(), parts.read_buf)),
    }
}
