//! [`WebSocketTransport`]: the whole stack as rmcp's [`Transport`].
//!
//! [`connect`](crate::connect()) and [`accept`](crate::accept()) build it over a new connection. Over layers of your own
//! it is built by hand:
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

use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt};
use rmcp::{
    model::{Extensions, JsonRpcMessage},
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
    transport::Transport,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, watch},
    time::timeout,
};
use tracing::Span;

#[cfg(any(feature = "client", feature = "server"))]
use crate::layer::{Resume, resume::Tally};
use crate::{
    decode::Role,
    duplex::{BoxLink, Duplex},
    error::{CloseReason, Error},
    event::{Announcer, Event, Events, Notices, State},
    framing::{Framing, JsonRpc},
    layer::{
        Correlation, Framed, Heartbeat, Relink, Shared, Socket,
        correlation::{self, Policy, Replay},
        framed, heartbeat,
        relink::{LinkSource, Renew},
        resume,
        shared::{self, Flushed},
        socket::{self, Side},
    },
    link::{Link, Numbered},
    message::Message,
    stats::Stats,
};

/// The settings of every layer of a connection.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Config {
    /// Limits, buffers and timeouts of the WebSocket itself.
    pub socket: socket::Config,
    /// Pings and the watchdog.
    pub heartbeat: heartbeat::Config,
    /// What is kept for a peer that resumes.
    pub resume: resume::Config,
    /// The outbound queue.
    pub shared: shared::Config,
    /// The size of outbound messages.
    pub framed: framed::Config,
    /// Deadlines, and how many requests may be in flight.
    pub correlation: correlation::Config,
    extra: Option<Extra>,
}

/// A layer of the user's own.
#[derive(Clone)]
struct Extra(Arc<dyn Fn(BoxLink) -> BoxLink + Send + Sync>);

impl fmt::Debug for Extra {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Extra")
    }
}

impl Config {
    /// Puts a layer of your own on each link, above [`Heartbeat`] and below [`Shared`]. A second
    /// call puts the next one on top of it.
    #[must_use]
    pub fn layer<L>(mut self, layer: impl Fn(BoxLink) -> L + Send + Sync + 'static) -> Self
    where
        L: Duplex<Message, Message> + Send + 'static,
    {
        let below = self.extra.take();
        self.extra = Some(Extra(Arc::new(move |link| {
            let link = match &below {
                Some(Extra(below)) => below(link),
                None => link,
            };
            Box::pin(layer(link))
        })));
        self
    }
}

/// What the layers below [`Shared`] are made from, once for each connection.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    config: Config,
    stats: Stats,
}

impl Layers {
    /// The layers over a byte stream on which the opening handshake is done.
    pub(crate) fn link<S>(&self, stream: S, leftover: Bytes, side: Side) -> BoxLink
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Config { socket, heartbeat, extra, .. } = self.config.clone();
        let socket = Socket::with_leftover(stream, leftover, side, socket, self.stats.clone());
        let heartbeat = Heartbeat::with_stats(socket, heartbeat, self.stats.clone());
        // Servers do not sleep.
        let link: BoxLink = Box::pin(match side {
            Side::Client => heartbeat.wakeful(),
            Side::Server => heartbeat,
        });
        match extra {
            Some(Extra(layer)) => layer(link),
            None => link,
        }
    }
}

/// Assembles a [`WebSocketTransport`] over a link of any layers.
#[must_use]
pub struct Builder<R: Role> {
    config: Config,
    framing: Box<dyn Framing<R>>,
    stats: Stats,
    span: Span,
    subprotocol: Option<String>,
    replay: Option<Policy<R>>,
}

impl<R: Role> Default for Builder<R> {
    fn default() -> Self {
        Self {
            config: Config::default(),
            framing: Box::new(JsonRpc::default()),
            stats: Stats::default(),
            span: Span::none(),
            subprotocol: None,
            replay: None,
        }
    }
}

impl<R: Role> Builder<R> {
    /// The settings of the layers that the builder puts on: those from [`Shared`] upwards, and in
    /// [`over_stream`](Self::over_stream) all of them.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// The form of the messages; the default is [`JsonRpc`].
    pub fn framing(mut self, framing: impl Framing<R> + 'static) -> Self {
        self.framing = Box::new(framing);
        self
    }

    /// The counters to count in, where a layer below counts in them too.
    pub fn stats(mut self, stats: Stats) -> Self {
        self.stats = stats;
        self
    }

    /// The span in which everything about this connection is traced.
    pub fn span(mut self, span: Span) -> Self {
        self.span = span;
        self
    }

    /// Says which requests are sent again on a connection to a peer that knows nothing of them, though
    /// they may have run: those of which that does no harm. By default none is.
    pub fn replay(mut self, policy: impl Fn(&R::Req) -> Replay + Send + Sync + 'static) -> Self {
        self.replay = Some(Arc::new(policy));
        self
    }

    /// The subprotocol that was agreed on, for [`WebSocketTransport::subprotocol`].
    pub fn subprotocol(mut self, subprotocol: Option<String>) -> Self {
        self.subprotocol = subprotocol;
        self
    }

    /// A transport over `link`, any [`Duplex`] of [`Message`]s.
    pub fn over<L>(self, link: L) -> WebSocketTransport<R>
    where
        L: Duplex<Message, Message> + Send + 'static,
    {
        self.over_link(Box::pin(link), Notices::default())
    }

    /// A transport over a byte stream on which the opening handshake is done, and what was read
    /// behind it: [`Socket`], [`Heartbeat`] and the rest.
    pub fn over_stream<S>(self, stream: S, leftover: Bytes, side: Side) -> WebSocketTransport<R>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let link = self.layers().link(stream, leftover, side);
        self.over_link(link, Notices::default())
    }

    /// The counters to count in.
    #[cfg(feature = "server")]
    pub(crate) fn counters(&self) -> Stats {
        self.stats.clone()
    }

    /// Where the form of the messages wants the name of the session.
    #[cfg(any(feature = "client", feature = "server"))]
    pub(crate) fn session(&self) -> Option<crate::framing::SessionName> {
        self.framing.session()
    }

    pub(crate) fn layers(&self) -> Layers {
        Layers { config: self.config.clone(), stats: self.stats.clone() }
    }

    pub(crate) fn over_link(self, link: BoxLink, notices: Notices) -> WebSocketTransport<R> {
        self.assemble(Relink::once(link), notices, |stack| stack)
    }

    /// A transport over `first`, and over those of `source` when that is lost.
    pub fn over_links<S>(self, first: S::Link, source: S) -> WebSocketTransport<R>
    where
        S: LinkSource<Link: Send> + Send + 'static,
    {
        let renew = source.renew();
        let state = watch::Sender::new(State::Connecting);
        let notices = Notices::new(state, Announcer::default());
        self.outliving(Relink::new(first, source), renew, notices)
    }

    /// The same where the links carry a session, as far as the peer keeps one.
    #[cfg(feature = "client")]
    pub(crate) fn over_sessions<S>(
        self,
        first: S::Link,
        source: S,
        notices: Notices,
        tally: Tally,
    ) -> WebSocketTransport<R>
    where
        S: LinkSource<Link: Send> + Send + 'static,
    {
        let renew = source.renew();
        let relink = Relink::new(first, source);
        let line = Resume::with_tally(relink, self.config.resume.clone(), tally);
        self.outliving(line, renew, notices)
    }

    /// A transport over the links of one session, with which it ends.
    #[cfg(feature = "server")]
    pub(crate) fn over_session<S>(
        self,
        first: S::Link,
        source: S,
        tally: Tally,
    ) -> WebSocketTransport<R>
    where
        S: LinkSource<Link: Send> + Send + 'static,
    {
        let relink = Relink::new(first, source);
        let line = Resume::with_tally(relink, self.config.resume.clone(), tally);
        let notices = Notices::default();
        self.assemble(line, notices.clone(), |stack| stack.expecting_return(notices))
    }

    fn outliving<L>(self, line: L, renew: Renew, notices: Notices) -> WebSocketTransport<R>
    where
        L: Duplex<Numbered, Link<Message>> + Send + 'static,
    {
        let mut transport =
            self.assemble(line, notices.clone(), |stack| stack.outliving(notices, renew.clone()));
        transport.renew = Some(renew);
        transport
    }

    fn assemble<L>(
        self,
        line: L,
        notices: Notices,
        finish: impl FnOnce(Stack<R>) -> Stack<R>,
    ) -> WebSocketTransport<R>
    where
        L: Duplex<Numbered, Link<Message>> + Send + 'static,
    {
        let Self { config, framing, stats, span, subprotocol, replay } = self;
        let close_timeout = config.socket.close_timeout;
        let shared = Shared::with_notices(line, config.shared, notices, span.clone());
        let framed = Framed::with_stats(shared.clone(), framing, config.framed, stats.clone());
        let stack = Correlation::with_stats(framed, config.correlation, stats.clone());
        let stack = stack.replaying(replay);
        WebSocketTransport {
            stack: finish(stack),
            shared,
            renew: None,
            stats,
            span,
            subprotocol,
            close_timeout,
            owed: None,
        }
    }
}

impl<R: Role> fmt::Debug for Builder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("config", &self.config).finish_non_exhaustive()
    }
}

type Stack<R> = Correlation<R, Box<dyn Framing<R>>>;

/// An rmcp [`Transport`] over a WebSocket, for the MCP role `R`.
///
/// Which side dialled does not matter: an MCP server may dial and an MCP client accept. The role is
/// inferred from the service that is served on it.
///
/// No task runs behind it. Dropping it cuts the connection and frees all that belongs to it;
/// [`close`](Transport::close), which rmcp calls when a service ends, performs the closing handshake.
#[must_use = "a transport does nothing unless a service is served on it"]
pub struct WebSocketTransport<R: Role> {
    stack: Stack<R>,
    shared: Shared,
    renew: Option<Renew>,
    stats: Stats,
    span: Span,
    subprotocol: Option<String>,
    close_timeout: Duration,
    /// Dropping it is not the end of the connection, but its holder's affair.
    owed: Option<Arc<Owed>>,
}

/// How many requests of the peer have no answer in the queue yet.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    answers: AtomicUsize,
    awaited: AtomicBool,
    changed: Notify,
}

impl Owed {
    fn set(&self, answers: usize) {
        // Only the transport writes it.
        if self.answers.load(Relaxed) == answers {
            return;
        }
        self.answers.store(answers, SeqCst);
        if self.awaited.load(SeqCst) {
            self.changed.notify_one();
        }
    }

    /// Resolves when there are no more of them than `rest` says.
    #[cfg(feature = "server")]
    pub(crate) async fn settled(&self, rest: impl Fn() -> usize) {
        // Before the count is looked at: from now on its changes are told.
        self.awaited.store(true, SeqCst);
        while self.answers.load(SeqCst) > rest() {
            self.changed.notified().await;
        }
    }
}

impl<R: Role> WebSocketTransport<R> {
    /// A builder, for layers or settings of your own.
    pub fn builder() -> Builder<R> {
        Builder::default()
    }

    /// The state of the connection, now and as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.shared.state()
    }

    /// What happens to the connection from now on. `None` where it does not reconnect.
    #[must_use]
    pub fn events(&self) -> Option<Events<Event>> {
        self.shared.events()
    }

    /// Asks for another connection in place of the present one, or of the next attempt's wait: a
    /// handle that outlives the transport. `None` where it does not reconnect.
    #[must_use]
    pub fn renew(&self) -> Option<Renew> {
        self.renew.clone()
    }

    /// The counters of the connection.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats.clone()
    }

    /// The subprotocol that both sides agreed on, if any.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// The same as a `Sink` and `Stream` of messages, which rmcp takes whole or `split()`, and which
    /// composes with the adaptors of `futures`.
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

    /// What each request and notification of the peer carries in its extensions, where handlers
    /// find it. Nothing by default; [`serve`](crate::serve()) puts the upgrade request there, the
    /// identity and the connection.
    pub fn extensions(&mut self) -> &mut Extensions {
        self.stack.extensions()
    }

    /// Lets the connection outlive the transport, for its holder to close.
    #[cfg(feature = "server")]
    pub(crate) fn linger(&mut self) -> (Shared, Arc<Owed>) {
        let owed = self.owed.get_or_insert_default().clone();
        (self.shared.clone(), owed)
    }

    fn count_owed(&self) {
        if let Some(owed) = &self.owed {
            owed.set(self.stack.in_flight().1);
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<RxJsonRpcMessage<R>>> {
        let _entered = self.span.enter();
        let polled = self.stack.poll_next_unpin(cx);
        self.count_owed();
        match ready!(polled) {
            Some(Ok(message)) => Poll::Ready(Some(message)),
            Some(Err(error)) => {
                tracing::debug!(%error, "no more messages");
                Poll::Ready(None)
            }
            None => Poll::Ready(None),
        }
    }
}

impl<R: Role> Transport<R> for WebSocketTransport<R> {
    type Error = Error;

    fn name() -> Cow<'static, str> {
        "websocket".into()
    }

    /// Encodes and queues the message before it returns. The future resolves when the message is
    /// written, or with the error that ended the link before; dropping it takes nothing back. For a
    /// request that was queued it does not fail: if the link ends, [`receive`](Transport::receive)
    /// has the answer, which says whether the request may have run.
    ///
    /// What is handed over is queued, however full the queue: those who send wait for the future. Where
    /// [other connections follow](Builder::over_links) and there is none at present, or one whose peer
    /// has not initialized yet, the future does not wait, and a full queue takes no more: a request
    /// ends at once with `not_sent`, a notification fails with
    /// [`QueueFull`](crate::error::MessageError::QueueFull), and answers to a peer that is gone are dropped.
    fn send(
        &mut self,
        item: TxJsonRpcMessage<R>,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let _entered = self.span.enter();
        let answered = matches!(item, JsonRpcMessage::Request(_));
        let queued = self.stack.start_send_unpin(item).map(|()| self.shared.flushed());
        self.count_owed();
        Sending { queued, answered }
    }

    /// The next message. `None` when the connection has ended, after every request in flight was
    /// answered. Cancel safe.
    fn receive(&mut self) -> impl Future<Output = Option<RxJsonRpcMessage<R>>> + Send {
        poll_fn(|cx| self.poll_receive(cx))
    }

    /// Writes what is queued, performs the closing handshake and closes the connection, all within
    /// the close timeout; then cuts it.
    async fn close(&mut self) -> Result<(), Error> {
        let closing = timeout(self.close_timeout, poll_fn(|cx| self.stack.poll_close_unpin(cx)));
        if closing.await.is_err() {
            tracing::debug!(parent: &self.span, "closing handshake not finished in time");
        }
        self.shared.cut();
        Ok(())
    }
}

impl<R: Role> Drop for WebSocketTransport<R> {
    fn drop(&mut self) {
        let _entered = self.span.enter();
        if self.owed.is_none() {
            self.shared.cut();
        }
    }
}

impl<R: Role> fmt::Debug for WebSocketTransport<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketTransport")
            .field("state", &*self.shared.state().borrow())
            .finish_non_exhaustive()
    }
}

/// The future of one send.
struct Sending {
    queued: Result<Flushed, Error>,
    /// It is a request, whose end [`Correlation`] tells from now on, and only that: here nobody
    /// knows whether it may have run.
    answered: bool,
}

impl Future for Sending {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.queued {
            Ok(flushed) => {
                let flushed = ready!(Pin::new(flushed).poll(cx));
                Poll::Ready(if self.answered { Ok(()) } else { flushed })
            }
            Err(error) => Poll::Ready(Err(error.clone())),
        }
    }
}

/// A [`WebSocketTransport`] as `Stream` and `Sink`; see
/// [`into_sink_stream`](WebSocketTransport::into_sink_stream).
#[derive(Debug)]
#[must_use = "streams and sinks do nothing unless polled"]
pub struct SinkStream<R: Role> {
    transport: WebSocketTransport<R>,
}

impl<R: Role> Stream for SinkStream<R> {
    type Item = RxJsonRpcMessage<R>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.transport.poll_receive(cx)
    }
}

impl<R: Role> Sink<TxJsonRpcMessage<R>> for SinkStream<R> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.transport.stack.poll_ready_unpin(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, item: TxJsonRpcMessage<R>) -> Result<(), Error> {
        self.transport.stack.start_send_unpin(item)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.transport.stack.poll_flush_unpin(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.transport.stack.poll_close_unpin(cx)
    }
}
