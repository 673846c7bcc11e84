//! [`Acceptor`]: accepts connections, and serves them until their upgrade.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, Span};

use super::{
    fallback::BoxHttpService,
    listener::{Listener, is_out_of_descriptors},
};
use crate::{
    handshake::stream::{Io, set_tcp_options},
    role::McpRole,
    server::{
        http::{
            body::Body,
            guard,
            handshake::asks_for_websocket,
            http1::http1,
            peer::AcceptedFrom,
            pending::PendingSlot,
            progress::{Progress, TrackedBody},
            response::{
                LAST_RESPONSE_TIMEOUT, close_connection_after, close_unread, plain_response,
                too_large,
            },
            write_timeout::WriteTimeout,
        },
        registry::{event::RejectReason, refusal::Refusal},
        service::WebSocketService,
        span::connection_span,
    },
    time::deadline_in,
    warn_limit::WarnLimit,
};

/// Acceptor of connections, and HTTP server until they are upgraded.
pub(in crate::server) struct Acceptor<R: McpRole> {
    pub(in crate::server) service: WebSocketService<R>,
    pub(in crate::server) paths: Vec<String>,
    /// Service for requests on the same path that ask for no WebSocket.
    pub(in crate::server) same_path: Option<BoxHttpService>,
    /// Service for every other path.
    pub(in crate::server) fallback: Option<BoxHttpService>,
    #[cfg(feature = "rustls-tls")]
    pub(in crate::server) tls: Option<super::tls::ServerTls>,
    /// Cancelled when no connection is accepted any more.
    pub(in crate::server) stopped: CancellationToken,
    /// Deadline of the responses that are then in progress.
    pub(in crate::server) deadline: OnceLock<Instant>,
}

/// Accepts connections until the server stops, and waits until all of them have ended.
pub(in crate::server) async fn run<L: Listener, R: McpRole>(
    mut listener: L,
    acceptor: Arc<Acceptor<R>>,
) {
    let _stopped = acceptor.stopped.clone().drop_guard();
    let connections = TaskTracker::new();
    let drain = acceptor.service.config().drain.deadline;
    let closed = async {
        acceptor.service.stopping().await;
        let end = deadline_in(drain);
        acceptor.service.closed().await;
        end
    };
    let mut closed = std::pin::pin!(closed);
    let mut warnings = WarnLimit::default();
    let end = loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            end = &mut closed => break end,
        };
        match accepted {
            Ok((stream, peer)) => {
                set_tcp_options(&stream);
                let slot = acceptor.service.pending().register(peer.map(|peer| peer.ip()));
                // On the heap from the start: it is large, and a task is moved about before it begins.
                let serving = Box::pin(acceptor.clone().serve_connection(stream, peer, slot));
                connections.spawn(serving);
            }
            Err(error) => {
                if let Some(suppressed) = warnings.admit() {
                    tracing::warn!(%error, suppressed, "cannot accept");
                }
                let can_make_room = is_out_of_descriptors(&error);
                if !(can_make_room && acceptor.service.pending().evict_oldest().await) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    };
    drop(listener);
    let _ = acceptor.deadline.set(end.max(deadline_in(LAST_RESPONSE_TIMEOUT)));
    acceptor.stopped.cancel();
    connections.close();
    connections.wait().await;
}

impl<R: McpRole> Acceptor<R> {
    /// Returns the scheme of the URLs that lead to this listener.
    fn scheme(&self) -> &'static str {
        #[cfg(feature = "rustls-tls")]
        if self.tls.is_some() {
            return "wss";
        }
        "ws"
    }

    /// Creates the span of a request from `peer`.
    fn span(&self, peer: Option<SocketAddr>) -> Span {
        connection_span(peer, Some(self.scheme()))
    }

    /// Serves the connection of `stream` until it is upgraded or has ended.
    ///
    /// The `slot` is taken when the connection is accepted, since tasks do not begin in the order
    /// in which they are spawned.
    async fn serve_connection<I: Io>(
        self: Arc<Self>,
        stream: I,
        peer: Option<SocketAddr>,
        slot: PendingSlot,
    ) {
        let config = self.service.config();
        let progress = Progress::new(slot);
        let handshake_deadline = deadline_in(config.timeout);
        let outcome = tokio::select! {
            outcome = self.tls_then_http1(stream, peer, handshake_deadline, &progress) => outcome,
            () = progress.evicted() => Err(RejectReason::Evicted),
        };
        if let Err(cause) = outcome
            && !progress.was_served()
            // Its client was admitted, and has not read that.
            && !progress.is_upgrading()
        {
            let refusal = Refusal::before_request(cause);
            self.span(peer).in_scope(|| config.registry.rejected(&refusal, peer));
        }
    }

    /// Makes the TLS handshake, if there is to be one, and serves HTTP/1.1 until the upgrade.
    async fn tls_then_http1<I: Io>(
        &self,
        stream: I,
        peer: Option<SocketAddr>,
        handshake_deadline: Instant,
        progress: &Arc<Progress>,
    ) -> Result<(), RejectReason> {
        #[cfg(feature = "rustls-tls")]
        if let Some(tls) = &self.tls {
            let accepting = tokio::time::timeout_at(handshake_deadline, tls.accept(stream));
            let accepted = tokio::select! {
                accepted = accepting => accepted,
                () = self.stopped.cancelled() => return Ok(()),
            };
            return match accepted {
                // On the heap: it is large, and most servers leave TLS to a proxy.
                Ok(Ok(stream)) => {
                    Box::pin(self.serve_http1(stream, peer, handshake_deadline, progress)).await
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, ?peer, "no TLS");
                    Err(RejectReason::NoHandshake)
                }
                Err(_) => Err(RejectReason::TimedOut),
            };
        }
        self.serve_http1(stream, peer, handshake_deadline, progress).await
    }

    /// Returns the response of `service` to `request`, or that of the guard which refuses it.
    async fn respond(
        &self,
        service: &BoxHttpService,
        mut request: Request<Body>,
        progress: &Progress,
    ) -> Response<Body> {
        if service.is_guarded() {
            let (mut parts, body) = request.into_parts();
            if let Err(rejection) = guard::check(self.service.config(), &mut parts, true).await {
                return rejection.map(Body::new);
            }
            request = Request::from_parts(parts, body);
        }
        progress.set_requested(true);
        service.respond(request).await
    }

    /// Returns the response of `service`, else that of the upgrade if the path `is_here`, else 404.
    async fn route(
        &self,
        (request, peer): (Request<Incoming>, Option<SocketAddr>),
        service: Option<&BoxHttpService>,
        is_here: bool,
        progress: &Progress,
    ) -> Response<Body> {
        if let Some(service) = service {
            self.respond(service, request.map(Body::new), progress).await
        } else if is_here {
            let answer = self.service.clone().handle(request).instrument(self.span(peer));
            answer.await.map(Body::new)
        } else {
            plain_response(StatusCode::NOT_FOUND, "Not Found").map(Body::new)
        }
    }

    /// Answers requests until one is upgraded.
    async fn serve_http1<I: Io>(
        &self,
        stream: I,
        peer: Option<SocketAddr>,
        handshake_deadline: Instant,
        progress: &Arc<Progress>,
    ) -> Result<(), RejectReason> {
        // Where something else is served too, clients may stay, and each head has its own deadline.
        let may_stay = self.fallback.is_some() || self.same_path.is_some();
        let config = self.service.config();
        let answer = service_fn(|mut request: Request<Incoming>| {
            let asked = request.uri().path();
            let is_here = self.paths.iter().any(|path| is_same_path(asked, path));
            let service = match &self.same_path {
                Some(same_path) if is_here && !asks_for_websocket(request.headers()) => {
                    Some(same_path)
                }
                _ => self.fallback.as_ref().filter(|_| !is_here),
            };
            // At once: what is read from now on is no head.
            progress.set_requested(false);
            async move {
                if let Some(peer) = peer {
                    request.extensions_mut().insert(AcceptedFrom(peer));
                }
                let mut response = self.route((request, peer), service, is_here, progress).await;
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    progress.set_upgrading();
                } else if config.stop.is_cancelled()
                    || !may_stay && Instant::now() >= handshake_deadline
                {
                    close_connection_after(&mut response);
                }
                Ok::<_, Infallible>(response.map(|body| TrackedBody::new(body, progress.clone())))
            }
        });
        let stream = WriteTimeout::new(stream, progress.clone(), config.timeout);
        let mut connection = http1(may_stay.then_some(config.timeout))
            .serve_connection(TokioIo::new(stream), answer)
            .with_upgrades();
        let mut phase =
            if may_stay { Phase::Unbounded } else { Phase::Bounded(handshake_deadline) };
        loop {
            let deadline = phase.deadline();
            let wake = deadline.unwrap_or(handshake_deadline);
            tokio::select! {
                biased;
                outcome = &mut connection => match outcome {
                    Ok(()) => return Ok(()),
                    Err(error) => {
                        tracing::debug!(%error, ?peer, "no HTTP");
                        if !error.is_timeout() && !progress.is_too_large() {
                            return Err(RejectReason::NoHandshake);
                        }
                        break;
                    }
                },
                () = sleep_until(wake), if deadline.is_some() => match phase {
                    Phase::Stopping(_) => return Ok(()),
                    Phase::LastResponse(_) => return Err(RejectReason::TimedOut),
                    Phase::Unbounded | Phase::Bounded(_) if !progress.is_busy() => break,
                    Phase::Unbounded | Phase::Bounded(_) => {
                        // An authenticator has as much time, and the client is to be told its decision.
                        let time = config.timeout.saturating_add(LAST_RESPONSE_TIMEOUT);
                        phase = Phase::LastResponse(deadline_in(time));
                    }
                },
                () = self.stopped.cancelled(), if !matches!(phase, Phase::Stopping(_)) => {
                    if !progress.is_busy() {
                        return Ok(());
                    }
                    std::pin::Pin::new(&mut connection).graceful_shutdown();
                    let end = self.deadline.get().copied();
                    phase = Phase::Stopping(end.unwrap_or(handshake_deadline));
                }
            }
        }
        if let Some(parts) = connection.into_parts() {
            if progress.is_too_large() {
                close_unread(parts.io.into_inner().into_inner(), &too_large()).await;
                return Err(RejectReason::NoHandshake);
            }
            let has_response = progress.was_served() || progress.is_upgrading();
            send_408(parts.io.into_inner(), has_response).await;
        }
        Err(RejectReason::TimedOut)
    }
}

/// Phase of an HTTP connection that is not upgraded, with the deadline of all of it, if any.
///
/// | from | to | when |
/// |---|---|---|
/// | `Bounded` | `LastResponse` | the deadline passes while a request is being answered |
/// | any other | `Stopping` | the server stops while a request is being answered |
///
/// A connection on which no request is being answered ends instead.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The client may stay; each head has a deadline of its own.
    Unbounded,
    /// The upgrade is to come before this.
    Bounded(Instant),
    /// The response in progress is the last.
    LastResponse(Instant),
    /// The server has stopped; the response in progress is the last.
    Stopping(Instant),
}

impl Phase {
    fn deadline(self) -> Option<Instant> {
        match self {
            Self::Unbounded => None,
            Self::Bounded(deadline) | Self::LastResponse(deadline) | Self::Stopping(deadline) => {
                Some(deadline)
            }
        }
    }
}

/// Returns `true` for the same path, with or without a slash at its end.
fn is_same_path(path: &str, own: &str) -> bool {
    let [path, own] = [path, own].map(|path| path.strip_suffix('/').unwrap_or(path));
    path == own
}

/// Closes `stream`, after a 408 (RFC 9110, section 15.5.9) unless it `has_response`.
///
/// Behind a response, a client would take the 408 for the next one.
async fn send_408<I: Io>(mut stream: I, has_response: bool) {
    const TOO_LATE: &[u8] =
        b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let closing = async {
        if !has_response {
            stream.write_all(TOO_LATE).await?;
        }
        stream.shutdown().await
    };
    let _ = timeout(LAST_RESPONSE_TIMEOUT, closing).await;
}
