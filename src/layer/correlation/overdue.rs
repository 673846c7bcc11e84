//! Requests of this side without a response in time, and those that an answer without an id may be
//! for.

use std::task::{Context, Poll, ready};

use rmcp::{
    model::{GetExtensions, GetMeta, JsonRpcMessage, JsonRpcRequest, RequestId},
    service::RxJsonRpcMessage,
};

use super::{Correlation, deadlines::Deadline, inbound::cancellation, pending::Outcome};
use crate::{decode::method::Method, framing::Framing, role::McpRole};

impl<R: McpRole, F: Framing<R>> Correlation<R, F> {
    /// Sets the deadlines of a new request, unless it is a subscription.
    pub(super) fn set_deadlines(&mut self, request: &JsonRpcRequest<R::Req>) {
        let (id, own) = (&request.id, request.request.extensions().get::<Deadline>());
        let deadline = own.map(|own| own.0).or(self.config.deadline);
        let total = self.config.deadline_total;
        let is_bounded = deadline.is_some() || total.is_some();
        if !is_bounded || R::method_of(&request.request) == Method::SubscriptionsListen {
            return;
        }
        self.suspend_deadlines();
        let (pending, waiting) = (&self.pending, &self.waiting);
        let in_flight = pending.len() + waiting.len();
        self.deadlines.tidy(in_flight, |id| pending.contains(id) || waiting.contains(id));
        if let Some(total) = total {
            self.deadlines.set_total(id, total);
        }
        if let Some(deadline) = deadline {
            let token = request.request.get_meta().get_progress_token();
            self.deadlines.set_silence(id, token, deadline);
        }
        // The reader sets the timer.
        self.link.wake_reader();
    }

    /// Suspends deadlines while the server waits for an answer of this client: it is unknown which
    /// call that holds up. A server's own requests do not wait for those of its client. The wait
    /// ends when the handler answers; one that [panics](super::panics) is answered for.
    fn suspend_deadlines(&mut self) {
        self.deadlines.set_suspended(R::IS_CLIENT && !self.inbound.is_empty());
    }

    /// Restarts the deadline of the request that a progress notification belongs to.
    pub(super) fn note_progress(&mut self, notification: &R::PeerNot) {
        if self.deadlines.bounds_silence()
            && let Some(token) = R::progress_of_peer(notification)
        {
            self.deadlines.restart(token);
        }
    }

    /// Finds the request that an answer without an id is for: `Some` if only one of ours can be
    /// meant. Otherwise each of them ends within `lost_answer_timeout` unless it makes progress.
    pub(super) fn find_unnamed(&mut self) -> Option<RequestId> {
        if let Some(own) = self.pending.own_id() {
            // No other request was sent to this peer.
            return Some(own.clone());
        }
        let handed = self.link.handed();
        let mut candidates = self.pending.iter().filter(|(_, call)| call.may_be_answered(handed));
        let first = candidates.next().map(|(id, _)| id.clone());
        let others = candidates.next().is_some();
        drop(candidates);
        if !others {
            return first;
        }
        if self.config.lost_answer_timeout.is_some() && self.deadlines.begin_search(handed) {
            self.suspect_all(handed);
        }
        None
    }

    /// Shortens the deadlines of all requests sent up to this one.
    fn suspect_all(&mut self, handed: u64) {
        let Some(timeout) = self.config.lost_answer_timeout else { return };
        self.suspend_deadlines();
        for (id, call) in self.pending.iter().filter(|(_, call)| call.may_be_answered(handed)) {
            self.deadlines.suspect(id, call.token.as_ref(), timeout);
        }
    }

    /// Polls [`poll_overdue`](Self::poll_overdue) again if a search has been made since.
    pub(super) fn poll_suspected(&mut self, cx: &mut Context<'_>) -> Poll<RxJsonRpcMessage<R>> {
        if self.deadlines.take_searched() { self.poll_overdue(cx) } else { Poll::Pending }
    }

    /// Ready with the error that ends the next request past its deadline.
    pub(super) fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<RxJsonRpcMessage<R>> {
        if self.deadlines.is_empty() {
            return Poll::Pending;
        }
        if let Poll::Ready(up_to) = self.deadlines.poll_search(cx) {
            self.suspect_all(up_to);
        }
        self.suspend_deadlines();
        loop {
            let (pending, waiting) = (&self.pending, &self.waiting);
            let is_in_flight = |id: &RequestId| pending.contains(id) || waiting.contains(id);
            let (id, overdue) = ready!(self.deadlines.poll(is_in_flight, cx));
            let Some(call) = self.abandon(&id) else { continue };
            let is_withdrawn = self.withdraw(&id, &call);
            let outcome = if is_withdrawn { call.outcome_unless_sent() } else { Outcome::Unknown };
            let error = call.overdue::<R>(id.clone(), outcome, overdue);
            // The peer would cancel its `initialize`, which is repeated with the same id.
            if !is_withdrawn
                && !self.pending.answers_own(&id)
                && let JsonRpcMessage::Error(error) = &error
            {
                let cancelled = cancellation(id, error.error.message.to_string());
                self.reply(&JsonRpcMessage::notification(cancelled.into()));
            }
            return Poll::Ready(error);
        }
    }
}
