//! Requests that wait until the peer accepts more.

use std::collections::{BTreeMap, HashMap};

use rmcp::model::{JsonRpcRequest, RequestId};
use rustc_hash::FxBuildHasher;

use super::calls::Call;
use crate::decode::{Method, Role};

/// Queue of requests that were not sent yet, in order, each removable by its id.
#[derive(Debug)]
pub(super) struct WaitingRequests<R: Role> {
    requests: BTreeMap<u64, (JsonRpcRequest<R::Req>, Method)>,
    places: HashMap<RequestId, u64, FxBuildHasher>,
    next: u64,
}

impl<R: Role> Default for WaitingRequests<R> {
    fn default() -> Self {
        Self { requests: BTreeMap::new(), places: HashMap::default(), next: 0 }
    }
}

impl<R: Role> WaitingRequests<R> {
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn contains(&self, id: &RequestId) -> bool {
        !self.is_empty() && self.places.contains_key(id)
    }

    pub(super) fn push(&mut self, request: JsonRpcRequest<R::Req>, method: Method) {
        self.places.insert(request.id.clone(), self.next);
        self.requests.insert(self.next, (request, method));
        self.next += 1;
    }

    pub(super) fn pop(&mut self) -> Option<(JsonRpcRequest<R::Req>, Method)> {
        let (_, (request, method)) = self.requests.pop_first()?;
        self.places.remove(&request.id);
        if self.is_empty() {
            // There were many, and that has passed.
            self.places = HashMap::default();
        }
        Some((request, method))
    }

    /// Removes the request with this id.
    pub(super) fn remove(&mut self, id: &RequestId) -> Option<Call> {
        if self.is_empty() {
            return None;
        }
        let (_, method) = self.requests.remove(&self.places.remove(id)?)?;
        Some(Call::unsent(method))
    }

    /// Removes all requests, in order.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (RequestId, Call)> + use<R> {
        let requests = std::mem::take(self).requests.into_values();
        requests.map(|(request, method)| (request.id, Call::unsent(method)))
    }
}
