//! Accepting: [`serve`] on an address, and [`accept`] on one stream of your own.
//!
//! # What is safe by default
//!
//! Both serve only the hosts of the loopback interface, and only their own web pages, and refuse
//! everything else with 403 before the upgrade: else any web page could use the servers on its
//! visitor's machine. [`Serve::allowed_hosts`] and [`Serve::allowed_origins`] change that.
//!
//! What is not covered: nothing here authenticates anyone. A program sends no `Origin`, and is let in
//! when it knows the address: bind to loopback, or put a proxy in front that authenticates. Neither is
//! the number of connections bounded, nor is there TLS on this side.

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
use self::service::Gate;
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
    Accept { stream, gate: Gate::new(None), builder: WebSocketTransport::builder() }
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
    gate: Gate,
    builder: Builder<R>,
}

impl<R: Role, S> Accept<R, S> {
    /// How long the client may take for its handshake: 10 s.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.gate.timeout = timeout;
        self
    }

    /// The hosts that may be asked for, each with a port or for any: by default the names of the
    /// loopback interface, `localhost`, `127.0.0.1` and `::1`. Any other `Host` is 403, since a web
    /// page can let a name of its own point here (DNS rebinding).
    pub fn allowed_hosts<T: Into<String>>(mut self, hosts: impl IntoIterator<Item = T>) -> Self {
        self.gate.allowed.hosts(hosts);
        self
    }

    /// Serves every `Host`, as behind a proxy that has checked it. Web pages must then be listed in
    /// [`allowed_origins`](Self::allowed_origins), even the server's own.
    pub fn disable_allowed_hosts(mut self) -> Self {
        self.gate.allowed.every_host();
        self
    }

    /// The origins whose web pages may connect, besides those of the allowed hosts themselves: scheme,
    /// host, and a port where it is not the scheme's own, `:*` for any; or `null`. By default none.
    /// Programs send no `Origin` and are not concerned.
    pub fn allowed_origins<T: Into<String>>(
        mut self,
        origins: impl IntoIterator<Item = T>,
    ) -> Self {
        self.gate.allowed.origins(origins);
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
        let Self { stream, gate, builder } = self;
        let span = tracing::info_span!("websocket", side = "server");
        Box::pin(async move {
            gate.allowed.validate().map_err(HandshakeError::Invalid)?;
            Ok(gate.open(stream).await?.transport(builder.span(span)))
        })
    }
}
