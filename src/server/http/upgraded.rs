//! [`UpgradedStream`]: the stream of an upgraded connection, and what is built over it.

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
    transport::layers::Layers,
};

/// Connection of an unauthenticated client: a socket without layers.
///
/// Its messages are small, and not compressed.
pub(in crate::server) trait Unauthenticated:
    Duplex<Message, Message> + Send + Unpin
{
    /// Builds all layers over the socket, once the client has authenticated.
    ///
    /// # Errors
    /// A link that was lost.
    fn authenticated(self: Box<Self>, layers: &Layers) -> Result<BoxLink, Error>;
}

impl<S: Io> Unauthenticated for Socket<S> {
    fn authenticated(self: Box<Self>, layers: &Layers) -> Result<BoxLink, Error> {
        Ok(layers.over_socket((*self).authenticated()?, Side::Server))
    }
}

/// Builder of something over a stream of any type.
pub(in crate::server) trait BuildOverStream {
    type Output;

    /// Builds it over `stream`, of which the bytes of `leftover` were read already.
    fn build<S: Io>(self, stream: S, leftover: Bytes) -> Self::Output;
}

/// Builder of all layers, for a client that is admitted.
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

/// Builder of the socket alone, for a client that is not authenticated or is rejected.
pub(in crate::server) struct BeforeAuthentication<'a> {
    pub(in crate::server) layers: &'a Layers,
    /// Largest message of the client, in bytes.
    pub(in crate::server) limit: usize,
}

impl BuildOverStream for BeforeAuthentication<'_> {
    type Output = Box<dyn Unauthenticated>;

    fn build<S: Io>(self, stream: S, leftover: Bytes) -> Box<dyn Unauthenticated> {
        Box::new(self.layers.unauthenticated(stream, &leftover, Side::Server, self.limit))
    }
}

/// Stream of an upgraded connection.
pub(in crate::server) trait UpgradedStream: Send {
    /// Builds `what` over the stream.
    fn build<B: BuildOverStream>(self, what: B) -> B::Output;
}

/// Stream that hyper was given, and the bytes that it read beyond the request.
impl<S: Io> UpgradedStream for (S, Bytes) {
    fn build<B: BuildOverStream>(self, what: B) -> B::Output {
        let (stream, leftover) = self;
        what.build(stream, leftover)
    }
}

/// Stream in hyper's box, which is taken out if its type is known.
///
/// So messages pass without dynamic dispatch. Any other stream stays in the box.
impl UpgradedStream for hyper::upgrade::Upgraded {
    fn build<B: BuildOverStream>(self, what: B) -> B::Output {
        let upgraded = match downcast_stream::<TcpStream>(self) {
            Ok((stream, leftover)) => {
                set_tcp_options(&stream);
                return what.build(stream, leftover);
            }
            Err(upgraded) => upgraded,
        };
        #[cfg(feature = "rustls-tls")]
        let upgraded = match downcast_stream::<tokio_rustls::server::TlsStream<TcpStream>>(upgraded)
        {
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
}

/// Returns the stream in hyper's box if it has this type, and the bytes read beyond the request.
///
/// This crate's listener wraps the stream before it gives it to hyper, and hyper-util wraps it too.
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
