//! [`Listener`]: a source of connections for a server.

use std::{fmt, io, net::SocketAddr};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream, ToSocketAddrs, lookup_host},
};

/// Most connections that wait to be accepted: all clients of another server may come at once.
const BACKLOG: u32 = 1024;

/// Source of byte streams for [`serve_on`](crate::server::serve_on): a TCP or Unix listener, or
/// your own.
pub trait Listener: Send + 'static {
    /// Stream of a connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Address that it listens on.
    type Addr: Clone + fmt::Debug + Send + Sync;

    /// Accepts the next connection. Returns its stream, and its address if that is one of IP.
    ///
    /// # Errors
    /// A failure is logged, and followed by another attempt. When the operating system has no more
    /// file descriptors, the connection of an unauthenticated client is closed first.
    fn accept(&mut self)
    -> impl Future<Output = io::Result<(Self::Io, Option<SocketAddr>)>> + Send;

    /// Returns the address that it listens on.
    ///
    /// # Errors
    /// The error of the operating system.
    fn local_addr(&self) -> io::Result<Self::Addr>;
}

/// Returns `true` if the process or the system is out of file descriptors.
pub(in crate::server) fn is_out_of_descriptors(error: &io::Error) -> bool {
    // EMFILE and ENFILE, which are the same everywhere, and WSAEMFILE.
    let codes: &[i32] = if cfg!(windows) { &[10024] } else { &[24, 23] };
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

impl Listener for TcpListener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
        let (stream, peer) = Self::accept(self).await?;
        Ok((stream, Some(peer)))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }
}

#[cfg(unix)]
impl Listener for tokio::net::UnixListener {
    type Io = tokio::net::UnixStream;
    type Addr = std::sync::Arc<tokio::net::unix::SocketAddr>;

    async fn accept(&mut self) -> io::Result<(Self::Io, Option<SocketAddr>)> {
        let (stream, _) = Self::accept(self).await?;
        Ok((stream, None))
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Self::local_addr(self).map(Into::into)
    }
}

/// Address to listen on.
#[derive(Debug)]
pub struct Bind<A>(pub(in crate::server) A);

/// Source of a [`Listener`]: a listener itself, or an address.
#[expect(unnameable_types, reason = "only for the types of this file")]
pub trait IntoListener: Send + 'static {
    /// Type of the listener.
    type Listener: Listener;

    /// Returns the listener, which is bound by then.
    fn listener(self) -> impl Future<Output = io::Result<Self::Listener>> + Send;
}

impl<L: Listener> IntoListener for L {
    type Listener = Self;

    async fn listener(self) -> io::Result<Self> {
        Ok(self)
    }
}

impl<A: ToSocketAddrs<Future: Send> + Send + 'static> IntoListener for Bind<A> {
    type Listener = TcpListener;

    async fn listener(self) -> io::Result<TcpListener> {
        let mut failed = None;
        for address in lookup_host(self.0).await? {
            match listen(address) {
                Ok(listener) => return Ok(listener),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no address")))
    }
}

/// Listens on `address`, as [`TcpListener::bind`] does, with room for [`BACKLOG`] connections.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Elsewhere it would let another process take the port.
    #[cfg(not(windows))]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
