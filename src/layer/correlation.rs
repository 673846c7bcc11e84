//! [`Correlation`]: knows every request in flight, in both directions, and ends each exactly once.
//!
//! | what happens | what follows |
//! |---|---|
//! | a response to a request of ours | passed up; the request is done |
//! | a response to none, or too late | dropped and counted |
//! | a request of ours passes its deadline | it ends with an error; the peer is sent `notifications/cancelled` |
//! | a request from the peer | passed up |
//! | … whose id is in flight already | refused with `-32600`; the first is undisturbed |
//! | … while as many are handled as may be, or as much | refused with `-32000`; nothing is executed |
//! | … while the outbound queue is full | kept until it has room |
//! | a notification while as many are handled as may be | kept until one has ended |
//! | `notifications/cancelled` for a request that is not in flight | dropped |
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
mod held;
mod places;
mod restart;

use std::{
    collections::{HashSet, VecDeque},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{Sink, Stream};
use rmcp::{
    ErrorData,
    model::{
        CancelledNotification, CancelledNotificationParam, ErrorCode, Extensions, GetExtensions,
        JsonRpcMessage, RequestId,
    },
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};
use serde_json::json;
use tokio::time::{Instant, Sleep, sleep_until};

pub(crate) use self::places::Place;
use self::{
    calls::{Call, Ending, Fate, Outbound},
    held::Held,
    places::Places,
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

/// How many notifications may be handled at once, where fewer requests may: most are over in a moment.
const MIN_NOTIFICATIONS: usize = 64;

/// The bounds that a [`Correlation`] keeps.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// A request of ours is given up after this time. `None`, the default, leaves that to rmcp's
    /// own request timeouts.
    pub deadline: Option<Duration>,
    /// How many requests of the peer may be in flight: 1,024. Each is a task of rmcp's. One that its
    /// sender has cancelled counts until its handler has ended. As many notifications are handled at
    /// once, or 64 where this is less; further ones wait.
    pub max_inbound: usize,
    /// How much memory the requests of the peer that are being handled may take, in bytes: 64 MiB.
    /// It is estimated from their JSON, which takes up to a hundred times its size where it is made
    /// of many small values. A request that would be the only one is handled however large it is, and
    /// so is one that takes less than a thousandth of this.
    pub max_inbound_memory: usize,
    /// How many bytes of requests and notifications are kept while they have to wait: 4 MiB, of what
    /// came over the wire and 512 more for each. Further requests are refused with `-32000`, further
    /// notifications are dropped.
    pub max_held_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            deadline: None,
            max_inbound: 1024,
            max_inbound_memory: 64 << 20,
            max_held_bytes: 4 << 20,
        }
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

    /// Sets [`max_inbound_memory`](Self::max_inbound_memory).
    #[must_use]
    pub fn max_inbound_memory(mut self, bytes: usize) -> Self {
        self.max_inbound_memory = bytes;
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
    /// Those of them whose handler has not ended, and others that were cancelled.
    places: Arc<Places>,
    extensions: Extensions,
    deadlines: VecDeque<(Instant, RequestId)>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Requests that wait until the outbound queue has room, notifications that wait for a place, and
    /// their size: who reads no answers is served no further. All else is read on, since two ends that
    /// both wait for the other to read would wait for ever.
    held: Held<R>,
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
            deadlines: VecDeque::new(),
            timer: None,
            held: Held::default(),
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
                let error = if self.inbound.contains(&request.id) {
                    ErrorData::invalid_request("a request with this id is already in flight", None)
                } else if let Some(error) = self.overload() {
                    error
                } else {
                    self.inbound.insert(request.id.clone());
                    return true;
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
                    && let Some(alias) =
                        self.restart.as_mut().and_then(|restart| restart.cancelled(id))
                {
                    let reason = "cancelled by the peer".into();
                    notification.notification = cancellation(alias, reason).into();
                }
                if let Some(id) = R::cancelled_by_peer(&notification.notification) {
                    self.held.forget(id);
                    // It cancels a request of its own or, in the era without `initialize`, a
                    // subscription of ours.
                    if self.inbound.remove(id) {
                        return true;
                    }
                    let ours = self.outbound.method(id) == Some(Method::SubscriptionsListen);
                    let id = id.clone();
                    return ours && self.give_up(&id).is_some();
                }
                true
            }
        }
    }

    /// Takes a call of ours back that has not been sent. `false` if it has.
    fn withdraw(&self, call: Call) -> bool {
        self.framed.get_ref().withdraw(call.ticket)
    }

    /// Why no further request is taken.
    fn overload(&self) -> Option<ErrorData> {
        let Config { max_inbound, max_inbound_memory, .. } = self.config;
        let (handled, weight) = self.places.requests();
        let own = self.framed.last_weight();
        let data = if self.inbound.len().max(handled) >= max_inbound {
            json!({ "reason": "too_many_requests", "limit": max_inbound })
        } else if own > max_inbound_memory / 1024
            && handled > 0
            && weight + own > max_inbound_memory
        {
            json!({ "reason": "too_many_requests", "limit_bytes": max_inbound_memory })
        } else {
            return None;
        };
        Some(ErrorData::new(UNAVAILABLE, "too many requests in flight", Some(data)))
    }

    /// What each request and notification of the peer carries in its extensions.
    pub fn extensions(&mut self) -> &mut Extensions {
        &mut self.extensions
    }

    /// Hands `message` up, unless it has to wait.
    fn pass(
        &mut self,
        mut message: RxJsonRpcMessage<R>,
        cx: &mut Context<'_>,
    ) -> Option<RxJsonRpcMessage<R>> {
        match &mut message {
            JsonRpcMessage::Request(request) => {
                let place = self.places.take_request(self.framed.last_weight());
                equip(request.request.extensions_mut(), &self.extensions, place);
            }
            JsonRpcMessage::Notification(notification)
                if R::cancelled_by_peer(&notification.notification).is_none() =>
            {
                let extensions = notification.notification.extensions_mut();
                equip(extensions, &self.extensions, Place::default());
            }
            _ => return Some(message),
        }
        if !self.held.precedes(&message) && self.gate().1.opens(&mut message, cx) {
            return Some(message);
        }
        self.hold(message);
        None
    }

    /// The first of what was kept whose moment has come.
    fn next_held(&mut self, cx: &mut Context<'_>) -> Option<RxJsonRpcMessage<R>> {
        let (held, mut gate) = self.gate();
        held.pop(|message| gate.opens(message, cx))
    }

    fn gate(&mut self) -> (&mut Held<R>, Gate<'_, R, F>) {
        let notifications = self.config.max_inbound.max(MIN_NOTIFICATIONS);
        let gate = Gate { framed: &mut self.framed, places: &self.places, notifications };
        (&mut self.held, gate)
    }

    fn refuse(&mut self, id: RequestId, error: ErrorData) {
        let id = self.restart.as_ref().and_then(|restart| restart.real(&id)).unwrap_or(id);
        self.stats.refused();
        tracing::debug!(%id, %error.message, "request refused");
        Pin::new(&mut self.framed).reply(JsonRpcMessage::error(error, Some(id)));
    }

    /// Keeps a message until its moment comes, if there is room for that.
    fn hold(&mut self, message: RxJsonRpcMessage<R>) {
        let (size, limit) = (self.framed.last_size(), self.config.max_held_bytes);
        match self.held.push(message, size, limit) {
            Ok(()) => {}
            Err(JsonRpcMessage::Request(request)) => {
                self.inbound.remove(&request.id);
                let data = json!({ "reason": "too_many_requests" });
                let error = "earlier messages have not been dealt with";
                self.refuse(request.id, ErrorData::new(UNAVAILABLE, error, Some(data)));
            }
            Err(_) => {
                self.stats.refused();
                tracing::debug!("notification dropped: too many are being handled");
            }
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
            let sent = self.give_up(&id).is_none_or(|call| !self.withdraw(call));
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
        self.held = Held::default();
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
            match Pin::new(&mut this.framed).poll_decode(cx, &this.outbound) {
                Poll::Ready(Some(Ok(Link::Down(down)))) => this.lose(down),
                Poll::Ready(Some(Ok(Link::Up(Up::Restarted)))) => this.restart(),
                Poll::Ready(Some(Ok(Link::Up(Up::Resumed(resumed))))) => this.resumed(&resumed),
                Poll::Ready(Some(Ok(Link::Item(mut message)))) => {
                    if this.admit(&mut message)
                        && let Some(message) = this.pass(message, cx)
                    {
                        return Poll::Ready(Some(Ok(message)));
                    }
                }
                Poll::Ready(Some(Err(error))) => break Some(error),
                Poll::Ready(None) => break None,
                Poll::Pending => {
                    // It may have been set just now.
                    if let Some(restart) = &mut this.restart {
                        restart.poll_patience(cx);
                    }
                    return Poll::Pending;
                }
            }
            if let Some(told) = this.told.pop_front() {
                return Poll::Ready(Some(Ok(told)));
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
                    match this.give_up(id) {
                        Some(call) if this.withdraw(call) => return Ok(()),
                        Some(_) => {}
                        None => drop(this.inbound.remove(id)),
                    }
                }
                None
            }
        };
        if let Some(restart) = &mut this.restart {
            if this.framed.get_ref().is_stopped(call.is_some()) {
                return this.turn_away(&item);
            }
            this.framed.get_mut().survives(call.is_some());
            if !restart.remember(&item, &mut this.framed)? {
                return Ok(());
            }
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

/// Before requests and notifications of the peer.
struct Gate<'a, R: Role, F> {
    framed: &'a mut Framed<R, Shared, F>,
    places: &'a Arc<Places>,
    notifications: usize,
}

impl<R: Role, F: Framing<R>> Gate<'_, R, F> {
    /// Whether this is the moment for `message`.
    fn opens(&mut self, message: &mut RxJsonRpcMessage<R>, cx: &mut Context<'_>) -> bool {
        let JsonRpcMessage::Notification(notification) = message else {
            // Where the link has ended, whoever it is from is gone.
            return matches!(Pin::new(&mut *self.framed).poll_ready(cx), Poll::Ready(Ok(())));
        };
        let place = self.places.poll_notification(self.notifications, cx);
        let Poll::Ready(place) = place else { return false };
        if let Some(empty) = notification.notification.extensions_mut().get_mut::<Place>() {
            *empty = place;
        }
        true
    }
}

/// Puts what a handler finds there into `extensions`.
fn equip(extensions: &mut Extensions, all: &Extensions, place: Place) {
    if extensions.is_empty() {
        *extensions = all.clone();
    } else {
        extensions.extend(all.clone());
    }
    match extensions.get_mut::<Place>() {
        Some(taken) => *taken = place,
        None => drop(extensions.insert(place)),
    }
}

#[cfg(test)]
mod tests;
