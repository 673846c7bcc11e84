//! [`PendingCalls`]: requests of this side that are in flight, and the errors that end them.

use std::{collections::HashMap, vec};

use rmcp::{
    ErrorData,
    model::{JsonRpcMessage, ProgressToken, RequestId},
    service::RxJsonRpcMessage,
};
use rustc_hash::FxBuildHasher;
use serde_json::json;

use super::deadlines::Overdue;
use crate::{
    decode::{PendingMethods, method::Method},
    error::{Error, MessageError},
    message::Message,
    role::McpRole,
    rpc_code::{TIMED_OUT, UNAVAILABLE},
};

/// Most connections on which a request is sent, where it may be sent again.
pub(super) const MAX_ATTEMPTS: u32 = 5;

/// Most bytes of requests that are kept to be sent again.
const MAX_KEPT: usize = 16 << 20;

/// Requests of this side that are in flight. The ids are its own, so the hasher need not withstand
/// an attacker.
#[derive(Debug, Default)]
pub(super) struct PendingCalls {
    calls: HashMap<RequestId, Call, FxBuildHasher>,
    /// Request of the transport's own. One of the layers above may have the same id, but is not
    /// sent before this one is answered.
    own: Option<(RequestId, Call)>,
    /// Size of the kept requests, in bytes.
    kept_bytes: usize,
    /// Number of the requests that are subscriptions.
    subscriptions: usize,
}

/// A request of ours that has no response yet.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Number of the message in the order of all that was queued.
    pub(super) seq: u64,
    /// Place in the order of requests.
    pub(super) turn: Turn,
    /// Size of the message, in bytes.
    pub(super) size: usize,
    /// The message, kept to be sent again if the peer refuses it.
    pub(super) kept: Option<Message>,
    /// Number of times that the message was sent again.
    pub(super) resends: u32,
    /// `true` if a connection that is lost had taken the message: the peer may have executed it,
    /// whatever another does with it.
    pub(super) may_have_run: bool,
    /// Token by which the peer's progress reports name the request.
    pub(super) token: Option<ProgressToken>,
}

/// Place of a request in the order in which requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Turn(u64);

impl Turn {
    /// Bit that puts a request behind all that are first.
    const LATER: u64 = 1 << 63;

    /// Creates the turn of the request with this number: before all that are not `first`, then by
    /// number.
    pub(super) fn new(number: u64, is_first: bool) -> Self {
        Self(if is_first { number } else { number | Self::LATER })
    }
}

impl PendingCalls {
    /// Returns the number of requests, the transport's own included.
    pub(super) fn len(&self) -> usize {
        self.calls.len() + usize::from(self.own.is_some())
    }

    /// Returns `true` if all requests are subscriptions.
    pub(super) fn are_subscriptions(&self) -> bool {
        self.len() == self.subscriptions
    }

    /// Adds the request of the transport's own.
    pub(super) fn insert_own(&mut self, id: RequestId, method: Method) {
        self.own = Some((id, Call::new(method, 0)));
    }

    /// Returns the id of the transport's own request.
    pub(super) fn own_id(&self) -> Option<&RequestId> {
        self.own.as_ref().map(|(id, _)| id)
    }

    /// Returns `true` if a response with this `id` answers the transport's own request.
    pub(super) fn answers_own(&self, id: &RequestId) -> bool {
        self.own_id().is_some_and(|own| own == id || number_of(id).as_ref() == Some(own))
    }

    /// Forgets the transport's own request.
    pub(super) fn forget_own(&mut self) {
        self.own = None;
    }

    pub(super) fn contains(&self, id: &RequestId) -> bool {
        self.calls.contains_key(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&RequestId, &Call)> {
        self.calls.iter()
    }

    pub(super) fn get(&self, id: &RequestId) -> Option<&Call> {
        self.calls.get(id)
    }

    /// Adds a request, without its message if [`MAX_KEPT`] bytes are kept already.
    pub(super) fn insert(&mut self, id: RequestId, mut call: Call) {
        if self.kept_bytes + call.kept_size() > MAX_KEPT {
            call.kept = None;
        }
        self.kept_bytes += call.kept_size();
        self.subscriptions += usize::from(call.is_subscription());
        if let Some(former) = self.calls.insert(id, call) {
            self.note_removed(&former);
        }
    }

    /// Returns the id of the request that a response with this `id` answers.
    pub(super) fn answered_by(&self, id: &RequestId) -> Option<RequestId> {
        if self.calls.contains_key(id) {
            return Some(id.clone());
        }
        number_of(id).filter(|number| self.calls.contains_key(number))
    }

    /// Removes the request that a response with this `id` answers.
    pub(super) fn remove_answered(&mut self, id: &RequestId) -> Option<(RequestId, Call)> {
        if self.answers_own(id) { self.own.take() } else { self.remove(id) }
    }

    /// Records that a request was sent again, under this number.
    pub(super) fn note_resent(&mut self, id: &RequestId, seq: u64) {
        self.renumber(id, seq);
        if let Some(call) = self.calls.get_mut(id) {
            call.resends += 1;
        }
    }

    /// Records that a connection is lost that took messages up to number `handed`.
    pub(super) fn note_lost(&mut self, handed: u64) {
        for call in self.calls.values_mut() {
            call.may_have_run |= call.was_handed(handed);
        }
    }

    /// Records the number of a request that was sent again, without counting that.
    pub(super) fn renumber(&mut self, id: &RequestId, seq: u64) {
        if let Some(call) = self.calls.get_mut(id) {
            call.seq = seq;
        }
    }

    /// Removes the request that `id` [means](Self::answered_by), of the layers above.
    pub(super) fn remove(&mut self, id: &RequestId) -> Option<(RequestId, Call)> {
        let removed = self.calls.remove_entry(id);
        let removed = removed.or_else(|| self.calls.remove_entry(&number_of(id)?));
        if let Some((_, call)) = &removed {
            self.note_removed(call);
        }
        removed
    }

    /// Removes the request with this id, and its message, if that is kept.
    pub(super) fn remove_kept(&mut self, id: &RequestId) -> Option<(RequestId, Call, Message)> {
        let message = self.calls.get(id)?.kept.clone()?;
        let (id, call) = self.remove(id)?;
        Some((id, Call { kept: None, ..call }, message))
    }

    /// Subtracts a removed request from the sums of all.
    fn note_removed(&mut self, call: &Call) {
        self.kept_bytes -= call.kept_size();
        self.subscriptions -= usize::from(call.is_subscription());
    }

    /// Removes the `unwanted` requests, and returns them in the order in which they were sent.
    pub(super) fn take(
        &mut self,
        mut unwanted: impl FnMut(&RequestId, &Call) -> bool,
    ) -> Vec<(RequestId, Call)> {
        let mut calls: Vec<_> = self.calls.extract_if(|id, call| unwanted(id, call)).collect();
        calls.iter().for_each(|(_, call)| self.note_removed(call));
        calls.sort_unstable_by_key(|(_, call)| call.seq);
        calls
    }
}

impl PendingMethods for PendingCalls {
    fn method(&self, id: &RequestId) -> Option<Method> {
        let own = self.own.as_ref().filter(|(own, _)| own == id).map(|(_, call)| call);
        own.or_else(|| self.calls.get(id)).map(|call| call.method)
    }
}

/// Returns the number that an id spells: some servers return a number as a string, which rmcp
/// allows too.
fn number_of(id: &RequestId) -> Option<RequestId> {
    let RequestId::String(text) = id else { return None };
    text.parse().ok().map(RequestId::Number)
}

/// Knowledge about a request that will have no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    NotSent,
    Unknown,
}

impl Outcome {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::Unknown => "outcome_unknown",
        }
    }
}

/// Number of a request that was never sent.
const UNSENT: u64 = u64::MAX;

impl Call {
    /// Creates a call whose message is not kept.
    pub(super) fn new(method: Method, seq: u64) -> Self {
        Self {
            method,
            seq,
            turn: Turn::default(),
            size: 0,
            kept: None,
            resends: 0,
            may_have_run: false,
            token: None,
        }
    }

    /// Creates a call that was not handed to the layer below.
    pub(super) fn unsent(method: Method) -> Self {
        Self::new(method, UNSENT)
    }

    /// Returns the same call where it was taken back from the layer below.
    pub(super) fn to_unsent(&self) -> Self {
        Self { may_have_run: self.may_have_run, ..Self::unsent(self.method) }
    }

    pub(super) fn is_unsent(&self) -> bool {
        self.seq == UNSENT
    }

    /// Returns `true` if the request stays open for as long as it is wanted.
    pub(super) fn is_subscription(&self) -> bool {
        self.method == Method::SubscriptionsListen
    }

    /// Returns `true` if an answer that names no request may be for this one.
    pub(super) fn may_be_answered(&self, handed: u64) -> bool {
        self.seq <= handed && !self.is_subscription()
    }

    fn kept_size(&self) -> usize {
        self.kept.as_ref().map_or(0, Message::len)
    }

    /// Returns `true` if a link that took messages up to number `handed` took this call.
    pub(super) fn was_handed(&self, handed: u64) -> bool {
        self.seq <= handed
    }

    /// Returns the outcome of this call on a link that took messages up to number `handed`.
    pub(super) fn outcome(&self, handed: u64) -> Outcome {
        if self.was_handed(handed) { Outcome::Unknown } else { self.outcome_unless_sent() }
    }

    /// Returns the outcome of this call where the present link has not taken it.
    pub(super) fn outcome_unless_sent(&self) -> Outcome {
        if self.may_have_run { Outcome::Unknown } else { Outcome::NotSent }
    }

    /// Returns the error that ends the call when its link is lost.
    pub(super) fn lost<R: McpRole>(
        self,
        id: RequestId,
        outcome: Outcome,
        cause: Option<&str>,
    ) -> RxJsonRpcMessage<R> {
        let message = match outcome {
            Outcome::NotSent => "the connection was lost before the request was sent",
            Outcome::Unknown => "the connection was lost before the response arrived",
        };
        let data =
            json!({ "reason": outcome.name(), "cause": cause, "method": self.method.name() });
        JsonRpcMessage::error(ErrorData::new(UNAVAILABLE, message, Some(data)), Some(id))
    }

    /// Returns the error that ends the call when it cannot be sent.
    pub(super) fn refused<R: McpRole>(
        self,
        id: RequestId,
        error: &MessageError,
    ) -> RxJsonRpcMessage<R> {
        let mut data = json!({
            "reason": self.outcome_unless_sent().name(), "cause": error.to_string(),
            "method": self.method.name(),
        });
        if let Some((size, limit)) = error.sizes() {
            (data["size"], data["limit"]) = (size.into(), limit.into());
        }
        let error = ErrorData::new(UNAVAILABLE, error.to_string(), Some(data));
        JsonRpcMessage::error(error, Some(id))
    }

    /// Returns the error that ends the call past its deadline.
    pub(super) fn overdue<R: McpRole>(
        self,
        id: RequestId,
        outcome: Outcome,
        overdue: Overdue,
    ) -> RxJsonRpcMessage<R> {
        let method = self.method.name();
        let mut data =
            json!({ "reason": "timed_out", "outcome": outcome.name(), "method": method });
        let message = match (outcome, overdue) {
            (Outcome::NotSent, Overdue::Silent(time) | Overdue::Total(time)) => {
                format!("not sent within {time:?}")
            }
            (_, Overdue::Silent(time)) => format!("no response within {time:?}"),
            (_, Overdue::Total(time)) => format!("no response within {time:?} in all"),
            (_, Overdue::Unreadable(time)) => {
                data["cause"] = "unreadable_answer".into();
                format!(
                    "the peer sent an answer that names no request, perhaps the one to this, and no \
                     response or progress within {time:?} after it"
                )
            }
        };
        JsonRpcMessage::error(ErrorData::new(TIMED_OUT, message, Some(data)), Some(id))
    }
}

/// Calls that are still to be ended after the last link, and the error that follows them.
#[derive(Debug)]
pub(super) struct Shutdown {
    calls: vec::IntoIter<(RequestId, Call)>,
    handed: u64,
    error: Option<Error>,
}

impl Shutdown {
    pub(super) fn new(calls: Vec<(RequestId, Call)>, handed: u64, error: Option<Error>) -> Self {
        Self { calls: calls.into_iter(), handed, error }
    }

    /// Returns the error of one call after the other, then the cause, then `None`.
    pub(super) fn next<R: McpRole>(&mut self) -> Option<Result<RxJsonRpcMessage<R>, Error>> {
        let Some((id, call)) = self.calls.next() else {
            return self.error.take().map(Err);
        };
        let cause = self.error.as_ref().map(ToString::to_string);
        let outcome = call.outcome(self.handed);
        Some(Ok(call.lost::<R>(id, outcome, cause.as_deref())))
    }
}
