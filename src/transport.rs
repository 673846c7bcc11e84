//! [`WebSocketTransport`]: the whole stack as rmcp's [`Transport`].
//!
//! [`connect`](crate::connect()) and [`accept`](crate::accept()) build it over a new connection.
//! Over layers of your own it is built by hand. `ARCHITECTURE.md`, in
//! the repository, follows a request through it:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use mcp_ws_transport::{
//!     WebSocketTransport,
//!     layer::{Heartbeat, Socket, heartbeat, socket::{self, Side}},
//! };
//! # let (stream, _far) = tokio::io::duplex(64);
//! // … the opening handshake on `stream` is done …
//! let socket = Socket::new(stream, Side::Client, socket::Config::default());
//! let link = Heartbeat::new(socket, heartbeat::Config::default());
//! let transport: WebSocketTransport<rmcp::RoleClient> = WebSocketTransport::builder().over(link);
//! # drop(transport); Ok(()) }
//! ```

pub(crate) mod builder;
mod config;
pub(crate) mod layers;
mod receiver;

use std::{
    borrow::Cow,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{Sink, SinkExt, Stream, StreamExt};
use rmcp::{
    ErrorData,
    model::{Extensions, JsonRpcMessage, RequestId},
    service::{RxJsonRpcMessage, ServiceRole, TxJsonRpcMessage},
    transport::Transport,
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tracing::Span;

use self::receiver::Receiver;
pub use self::{builder::Builder, config::Config};
#[cfg(feature = "server")]
use crate::layer::correlation::slots::HandlerSlots;
use crate::{
    close::CloseReason,
    error::Error,
    event::{Event, Events, State},
    framing::Framing,
    layer::{
        correlation::{Correlation, send::Sent},
        reconnect::ReconnectHandle,
        shared_link::{SharedLink, flushed::Flushed},
    },
    role::McpRole,
    stats::Stats,
};

type Stack<R> = Correlation<R, Box<dyn Framing<R>>>;

/// An rmcp [`Transport`] over a WebSocket, for the MCP role `R`.
///
/// Which side dialled does not matter: an MCP server may dial and an MCP client accept. The role is
/// inferred from the service that is served on it.
///
/// No task runs behind it. Dropping it cuts the connection and frees all that belongs to it;
/// [`close`](Transport::close), which rmcp calls when a service ends, performs the closing
/// handshake.
#[must_use = "a transport does nothing unless a service is served on it"]
pub struct WebSocketTransport<R: McpRole> {
    /// Layers, on the heap: a service's task, which the transport is moved into, has room for it
    /// twice.
    stack: Box<Stack<R>>,
    receiver: Receiver,
    shared: SharedLink,
    reconnect_handle: Option<ReconnectHandle>,
    stats: Stats,
    span: Span,
    subprotocol: Option<String>,
    close_timeout: Duration,
    /// Unanswered requests of the peer. `Some` if the server holds the connection too; dropping the
    /// transport then does not close it.
    unanswered: Option<Arc<UnansweredRequests>>,
    interceptor: Option<Interceptor<R>>,
}

/// Function that answers those requests of the peer that are not for the service.
type Interceptor<R> =
    fn(&<R as ServiceRole>::PeerReq) -> Option<Result<<R as ServiceRole>::Resp, rmcp::ErrorData>>;

/// Count of the requests of the peer that have no answer in the queue yet.
#[derive(Debug, Default)]
pub(crate) struct UnansweredRequests {
    answers: AtomicUsize,
    awaited: AtomicBool,
    changed: Notify,
}

impl UnansweredRequests {
    fn set(&self, answers: usize) {
        // No race: only the transport writes the count.
        if self.answers.load(Relaxed) == answers {
            return;
        }
        self.answers.store(answers, SeqCst);
        if self.awaited.load(SeqCst) {
            self.changed.notify_one();
        }
    }

    /// Returns `true` if there is none.
    #[cfg(feature = "server")]
    pub(crate) fn is_none(&self) -> bool {
        self.answers.load(SeqCst) == 0
    }

    /// Resolves when there are no more of them than `rest` says.
    #[cfg(feature = "server")]
    pub(crate) async fn settled(&self, rest: impl Fn() -> usize) {
        // Set before the count is looked at, so that no later change is missed.
        self.awaited.store(true, SeqCst);
        while self.answers.load(SeqCst) > rest() {
            self.changed.notified().await;
        }
    }
}

impl<R: McpRole> WebSocketTransport<R> {
    /// Returns the state of the connection, now and as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.shared.state()
    }

    /// Returns what happens to the connection from now on. `None` where it does not reconnect.
    #[must_use]
    pub fn events(&self) -> Option<Events<Event>> {
        self.shared.events()
    }

    /// Returns a handle that asks for another connection in place of the present one. It also ends
    /// the wait for the next attempt, and outlives the transport. `None` where the transport does
    /// not reconnect.
    #[must_use]
    pub fn reconnect_handle(&self) -> Option<ReconnectHandle> {
        self.reconnect_handle.clone()
    }

    /// Returns the counters of the connection.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats.clone()
    }

    /// Returns the subprotocol that both sides agreed on, if any.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// Converts the transport to a `Sink` and `Stream` of messages. rmcp takes it whole or
    /// `split()`, and it composes with the adaptors of `futures`.
    ///
    /// rmcp's own adaptor for such pairs neither closes the connection with a Close frame nor keeps
    /// the order of messages sent at the same time. Prefer the transport itself where there is a
    /// choice.
    pub fn into_sink_stream(self) -> SinkStream<R> {
        SinkStream { transport: self }
    }

    /// Closes the connection as [`close`](Transport::close) does, for a reason of your own.
    ///
    /// # Errors
    /// None so far: what cannot be closed in time is cut.
    pub async fn close_with(&mut self, reason: CloseReason) -> Result<(), Error> {
        self.shared.close_with(reason);
        self.close().await
    }

    /// Returns the extensions of each request and notification of the peer, where handlers find
    /// them. Empty by default; [`serve`](crate::serve()) puts the upgrade request there, the
    /// identity and the connection.
    pub fn extensions(&mut self) -> &mut Extensions {
        self.stack.extensions()
    }

    /// Shares the connection, which then outlives the transport, for its holder to close.
    #[cfg(feature = "server")]
    pub(crate) fn share_connection(&mut self) -> (SharedLink, Arc<UnansweredRequests>) {
        let unanswered = self.unanswered.get_or_insert_default().clone();
        (self.shared.clone(), unanswered)
    }

    /// Returns the slots of what the peer has asked and told, for as long as that is handled.
    #[cfg(feature = "server")]
    pub(crate) fn handler_slots(&self) -> Arc<HandlerSlots> {
        self.stack.handler_slots()
    }

    /// Returns `true` if at most one request is in flight, one of this side's. Nothing is about to
    /// be sent then that could go out with what was.
    fn is_alone(&self) -> bool {
        matches!(self.stack.in_flight(), (0 | 1, 0))
    }

    fn count_unanswered(&self) {
        if let Some(unanswered) = &self.unanswered {
            unanswered.set(self.stack.in_flight().1);
        }
    }

    /// Returns the number of this side's requests that are in flight.
    pub(crate) fn pending(&self) -> usize {
        self.stack.in_flight().0
    }

    /// Returns `true` if a request of this side with this id is in flight, or waits.
    pub(crate) fn is_pending(&self, id: &RequestId) -> bool {
        self.stack.is_pending(id)
    }

    /// Answers each request of the peer that is in flight with `error`.
    pub(crate) fn answer_all(&mut self, error: &ErrorData) {
        self.stack.answer_all(error);
        self.count_unanswered();
    }

    /// Returns `true` if sending is paused: there is no link, or it is unknown who is at its other
    /// end.
    pub(crate) fn is_paused(&self) -> bool {
        self.shared.is_paused()
    }

    /// Sets the reason that closing gives to the peer.
    pub(crate) fn set_close_reason(&self, reason: CloseReason) {
        self.shared.close_with(reason);
    }

    /// Lets `interceptor` answer some requests of the peer before the service sees them.
    #[cfg(feature = "server")]
    pub(crate) fn intercept_requests(&mut self, interceptor: Interceptor<R>) {
        self.interceptor = Some(interceptor);
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<RxJsonRpcMessage<R>>> {
        let waker = ready!(self.receiver.poll_woken(cx));
        let cx = &mut Context::from_waker(&waker);
        loop {
            let entered = self.span.enter();
            let polled = self.stack.poll_next_unpin(cx);
            if let Poll::Ready(Some(Err(error))) = &polled {
                tracing::debug!(%error, "no more messages");
            }
            drop(entered);
            if polled.is_ready() {
                self.receiver.poll_again();
            }
            self.count_unanswered();
            let Some(Ok(message)) = ready!(polled) else { return Poll::Ready(None) };
            match self.intercept(message) {
                Some(message) => return Poll::Ready(Some(message)),
                // The next read drives the flush on.
                None => drop(self.stack.poll_flush_unpin(cx)),
            }
        }
    }

    /// Returns the message, unless it is a request that is answered here.
    fn intercept(&mut self, message: RxJsonRpcMessage<R>) -> Option<RxJsonRpcMessage<R>> {
        let (Some(interceptor), JsonRpcMessage::Request(request)) = (self.interceptor, &message)
        else {
            return Some(message);
        };
        let Some(answered) = interceptor(&request.request) else { return Some(message) };
        let id = request.id.clone();
        let answer = match answered {
            Ok(result) => JsonRpcMessage::response(result, id),
            Err(error) => JsonRpcMessage::error(error, Some(id)),
        };
        if let Err(error) = self.stack.start_send_unpin(answer) {
            tracing::debug!(%error, "answer not sent");
        }
        self.count_unanswered();
        None
    }
}

impl<R: McpRole> Transport<R> for WebSocketTransport<R> {
    type Error = Error;

    fn name() -> Cow<'static, str> {
        "websocket".into()
    }

    /// Encodes and queues the message before it returns. That of the only call in flight is written
    /// too; those of several are left to gather. The future resolves when the message is written,
    /// or with the error that ended the link before; dropping it takes nothing back. For a request
    /// that was queued it does not fail: if the link ends, [`receive`](Transport::receive) has the
    /// answer, which says whether the request may have run. A request that waits until the peer
    /// accepts more holds nobody up: its future resolves when what was queued before is written.
    ///
    /// What is handed over is queued, however full the queue: those who send wait for the future.
    /// Where [other connections follow](Builder::over_links) and there is none at present, or one
    /// whose peer has not initialized yet, the future does not wait, and a full queue takes no
    /// more: a request ends at once with `not_sent`, a notification fails with
    /// [`QueueFull`](crate::error::MessageError::QueueFull), and answers to a peer that is gone are
    /// dropped.
    fn send(
        &mut self,
        item: TxJsonRpcMessage<R>,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let _entered = self.span.enter();
        let is_request = matches!(item, JsonRpcMessage::Request(_));
        let is_call = !matches!(item, JsonRpcMessage::Notification(_));
        self.receiver.poll_again();
        let flushed = Correlation::send(&mut self.stack, item).map(|sent| match sent {
            Sent::Queued(flushed) => flushed,
            Sent::NotNow => self.shared.flushed(),
        });
        if is_call && self.is_alone() {
            self.shared.write_now();
        }
        self.count_unanswered();
        Sending { flushed, is_request }
    }

    /// Returns the next message. `None` when the connection has ended, after every request in
    /// flight was answered. Cancel safe.
    fn receive(&mut self) -> impl Future<Output = Option<RxJsonRpcMessage<R>>> + Send {
        poll_fn(|cx| self.poll_receive(cx))
    }

    /// Writes what is queued and performs the closing handshake, within the close timeout; then
    /// cuts it.
    async fn close(&mut self) -> Result<(), Error> {
        let closing = timeout(self.close_timeout, poll_fn(|cx| self.stack.poll_close_unpin(cx)));
        if closing.await.is_err() {
            tracing::debug!(parent: &self.span, "closing handshake not finished in time");
        }
        self.shared.cut();
        Ok(())
    }
}

impl<R: McpRole> Drop for WebSocketTransport<R> {
    fn drop(&mut self) {
        let _entered = self.span.enter();
        if self.unanswered.is_none() {
            self.shared.cut();
        }
    }
}

impl<R: McpRole> fmt::Debug for WebSocketTransport<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketTransport")
            .field("state", &*self.shared.state().borrow())
            .finish_non_exhaustive()
    }
}

/// Future of one send.
struct Sending {
    flushed: Result<Flushed, Error>,
    /// `true` for a request, whose end [`Correlation`] reports. Only there is it known whether it
    /// may have run.
    is_request: bool,
}

impl Future for Sending {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.flushed {
            Ok(flushed) => {
                let flushed = ready!(Pin::new(flushed).poll(cx));
                Poll::Ready(if self.is_request { Ok(()) } else { flushed })
            }
            Err(error) => Poll::Ready(Err(error.clone())),
        }
    }
}

/// A [`WebSocketTransport`] as `Stream` and `Sink`; see
/// [`into_sink_stream`](WebSocketTransport::into_sink_stream).
#[derive(Debug)]
#[must_use = "streams and sinks do nothing unless polled"]
pub struct SinkStream<R: McpRole> {
    transport: WebSocketTransport<R>,
}

impl<R: McpRole> SinkStream<R> {
    /// Returns the transport.
    pub(crate) fn transport(&mut self) -> &mut WebSocketTransport<R> {
        &mut self.transport
    }
}

impl<R: McpRole> Stream for SinkStream<R> {
    type Item = RxJsonRpcMessage<R>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.transport.poll_receive(cx)
    }
}

impl<R: McpRole> Sink<TxJsonRpcMessage<R>> for SinkStream<R> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.transport.stack.poll_ready_unpin(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, item: TxJsonRpcMessage<R>) -> Result<(), Error> {
        let transport = &mut self.transport;
        transport.receiver.poll_again();
        let sent = transport.stack.start_send_unpin(item);
        transport.count_unanswered();
        sent
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.transport.stack.poll_flush_unpin(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.transport.stack.poll_close_unpin(cx)
    }
}
