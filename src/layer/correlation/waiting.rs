//! Requests that wait until the peer accepts more.

use std::collections::{BTreeMap, HashMap};

use rmcp::model::{JsonRpcRequest, RequestId};
use rustc_hash::FxBuildHasher;

use super::pending::{Call, Turn};
use crate::{decode::method::Method, message::Message, role::McpRole};

/// Queue of requests that the peer has not accepted yet, in order, each removable by its id.
#[derive(Debug)]
pub(super) struct WaitingRequests<R: McpRole> {
    requests: BTreeMap<Turn, Waiting<R>>,
    turns: HashMap<RequestId, Turn, FxBuildHasher>,
    number: u64,
    /// `true` if some of them were sent, and may not have been flushed.
    is_unflushed: bool,
}

/// Request that the peer has not accepted yet.
#[derive(Debug)]
pub(super) enum Waiting<R: McpRole> {
    /// Request that was never sent.
    New(JsonRpcRequest<R::Req>, Method, Turn),
    /// Request that was sent, and refused without being executed.
    Refused(RequestId, Call, Message),
}

impl<R: McpRole> Waiting<R> {
    fn into_unsent(self) -> (RequestId, Call) {
        match self {
            Self::New(request, method, _) => (request.id, Call::unsent(method)),
            Self::Refused(id, call, _) => (id, Call::unsent(call.method)),
        }
    }
}

impl<R: McpRole> Default for WaitingRequests<R> {
    fn default() -> Self {
        Self {
            requests: BTreeMap::new(),
            turns: HashMap::default(),
            number: 0,
            is_unflushed: false,
        }
    }
}

impl<R: McpRole> WaitingRequests<R> {
    /// Records that some of them were sent.
    pub(super) fn note_sent(&mut self) {
        self.is_unflushed = true;
    }

    /// Returns `true` if some of them were sent since it was last asked.
    pub(super) fn take_unflushed(&mut self) -> bool {
        std::mem::take(&mut self.is_unflushed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn contains(&self, id: &RequestId) -> bool {
        !self.is_empty() && self.turns.contains_key(id)
    }

    /// Returns the ids of those with this method.
    pub(super) fn ids_of(&self, method: Method) -> impl Iterator<Item = &RequestId> {
        self.requests.values().filter_map(move |waiting| match waiting {
            Waiting::New(request, of, _) => (*of == method).then_some(&request.id),
            Waiting::Refused(id, call, _) => (call.method == method).then_some(id),
        })
    }

    /// Returns the turn of a new request.
    pub(super) fn next_turn(&mut self, is_first: bool) -> Turn {
        self.number += 1;
        Turn::new(self.number, is_first)
    }

    pub(super) fn push(&mut self, request: JsonRpcRequest<R::Req>, method: Method, turn: Turn) {
        self.turns.insert(request.id.clone(), turn);
        self.requests.insert(turn, Waiting::New(request, method, turn));
    }

    /// Adds a request that was refused, before all whose turn is later.
    pub(super) fn put_back(&mut self, id: RequestId, call: Call, message: Message) {
        self.turns.insert(id.clone(), call.turn);
        self.requests.insert(call.turn, Waiting::Refused(id, call, message));
    }

    pub(super) fn pop(&mut self) -> Option<Waiting<R>> {
        let (_, waiting) = self.requests.pop_first()?;
        let (Waiting::New(JsonRpcRequest { id, .. }, ..) | Waiting::Refused(id, ..)) = &waiting;
        self.turns.remove(id);
        if self.is_empty() {
            // Frees the memory of what may have been many.
            self.turns = HashMap::default();
        }
        Some(waiting)
    }

    /// Removes the request with this id.
    pub(super) fn remove(&mut self, id: &RequestId) -> Option<Call> {
        if self.is_empty() {
            return None;
        }
        let waiting = self.requests.remove(&self.turns.remove(id)?)?;
        Some(waiting.into_unsent().1)
    }

    /// Removes all requests, in order.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (RequestId, Call)> + use<R> {
        let requests = std::mem::take(&mut self.requests).into_values();
        self.turns = HashMap::default();
        requests.map(Waiting::into_unsent)
    }
}
