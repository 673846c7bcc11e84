//! Accepting: [`serve`] on an address, [`WebSocketService`] in a server that you have, and [`accept`]
//! on one stream of your own.
//!
//! # What is safe by default
//!
//! All serve only the hosts of the loopback interface, and only their own web pages, and refuse
//! everything else with 403 before the upgrade: else any web page could use the servers on its
//! visitor's machine. [`Config::allowed_hosts`] and [`Config::allowed_origins`] change that.
//!
//! What is not covered: nothing here authenticates anyone. A program sends no `Origin`, and is let in
//! when it knows the address: bind to loopback, or put a proxy in front that authenticates. Neither is
//! the number of connections bounded, nor is there TLS on this side. And a [`WebSocketService`] begins
//! with a whole request: how long its head may take is up to the server around it, and axum's own
//! `serve` sets no limit.

mod auth;
mod body;
mod config;
mod door;
mod handler;
mod handshake;
mod limit;
mod listener;
mod origin;
mod registry;
mod role;
mod serve;
mod service;
mod session;
#[cfg(feature = "rustls-tls")]
mod tls;

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
};

use tokio::io::{AsyncRead, AsyncWrite};

#[cfg(feature = "rustls-tls")]
#[cfg_attr(docsrs, doc(cfg(feature = "rustls-tls")))]
pub use self::tls::Tls;
use self::{auth::in_band, door::Standing};
pub use self::{
    auth::{Authenticator, BearerTokens, Credentials, Denied, Identity, Token},
    body::Body,
    config::{Config, Drain},
    limit::Limits,
    listener::{Bind, Listener},
    registry::{Broadcast, Cause, Connection, Event, Events, Health, Info, Missed, Registry},
    role::Hosted,
    serve::{Serve, Server, serve, serve_on},
    service::WebSocketService,
};
use crate::{
    decode::Role,
    error::{Error, HandshakeError, LinkError},
    transport::WebSocketTransport,
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
    Accept { stream, config: Config::default() }
}

/// A handshake to be performed; see [`accept`].
///
/// Awaiting it sets `TCP_NODELAY` where the stream is a `TcpStream`, answers requests until one is
/// upgraded (any path will do), and fails with [`Error::Handshake`] when the client leaves or the
/// time is over, or with [`Error::Link`] when it does not authenticate within the connection. The
/// request and the identity are in the transport's [extensions](WebSocketTransport::extensions). The
/// number of connections, a panic in a handler and how all of it stops are the caller's affair.
#[derive(Debug)]
#[must_use = "nothing is accepted until this is awaited"]
pub struct Accept<R: Role, S> {
    stream: S,
    config: Config<R>,
}

impl<R: Role, S> Accept<R, S> {
    /// Who may connect, how fast they must be, and what the connection is made of.
    pub fn config(mut self, config: Config<R>) -> Self {
        self.config = config;
        self
    }
}

impl<R, S> IntoFuture for Accept<R, S>
where
    R: Hosted,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = Result<WebSocketTransport<R>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { stream, config } = self;
        let span = tracing::info_span!("websocket", side = "server");
        Box::pin(async move {
            config.allowed.validate().map_err(HandshakeError::Invalid)?;
            let accepting = handshake::accept(stream, &config);
            let (upgraded, guest) = match tokio::time::timeout(config.timeout, accepting).await {
                Ok(accepted) => accepted?,
                Err(_) => return Err(HandshakeError::TimedOut(config.timeout).into()),
            };
            let mut transport = upgraded.transport(config.builder().span(span));
            let identity = match (guest.standing, &config.gate) {
                (Standing::Unknown, Some(gate)) => {
                    let (parts, peer) = (guest.parts.clone(), guest.peer);
                    let credentials = Credentials { token: None, parts, peer };
                    let proof =
                        in_band::authenticate(&mut transport, &config, &**gate, credentials);
                    match proof.await {
                        Ok(identity) => Some(identity),
                        Err((_, reason)) => {
                            transport.close_with(reason.clone()).await?;
                            return Err(LinkError::Closed(reason).into());
                        }
                    }
                }
                (Standing::Known(identity, _), _) => identity,
                (Standing::Unknown, None) => None,
            };
            let extensions = transport.extensions();
            extensions.insert(guest.parts);
            if let Some(identity) = identity {
                extensions.insert(identity);
            }
            Ok(transport)
        })
    }
}
