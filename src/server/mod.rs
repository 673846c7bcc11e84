//! Accepting: [`serve`] on an address, and [`accept`] on one stream of your own.
//!
//! Both refuse a request whose `Origin` is not that of its `Host`, before the upgrade: else any web
//! page could use the servers on its visitor's machine. Programs send no `Origin` and are let in, so
//! nothing here authenticates anyone: bind to loopback, or put a proxy that does in front.

mod origin;
mod serve;
mod service;

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite};

pub use self::serve::{Serve, Server, serve};
use crate::{
    decode::Role,
    error::{Error, HandshakeError},
    framing::Framing,
    transport::{self, Builder, WebSocketTransport},
};

/// Performs the server's opening handshake on `stream`, which a client has just opened. Await the
/// result, or set options first.
///
/// ```no_run
/// # async fn example(service: impl rmcp::ServerHandler) -> Result<(), Box<dyn std::error::Error>> {
/// use rmcp::ServiceExt;
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let (stream, _peer) = listener.accept().await?;
/// service.serve(mcp_ws_transport::accept(stream).await?).await?.waiting().await?;
/// # Ok(()) }
/// ```
pub fn accept<R, S>(stream: S) -> Accept<R, S>
where
    R: Role,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Accept { stream, timeout: Duration::from_secs(10), builder: WebSocketTransport::builder() }
}

/// A handshake to be performed; see [`accept`].
///
/// Awaiting it sets `TCP_NODELAY` where the stream is a `TcpStream`, answers requests until one is
/// upgraded (any path will do), and fails with [`Error::Handshake`] when the client leaves or the
/// time is over.
#[derive(Debug)]
#[must_use = "nothing is accepted until this is awaited"]
pub struct Accept<R: Role, S> {
    stream: S,
    timeout: Duration,
    builder: Builder<R>,
}

impl<R: Role, S> Accept<R, S> {
    /// How long the client may take for its handshake: 10 s.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The settings of the connection's layers.
    pub fn config(mut self, config: transport::Config) -> Self {
        self.builder = self.builder.config(config);
        self
    }

    /// The form of the messages, in place of JSON-RPC itself.
    pub fn framing(mut self, framing: impl Framing<R> + 'static) -> Self {
        self.builder = self.builder.framing(framing);
        self
    }
}

impl<R, S> IntoFuture for Accept<R, S>
where
    R: Role,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = Result<WebSocketTransport<R>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { stream, timeout, builder } = self;
        let span = tracing::info_span!("websocket", side = "server");
        Box::pin(async move {
            let upgrade = service::upgrade(stream, None, timeout);
            match tokio::time::timeout(timeout, upgrade).await {
                Ok(accepted) => Ok(accepted?.transport(builder.span(span))),
                Err(_) => Err(HandshakeError::TimedOut(timeout).into()),
            }
        })
    }
}
