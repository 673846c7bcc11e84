//! [`Deadlines`] of requests of this side that have no response.

use std::{
    collections::{BTreeMap, HashMap},
    task::{Context, Poll, ready},
    time::Duration,
};

use rmcp::model::{ProgressToken, RequestId};
use rustc_hash::FxBuildHasher;
use tokio::time::Instant;

use crate::time::{Timer, saturating_add};

/// Least time between two searches for the requests that an answer without an id may be for. A peer
/// may send such answers without end.
const MIN_SEARCH_INTERVAL: Duration = Duration::from_secs(1);

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
    /// Silence: no progress for the whole duration.
    Silent(Duration),
    /// Total time: no response within the duration.
    Total(Duration),
    /// Silence for the duration since an unreadable answer that may have been its own.
    Unreadable(Duration),
}

/// Bound that a request passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Bound {
    Silence,
    Total,
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
    tokens: HashMap<ProgressToken, RequestId, FxBuildHasher>,
    /// Entries by the suspendable clock.
    silent: BTreeMap<Moment, RequestId>,
    total: BTreeMap<Moment, (RequestId, Duration)>,
    number: u64,
    /// Start of the present suspension.
    suspended_since: Option<Instant>,
    /// Time of the earlier suspensions in all.
    suspended_for: Duration,
    timer: Timer,
    /// Moment that the timer is set for.
    timer_set_for: Option<Instant>,
    /// Moment of the last search.
    last_search: Option<Instant>,
    /// `true` if a search was begun, or put off, and nothing has been polled since.
    has_searched: bool,
    /// Moment of a search that was put off.
    next_search: Timer,
    /// Number of the last request that it is for.
    search_up_to: u64,
}

impl Deadlines {
    pub(super) fn is_empty(&self) -> bool {
        self.silent.is_empty() && self.total.is_empty() && !self.next_search.is_set()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.silent.len().max(self.total.len()).max(self.watches.len()).max(self.tokens.len())
    }

    /// Returns the time of the suspendable clock.
    fn now(&self) -> Instant {
        self.suspended_since.unwrap_or_else(Instant::now) - self.suspended_for
    }

    /// Suspends or resumes the clock.
    pub(super) fn set_suspended(&mut self, suspended: bool) {
        match self.suspended_since {
            None if suspended => self.suspended_since = Some(Instant::now()),
            Some(since) if !suspended => {
                self.suspended_for += since.elapsed();
                self.suspended_since = None;
            }
            _ => {}
        }
    }

    fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Removes entries of requests that have ended, once there are many of them.
    pub(super) fn tidy(&mut self, in_flight: usize, is_in_flight: impl Fn(&RequestId) -> bool) {
        if self.watches.len().max(self.total.len()).max(self.tokens.len()) > 2 * in_flight + 64 {
            self.watches.retain(|id, _| is_in_flight(id));
            self.tokens.retain(|_, id| is_in_flight(id));
            self.silent.retain(|_, id| is_in_flight(id));
            self.total.retain(|_, (id, _)| is_in_flight(id));
        }
    }

    /// Sets the time in all that a request may take.
    pub(super) fn set_total(&mut self, id: &RequestId, total: Duration) {
        let moment = (saturating_add(Instant::now(), total), self.next_number());
        self.total.insert(moment, (id.clone(), total));
    }

    /// Sets the time without progress that a request may take.
    pub(super) fn set_silence(
        &mut self,
        id: &RequestId,
        token: Option<ProgressToken>,
        deadline: Duration,
    ) {
        let entry = (saturating_add(self.now(), deadline), self.next_number());
        self.silent.insert(entry, id.clone());
        self.tokens.extend(token.map(|token| (token, id.clone())));
        let (due, deadline) = (Some(entry.0), Some(deadline));
        self.watches.insert(id.clone(), Watch { deadline, due, entry, suspected: None });
    }

    /// Begins the search for the requests sent up to this one. Returns `false` if it is too early:
    /// then [`poll_search`](Self::poll_search) is ready within a second.
    pub(super) fn begin_search(&mut self, up_to: u64) -> bool {
        self.has_searched = true;
        let now = Instant::now();
        if let Some(next) =
            self.last_search.map(|last| last + MIN_SEARCH_INTERVAL).filter(|next| *next > now)
        {
            self.search_up_to = up_to;
            self.next_search.set(next);
            return false;
        }
        self.last_search = Some(now);
        true
    }

    /// Ready when a search that was put off is due, with the number of the last request that it is
    /// for.
    pub(super) fn poll_search(&mut self, cx: &mut Context<'_>) -> Poll<u64> {
        ready!(self.next_search.poll(cx));
        self.last_search = Some(Instant::now());
        Poll::Ready(self.search_up_to)
    }

    /// Returns `true` if a search was begun, or put off, since the last call.
    pub(super) fn take_searched(&mut self) -> bool {
        std::mem::take(&mut self.has_searched)
    }

    /// Shortens the deadline of a request whose answer may have been an unreadable one.
    pub(super) fn suspect(
        &mut self,
        id: &RequestId,
        token: Option<&ProgressToken>,
        timeout: Duration,
    ) {
        let due = saturating_add(self.now(), timeout);
        let former = self.watches.get(id).copied();
        if former.and_then(|watch| watch.due).is_some_and(|sooner| sooner <= due) {
            return;
        }
        if let Some(former) = &former {
            self.silent.remove(&former.entry);
        }
        let entry = (due, self.next_number());
        self.silent.insert(entry, id.clone());
        self.tokens.extend(token.map(|token| (token.clone(), id.clone())));
        let deadline = former.and_then(|watch| watch.deadline);
        let watch = Watch { deadline, due: Some(due), entry, suspected: Some(timeout) };
        self.watches.insert(id.clone(), watch);
    }

    /// Lifts all suspicions: a peer that is new has lost no answer.
    pub(super) fn clear_suspicions(&mut self) {
        let now = self.now();
        for watch in self.watches.values_mut() {
            if watch.suspected.take().is_some() {
                watch.due = watch.deadline.map(|deadline| saturating_add(now, deadline));
            }
        }
        self.next_search.clear();
    }

    /// Returns `true` if progress may restart a deadline.
    pub(super) fn bounds_silence(&self) -> bool {
        !self.silent.is_empty()
    }

    /// Restarts the deadline of the request that this token belongs to.
    pub(super) fn restart(&mut self, token: &ProgressToken) {
        let now = self.now();
        let id = self.tokens.get(token);
        if let Some(watch) = id.and_then(|id| self.watches.get_mut(id)) {
            watch.suspected = None;
            watch.due = watch.deadline.map(|deadline| saturating_add(now, deadline));
        }
    }

    /// Returns the next moment at which a request is overdue, and by which bound.
    fn next(&mut self, is_in_flight: impl Fn(&RequestId) -> bool) -> Option<(Instant, Bound)> {
        while let Some(first) = self.silent.first_entry() {
            let moment = *first.key();
            let watch = self.watches.get_mut(first.get()).filter(|_| is_in_flight(first.get()));
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
        while self.total.first_entry().is_some_and(|first| !is_in_flight(&first.get().0)) {
            self.total.pop_first();
        }
        let silent = self.silent.first_key_value().filter(|_| self.suspended_since.is_none());
        let silent = silent.map(|((due, _), _)| (*due + self.suspended_for, Bound::Silence));
        let total = self.total.first_key_value().map(|((due, _), _)| (*due, Bound::Total));
        silent.into_iter().chain(total).min()
    }

    /// Ready with the next overdue request.
    pub(super) fn poll(
        &mut self,
        is_in_flight: impl Fn(&RequestId) -> bool,
        cx: &mut Context<'_>,
    ) -> Poll<(RequestId, Overdue)> {
        loop {
            let Some((at, bound)) = self.next(&is_in_flight) else {
                self.timer.clear();
                self.timer_set_for = None;
                return Poll::Pending;
            };
            if self.timer_set_for.replace(at) != Some(at) {
                self.timer.set(at);
            }
            ready!(self.timer.poll(cx));
            self.timer_set_for = None;
            if bound == Bound::Total {
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
