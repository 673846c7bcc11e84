//! The [`Porch`]: where connections are between a listener and their upgrade.

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
    Body, WebSocketService,
    config::Accepted,
    guard,
    handshake::{LAST_WORD, close_unread, http1, part, refuse, too_large},
    http_service::BoxHttpService,
    listener::{Listener, is_out_of_descriptors},
    lobby::Seat,
    or::asks_for_websocket,
    registry::Cause,
    role::Hosted,
    visit::{Answering, Paced, Visit},
};
use crate::{
    decode::Role,
    time::after,
    upgrade::{Io, set_tcp_options},
};

/// Where connections are before they are upgraded.
pub(super) struct Porch<S, R: Role> {
    pub(super) service: WebSocketService<S, R>,
    pub(super) path: Arc<str>,
    /// Service for requests on the same path that ask for no WebSocket.
    pub(super) beside: Option<BoxHttpService>,
    /// Service for every other path.
    pub(super) elsewhere: Option<BoxHttpService>,
    #[cfg(feature = "rustls-tls")]
    pub(super) tls: Option<super::Tls>,
    /// Nobody is received any more; who is being answered has time until the `end`.
    pub(super) gone: CancellationToken,
    pub(super) end: OnceLock<Instant>,
}

/// Accepts until told to stop and all that was accepted has ended.
pub(super) async fn listen<L: Listener, S: Service<R>, R: Hosted>(
    mut listener: L,
    porch: Arc<Porch<S, R>>,
) {
    let _gone = porch.gone.clone().drop_guard();
    let guests = TaskTracker::new();
    let drain = porch.service.config().drain.deadline;
    let closed = async {
        porch.service.stopping().await;
        let end = after(drain);
        porch.service.closed().await;
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
                let seat = porch.service.lobby().enter(peer.map(|peer| peer.ip()));
                let visit = Box::pin(porch.clone().receive(stream, peer, seat));
                guests.spawn(tracing::Instrument::instrument(visit, span));
            }
            Err(error) => {
                if complained.is_none_or(|at: Instant| at.elapsed() > Duration::from_secs(1)) {
                    tracing::warn!(%error, "cannot accept");
                    complained = Some(Instant::now());
                }
                let can_make_room = is_out_of_descriptors(&error);
                if !(can_make_room && porch.service.lobby().make_room().await) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    };
    drop(listener);
    let _ = porch.end.set(end.max(after(LAST_WORD)));
    porch.gone.cancel();
    guests.close();
    guests.wait().await;
}

impl<S: Service<R>, R: Hosted> Porch<S, R> {
    /// Receives whoever is at the other end of `stream`, until they are upgraded or have left.
    ///
    /// The `seat` is taken when the connection is accepted, since tasks do not begin in the order
    /// in which they are spawned.
    async fn receive<I: Io>(self: Arc<Self>, stream: I, peer: Option<SocketAddr>, seat: Seat) {
        let config = self.service.config();
        let visit = Visit::new(seat);
        let overdue = after(config.timeout);
        let outcome = tokio::select! {
            outcome = self.greet(stream, peer, overdue, &visit) => outcome,
            () = visit.dismissed() => Err(Cause::Crowded),
        };
        if let Err(cause) = outcome
            && !visit.was_served()
        {
            config.registry.refused(cause, peer);
        }
    }

    #[cfg(feature = "rustls-tls")]
    async fn greet<I: Io>(
        &self,
        stream: I,
        peer: Option<SocketAddr>,
        overdue: Instant,
        visit: &Arc<Visit>,
    ) -> Result<(), Cause> {
        let Some(tls) = &self.tls else {
            return self.converse(stream, peer, overdue, visit).await;
        };
        let accepted = tokio::select! {
            accepted = tokio::time::timeout_at(overdue, tls.accept(stream)) => accepted,
            () = self.gone.cancelled() => return Ok(()),
        };
        match accepted {
            Ok(Ok(stream)) => self.converse(stream, peer, overdue, visit).await,
            Ok(Err(error)) => {
                tracing::debug!(%error, "no TLS");
                Err(Cause::NoHandshake)
            }
            Err(_) => Err(Cause::TimedOut),
        }
    }

    #[cfg(not(feature = "rustls-tls"))]
    async fn greet<I: Io>(
        &self,
        stream: I,
        peer: Option<SocketAddr>,
        overdue: Instant,
        visit: &Arc<Visit>,
    ) -> Result<(), Cause> {
        self.converse(stream, peer, overdue, visit).await
    }

    /// Returns the response of `service` to `request`, or that of the guard which refuses it.
    async fn ask(
        &self,
        service: &BoxHttpService,
        mut request: Request<Body>,
        visit: &Visit,
    ) -> Response<Body> {
        if service.is_guarded() {
            let (mut parts, body) = request.into_parts();
            if let Err(refusal) = guard::check(self.service.config(), &mut parts, true).await {
                return refusal.map(Body::new);
            }
            request = Request::from_parts(parts, body);
        }
        visit.asks(true);
        service.respond(request).await
    }

    /// Answers requests until one is upgraded.
    async fn converse<I: Io>(
        &self,
        stream: I,
        peer: Option<SocketAddr>,
        overdue: Instant,
        visit: &Arc<Visit>,
    ) -> Result<(), Cause> {
        // Where there is more to be had than an upgrade, clients may stay for it, and each head has
        // its own deadline.
        let may_stay = self.elsewhere.is_some() || self.beside.is_some();
        let config = self.service.config();
        let answer = service_fn(|mut request: Request<Incoming>| {
            let is_here = is_same_path(request.uri().path(), &self.path);
            let service = match &self.beside {
                Some(beside) if is_here && !asks_for_websocket(request.headers()) => Some(beside),
                _ => self.elsewhere.as_ref().filter(|_| !is_here),
            };
            // At once: what is read from now on is no head.
            visit.asks(false);
            async move {
                if let Some(peer) = peer {
                    request.extensions_mut().insert(Accepted(peer));
                }
                let mut response = if let Some(service) = service {
                    self.ask(service, request.map(Body::new), visit).await
                } else if is_here {
                    self.service.clone().answer(request).await.map(Body::new)
                } else {
                    refuse(StatusCode::NOT_FOUND, "Not Found").map(Body::new)
                };
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    visit.is_granted();
                } else if config.stop.is_cancelled() || !may_stay && Instant::now() >= overdue {
                    part(&mut response);
                }
                Ok::<_, Infallible>(response.map(|body| Answering::new(body, visit.clone())))
            }
        });
        let stream = Paced::new(stream, visit.clone(), config.timeout);
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
                        if !error.is_timeout() && !visit.is_too_large() {
                            return Err(Cause::NoHandshake);
                        }
                        break;
                    }
                },
                () = sleep_until(deadline.unwrap_or(overdue)), if deadline.is_some() => {
                    if is_leaving {
                        return Ok(());
                    }
                    if is_last {
                        return Err(Cause::TimedOut);
                    }
                    if !visit.is_busy() {
                        break;
                    }
                    // An authenticator has as much time, and the client is to hear its verdict.
                    deadline = Some(after(config.timeout.saturating_add(LAST_WORD)));
                    is_last = true;
                }
                () = self.gone.cancelled(), if !is_leaving => {
                    if !visit.is_busy() {
                        return Ok(());
                    }
                    Pin::new(&mut connection).graceful_shutdown();
                    deadline = Some(self.end.get().copied().unwrap_or(overdue));
                    is_leaving = true;
                }
            }
        }
        if let Some(parts) = connection.into_parts() {
            if visit.is_too_large() {
                close_unread(parts.io.into_inner(), &too_large()).await;
                return Err(Cause::NoHandshake);
            }
            part_late(parts.io.into_inner(), visit.was_served()).await;
        }
        Err(Cause::TimedOut)
    }
}

/// Returns `true` for the same path, with or without a slash at its end.
fn is_same_path(path: &str, own: &str) -> bool {
    let [path, own] = [path, own].map(|path| path.strip_suffix('/').unwrap_or(path));
    path == own
}

/// Closes `stream`, and tells a client that is still at its first request's head that it is too late
/// (RFC 9110, section 15.5.9), if it reads. Behind an answer, that would be taken for another.
async fn part_late<I: Io>(mut stream: I, was_served: bool) {
    const TOO_LATE: &[u8] =
        b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let parting = async {
        if !was_served {
            stream.write_all(TOO_LATE).await?;
        }
        stream.shutdown().await
    };
    let _ = timeout(LAST_WORD, parting).await;
}
