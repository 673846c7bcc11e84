//! Requests that wait until the peer accepts more.

use std::collections::{BTreeMap, HashMap};

use rmcp::model::{JsonRpcRequest, RequestId};
use rustc_hash::FxBuildHasher;

use super::pending::{Call, Turn};
use crate::{decode::method::Method, message::Message, role::McpRole};

/// Bytes that a request is charged beside its JSON.
const OVERHEAD: usize = 512;

/// Queue of requests that the peer has not accepted yet, in order, each removable by its id.
#[derive(Debug)]
pub(super) struct WaitingRequests<R: McpRole> {
    requests: BTreeMap<Turn, Waiting<R>>,
    /// Bytes that all requests are charged.
    bytes: usize,
    turns: HashMap<RequestId, Turn, FxBuildHasher>,
    /// Number of the last request that was given a turn.
    number: u64,
    /// `true` if requests that waited were sent, and may not have been flushed.
    is_unflushed: bool,
}

/// Request that the peer has not accepted yet.
#[derive(Debug)]
pub(super) enum Waiting<R: McpRole> {
    /// Request that was never sent.
    New {
        request: JsonRpcRequest<R::Req>,
        method: Method,
        turn: Turn,
        /// Bytes that the request is charged.
        size: usize,
    },
    /// Request that was sent, and refused without being executed.
    Refused {
        id: RequestId,
        call: Call,
        /// The request as it was encoded.
        message: Message,
    },
}

impl<R: McpRole> Waiting<R> {
    fn into_unsent(self) -> (RequestId, Call) {
        match self {
            Self::New { request, method, .. } => (request.id, Call::unsent(method)),
            Self::Refused { id, call, .. } => (id, call.to_unsent()),
        }
    }

    fn id(&self) -> &RequestId {
        match self {
            Self::New { request, .. } => &request.id,
            Self::Refused { id, .. } => id,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::New { size, .. } => *size,
            Self::Refused { message, .. } => OVERHEAD + message.len(),
        }
    }
}

impl<R: McpRole> Default for WaitingRequests<R> {
    fn default() -> Self {
        Self {
            requests: BTreeMap::new(),
            bytes: 0,
            turns: HashMap::default(),
            number: 0,
            is_unflushed: false,
        }
    }
}

impl<R: McpRole> WaitingRequests<R> {
    /// Records that requests that waited were sent.
    pub(super) fn note_sent(&mut self) {
        self.is_unflushed = true;
    }

    /// Returns `true` if requests that waited were sent since the last call.
    pub(super) fn take_unflushed(&mut self) -> bool {
        std::mem::take(&mut self.is_unflushed)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Returns the size of all requests, in bytes of JSON and 512 more for each.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn contains(&self, id: &RequestId) -> bool {
        !self.is_empty() && self.turns.contains_key(id)
    }

    /// Returns the ids of the requests with this method.
    pub(super) fn ids_of(&self, method: Method) -> impl Iterator<Item = &RequestId> {
        self.requests.values().filter_map(move |waiting| match waiting {
            Waiting::New { request, method: of, .. } => (*of == method).then_some(&request.id),
            Waiting::Refused { id, call, .. } => (call.method == method).then_some(id),
        })
    }

    /// Returns the turn of a new request.
    pub(super) fn next_turn(&mut self, is_first: bool) -> Turn {
        self.number += 1;
        Turn::new(self.number, is_first)
    }

    pub(super) fn push(&mut self, request: JsonRpcRequest<R::Req>, method: Method, turn: Turn) {
        let size = OVERHEAD + R::size_of(&request.request);
        self.insert(request.id.clone(), turn, Waiting::New { request, method, turn, size });
    }

    /// Adds a request that was refused, before all whose turn is later.
    pub(super) fn put_back(&mut self, id: RequestId, call: Call, message: Message) {
        self.insert(id.clone(), call.turn, Waiting::Refused { id, call, message });
    }

    fn insert(&mut self, id: RequestId, turn: Turn, waiting: Waiting<R>) {
        self.bytes += waiting.size();
        self.turns.insert(id, turn);
        if let Some(former) = self.requests.insert(turn, waiting) {
            self.bytes -= former.size();
        }
    }

    pub(super) fn pop(&mut self) -> Option<Waiting<R>> {
        let (_, waiting) = self.requests.pop_first()?;
        self.bytes -= waiting.size();
        self.turns.remove(waiting.id());
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
        self.bytes -= waiting.size();
        Some(waiting.into_unsent().1)
    }

    /// Removes all requests, in order.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (RequestId, Call)> + use<R> {
        let requests = std::mem::take(&mut self.requests).into_values();
        self.bytes = 0;
        self.turns = HashMap::default();
        requests.map(Waiting::into_unsent)
    }
}
