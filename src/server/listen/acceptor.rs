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
use rmcp::Service;
use tokio::{
    io::AsyncWriteExt,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

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
        registry::event::RejectReason,
        role::HostedRole,
        service::WebSocketService,
    },
    time::deadline_in,
};

/// Acceptor of connections, which serves them until they are upgraded.
pub(in crate::server) struct Acceptor<S, R: McpRole> {
    pub(in crate::server) service: WebSocketService<S, R>,
    pub(in crate::server) path: Arc<str>,
    /// Service for requests on the same path that ask for no WebSocket.
    pub(in crate::server) same_path: Option<BoxHttpService>,
    /// Service for every other path.
    pub(in crate::server) fallback: Option<BoxHttpService>,
    #[cfg(feature = "rustls-tls")]
    pub(in crate::server) tls: Option<super::tls::ServerTls>,
    /// Cancelled when nobody is accepted any more; responses in progress have until the `deadline`.
    pub(in crate::server) stopped: CancellationToken,
    pub(in crate::server) deadline: OnceLock<Instant>,
}

/// Accepts until told to stop and all that was accepted has ended.
pub(in crate::server) async fn run<L: Listener, S: Service<R>, R: HostedRole>(
    mut listener: L,
    acceptor: Arc<Acceptor<S, R>>,
) {
    let _gone = acceptor.stopped.clone().drop_guard();
    let connections = TaskTracker::new();
    let drain = acceptor.service.config().drain.deadline;
    let closed = async {
        acceptor.service.stopping().await;
        let end = deadline_in(drain);
        acceptor.service.closed().await;
        end
    };
    let mut closed = std::pin::pin!(closed);
    let mut complained = None;
    let end = loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            end = &mut closed => break end,
        };
        match accepted {
            Ok((stream, peer)) => {
                set_tcp_options(&stream);
                let span =
                    tracing::info_span!("websocket", peer = peer.map(tracing::field::display));
                // On the heap from the start: it is large, and a task is moved about before it begins.
                let slot = acceptor.service.pending().register(peer.map(|peer| peer.ip()));
                let progress = Box::pin(acceptor.clone().serve_connection(stream, peer, slot));
                connections.spawn(tracing::Instrument::instrument(progress, span));
            }
            Err(error) => {
                if complained.is_none_or(|at: Instant| at.elapsed() > Duration::from_secs(1)) {
                    tracing::warn!(%error, "cannot accept");
                    complained = Some(Instant::now());
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

impl<S: Service<R>, R: HostedRole> Acceptor<S, R> {
    /// Receives whoever is at the other end of `stream`, until they are upgraded or have left.
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
        let overdue = deadline_in(config.timeout);
        let outcome = tokio::select! {
            outcome = self.tls_then_http1(stream, peer, overdue, &progress) => outcome,
            () = progress.evicted() => Err(RejectReason::Crowded),
        };
        if let Err(cause) = outcome
            && !progress.was_served()
        {
            config.registry.rejected(cause, peer);
        }
    }

    #[cfg(feature = "rustls-tls")]
    async fn tls_then_http1<I: Io>(
        &self,
        stream: I,
        peer: Option<SocketAddr>,
        overdue: Instant,
        progress: &Arc<Progress>,
    ) -> Result<(), RejectReason> {
        let Some(tls) = &self.tls else {
            return self.serve_http1(stream, peer, overdue, progress).await;
        };
        let accepted = tokio::select! {
            accepted = tokio::time::timeout_at(overdue, tls.accept(stream)) => accepted,
            () = self.stopped.cancelled() => return Ok(()),
        };
        match accepted {
            Ok(Ok(stream)) => self.serve_http1(stream, peer, overdue, progress).await,
            Ok(Err(error)) => {
                tracing::debug!(%error, "no TLS");
                Err(RejectReason::NoHandshake)
            }
            Err(_) => Err(RejectReason::TimedOut),
        }
    }

    #[cfg(not(feature = "rustls-tls"))]
    async fn tls_then_http1<I: Io>(
        &self,
        stream: I,
        peer: Option<SocketAddr>,
        overdue: Instant,
        progress: &Arc<Progress>,
    ) -> Result<(), RejectReason> {
        self.serve_http1(stream, peer, overdue, progress).await
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

    /// Answers requests until one is upgraded.
    async fn serve_http1<I: Io>(
        &self,
        stream: I,
        peer: Option<SocketAddr>,
        overdue: Instant,
        progress: &Arc<Progress>,
    ) -> Result<(), RejectReason> {
        // Where there is more to be had than an upgrade, clients may stay for it, and each head has
        // its own deadline.
        let may_stay = self.fallback.is_some() || self.same_path.is_some();
        let config = self.service.config();
        let answer = service_fn(|mut request: Request<Incoming>| {
            let is_here = is_same_path(request.uri().path(), &self.path);
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
                let mut response = if let Some(service) = service {
                    self.respond(service, request.map(Body::new), progress).await
                } else if is_here {
                    self.service.clone().handle(request).await.map(Body::new)
                } else {
                    plain_response(StatusCode::NOT_FOUND, "Not Found").map(Body::new)
                };
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    progress.set_upgraded();
                } else if config.stop.is_cancelled() || !may_stay && Instant::now() >= overdue {
                    close_connection_after(&mut response);
                }
                Ok::<_, Infallible>(response.map(|body| TrackedBody::new(body, progress.clone())))
            }
        });
        let stream = WriteTimeout::new(stream, progress.clone(), config.timeout);
        let mut connection = http1(may_stay.then_some(config.timeout))
            .serve_connection(TokioIo::new(stream), answer)
            .with_upgrades();
        let (mut deadline, mut is_last) = ((!may_stay).then_some(overdue), false);
        let mut is_leaving = false;
        loop {
            tokio::select! {
                biased;
                outcome = &mut connection => match outcome {
                    Ok(()) => return Ok(()),
                    Err(error) => {
                        tracing::debug!(%error, "no HTTP");
                        if !error.is_timeout() && !progress.is_too_large() {
                            return Err(RejectReason::NoHandshake);
                        }
                        break;
                    }
                },
                () = sleep_until(deadline.unwrap_or(overdue)), if deadline.is_some() => {
                    if is_leaving {
                        return Ok(());
                    }
                    if is_last {
                        return Err(RejectReason::TimedOut);
                    }
                    if !progress.is_busy() {
                        break;
                    }
                    // An authenticator has as much time, and the client is to hear its verdict.
                    deadline = Some(deadline_in(config.timeout.saturating_add(LAST_RESPONSE_TIMEOUT)));
                    is_last = true;
                }
                () = self.stopped.cancelled(), if !is_leaving => {
                    if !progress.is_busy() {
                        return Ok(());
                    }
                    Pin::new(&mut connection).graceful_shutdown();
                    deadline = Some(self.deadline.get().copied().unwrap_or(overdue));
                    is_leaving = true;
                }
            }
        }
        if let Some(parts) = connection.into_parts() {
            if progress.is_too_large() {
                close_unread(parts.io.into_inner(), &too_large()).await;
                return Err(RejectReason::NoHandshake);
            }
            send_408(parts.io.into_inner(), progress.was_served()).await;
        }
        Err(RejectReason::TimedOut)
    }
}

/// Returns `true` for the same path, with or without a slash at its end.
fn is_same_path(path: &str, own: &str) -> bool {
    let [path, own] = [path, own].map(|path| path.strip_suffix('/').unwrap_or(path));
    path == own
}

/// Closes `stream`, and tells a client that is still at its first request's head that it is too late
/// (RFC 9110, section 15.5.9), if it reads. Behind an answer, that would be taken for another.
async fn send_408<I: Io>(mut stream: I, was_served: bool) {
    const TOO_LATE: &[u8] =
        b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let parting = async {
        if !was_served {
            stream.write_all(TOO_LATE).await?;
        }
        stream.shutdown().await
    };
    let _ = timeout(LAST_RESPONSE_TIMEOUT, parting).await;
}
