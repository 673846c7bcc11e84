//! [`accept`]: the server's opening handshake on one stream.

use std::{
    convert::Infallible,
    future::{Future, IntoFuture},
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{Request, StatusCode};
use hyper::{body::Incoming, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};

use super::{
    admission::{self, Admission, AuthState, ClientInfo},
    config::Config,
    connection::in_band,
    http::{
        body::Body,
        handshake::Negotiated,
        http1::http1,
        pending::PendingConnections,
        progress::{Progress, TrackedBody},
        response::{close_connection_after, close_unread, too_large},
        upgraded::{BeforeAuthentication, BuildOverStream, Unauthenticated},
        write_timeout::WriteTimeout,
    },
    role::HostedRole,
};
use crate::{
    error::{Error, HandshakeError, LinkError},
    event::ConnectionEvents,
    handshake::stream::{Io, reclaim, set_tcp_options},
    layer::socket::side::Side,
    link::PeerLimits,
    role::McpRole,
    time::deadline_in,
    transport::{
        WebSocketTransport,
        builder::{Builder, Layers},
    },
};

/// Performs the server's opening handshake on `stream`, which a client has just opened. Await the
/// result, or set options first.
///
/// ```no_run
/// # async fn example(service: impl rmcp::ServerHandler) -> Result<(), Box<dyn std::error::Error>> {
/// use mcp_ws_transport::{CatchPanic, accept};
/// use rmcp::ServiceExt;
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let (stream, _peer) = listener.accept().await?;
/// CatchPanic::new(service).serve(accept(stream).await?).await?.waiting().await?;
/// # Ok(()) }
/// ```
pub fn accept<R, S>(stream: S) -> Accept<R, S>
where
    R: McpRole,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Accept { stream, config: Config::default() }
}

/// Handshake to be performed; see [`accept`].
///
/// Awaiting it sets `TCP_NODELAY` where the stream is a `TcpStream`, answers requests until one is
/// upgraded (any path will do), and fails with [`Error::Handshake`] when the client leaves or the
/// time is over, or with [`Error::Link`] when it does not authenticate within the connection. The
/// request and the identity are in the transport's [extensions](WebSocketTransport::extensions). The
/// number of connections, a panic in a handler (see [`CatchPanic`](crate::CatchPanic)) and how all
/// of it stops are the caller's affair.
#[derive(Debug)]
#[must_use = "nothing is accepted until this is awaited"]
pub struct Accept<R: McpRole, S> {
    stream: S,
    config: Config<R>,
}

impl<R: McpRole, S> Accept<R, S> {
    /// Sets who may connect, how fast they must be, and what the connection is made of.
    pub fn config(mut self, config: Config<R>) -> Self {
        self.config = config;
        self
    }
}

impl<R, S> IntoFuture for Accept<R, S>
where
    R: HostedRole,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = Result<WebSocketTransport<R>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { stream, config } = self;
        let span = tracing::info_span!("websocket", side = "server");
        Box::pin(async move {
            config.allowed.validate().map_err(HandshakeError::Invalid)?;
            let (upgraded, client) = handshake(stream, &config).await?;
            let mut builder = config.builder().span(span);
            let (mut transport, identity) = match (client.auth_state, &config.authenticator) {
                (AuthState::InBand, Some(authenticator)) => {
                    builder = builder.peer(upgraded.peer_limits());
                    let layers = builder.layers();
                    let mut link = upgraded.unauthenticated(&layers, config.first_message);
                    let framing = builder.framing_mut();
                    let proof = in_band::authenticate(
                        &mut *link,
                        framing,
                        &config,
                        &**authenticator,
                        (&client.parts, client.peer),
                    );
                    match proof.await {
                        Ok(identity) => {
                            let link = link.authenticated(&layers)?;
                            (builder.over_link(link, ConnectionEvents::default()), Some(identity))
                        }
                        Err((_, reason)) => {
                            in_band::close(&mut *link, reason.clone()).await;
                            return Err(LinkError::closed_here(&reason).into());
                        }
                    }
                }
                (AuthState::Done(identity, _), _) => (upgraded.transport(builder), identity),
                (AuthState::InBand | AuthState::RejectAfterUpgrade(_), _) => {
                    (upgraded.transport(builder), None)
                }
            };
            let extensions = transport.extensions();
            extensions.insert(client.parts);
            if let Some(identity) = identity {
                extensions.insert(identity);
            }
            Ok(transport)
        })
    }
}

/// Connection whose upgrade was granted.
struct Upgraded<S> {
    stream: S,
    leftover: Bytes,
    negotiated: Negotiated,
}

impl<S: Io> Upgraded<S> {
    /// Builds the transport over it.
    fn transport<R: McpRole>(self, builder: Builder<R>) -> WebSocketTransport<R> {
        let peer = self.peer_limits();
        let Negotiated { subprotocol, extensions, .. } = self.negotiated;
        let builder = builder.subprotocol(subprotocol).peer(peer);
        builder.over_upgraded(self.stream, self.leftover, Side::Server, extensions)
    }

    /// Returns the limits of the client.
    fn peer_limits(&self) -> PeerLimits {
        let limits = PeerLimits::default();
        limits.set(self.negotiated.limits);
        limits
    }

    /// Returns the connection of an unauthenticated client.
    fn unauthenticated(self, layers: &Layers, limit: usize) -> Box<dyn Unauthenticated> {
        BeforeAuthentication { layers, limit }.build(self.stream, self.leftover)
    }
}

/// Answers requests on `stream` until one is upgraded, or the time is over.
async fn handshake<R: McpRole, S: Io>(
    stream: S,
    config: &Config<R>,
) -> Result<(Upgraded<S>, ClientInfo), HandshakeError> {
    set_tcp_options(&stream);
    let overdue = deadline_in(config.timeout);
    // By itself.
    let progress = Progress::new(PendingConnections::new(1).register(None));
    let granted = Mutex::new(None);
    let answer = service_fn(|request: Request<Incoming>| {
        // At once: what is read from now on is no head.
        progress.set_requested(false);
        async {
            let (mut parts, _) = request.into_parts();
            let upgrade = parts.extensions.remove::<OnUpgrade>();
            let admitted = match config.peer_of(&parts) {
                Ok(peer) => admission::admit(config, None, peer, parts).await,
                Err(rejection) => Err(rejection),
            };
            let mut answer = match admitted {
                Ok(Admission { response, negotiated, client }) => {
                    *granted.lock().unwrap_or_else(PoisonError::into_inner) =
                        upgrade.map(|upgrade| (upgrade, negotiated, client));
                    response
                }
                Err(rejection) => rejection.response,
            };
            if Instant::now() >= overdue {
                close_connection_after(&mut answer);
            }
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                progress.set_upgraded();
            }
            Ok::<_, Infallible>(
                answer.map(|body| TrackedBody::new(Body::new(body), progress.clone())),
            )
        }
    });
    let late = || HandshakeError::TimedOut(config.timeout);
    let answering = async {
        let stream = WriteTimeout::new(stream, progress.clone(), config.timeout);
        let mut connection =
            http1(None).serve_connection(TokioIo::new(stream), answer).with_upgrades();
        match timeout_at(overdue, &mut connection).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                if progress.is_too_large()
                    && let Some(parts) = connection.into_parts()
                {
                    close_unread(parts.io.into_inner(), &too_large()).await;
                }
                Err(HandshakeError::NotWebSocket(error.to_string()))
            }
            // An authenticator has as much time, and the client is to hear its verdict.
            Err(_) if progress.is_busy() => {
                match timeout_at(deadline_in(config.timeout), connection).await {
                    Ok(Ok(())) => Ok(()),
                    _ => Err(late()),
                }
            }
            Err(_) => Err(late()),
        }
    };
    answering.await?;
    let granted = granted.into_inner().unwrap_or_else(PoisonError::into_inner);
    let Some((upgrade, negotiated, client)) = granted else {
        let left = io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an upgrade");
        return Err(HandshakeError::Connect(Arc::new(left)));
    };
    let lost = |what: &dyn ToString| HandshakeError::NotWebSocket(what.to_string());
    let upgraded = upgrade.await.map_err(|error| lost(&error))?;
    let (stream, leftover) = reclaim::<WriteTimeout<S>>(upgraded)
        .ok_or_else(|| lost(&"the stream was lost in the upgrade"))?;
    Ok((Upgraded { stream: stream.into_inner(), leftover, negotiated }, client))
}
