//! [`accept`]: the server's opening handshake on one stream.

use std::{
    convert::Infallible,
    future::{Future, IntoFuture},
    io,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{Request, StatusCode};
use hyper::{body::Incoming, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{Instrument as _, Span};

use super::{
    admission::{self, Admission, Capacity, ClientInfo},
    config::Config,
    connection::establish::{NotEstablished, establish},
    http::{
        body::Body,
        handshake::Negotiated,
        http1::http1,
        progress::{Progress, TrackedBody},
        response::{HttpResponse, close_connection_after, close_unread, too_large},
        write_timeout::WriteTimeout,
    },
    span::{connection_span, record_request},
};
use crate::{
    close::CloseCode,
    error::{Error, HandshakeError, LinkError},
    handshake::stream::{Io, reclaim, set_tcp_options},
    role::McpRole,
    time::deadline_in,
    transport::WebSocketTransport,
};

/// Performs the server's opening handshake on `stream`, which a client has just opened.
///
/// Await the result, or set options first.
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
/// upgraded (any path will do), and returns the transport, as a [`WebSocketService`] would build
/// it. The request and the identity are in its [extensions](WebSocketTransport::extensions). It
/// fails with [`Error::Handshake`] when the client leaves or the time is over, and with
/// [`Error::Link`] when it does not authenticate within the connection.
///
/// No limit to the number of connections applies, no session outlives its connection, and the
/// registry of the configuration knows of none. A panic in a handler (see
/// [`CatchPanic`](crate::CatchPanic)) and the end of the service are the caller's affair.
///
/// [`WebSocketService`]: crate::server::WebSocketService
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
    R: McpRole,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Output = Result<WebSocketTransport<R>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let Self { stream, config } = self;
        let accepting = async move {
            config.validate().map_err(|error| HandshakeError::Invalid(error.to_string()))?;
            let capacity = Capacity::unlimited();
            let (stream, client, span) = handshake(stream, &config, &capacity).await?;
            transport(&config, &capacity, stream, client).instrument(span).await
        };
        Box::pin(accepting)
    }
}

/// Returns the transport of an upgraded connection.
async fn transport<R: McpRole, S: Io>(
    config: &Config<R>,
    capacity: &Capacity<R>,
    stream: Upgraded<S>,
    client: (Negotiated, ClientInfo),
) -> Result<WebSocketTransport<R>, Error> {
    let timer = pin!(sleep_until(deadline_in(config.timeout)));
    match establish(config, capacity, stream, client, timer).await {
        Ok(established) => {
            established.log();
            Ok(established.transport)
        }
        Err(NotEstablished::Rejected(rejected)) => {
            if let Some(refusal) = rejected.refusal() {
                config.registry.log_refusal(&refusal, None);
            }
            let reason = rejected.reason.clone();
            rejected.close().await;
            Err(LinkError::closed_here(&reason).into())
        }
        Err(NotEstablished::Lost(error)) => Err(error),
        // Only where sessions are kept.
        Err(_) => Err(LinkError::Closed(CloseCode::Abnormal.into()).into()),
    }
}

/// Upgraded stream, and the bytes of it that were read already.
type Upgraded<S> = (S, Bytes);

/// Upgrade that was granted, the client that it was granted to, and the span of its request.
type Granted = (OnUpgrade, (Negotiated, ClientInfo), Span);

/// Returns the response to `request`; if it is an upgrade, that is `granted`.
async fn respond<R: McpRole>(
    config: &Config<R>,
    capacity: &Capacity<R>,
    request: Request<Incoming>,
    granted: &Mutex<Option<Granted>>,
) -> HttpResponse {
    let (mut parts, _) = request.into_parts();
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let admitted = match config.peer.of(&parts) {
        Ok(peer) => {
            record_request(&parts, peer);
            admission::admit(config, capacity, peer, parts).await
        }
        Err(rejection) => Err(rejection),
    };
    match admitted {
        Ok(Admission { response, negotiated, client }) => {
            *granted.lock().unwrap_or_else(PoisonError::into_inner) =
                upgrade.map(|upgrade| (upgrade, (negotiated, client), Span::current()));
            response
        }
        Err(rejection) => {
            config.registry.log_refusal(&rejection.refusal(), None);
            rejection.response
        }
    }
}

/// Answers requests on `stream` until one is upgraded, or the time is over.
async fn handshake<R: McpRole, S: Io>(
    stream: S,
    config: &Config<R>,
    capacity: &Capacity<R>,
) -> Result<(Upgraded<S>, (Negotiated, ClientInfo), Span), HandshakeError> {
    set_tcp_options(&stream);
    let handshake_deadline = deadline_in(config.timeout);
    let progress = Progress::new(capacity.pending.register(None));
    let granted = Mutex::new(None);
    let answer = service_fn(|request: Request<Incoming>| {
        // At once: what is read from now on is no head.
        progress.set_requested(false);
        async {
            let answer = respond(config, capacity, request, &granted);
            let mut response = answer.instrument(connection_span(None, None)).await;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                progress.set_upgrading();
            } else if Instant::now() >= handshake_deadline {
                close_connection_after(&mut response);
            }
            let tracked = |body| TrackedBody::new(Body::new(body), progress.clone());
            Ok::<_, Infallible>(response.map(tracked))
        }
    });
    let late = || HandshakeError::TimedOut(config.timeout);
    let answering = async {
        let stream = WriteTimeout::new(stream, progress.clone(), config.timeout);
        let mut connection =
            http1(None).serve_connection(TokioIo::new(stream), answer).with_upgrades();
        match timeout_at(handshake_deadline, &mut connection).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                if progress.is_too_large()
                    && let Some(parts) = connection.into_parts()
                {
                    close_unread(parts.io.into_inner().into_inner(), &too_large()).await;
                }
                Err(HandshakeError::NotWebSocket(error.to_string()))
            }
            // An authenticator has as much time, and the client is to be told its decision.
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
    let Some((upgrade, client, span)) = granted else {
        let left = io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an upgrade");
        return Err(HandshakeError::Connect(Arc::new(left)));
    };
    let lost = |what: &dyn ToString| HandshakeError::NotWebSocket(what.to_string());
    let upgraded = upgrade.await.map_err(|error| lost(&error))?;
    let (stream, leftover) = reclaim::<WriteTimeout<S>>(upgraded)
        .ok_or_else(|| lost(&"the stream was lost in the upgrade"))?;
    Ok(((stream.into_inner(), leftover), client, span))
}
