//! [`Correlation`]: tracks every request in flight, in both directions, and ends each exactly once.
//!
//! | what happens | what follows |
//! |---|---|
//! | a response to a request of ours | passed up; the request is done |
//! | … to `server/discover`, after which `initialize` was sent | passed up behind the response to that |
//! | a response to none, or too late | dropped and counted |
//! | a request of ours while the peer has as many as it takes | waits until one of them has ended |
//! | … and it answers none of them for 10 s | one more is sent to it: their answers may be lost |
//! | the peer refuses one, since it has too many all the same | that one waits too, and is sent again first |
//! | a request of ours that is larger than the peer takes | ends with an error that says so, and was not sent |
//! | … and the peer had not said so, and closes with 1009 | the same; what was sent after it was not read |
//! | an error without an id | passed up as that of the only request of ours in flight; of several, each ends in a while unless it makes progress |
//! | a request of ours passes its deadline | it ends with an error; the peer is sent `notifications/cancelled` |
//! | … while the peer, a server, waits for an answer of ours | deadlines rest |
//! | the peer tells of its progress | its deadline starts anew |
//! | a request from the peer | passed up |
//! | … whose id is in flight already | refused with `-32600`; the first is undisturbed |
//! | … while as many are handled as may be, or as much | refused with `-32000`; nothing is executed |
//! | … while the outbound queue is full | kept until it has room |
//! | … whose handler panics, and is not answered within a second after that | answered with `-32603` |
//! | a notification while as many are handled as may be | kept until one has ended |
//! | … that takes too much memory, alone or with those that are handled or kept | dropped and counted |
//! | `notifications/cancelled` for a request that is not in flight | dropped |
//! | the last link ends | each request of ours ends with an error that says whether it may have run |
//!
//! Where another link follows to a peer that knows nothing of what was before:
//!
//! | what happens | what follows |
//! |---|---|
//! | a link is lost | requests of ours that were handed to it end with an error; the others wait |
//! | … and the request may run [twice](Replay::Resend) | it is repeated to the next peer as well, on five connections at most, before it ends so |
//! | the peer refuses a request because it stops | that request and all further ones wait for the next connection |
//! | there is none, and the queue is full | a further request ends with an error that says that it was not sent |
//! | the next begins | `initialize`, with an id of this layer's own, and `notifications/initialized` are repeated, and then what waited is sent; open `server/discover` and `subscriptions/listen` are repeated |
//! | … and requests of the old peer are in flight | they are cancelled, and what their handlers still answer or cancel is dropped |
//!
//! `ARCHITECTURE.md`, in the repository, follows a request to the socket and its answer back.

mod aliases;
mod backlog;
pub(crate) mod config;
pub(crate) mod deadlines;
mod extensions;
mod inbound;
mod overdue;
mod overload;
mod oversized;
mod panics;
mod pending;
mod probe;
mod receive;
mod reinit;
mod retry;
pub(crate) mod send;
mod shortage;
pub(crate) mod slots;
mod superseded;
mod waiting;

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

#[cfg(feature = "server")]
use self::slots::HandlerSlots;
pub use self::{
    config::{Config, Replay},
    deadlines::Deadline,
};
use self::{
    deadlines::Deadlines,
    inbound::Inbound,
    overload::Overload,
    oversized::ReadProgress,
    pending::{PendingCalls, Shutdown},
    probe::Probe,
    reinit::Reinit,
    superseded::Superseded,
    waiting::WaitingRequests,
};
use super::{
    codec::Codec,
    framed::Framed,
    reconnect::ReconnectHandle,
    replies::{Replies, close_for},
    shared_link::SharedLink,
};
use crate::{
    error::Error, event::ConnectionEvents, framing::Framing, role::McpRole, stats::Stats,
    warn_limit::WarnLimit,
};

pub use crate::rpc_code::{TIMED_OUT, UNAVAILABLE};

use futures::{Sink, Stream};
use rmcp::{
    ErrorData,
    model::{Extensions, JsonRpcMessage, RequestId},
    service::{RxJsonRpcMessage, ServiceRole, TxJsonRpcMessage},
};

/// Function that decides whether a request whose connection is lost is sent again.
pub(crate) type Policy<R> = Arc<dyn Fn(&<R as ServiceRole>::Req) -> Replay + Send + Sync>;

/// Requests in flight, in both directions, over a [`SharedLink`].
#[must_use = "a layer does nothing unless polled"]
pub struct Correlation<R: McpRole, F> {
    config: Config,
    codec: Codec<R, F>,
    replies: Replies,
    link: SharedLink,
    /// Requests of ours: those that the peer has, and those that it does not accept yet.
    pending: PendingCalls,
    waiting: WaitingRequests<R>,
    overload: Overload,
    probe: Probe,
    deadlines: Deadlines,
    read_progress: ReadProgress,
    superseded: Option<Box<Superseded<R>>>,
    /// Requests of the peer.
    inbound: Inbound<R>,
    /// State of the session, where links follow one another.
    reinit: Option<Box<Reinit>>,
    replay: Option<Policy<R>>,
    /// Messages that this side makes for the layers above; they come before what is read later.
    synthesized: VecDeque<RxJsonRpcMessage<R>>,
    /// Calls that are still to be ended, once there is no more link.
    shutdown: Option<Shutdown>,
    stats: Stats,
    warnings: WarnLimit,
}

impl<R: McpRole, F: fmt::Debug> fmt::Debug for Correlation<R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Correlation")
            .field("config", &self.config)
            .field("codec", &self.codec)
            .field("link", &self.link)
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}

/// `Unpin`, since no field is pinned.
impl<R: McpRole, F> Unpin for Correlation<R, F> {}

impl<R: McpRole, F: Framing<R>> Correlation<R, F> {
    /// Creates the layer over `framed`.
    pub fn new(framed: Framed<R, SharedLink, F>, config: Config) -> Self {
        Self::with_stats(framed, config, Stats::default())
    }

    /// Creates the layer over `framed`, with the counters of dropped and refused messages.
    pub fn with_stats(framed: Framed<R, SharedLink, F>, config: Config, stats: Stats) -> Self {
        let (codec, replies, link) = framed.into_parts();
        Self {
            config,
            codec,
            replies,
            link,
            pending: PendingCalls::default(),
            waiting: WaitingRequests::default(),
            overload: Overload::default(),
            probe: Probe::default(),
            deadlines: Deadlines::default(),
            read_progress: ReadProgress::default(),
            superseded: None,
            inbound: Inbound::new(stats.clone()),
            reinit: None,
            replay: None,
            synthesized: VecDeque::new(),
            shutdown: None,
            stats,
            warnings: WarnLimit::default(),
        }
    }

    /// Returns the number of requests in flight: ours, and the peer's.
    #[must_use]
    pub fn in_flight(&self) -> (usize, usize) {
        (self.pending.len() + self.waiting.len(), self.inbound.len())
    }

    /// Returns `true` if a request of ours with this id is in flight, or waits.
    pub(crate) fn is_pending(&self, id: &RequestId) -> bool {
        self.pending.contains(id) || self.waiting.contains(id)
    }

    /// Answers each request of the peer that is in flight with `error`.
    pub(crate) fn answer_all(&mut self, error: &ErrorData) {
        for id in self.inbound.in_flight() {
            if let Err(error) = self.send(JsonRpcMessage::error(error.clone(), Some(id))) {
                tracing::debug!(%error, "answer not sent");
            }
        }
    }

    /// Makes the layer outlive a peer that restarts, if the links below do. It reports that to
    /// `events`, and asks for another link where a peer does not answer.
    pub(crate) fn outliving(
        mut self,
        events: ConnectionEvents,
        reconnect: ReconnectHandle,
    ) -> Self {
        self.link.outlive();
        self.inbound.expect_peers();
        self.reinit = Some(Box::new(Reinit::new(events, reconnect)));
        self
    }

    /// Keeps what it has for a peer that is lost, and may
    /// [return](crate::link::LinkUp::Unverified).
    #[cfg(feature = "server")]
    pub(crate) fn expecting_return(self, events: ConnectionEvents) -> Self {
        self.link.expect_return();
        self.outliving(events, ReconnectHandle::default())
    }

    /// Sets which requests are sent again to a peer that knows nothing of them.
    pub(crate) fn replaying(mut self, policy: Option<Policy<R>>) -> Self {
        self.replay = policy;
        self
    }

    /// Returns the extensions of each request and notification of the peer.
    pub fn extensions(&mut self) -> &mut Extensions {
        self.inbound.extensions()
    }

    /// Returns the slots of the peer's requests and notifications that are being handled.
    #[cfg(feature = "server")]
    pub(crate) fn handler_slots(&self) -> Arc<HandlerSlots> {
        self.inbound.slots()
    }

    /// Sends a message that nobody waits for.
    fn reply(&mut self, message: &TxJsonRpcMessage<R>) {
        self.codec.queue_reply(message);
        self.send_replies();
    }

    fn send_replies(&mut self) {
        self.replies.send(&mut self.codec, Pin::new(&mut self.link));
        self.note_replies();
    }

    /// Records sent messages that nobody waits for: one may be too large for the peer as well.
    fn note_replies(&mut self) {
        let size = self.codec.take_largest_reply();
        if size > 0 {
            // No request of ours is sent in between.
            self.read_progress.note_sent(self.link.last_seq(), size);
        }
    }

    /// Returns the next message of this side's own for the layers above.
    fn next_synthesized(&mut self) -> Option<RxJsonRpcMessage<R>> {
        self.synthesized.pop_front()
    }

    /// Sends and delivers messages that had to wait. Returns a message for the layers above.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Option<RxJsonRpcMessage<R>> {
        let held = self.inbound.next_of_backlog(&self.config, &mut self.link, cx);
        if held.is_some() {
            return held;
        }
        self.overload.poll(!self.waiting.is_empty(), cx);
        self.poll_probe(cx);
        if !self.waiting.is_empty() {
            self.send_waiting(cx);
        }
        self.next_synthesized()
    }

    /// Reads until there is something for the layers above.
    fn poll_link(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<RxJsonRpcMessage<R>, Error>>> {
        loop {
            if let Some(error) = self.reinit.as_mut().and_then(|reinit| reinit.take_failure()) {
                self.link.cut_for(error.clone());
                return Poll::Ready(self.shut_down(Some(error)));
            }
            if let Some(message) = self.poll_waiting(cx) {
                return Poll::Ready(Some(Ok(message)));
            }
            let (codec, link) = (&mut self.codec, Pin::new(&mut self.link));
            let calls = &self.pending;
            let polled = self.replies.poll_decode(codec, link, calls, SharedLink::is_stuck, cx);
            self.note_replies();
            let event = match polled {
                Poll::Ready(Some(Ok(event))) => event,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(self.shut_down(Some(error))),
                Poll::Ready(None) => return Poll::Ready(self.shut_down(None)),
                Poll::Pending => return Poll::Pending,
            };
            let message = self.on_event(event, cx).or_else(|| self.next_synthesized());
            if let Some(message) = message {
                return Poll::Ready(Some(Ok(message)));
            }
        }
    }

    /// Polls for the next message for the layers above.
    fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<RxJsonRpcMessage<R>, Error>>> {
        if let Some(message) = self.next_synthesized() {
            return Poll::Ready(Some(Ok(message)));
        }
        if let Some(shutdown) = &mut self.shutdown {
            return Poll::Ready(shutdown.next::<R>());
        }
        // Before anything is read: a peer that never stops sending would put it off for ever.
        self.answer_panicked(cx);
        if let Poll::Ready(overdue) = self.poll_overdue(cx) {
            return Poll::Ready(Some(Ok(overdue)));
        }
        let polled = self.poll_link(cx);
        if polled.is_pending() {
            let decoded = self.codec.last_decoded().number;
            if let Some(reinit) = &mut self.reinit
                && let Poll::Ready(reason) = reinit.poll_unrecognized(decoded, cx)
            {
                let error = close_for(Pin::new(&mut self.link), &reason, cx);
                return Poll::Ready(self.shut_down(Some(error)));
            }
            return self.poll_idle(cx).map(|overdue| Some(Ok(overdue)));
        }
        polled
    }

    /// Polls what may have been set while the link was read, and writes what was sent meanwhile: no
    /// other task may be there to do it.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<RxJsonRpcMessage<R>> {
        if let Poll::Ready(overdue) = self.poll_suspected(cx) {
            return Poll::Ready(overdue);
        }
        if let Some(reinit) = &mut self.reinit {
            reinit.poll(&self.link, cx);
        }
        if self.waiting.take_unflushed() {
            let _ = Pin::new(&mut self.link).poll_flush(cx);
        }
        self.inbound.watch_handlers(cx);
        self.answer_panicked(cx);
        Poll::Pending
    }
}

impl<R: McpRole, F: Framing<R>> Stream for Correlation<R, F> {
    type Item = Result<RxJsonRpcMessage<R>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.poll_message(cx) {
                Poll::Ready(Some(Ok(message))) if self.superseded.is_some() => {
                    if let Some(message) = self.withhold(message) {
                        return Poll::Ready(Some(Ok(message)));
                    }
                }
                polled => return polled,
            }
        }
    }
}

impl<R: McpRole, F: Framing<R>> Sink<TxJsonRpcMessage<R>> for Correlation<R, F> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.link).poll_ready(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, item: TxJsonRpcMessage<R>) -> Result<(), Error> {
        self.send(item).map(drop)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.link).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.link).poll_close(cx)
    }
}

#[cfg(test)]
mod tests;
