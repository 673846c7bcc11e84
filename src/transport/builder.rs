//! [`Builder`]: assembles a transport.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};
use tracing::Span;

use super::{Stack, WebSocketTransport, config::Config, layers::Layers, receiver::Receiver};
use crate::{
    duplex::{BoxLink, Duplex},
    end_report::EndReport,
    event::{Broadcaster, ConnectionEvents, State},
    framing::{Framing, json_rpc::JsonRpc},
    handshake::extensions::WsExtensions,
    layer::{
        correlation::{Correlation, Policy, config::Replay},
        framed::Framed,
        reconnect::{LinkSource, Reconnect, ReconnectHandle},
        shared_link::SharedLink,
        socket::side::Side,
    },
    link::{LinkEvent, Outgoing, PeerLimits},
    message::Message,
    role::McpRole,
    stats::Stats,
};

#[cfg(any(feature = "client", feature = "server"))]
use crate::layer::resume::{Resume, receive_count::ReceiveCount};

/// Assembles a [`WebSocketTransport`] over a link of any layers.
#[must_use]
pub struct Builder<R: McpRole> {
    config: Config,
    framing: Box<dyn Framing<R>>,
    stats: Stats,
    span: Span,
    subprotocol: Option<String>,
    replay: Option<Policy<R>>,
    peer: PeerLimits,
    deadline: Option<Duration>,
}

impl<R: McpRole> Default for Builder<R> {
    fn default() -> Self {
        Self {
            config: Config::default(),
            framing: Box::new(JsonRpc::default()),
            stats: Stats::default(),
            span: Span::none(),
            subprotocol: None,
            replay: None,
            peer: PeerLimits::default(),
            deadline: None,
        }
    }
}

impl<R: McpRole> WebSocketTransport<R> {
    /// Returns a builder, for layers or settings of your own.
    pub fn builder() -> Builder<R> {
        Builder::default()
    }
}

impl<R: McpRole> Builder<R> {
    /// Sets the settings of the layers that the builder puts on: those from [`SharedLink`] upwards.
    /// In [`over_stream`](Self::over_stream) that is all of them.
    pub fn transport(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets the framing of the messages; the default is [`JsonRpc`].
    pub fn framing(mut self, framing: impl Framing<R> + 'static) -> Self {
        self.framing = Box::new(framing);
        self
    }

    /// Sets the counters to count in, where a layer below counts in them too.
    pub fn stats(mut self, stats: Stats) -> Self {
        self.stats = stats;
        self
    }

    /// Sets the span in which everything about this connection is traced.
    pub fn span(mut self, span: Span) -> Self {
        self.span = span;
        self
    }

    /// Sets which requests are sent again to a peer that knows nothing of them, though they may
    /// have run. Those are the ones for which that does no harm. By default there are none.
    pub fn replay(mut self, policy: impl Fn(&R::Req) -> Replay + Send + Sync + 'static) -> Self {
        self.replay = Some(Arc::new(policy));
        self
    }

    /// Sets the limits of the peer, as whoever makes the links knows them: unknown by default. A
    /// larger message fails alone, and further requests wait.
    pub fn peer(mut self, peer: PeerLimits) -> Self {
        self.peer = peer;
        self
    }

    /// Sets the deadline of requests of ours that make no progress, as
    /// [`deadline`](crate::layer::correlation::Config::deadline) says. Replaces the deadline of
    /// [`transport`](Self::transport).
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sets the subprotocol that was agreed on, for [`WebSocketTransport::subprotocol`].
    pub fn subprotocol(mut self, subprotocol: Option<String>) -> Self {
        self.subprotocol = subprotocol;
        self
    }

    /// Builds a transport over `link`, any [`Duplex`] of [`Message`]s.
    pub fn over<L>(self, link: L) -> WebSocketTransport<R>
    where
        L: Duplex<Message, Message> + Send + 'static,
    {
        self.over_link(Box::pin(link), ConnectionEvents::default())
    }

    /// Builds a transport over a byte stream on which the opening handshake is done. `leftover` is
    /// what was read behind it. The layers are [`Socket`](crate::layer::Socket),
    /// [`Heartbeat`](crate::layer::Heartbeat) and the rest.
    pub fn over_stream<S>(self, stream: S, leftover: Bytes, side: Side) -> WebSocketTransport<R>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let link = self.layers().link(stream, leftover, side, WsExtensions::default());
        self.over_link(link, ConnectionEvents::default())
    }

    /// Returns the counters to count in.
    #[cfg(feature = "server")]
    pub(crate) fn counters(&self) -> Stats {
        self.stats.clone()
    }

    /// Returns the session id in the messages, if the framing has one.
    #[cfg(any(feature = "client", feature = "server"))]
    pub(crate) fn session(&self) -> Option<crate::framing::session_id::SessionIdCell> {
        self.framing.properties().session_id.map(|field| field.cell)
    }

    /// Returns the framing.
    #[cfg(feature = "server")]
    pub(crate) fn framing_mut(&mut self) -> &mut dyn Framing<R> {
        &mut *self.framing
    }

    /// Returns how connections with this framing behave.
    #[cfg(feature = "client")]
    pub(crate) fn framing_properties(&self) -> crate::framing::properties::FramingProperties {
        self.framing.properties()
    }

    /// Returns what builds the layers of each link.
    pub(crate) fn layers(&self) -> Layers {
        let ping_message = self.framing.properties().ping_message;
        Layers { config: self.config.clone(), stats: self.stats.clone(), ping_message }
    }

    /// Builds a transport over one link, with which it ends.
    pub(crate) fn over_link(
        self,
        link: BoxLink,
        events: ConnectionEvents,
    ) -> WebSocketTransport<R> {
        self.assemble(Reconnect::single(link), events, |stack| stack)
    }

    /// Builds a transport over `first`, and over the links of `source` when that is lost.
    pub fn over_links<S>(self, first: S::Link, source: S) -> WebSocketTransport<R>
    where
        S: LinkSource<Link: Send> + Send + 'static,
    {
        let reconnect_handle = source.reconnect_handle();
        let state = watch::Sender::new(State::Connecting);
        let events = ConnectionEvents::new(state, Broadcaster::default());
        self.outliving(Reconnect::new(first, source), reconnect_handle, events)
    }

    /// Builds a transport over links that carry a session, as far as the peer keeps one.
    #[cfg(feature = "client")]
    pub(crate) fn over_dialled_session<S>(
        self,
        first: S::Link,
        source: S,
        events: ConnectionEvents,
        receive_count: ReceiveCount,
    ) -> WebSocketTransport<R>
    where
        S: LinkSource<Link: Send> + Send + 'static,
    {
        let reconnect_handle = source.reconnect_handle();
        let reconnect = Reconnect::new(first, source);
        let this = self.peer(receive_count.peer().clone());
        let config = this.config.resume.clone();
        let links = Resume::with_receive_count(reconnect, config, receive_count);
        this.outliving(links, reconnect_handle, events)
    }

    /// Builds a transport over the links of one session, with which it ends.
    #[cfg(feature = "server")]
    pub(crate) fn over_accepted_session<S>(
        self,
        first: S::Link,
        source: S,
        receive_count: ReceiveCount,
    ) -> WebSocketTransport<R>
    where
        S: LinkSource<Link: Send> + Send + 'static,
    {
        let reconnect = Reconnect::new(first, source);
        let this = self.peer(receive_count.peer().clone());
        let config = this.config.resume.clone();
        let links = Resume::with_receive_count(reconnect, config, receive_count);
        let events = ConnectionEvents::default();
        this.assemble(links, events.clone(), |stack| stack.expecting_return(events))
    }

    /// Builds a transport that outlives each of its `links`.
    fn outliving<L>(
        self,
        links: L,
        reconnect_handle: ReconnectHandle,
        events: ConnectionEvents,
    ) -> WebSocketTransport<R>
    where
        L: Duplex<Outgoing, LinkEvent<Message>> + Send + 'static,
    {
        let mut transport = self.assemble(links, events.clone(), |stack| {
            stack.outliving(events, reconnect_handle.clone())
        });
        transport.reconnect_handle = Some(reconnect_handle);
        transport
    }

    /// Puts the layers from [`SharedLink`] upwards on `links`.
    fn assemble<L>(
        self,
        links: L,
        events: ConnectionEvents,
        finish: impl FnOnce(Stack<R>) -> Stack<R>,
    ) -> WebSocketTransport<R>
    where
        L: Duplex<Outgoing, LinkEvent<Message>> + Send + 'static,
    {
        let Self { mut config, framing, stats, span, subprotocol, replay, deadline, peer } = self;
        config.correlation.deadline = deadline.or(config.correlation.deadline);
        let close_timeout = config.socket.close_timeout;
        let end_report = EndReport::new(span.clone(), stats.clone(), R::IS_CLIENT);
        let shared = SharedLink::with_events(links, config.shared_link, events, Some(end_report));
        let framed = Framed::with_stats(shared.clone(), framing, config.framed, stats.clone());
        let framed = framed.within(peer);
        let stack = Correlation::with_stats(framed, config.correlation, stats.clone());
        let stack = stack.replaying(replay);
        WebSocketTransport {
            stack: Box::new(finish(stack)),
            receiver: Receiver::default(),
            shared,
            reconnect_handle: None,
            stats,
            span,
            subprotocol,
            close_timeout,
            unanswered: None,
            interceptor: None,
        }
    }
}

impl<R: McpRole> fmt::Debug for Builder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("config", &self.config).finish_non_exhaustive()
    }
}
