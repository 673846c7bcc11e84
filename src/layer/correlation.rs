//! [`Correlation`]: knows every request in flight, in both directions, and ends each exactly once.
//!
//! | what happens | what follows |
//! |---|---|
//! | a response to a request of ours | passed up; the request is done |
//! | a response to none, or too late | dropped and counted |
//! | a request of ours while the peer has as many as it takes | waits until one of them has ended |
//! | the peer refuses one, since it has too many all the same | that one waits too, and is sent again first |
//! | a request of ours that is larger than the peer takes | ends with an error that says so, and was not sent |
//! | an error without an id | passed up as that of the only request of ours in flight; of several, each ends in a while unless it shows a sign of life |
//! | a request of ours passes its deadline | it ends with an error; the peer is sent `notifications/cancelled` |
//! | … while the peer, a server, waits for an answer of ours | deadlines rest |
//! | the peer tells of its progress | its deadline starts anew |
//! | a request from the peer | passed up |
//! | … whose id is in flight already | refused with `-32600`; the first is undisturbed |
//! | … while as many are handled as may be, or as much | refused with `-32000`; nothing is executed |
//! | … while the outbound queue is full | kept until it has room |
//! | a notification while as many are handled as may be | kept until one has ended |
//! | `notifications/cancelled` for a request that is not in flight | dropped |
//! | … or than a peer takes that has not said so, and closes with 1009 | the same; what was sent after it was not read |
//! | the last link ends | each request of ours ends with an error that says whether it may have run |
//!
//! Where another link follows to a peer that knows nothing of what was before:
//!
//! | what happens | what follows |
//! |---|---|
//! | a link is lost | requests of ours that were handed to it end with an error; the others wait |
//! | … and the request may run [twice](Replay::Again) | it is repeated to the next peer as well, on five connections at most, before it ends so |
//! | the peer refuses a request because it stops | that request and all further ones wait for the next connection |
//! | there is none, and the queue is full | a further request ends with an error that says that it was not sent |
//! | the next begins | `initialize` and `notifications/initialized` are repeated, and then what waited is sent; open `server/discover` and `subscriptions/listen` are repeated |
//! | … and requests of the old peer are in flight | they are cancelled, and what their handlers still answer or cancel is dropped |

mod calls;
mod config;
mod deadlines;
mod held;
mod inbound;
mod outbound;
mod overload;
mod oversized;
mod places;
mod restart;
mod waiting;

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

pub(crate) use self::places::Place;
use self::{
    calls::{Call, Ending, Fate, Outbound},
    deadlines::Deadlines,
    held::Held,
    overload::Overload,
    oversized::ReadProgress,
    places::Places,
    restart::Restart,
    waiting::WaitingRequests,
};
pub use self::{config::Config, deadlines::Deadline};
use super::{Framed, SharedLink, reconnect::ReconnectHandle, shared_link::Flushed};
use crate::{
    decode::Role,
    error::Error,
    event::Notices,
    framing::Framing,
    link::{LinkEvent, LinkUp},
    stats::Stats,
    warn_limit::WarnLimit,
};
use futures::{Sink, Stream};
use rmcp::{
    model::{
        CancelledNotification, CancelledNotificationParam, ErrorCode, Extensions, JsonRpcMessage,
        RequestId,
    },
    service::{RxJsonRpcMessage, ServiceRole, TxJsonRpcMessage},
};

/// The JSON-RPC code of an error made by this side for a request whose link was lost, and of the
/// refusal of one request too many. Its `data` says which.
pub const UNAVAILABLE: ErrorCode = ErrorCode(-32000);

/// JSON-RPC code of the error that ends a request past its deadline, made by this side. Its `data`
/// has the `reason` `timed_out` and the `outcome`, `not_sent` or `outcome_unknown`, and the `cause`
/// `unreadable_answer` if an unreadable answer may have been that of the request.
pub const TIMED_OUT: ErrorCode = ErrorCode(-32001);

/// What becomes of a request that was sent, when its connection is lost and the next leads to a peer
/// that knows nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replay {
    /// It ends with an error, since it may have run: the default.
    #[default]
    Never,
    /// It is sent again, on five connections at most, and may run more than once.
    Again,
}

/// Says what becomes of each request.
pub(crate) type Policy<R> = Arc<dyn Fn(&<R as ServiceRole>::Req) -> Replay + Send + Sync>;

/// The requests in flight, over a [`Framed`] to which it lends their methods.
#[must_use = "a layer does nothing unless polled"]
pub struct Correlation<R: Role, F> {
    config: Config,
    stats: Stats,
    outbound: Outbound,
    inbound: HashSet<RequestId>,
    /// Those of them whose handler has not ended, and others that were cancelled.
    places: Arc<Places>,
    extensions: Extensions,
    deadlines: Deadlines,
    /// Requests that wait until the outbound queue has room, notifications that wait for a place, and
    /// their size: who reads no answers is served no further. All else is read on, since two ends that
    /// both wait for the other to read would wait for ever.
    held: Held<R>,
    /// Requests of ours that the peer does not accept yet; `advanced` if some of them were sent and
    /// may not have been flushed.
    waiting: WaitingRequests<R>,
    overload: Overload,
    advanced: bool,
    read_progress: ReadProgress,
    /// What this side tells itself, before anything else that comes in.
    told: VecDeque<RxJsonRpcMessage<R>>,
    restart: Option<Box<Restart>>,
    replay: Option<Policy<R>>,
    ending: Option<Ending>,
    warnings: WarnLimit,
    framed: Framed<R, SharedLink, F>,
}

impl<R: Role, F: fmt::Debug> fmt::Debug for Correlation<R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Correlation")
            .field("config", &self.config)
            .field("outbound", &self.outbound)
            .field("inbound", &self.inbound)
            .field("framed", &self.framed)
            .finish_non_exhaustive()
    }
}

/// Nothing in it is pinned.
impl<R: Role, F> Unpin for Correlation<R, F> {}

impl<R: Role, F: Framing<R>> Correlation<R, F> {
    /// Keeps track of what goes through `framed`.
    pub fn new(framed: Framed<R, SharedLink, F>, config: Config) -> Self {
        Self::with_stats(framed, config, Stats::default())
    }

    /// The same, with the counters in which dropped and refused messages are noted.
    pub fn with_stats(framed: Framed<R, SharedLink, F>, config: Config, stats: Stats) -> Self {
        // It has a seat in every copy from the beginning: to add one is to make the map anew.
        let mut extensions = Extensions::new();
        extensions.insert(Place::default());
        Self {
            config,
            stats,
            outbound: Outbound::default(),
            inbound: HashSet::new(),
            places: Arc::default(),
            extensions,
            deadlines: Deadlines::default(),
            held: Held::default(),
            waiting: WaitingRequests::default(),
            overload: Overload::default(),
            advanced: false,
            read_progress: ReadProgress::default(),
            told: VecDeque::new(),
            restart: None,
            replay: None,
            ending: None,
            warnings: WarnLimit::default(),
            framed,
        }
    }

    /// How many requests are in flight: ours, and the peer's.
    #[must_use]
    pub fn in_flight(&self) -> (usize, usize) {
        (self.outbound.len() + self.waiting.len(), self.inbound.len())
    }

    /// Outlives a peer that restarts, if the links below do: tells that to `notices`, and asks for
    /// another link where a peer does not answer.
    pub(crate) fn outliving(mut self, notices: Notices, reconnect_handle: ReconnectHandle) -> Self {
        self.framed.get_ref().outlive();
        self.restart = Some(Box::new(Restart::new(notices, reconnect_handle)));
        self
    }

    /// Keeps what it has for a peer that is lost, and may [return](LinkUp::Unverified).
    #[cfg(feature = "server")]
    pub(crate) fn expecting_return(self, notices: Notices) -> Self {
        self.framed.get_ref().expect_return();
        self.outliving(notices, ReconnectHandle::default())
    }

    /// Sends some requests once more, where the peer knows nothing of them.
    pub(crate) fn replaying(mut self, policy: Option<Policy<R>>) -> Self {
        self.replay = policy;
        self
    }

    /// Takes a call of ours back that has not been sent. `false` if it has.
    fn withdraw(&mut self, id: &RequestId, call: &Call) -> bool {
        if call.is_unsent() {
            return true;
        }
        let withdrawn = self.framed.get_ref().withdraw(call.ticket);
        if withdrawn {
            self.framed.withdraw(id);
        } else {
            // It may still be the message that is too large for the peer.
            self.read_progress.note_sent(call.ticket, call.size);
        }
        withdrawn
    }

    /// What each request and notification of the peer carries in its extensions.
    pub fn extensions(&mut self) -> &mut Extensions {
        &mut self.extensions
    }

    /// The id of the request in flight that `id` answers; it no longer is.
    fn settle(&mut self, id: Option<&RequestId>) -> Option<RequestId> {
        let known = id.and_then(|id| self.outbound.remove(id));
        if known.is_none() {
            self.stats.orphan();
            tracing::debug!(?id, "response to no request in flight");
        }
        let (id, call) = known?;
        self.read_progress.note_answered(&call);
        Some(id)
    }

    fn end(&mut self, error: Option<Error>) {
        self.held = Held::default();
        let handed = self.framed.get_ref().handed();
        let too_large = error.as_ref().and_then(|error| self.find_too_large(error, handed, false));
        let mut calls = self.outbound.take(|_, _| true);
        if let Some(restart) = &self.restart {
            calls.retain(|(id, _)| !restart.repeats(id));
        }
        // The link need not have ended yet: a Close of ours may wait until what is queued is written.
        calls.extend(self.waiting.take());
        let tickets: Vec<_> = calls.iter().map(|(_, call)| call.ticket).collect();
        let handed = self.framed.get_ref().withdraw_all(&tickets);
        let handed = too_large.map_or(handed, |read| handed.min(read));
        self.ending = Some(Ending::new(calls, handed, error));
    }
}

impl<R: Role, F: Framing<R>> Stream for Correlation<R, F> {
    type Item = Result<RxJsonRpcMessage<R>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(told) = this.told.pop_front() {
            return Poll::Ready(Some(Ok(told)));
        }
        if let Some(ending) = &mut this.ending {
            return Poll::Ready(ending.next::<R>());
        }
        // Before anything is read: a peer that never stops talking would put it off for ever.
        if let Poll::Ready(overdue) = this.poll_overdue(cx) {
            return Poll::Ready(Some(Ok(overdue)));
        }
        let end = loop {
            if let Some(error) = this.restart.as_mut().and_then(|restart| restart.over.take()) {
                this.framed.get_ref().cut_for(error.clone());
                break Some(error);
            }
            if !this.held.is_empty()
                && let Some(held) = this.next_held(cx)
            {
                return Poll::Ready(Some(Ok(held)));
            }
            this.overload.poll(!this.waiting.is_empty(), cx);
            if !this.waiting.is_empty() {
                this.advanced |= this.advance(cx);
                if let Some(told) = this.told.pop_front() {
                    return Poll::Ready(Some(Ok(told)));
                }
            }
            let framed = Pin::new(&mut this.framed);
            match framed.poll_decode_unless(cx, &this.outbound, SharedLink::is_stuck) {
                Poll::Ready(Some(Ok(LinkEvent::Down(down)))) => this.lose(down),
                Poll::Ready(Some(Ok(LinkEvent::Up(LinkUp::NewPeer)))) => this.restart(),
                Poll::Ready(Some(Ok(LinkEvent::Up(LinkUp::Unverified)))) => this.returned(),
                Poll::Ready(Some(Ok(LinkEvent::Up(LinkUp::Resumed(resumed))))) => {
                    this.resumed(&resumed)
                }
                Poll::Ready(Some(Ok(LinkEvent::Item(mut message)))) => {
                    if this.admit(&mut message)
                        && let Some(message) = this.pass(message, cx)
                    {
                        return Poll::Ready(Some(Ok(message)));
                    }
                }
                Poll::Ready(Some(Err(error))) => break Some(error),
                Poll::Ready(None) => break None,
                Poll::Pending => {
                    if let Poll::Ready(overdue) = this.poll_suspected(cx) {
                        return Poll::Ready(Some(Ok(overdue)));
                    }
                    // It may have been set just now.
                    if let Some(restart) = &mut this.restart {
                        restart.poll_patience(cx);
                        restart.poll_stopping(this.framed.get_ref(), cx);
                    }
                    // Nobody else need be there to write it.
                    if std::mem::take(&mut this.advanced) {
                        let _ = Pin::new(&mut this.framed).poll_flush(cx);
                    }
                    return Poll::Pending;
                }
            }
            if let Some(told) = this.told.pop_front() {
                return Poll::Ready(Some(Ok(told)));
            }
        };
        this.end(end);
        if let Some(told) = this.told.pop_front() {
            return Poll::Ready(Some(Ok(told)));
        }
        Poll::Ready(this.ending.as_mut().and_then(Ending::next::<R>))
    }
}

impl<R: Role, F: Framing<R>> Sink<TxJsonRpcMessage<R>> for Correlation<R, F> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.framed).poll_ready(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, item: TxJsonRpcMessage<R>) -> Result<(), Error> {
        self.send(item).map(drop)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.framed).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.framed).poll_close(cx)
    }
}

impl<R: Role, F: Framing<R>> Correlation<R, F> {
    /// Sends `item`. Returns a future that resolves when it is written; `None` if nothing is sent
    /// for it now.
    pub(crate) fn send(&mut self, mut item: TxJsonRpcMessage<R>) -> Result<Option<Flushed>, Error> {
        let this = self;
        match &mut item {
            JsonRpcMessage::Request(_) => {}
            JsonRpcMessage::Response(response) => {
                if !this.answers(&mut response.id) {
                    return Ok(None);
                }
                R::subscribed(&mut response.result, &response.id);
            }
            JsonRpcMessage::Error(error) => {
                if let Some(id) = &mut error.id
                    && !this.answers(id)
                {
                    return Ok(None);
                }
            }
            JsonRpcMessage::Notification(notification) => {
                if let Some(id) = R::cancelled(&mut notification.notification) {
                    let goes_out = match this.give_up(id) {
                        Some(call) => !this.withdraw(id, &call),
                        None => this.answers(id),
                    };
                    if !this.waiting.is_empty() {
                        // There may be room for one more.
                        this.framed.get_ref().wake_reader();
                    }
                    if !goes_out {
                        return Ok(None);
                    }
                } else if !this.is_subscribed(&mut notification.notification) {
                    return Ok(None);
                }
            }
        }
        match item {
            JsonRpcMessage::Request(request) => {
                this.bound(&request);
                this.ask(request)
            }
            item => {
                let Some(sent) = this.hand_down(item, false)? else { return Ok(None) };
                this.read_progress.note_sent(sent.seq, sent.size);
                Ok(sent.flushed)
            }
        }
    }
}

fn cancellation(id: RequestId, reason: String) -> CancelledNotification {
    CancelledNotification::new(CancelledNotificationParam::new(Some(id), Some(reason)))
}

#[cfg(test)]
mod tests;
