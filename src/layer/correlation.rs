//! [`Correlation`]: knows every request in flight, in both directions, and ends each exactly once.
//!
//! | what happens | what follows |
//! |---|---|
//! | a response to a request of ours | passed up; the request is done |
//! | a response to none, or too late | dropped and counted |
//! | a request of ours passes its deadline | it ends with an error; the peer is sent `notifications/cancelled` |
//! | a request from the peer | passed up |
//! | … whose id is in flight already | refused with `-32600`; the first is undisturbed |
//! | … while the cap is reached | refused with `-32000`; nothing is executed |
//! | … while the outbound queue is full | kept until it has room |
//! | the last link ends | each request of ours ends with an error that says whether it may have run |
//!
//! Where another link follows to a peer that knows nothing of what was before:
//!
//! | what happens | what follows |
//! |---|---|
//! | a link is lost | requests of ours that were handed to it end with an error; the others wait |
//! | the next begins | `initialize` and `notifications/initialized` are repeated, and then what waited is sent; open `subscriptions/listen` are repeated |
//! | … and requests of the old peer are in flight | they are cancelled, and what their handlers still answer is dropped |

mod calls;
mod restart;

use std::{
    collections::{HashSet, VecDeque},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{Sink, Stream};
use rmcp::{
    ErrorData,
    model::{
        CancelledNotification, CancelledNotificationParam, ErrorCode, JsonRpcMessage, RequestId,
    },
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};
use serde_json::json;
use tokio::time::{Instant, Sleep, sleep_until};

use self::{
    calls::{Call, Ending, Fate, Outbound},
    restart::Restart,
};
use super::{Framed, Shared, relink::Renew};
use crate::{
    decode::{Calls, Method, Role},
    error::Error,
    event::Notices,
    framing::Framing,
    link::{Link, Up},
    stats::Stats,
    time::after,
};

/// The JSON-RPC code of an error made by this side for a request whose link was lost, and of the
/// refusal of one request too many. Its `data` says which.
pub const UNAVAILABLE: ErrorCode = ErrorCode(-32000);

/// The JSON-RPC code of an error made by this side for a request past its deadline.
pub const TIMED_OUT: ErrorCode = ErrorCode(-32001);

/// The bounds that a [`Correlation`] keeps.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// A request of ours is given up after this time. `None`, the default, leaves that to rmcp's
    /// own request timeouts.
    pub deadline: Option<Duration>,
    /// How many requests of the peer may be in flight: 1,024. Each is a task of rmcp's. A server also
    /// handles no more notifications at once, or 64 where this is less, and drops the others.
    ///
    /// A request that its sender has cancelled no longer counts, even if its handler goes on.
    pub max_inbound: usize,
    /// How many bytes of requests are kept while the outbound queue is full: 4 MiB. More are refused
    /// with `-32000`. Counted is what came over the wire; JSON made of many small values takes up to a
    /// hundred times as much once it is decoded.
    pub max_held_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { deadline: None, max_inbound: 1024, max_held_bytes: 4 << 20 }
    }
}

impl Config {
    /// Sets [`deadline`](Self::deadline).
    #[must_use]
    pub fn deadline(mut self, deadline: impl Into<Option<Duration>>) -> Self {
        self.deadline = deadline.into();
        self
    }

    /// Sets [`max_inbound`](Self::max_inbound).
    #[must_use]
    pub fn max_inbound(mut self, requests: usize) -> Self {
        self.max_inbound = requests;
        self
    }

    /// Sets [`max_held_bytes`](Self::max_held_bytes).
    #[must_use]
    pub fn max_held_bytes(mut self, bytes: usize) -> Self {
        self.max_held_bytes = bytes;
        self
    }
}

/// The requests in flight, over a [`Framed`] to which it lends their methods.
#[derive(Debug)]
#[must_use = "a layer does nothing unless polled"]
pub struct Correlation<R: Role, F> {
    config: Config,
    stats: Stats,
    outbound: Outbound,
    inbound: HashSet<RequestId>,
    deadlines: VecDeque<(Instant, RequestId)>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Requests that wait until the outbound queue has room, and their size: who reads no answers is
    /// served no further. All else is read on, since two ends that both wait for the other to read
    /// would wait for ever.
    held: VecDeque<(RxJsonRpcMessage<R>, usize)>,
    held_bytes: usize,
    /// What this side tells itself, before anything else that comes in.
    told: VecDeque<RxJsonRpcMessage<R>>,
    restart: Option<Box<Restart>>,
    ending: Option<Ending>,
    framed: Framed<R, Shared, F>,
}

/// Nothing in it is pinned.
impl<R: Role, F> Unpin for Correlation<R, F> {}

impl<R: Role, F: Framing<R>> Correlation<R, F> {
    /// Keeps track of what goes through `framed`.
    pub fn new(framed: Framed<R, Shared, F>, config: Config) -> Self {
        Self::with_stats(framed, config, Stats::default())
    }

    /// The same, with the counters in which dropped and refused messages are noted.
    pub fn with_stats(framed: Framed<R, Shared, F>, config: Config, stats: Stats) -> Self {
        Self {
            config,
            stats,
            outbound: Outbound::default(),
            inbound: HashSet::new(),
            deadlines: VecDeque::new(),
            timer: None,
            held: VecDeque::new(),
            held_bytes: 0,
            told: VecDeque::new(),
            restart: None,
            ending: None,
            framed,
        }
    }

    /// How many requests are in flight: ours, and the peer's.
    #[must_use]
    pub fn in_flight(&self) -> (usize, usize) {
        (self.outbound.0.len(), self.inbound.len())
    }

    /// Outlives a peer that restarts, if the links below do: tells that to `notices`, and asks for
    /// another link where a peer does not answer.
    pub(crate) fn outliving(mut self, notices: Notices, renew: Renew) -> Self {
        self.restart = Some(Box::new(Restart::new(notices, renew)));
        self
    }

    /// Whether `message` is for the service above.
    fn admit(&mut self, message: &mut RxJsonRpcMessage<R>) -> bool {
        match message {
            JsonRpcMessage::Request(request) => {
                self.prepare(request);
                let room = self.inbound.len() < self.config.max_inbound;
                if room && self.inbound.insert(request.id.clone()) {
                    return true;
                }
                let error = if room || self.inbound.contains(&request.id) {
                    ErrorData::invalid_request("a request with this id is already in flight", None)
                } else {
                    let data =
                        json!({ "reason": "too_many_requests", "limit": self.config.max_inbound });
                    ErrorData::new(UNAVAILABLE, "too many requests in flight", Some(data))
                };
                self.refuse(request.id.clone(), error);
                false
            }
            JsonRpcMessage::Response(response) => {
                let result = Ok(R::initialize_result(&response.result));
                self.settle(Some(&response.id)) && self.note_answer(&response.id, result)
            }
            JsonRpcMessage::Error(error) => {
                let id = error.id.as_ref();
                self.settle(id) && id.is_none_or(|id| self.note_answer(id, Err(&error.error)))
            }
            JsonRpcMessage::Notification(notification) => {
                if R::is_initialized_by_peer(&notification.notification) {
                    self.peer_is_ready();
                }
                if let Some(id) = R::cancelled_by_peer(&notification.notification)
                    && let Some(alias) = self.restart.as_ref().and_then(|restart| restart.alias(id))
                {
                    let reason = "cancelled by the peer".into();
                    notification.notification = cancellation(alias, reason).into();
                }
                if let Some(id) = R::cancelled_by_peer(&notification.notification) {
                    self.drop_held(id);
                    // It cancels a request of its own or, in the era without `initialize`, a
                    // subscription of ours.
                    if !self.inbound.remove(id)
                        && self.outbound.method(id) == Some(Method::SubscriptionsListen)
                    {
                        self.outbound.remove(id);
                    }
                }
                true
            }
        }
    }

    /// Takes a call of ours back that has not been sent. `false` if it has.
    fn withdraw(&self, call: Call) -> bool {
        self.framed.get_ref().withdraw(call.ticket)
    }

    fn refuse(&mut self, id: RequestId, error: ErrorData) {
        let id = self.restart.as_ref().and_then(|restart| restart.real(&id)).unwrap_or(id);
        self.stats.refused();
        tracing::debug!(%id, %error.message, "request refused");
        Pin::new(&mut self.framed).reply(JsonRpcMessage::error(error, Some(id)));
    }

    /// Keeps a request until the queue has room, if there is room for that.
    fn hold(&mut self, message: RxJsonRpcMessage<R>) {
        let size = self.framed.last_size();
        match message {
            JsonRpcMessage::Request(request)
                if self.held_bytes + size > self.config.max_held_bytes =>
            {
                self.inbound.remove(&request.id);
                let data = json!({ "reason": "too_many_requests" });
                let error = "earlier answers have not been read";
                self.refuse(request.id, ErrorData::new(UNAVAILABLE, error, Some(data)));
            }
            message => {
                self.held_bytes += size;
                self.held.push_back((message, size));
            }
        }
    }

    fn next_held(&mut self) -> Option<RxJsonRpcMessage<R>> {
        let (message, size) = self.held.pop_front()?;
        self.held_bytes -= size;
        if self.held.is_empty() {
            // A place in it is large, and this was a bad moment that has passed.
            self.held = VecDeque::new();
        }
        Some(message)
    }

    fn forget_held(&mut self) {
        self.held = VecDeque::new();
        self.held_bytes = 0;
    }

    /// Forgets the held request with this id.
    fn drop_held(&mut self, id: &RequestId) {
        let is_it = |message: &RxJsonRpcMessage<R>| matches!(message, JsonRpcMessage::Request(request) if request.id == *id);
        if let Some(at) = self.held.iter().position(|(message, _)| is_it(message))
            && let Some((_, size)) = self.held.remove(at)
        {
            self.held_bytes -= size;
        }
    }

    /// Whether the request with this id was in flight; it no longer is.
    fn settle(&mut self, id: Option<&RequestId>) -> bool {
        let known = id.is_some_and(|id| self.outbound.remove(id).is_some());
        if !known {
            self.stats.orphan();
            tracing::debug!(?id, "response to no request in flight");
        }
        known
    }

    /// The next request of ours past its deadline, with the error that ends it.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<RxJsonRpcMessage<R>> {
        loop {
            while self.deadlines.front().is_some_and(|(_, id)| !self.outbound.0.contains_key(id)) {
                self.deadlines.pop_front();
            }
            let (Some((due, _)), Some(deadline)) = (self.deadlines.front(), self.config.deadline)
            else {
                self.timer = None;
                return Poll::Pending;
            };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(*due)));
            if timer.deadline() != *due {
                timer.as_mut().reset(*due);
            }
            ready!(timer.as_mut().poll(cx));
            let Some((_, id)) = self.deadlines.pop_front() else { continue };
            let reason = format!("no response within {deadline:?}");
            let sent = self.outbound.remove(&id).is_none_or(|call| !self.withdraw(call));
            if sent {
                let cancelled = cancellation(id.clone(), reason.clone());
                Pin::new(&mut self.framed).reply(JsonRpcMessage::notification(cancelled.into()));
            }
            let data = json!({ "reason": "timed_out" });
            return Poll::Ready(JsonRpcMessage::error(
                ErrorData::new(TIMED_OUT, reason, Some(data)),
                Some(id),
            ));
        }
    }

    fn end(&mut self, error: Option<Error>) -> &mut Ending {
        let handed = self.framed.get_ref().handed();
        self.forget_held();
        let calls = std::mem::take(&mut self.outbound);
        self.ending.insert(Ending::new(calls, handed, error))
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
        if let Some(restart) = &mut this.restart {
            restart.poll_patience(cx);
        }
        let end = loop {
            let mut framed = Pin::new(&mut this.framed);
            if !this.held.is_empty() {
                match framed.as_mut().poll_ready(cx) {
                    Poll::Ready(Ok(())) => return Poll::Ready(this.next_held().map(Ok)),
                    // Whoever they are from is gone. What arrived before that is still read.
                    Poll::Ready(Err(_)) => {
                        this.forget_held();
                        framed = Pin::new(&mut this.framed);
                    }
                    Poll::Pending => {}
                }
            }
            match framed.as_mut().poll_decode(cx, &this.outbound) {
                Poll::Ready(Some(Ok(Link::Down(down)))) => this.lose(down),
                Poll::Ready(Some(Ok(Link::Up(Up::Restarted)))) => this.restart(),
                Poll::Ready(Some(Ok(Link::Item(mut message)))) => {
                    if this.admit(&mut message) {
                        let is_request = matches!(message, JsonRpcMessage::Request(_));
                        let waits = is_request
                            && (!this.held.is_empty()
                                || Pin::new(&mut this.framed).poll_ready(cx).is_pending());
                        if !waits {
                            return Poll::Ready(Some(Ok(message)));
                        }
                        this.hold(message);
                    }
                }
                Poll::Ready(Some(Err(error))) => break Some(error),
                Poll::Ready(None) => break None,
                Poll::Pending => return Poll::Pending,
            }
            if let Some(told) = this.told.pop_front() {
                return Poll::Ready(Some(Ok(told)));
            }
            if let Some(error) = this.restart.as_mut().and_then(|restart| restart.over.take()) {
                this.framed.get_ref().cut();
                break Some(error);
            }
        };
        Poll::Ready(this.end(end).next::<R>())
    }
}

impl<R: Role, F: Framing<R>> Sink<TxJsonRpcMessage<R>> for Correlation<R, F> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.framed).poll_ready(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, mut item: TxJsonRpcMessage<R>) -> Result<(), Error> {
        let this = &mut *self;
        let call = match &mut item {
            JsonRpcMessage::Request(request) => {
                Some((request.id.clone(), R::method_of(&request.request)))
            }
            JsonRpcMessage::Response(response) => {
                if !this.answers(&mut response.id) {
                    return Ok(());
                }
                None
            }
            JsonRpcMessage::Error(error) => {
                if let Some(id) = &mut error.id
                    && !this.answers(id)
                {
                    return Ok(());
                }
                None
            }
            JsonRpcMessage::Notification(notification) => {
                if let Some(id) = R::cancelled(&notification.notification) {
                    match this.outbound.remove(id) {
                        Some(call) if this.withdraw(call) => return Ok(()),
                        Some(_) => {}
                        None => drop(this.inbound.remove(id)),
                    }
                }
                None
            }
        };
        if let Some(restart) = &mut this.restart {
            if this.framed.get_ref().is_stopped() {
                return this.turn_away(call);
            }
            this.framed.get_mut().survives(call.is_some());
            restart.remember(&item, &mut this.framed)?;
        }
        Pin::new(&mut this.framed).start_send(item)?;
        if let Some((id, method)) = call {
            if let Some(deadline) = this.config.deadline {
                // Those already answered are forgotten now and then, not only when they are due.
                if this.deadlines.len() > 2 * this.outbound.0.len() + 64 {
                    this.deadlines.retain(|(_, id)| this.outbound.0.contains_key(id));
                }
                this.deadlines.push_back((after(deadline), id.clone()));
            }
            let ticket = this.framed.get_ref().ticket();
            this.outbound.0.insert(id, Call { method, ticket });
        }
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.framed).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.framed).poll_close(cx)
    }
}

fn cancellation(id: RequestId, reason: String) -> CancelledNotification {
    CancelledNotification::new(CancelledNotificationParam::new(Some(id), Some(reason)))
}

#[cfg(test)]
mod tests;
