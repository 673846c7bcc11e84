//! The [`Porch`]: where connections are between a listener and their upgrade.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rmcp::Service;
use tokio::{io::AsyncWriteExt, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Body, WebSocketService,
    config::Accepted,
    handshake::{http1, part, refuse},
    listener::Listener,
    registry::Cause,
    role::Hosted,
};
use crate::{
    decode::Role,
    time::after,
    upgrade::{Io, set_nodelay},
};

/// Answers the requests for other paths.
pub(super) type Elsewhere = Arc<
    dyn Fn(Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> + Send + Sync,
>;

/// How long the last that is said to a client may take to be written.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Where connections are before they are upgraded.
pub(super) struct Porch<S, R: Role> {
    pub(super) service: WebSocketService<S, R>,
    pub(super) path: Arc<str>,
    pub(super) elsewhere: Option<Elsewhere>,
    #[cfg(feature = "rustls-tls")]
    pub(super) tls: Option<super::Tls>,
}

/// Accepts until told to stop and all that was accepted has ended.
pub(super) async fn listen<L: Listener, S: Service<R>, R: Hosted>(
    mut listener: L,
    porch: Arc<Porch<S, R>>,
) {
    let gone = CancellationToken::new();
    let _gone = gone.clone().drop_guard();
    let guests = TaskTracker::new();
    let mut closed = std::pin::pin!(porch.service.closed());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut closed => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                set_nodelay(&stream);
                // On the heap from the start: it is large, and a task is moved about before it begins.
                let greeting = Box::pin(porch.clone().receive(stream, peer));
                let gone = gone.clone();
                let handshake = async move {
                    tokio::select! {
                        () = greeting => {}
                        () = gone.cancelled() => {}
                    }
                };
                let span =
                    tracing::info_span!("websocket", peer = peer.map(tracing::field::display));
                guests.spawn(tracing::Instrument::instrument(handshake, span));
            }
            // Out of file descriptors, most likely: they come back as connections end.
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    gone.cancel();
    guests.close();
    guests.wait().await;
}

impl<S: Service<R>, R: Hosted> Porch<S, R> {
    /// Receives whoever is at the other end of `stream`, until they are upgraded or have left.
    async fn receive<I: Io>(self: Arc<Self>, stream: I, peer: Option<SocketAddr>) {
        let config = self.service.config();
        let seat = self.service.lobby().enter(peer.map(|peer| peer.ip()));
        let overdue = after(config.timeout);
        let outcome = tokio::select! {
            outcome = self.greet(stream, peer, overdue) => outcome,
            () = seat.taken() => Err(Cause::Crowded),
        };
        if let Err(cause) = outcome {
            config.registry.refused(cause, peer);
        }
    }

    #[cfg(feature = "rustls-tls")]
    async fn greet<I: Io>(
        &self,
        stream: I,
        peer: Option<SocketAddr>,
        overdue: Instant,
    ) -> Result<(), Cause> {
        let Some(tls) = &self.tls else { return self.converse(stream, peer, overdue).await };
        match tokio::time::timeout_at(overdue, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.converse(stream, peer, overdue).await,
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
    ) -> Result<(), Cause> {
        self.converse(stream, peer, overdue).await
    }

    /// Answers requests until one is upgraded.
    async fn converse<I: Io>(
        &self,
        stream: I,
        peer: Option<SocketAddr>,
        overdue: Instant,
    ) -> Result<(), Cause> {
        // A request is being answered, and its deadline is another's.
        let is_asked = AtomicBool::new(false);
        // Where there is more to be had than an upgrade, clients may stay for it, and each head has
        // its own deadline.
        let may_stay = self.elsewhere.is_some();
        let answer = service_fn(async |mut request: Request<Incoming>| {
            is_asked.store(true, Ordering::Relaxed);
            if let Some(peer) = peer {
                request.extensions_mut().insert(Accepted(peer));
            }
            let mut response = if request.uri().path() == &*self.path {
                self.service.clone().answer(request).await.map(Body::new)
            } else if let Some(elsewhere) = &self.elsewhere {
                elsewhere(request.map(Body::new)).await
            } else {
                refuse(StatusCode::NOT_FOUND, "Not Found").map(Body::new)
            };
            if !may_stay && Instant::now() >= overdue {
                part(&mut response);
            }
            is_asked.store(false, Ordering::Relaxed);
            Ok::<_, Infallible>(response)
        });
        let timeout = self.service.config().timeout;
        let head_timeout = may_stay.then_some(timeout);
        let mut connection =
            http1(head_timeout).serve_connection(TokioIo::new(stream), answer).with_upgrades();
        tokio::select! {
            biased;
            outcome = &mut connection => match outcome {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::debug!(%error, "no HTTP");
                    if !error.is_timeout() {
                        return Err(Cause::NoHandshake);
                    }
                }
            },
            () = tokio::time::sleep_until(overdue), if !may_stay => {}
        }
        if is_asked.load(Ordering::Relaxed) {
            // Of an authenticator, which has as much time, and whose verdict the client is to hear.
            let heard = tokio::time::timeout(timeout.saturating_add(LAST_WORD), connection).await;
            return if matches!(heard, Ok(Ok(()))) { Ok(()) } else { Err(Cause::TimedOut) };
        }
        if let Some(parts) = connection.into_parts() {
            say_too_late(parts.io.into_inner()).await;
        }
        Err(Cause::TimedOut)
    }
}

/// Tells a client that is still at its request's head (RFC 9110, section 15.5.9), if it reads.
async fn say_too_late<I: Io>(mut stream: I) {
    const ANSWER: &[u8] =
        b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let saying = async {
        stream.write_all(ANSWER).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(LAST_WORD, saying).await;
}
