//! Deadlines of our requests that have no response.

use std::{
    collections::{BTreeMap, HashMap},
    task::{Context, Poll, ready},
    time::Duration,
};

use rmcp::{
    model::{GetExtensions, GetMeta, JsonRpcMessage, JsonRpcRequest, ProgressToken, RequestId},
    service::RxJsonRpcMessage,
};
use rustc_hash::FxBuildHasher;
use tokio::time::Instant;

use super::{Correlation, Outcome, cancellation};
use crate::{
    decode::{Method, Role},
    framing::Framing,
    time::{Timer, later},
};

/// Least time between two searches for the requests that an answer without an id may be for, since
/// a peer may send such answers without end.
const PAUSE: Duration = Duration::from_secs(1);

/// Deadline of one request, set in its extensions, in place of
/// [`Config::deadline`](super::Config::deadline). Extensions are not sent.
///
/// ```
/// use mcp_ws_transport::layer::correlation::Deadline;
/// use rmcp::model::{CallToolRequest, CallToolRequestParams};
/// use std::time::Duration;
///
/// let mut request = CallToolRequest::new(CallToolRequestParams::new("add"));
/// request.extensions.insert(Deadline(Duration::from_secs(5)));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a wrapper that is made by hand")]
pub struct Deadline(pub Duration);

/// Reason why a request is overdue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    /// Silence: no sign of life for the whole duration.
    Silent(Duration),
    /// Total time: no response within the duration.
    Total(Duration),
    /// Silence for the duration since an unreadable answer that may have been its own.
    Unreadable(Duration),
}

/// Moment, made unique by a number.
type Moment = (Instant, u64);

/// State of one request's deadline.
#[derive(Debug, Clone, Copy)]
struct Watch {
    /// Allowed silence, if the request has a deadline.
    deadline: Option<Duration>,
    /// Moment at which the silence is too long, by the suspendable clock.
    due: Option<Instant>,
    /// Key of its entry among the requests that are due, which is no later than `due`.
    entry: Moment,
    /// Allowed silence after an answer that may have been its own.
    suspected: Option<Duration>,
}

/// Requests that have a deadline. Entries of answered requests are removed when they come due, or
/// when there are many.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    watches: HashMap<RequestId, Watch, FxBuildHasher>,
    /// Request that each progress token belongs to.
    tokens: HashMap<ProgressToken, RequestId>,
    /// Entries by the suspendable clock.
    silent: BTreeMap<Moment, RequestId>,
    total: BTreeMap<Moment, (RequestId, Duration)>,
    number: u64,
    /// Start of the present suspension; `rested` is the total of the earlier ones.
    rests: Option<Instant>,
    rested: Duration,
    timer: Timer,
    /// Moment that the timer is set for.
    set: Option<Instant>,
    /// Moment of the last search; `true` if nothing has been polled since.
    swept: Option<Instant>,
    is_new: bool,
    /// Moment of the next search, for the requests sent up to this one.
    sweep: Timer,
    sweep_up_to: u64,
}

impl Deadlines {
    fn is_empty(&self) -> bool {
        self.silent.is_empty() && self.total.is_empty() && !self.sweep.is_set()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.silent.len().max(self.total.len()).max(self.watches.len()).max(self.tokens.len())
    }

    /// Returns the time of the suspendable clock.
    fn now(&self) -> Instant {
        self.rests.unwrap_or_else(Instant::now) - self.rested
    }

    /// Suspends or resumes the clock.
    fn rest(&mut self, rests: bool) {
        match self.rests {
            None if rests => self.rests = Some(Instant::now()),
            Some(since) if !rests => {
                self.rested += since.elapsed();
                self.rests = None;
            }
            _ => {}
        }
    }

    fn number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Removes entries of requests that have ended, once there are many of them.
    fn tidy(&mut self, in_flight: usize, lives: impl Fn(&RequestId) -> bool) {
        if self.watches.len().max(self.total.len()).max(self.tokens.len()) > 2 * in_flight + 64 {
            self.watches.retain(|id, _| lives(id));
            self.tokens.retain(|_, id| lives(id));
            self.silent.retain(|_, id| lives(id));
            self.total.retain(|_, (id, _)| lives(id));
        }
    }

    fn bound_total(&mut self, id: &RequestId, total: Duration) {
        let moment = (later(Instant::now(), total), self.number());
        self.total.insert(moment, (id.clone(), total));
    }

    fn bound_silence(&mut self, id: &RequestId, token: Option<ProgressToken>, deadline: Duration) {
        let entry = (later(self.now(), deadline), self.number());
        self.silent.insert(entry, id.clone());
        self.tokens.extend(token.map(|token| (token, id.clone())));
        let (due, deadline) = (Some(entry.0), Some(deadline));
        self.watches.insert(id.clone(), Watch { deadline, due, entry, suspected: None });
    }

    /// Begins the search for the requests sent up to this one. Returns `false` if it is too early:
    /// then it is made within a second.
    fn begin_sweep(&mut self, up_to: u64) -> bool {
        self.is_new = true;
        let now = Instant::now();
        if let Some(next) = self.swept.map(|last| last + PAUSE).filter(|next| *next > now) {
            self.sweep_up_to = up_to;
            self.sweep.set(next);
            return false;
        }
        self.swept = Some(now);
        true
    }

    /// Shortens the deadline of a request whose answer may have been an unreadable one.
    fn suspect(&mut self, id: &RequestId, token: Option<&ProgressToken>, patience: Duration) {
        let due = later(self.now(), patience);
        let former = self.watches.get(id).copied();
        if former.and_then(|watch| watch.due).is_some_and(|sooner| sooner <= due) {
            return;
        }
        if let Some(former) = &former {
            self.silent.remove(&former.entry);
        }
        let entry = (due, self.number());
        self.silent.insert(entry, id.clone());
        self.tokens.extend(token.map(|token| (token.clone(), id.clone())));
        let deadline = former.and_then(|watch| watch.deadline);
        let watch = Watch { deadline, due: Some(due), entry, suspected: Some(patience) };
        self.watches.insert(id.clone(), watch);
    }

    /// Lifts all suspicions: a peer that is new has lost no answer.
    pub(super) fn clear_suspicions(&mut self) {
        let now = self.now();
        for watch in self.watches.values_mut() {
            if watch.suspected.take().is_some() {
                watch.due = watch.deadline.map(|deadline| later(now, deadline));
            }
        }
        self.sweep.clear();
    }

    /// Restarts the deadline of the request that this token belongs to.
    fn progress(&mut self, token: &ProgressToken) {
        let now = self.now();
        let id = self.tokens.get(token);
        if let Some(watch) = id.and_then(|id| self.watches.get_mut(id)) {
            watch.suspected = None;
            watch.due = watch.deadline.map(|deadline| later(now, deadline));
        }
    }

    /// Returns the next moment at which a request is overdue; `true` if by its total time.
    fn next(&mut self, lives: impl Fn(&RequestId) -> bool) -> Option<(Instant, bool)> {
        while let Some(first) = self.silent.first_entry() {
            let moment = *first.key();
            let watch = self.watches.get_mut(first.get()).filter(|_| lives(first.get()));
            let due = watch.as_ref().and_then(|watch| watch.due);
            if due == Some(moment.0) {
                break;
            }
            let id = first.remove();
            match (watch, due) {
                (Some(watch), Some(due)) => {
                    watch.entry = (due, moment.1);
                    self.silent.insert(watch.entry, id);
                }
                _ => drop(self.watches.remove(&id)),
            }
        }
        if self.silent.is_empty() && !self.tokens.is_empty() {
            self.tokens.clear();
        }
        while self.total.first_entry().is_some_and(|first| !lives(&first.get().0)) {
            self.total.pop_first();
        }
        let silent = self.silent.first_key_value().filter(|_| self.rests.is_none());
        let silent = silent.map(|((due, _), _)| (*due + self.rested, false));
        let total = self.total.first_key_value().map(|((due, _), _)| (*due, true));
        silent.into_iter().chain(total).min()
    }

    /// Ready with the next overdue request.
    fn poll(
        &mut self,
        lives: impl Fn(&RequestId) -> bool,
        cx: &mut Context<'_>,
    ) -> Poll<(RequestId, Overdue)> {
        loop {
            let Some((at, in_all)) = self.next(&lives) else {
                self.timer.clear();
                self.set = None;
                return Poll::Pending;
            };
            if self.set.replace(at) != Some(at) {
                self.timer.set(at);
            }
            ready!(self.timer.poll(cx));
            self.set = None;
            if in_all {
                if let Some((_, (id, total))) = self.total.pop_first() {
                    return Poll::Ready((id, Overdue::Total(total)));
                }
            } else if let Some((_, id)) = self.silent.pop_first()
                && let Some(watch) = self.watches.remove(&id)
            {
                let silent = watch.suspected.map(Overdue::Unreadable);
                if let Some(overdue) = silent.or(watch.deadline.map(Overdue::Silent)) {
                    return Poll::Ready((id, overdue));
                }
            }
        }
    }
}

impl<R: Role, F: Framing<R>> Correlation<R, F> {
    /// Sets the deadlines of a new request, unless it is a subscription.
    pub(super) fn bound(&mut self, request: &JsonRpcRequest<R::Req>) {
        let (id, own) = (&request.id, request.request.extensions().get::<Deadline>());
        let deadline = own.map(|own| own.0).or(self.config.deadline);
        let total = self.config.deadline_total;
        let is_bounded = deadline.is_some() || total.is_some();
        if !is_bounded || R::method_of(&request.request) == Method::SubscriptionsListen {
            return;
        }
        self.let_rest();
        let (outbound, waiting) = (&self.pending, &self.waiting);
        let in_flight = outbound.len() + waiting.len();
        self.deadlines.tidy(in_flight, |id| outbound.contains(id) || waiting.contains(id));
        if let Some(total) = total {
            self.deadlines.bound_total(id, total);
        }
        if let Some(deadline) = deadline {
            let token = request.request.get_meta().get_progress_token();
            self.deadlines.bound_silence(id, token, deadline);
        }
    }

    /// Suspends deadlines while the server waits for an answer of this client, since it is unknown
    /// which call that holds up. A server's own requests do not wait for those of its client.
    /// A handler ends its wait by its answer alone, which is given for one that
    /// [panics](super::panics).
    fn let_rest(&mut self) {
        self.deadlines.rest(R::IS_CLIENT && !self.inbound.is_empty());
    }

    /// Restarts the deadline of the request that a progress notification belongs to.
    pub(super) fn note_progress(&mut self, notification: &R::PeerNot) {
        if !self.deadlines.silent.is_empty()
            && let Some(token) = R::progress_of_peer(notification)
        {
            self.deadlines.progress(token);
        }
    }

    /// Finds the request that an answer without an id is for: `Some` if only one of ours can be
    /// meant. Otherwise each of them ends within `lost_answer_timeout` unless it shows a sign of
    /// life.
    pub(super) fn guess(&mut self) -> Option<RequestId> {
        let handed = self.link.handed();
        let mut candidates = self.pending.iter().filter(|(_, call)| call.may_be_answered(handed));
        let first = candidates.next().map(|(id, _)| id.clone());
        let others = candidates.next().is_some();
        drop(candidates);
        if !others {
            return first;
        }
        if self.config.lost_answer_timeout.is_some() && self.deadlines.begin_sweep(handed) {
            self.suspect_all(handed);
        }
        None
    }

    /// Shortens the deadlines of all requests sent up to this one.
    fn suspect_all(&mut self, handed: u64) {
        let Some(patience) = self.config.lost_answer_timeout else { return };
        self.let_rest();
        for (id, call) in self.pending.iter().filter(|(_, call)| call.may_be_answered(handed)) {
            self.deadlines.suspect(id, call.token.as_ref(), patience);
        }
    }

    /// Polls [`poll_overdue`](Self::poll_overdue) again if a search has been made since.
    pub(super) fn poll_suspected(&mut self, cx: &mut Context<'_>) -> Poll<RxJsonRpcMessage<R>> {
        if std::mem::take(&mut self.deadlines.is_new) {
            self.poll_overdue(cx)
        } else {
            Poll::Pending
        }
    }

    /// Ready with the error that ends the next request past its deadline.
    pub(super) fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<RxJsonRpcMessage<R>> {
        if self.deadlines.is_empty() {
            return Poll::Pending;
        }
        if self.deadlines.sweep.poll(cx).is_ready() {
            self.deadlines.swept = Some(Instant::now());
            self.suspect_all(self.deadlines.sweep_up_to);
        }
        self.let_rest();
        loop {
            let (outbound, waiting) = (&self.pending, &self.waiting);
            let lives = |id: &RequestId| outbound.contains(id) || waiting.contains(id);
            let (id, overdue) = ready!(self.deadlines.poll(lives, cx));
            if self.reinit.as_ref().is_some_and(|reinit| reinit.is_repeating(&id)) {
                continue;
            }
            let Some(call) = self.abandon(&id) else { continue };
            let outcome =
                if self.withdraw(&id, &call) { Outcome::NotSent } else { Outcome::Unknown };
            let error = call.overdue::<R>(id.clone(), outcome, overdue);
            if outcome == Outcome::Unknown
                && let JsonRpcMessage::Error(error) = &error
            {
                let cancelled = cancellation(id, error.error.message.to_string());
                self.reply(&JsonRpcMessage::notification(cancelled.into()));
            }
            return Poll::Ready(error);
        }
    }
}
