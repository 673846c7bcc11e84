//! Requests in flight in both directions, and the order of responses without an id.

use std::collections::{HashMap, VecDeque};

use rmcp::{ErrorData, model::RequestId};

use crate::{
    close::{CloseCode, CloseReason},
    decode::PendingMethods,
    framing::{decode_error::DecodeError, json::own_id},
    message::Message,
    rpc_code::UNAVAILABLE,
};

/// Most requests without an id that may be in flight.
const MAX_WITHOUT_ID: usize = 1024;

/// Most requests without an id that may await their response, refused ones included.
const MAX_AWAITING: usize = 4 * MAX_WITHOUT_ID;

/// Most bytes of responses that may wait for an earlier one.
const MAX_WAITING_BYTES: usize = 4 << 20;

/// Requests of this side, in order, for a peer that does not return their ids.
#[derive(Debug, Default)]
pub(super) struct OwnRequests {
    /// Requests sent, unless the peer returns ids.
    sent: VecDeque<RequestId>,
    /// The request that was encoded last, if it has not been sent.
    encoded: Option<RequestId>,
    /// `true` if the peer has returned an id.
    returns_ids: bool,
}

/// The request of this side that a message answers.
pub(super) enum Answered {
    Request(RequestId),
    /// A request that is no longer in flight.
    Late,
    /// An unknown request: it may be any of those in flight, or none.
    Unknown,
}

impl OwnRequests {
    /// Records that a message was encoded, with its id if it is a request.
    pub(super) fn on_encoded(&mut self, id: Option<&RequestId>) {
        self.encoded = id.cloned();
    }

    /// Records that the message which was encoded last is sent.
    pub(super) fn on_sent(&mut self) {
        self.sent.extend(self.encoded.take().filter(|_| !self.returns_ids));
    }

    pub(super) fn on_withdrawn(&mut self, id: &RequestId) {
        self.sent.retain(|sent| sent != id);
    }

    pub(super) fn on_resent(&mut self, id: &RequestId) {
        if !self.returns_ids {
            // The request is behind all that has been encoded since, and may not have been sent.
            self.sent.retain(|sent| sent != id);
            self.sent.push_back(id.clone());
        }
    }

    pub(super) fn on_new_peer(&mut self, calls: &dyn PendingMethods) {
        self.returns_ids = false;
        // The new peer does not answer requests that only the former one was sent.
        self.sent.retain(|id| calls.method(id).is_some());
    }

    /// Returns the request that a response with this id answers.
    pub(super) fn answered(
        &mut self,
        request_id: Option<RequestId>,
        calls: &dyn PendingMethods,
    ) -> Answered {
        let Some(id) = request_id else {
            return match self.sent.pop_front() {
                Some(id) if calls.method(&id).is_some() => Answered::Request(id),
                Some(_) => Answered::Late,
                None => Answered::Unknown,
            };
        };
        self.returns_ids = true;
        self.sent.clear();
        Answered::Request(own_id(id, calls))
    }
}

/// Requests of the peer that await their responses.
///
/// Each is known to the layers above by a number of its own, which is never used again.
#[derive(Debug, Default)]
pub(super) struct PeerRequests {
    /// The next number.
    next: i64,
    open: HashMap<i64, PeerRequest>,
    /// The numbers of requests in flight, by the ids that the peer has given them.
    by_id: HashMap<RequestId, i64>,
    /// Requests without an id in their order, each with its response if that waits for others.
    without_id: VecDeque<(i64, Option<Message>)>,
    waiting_bytes: usize,
    /// The request that the message encoded last answers.
    answering: Option<i64>,
}

/// A request of the peer that awaits its response.
#[derive(Debug, Clone)]
pub(super) struct PeerRequest {
    pub(super) request_id: Option<RequestId>,
    /// `true` if it calls a tool by its bare name.
    pub(super) is_bare: bool,
}

impl PeerRequests {
    /// Adds a request and returns its number.
    ///
    /// # Errors
    /// The id is in flight already, or too many requests without one are.
    pub(super) fn begin(
        &mut self,
        request_id: Option<RequestId>,
        is_bare: bool,
    ) -> Result<RequestId, DecodeError> {
        let error = match &request_id {
            Some(id) if self.by_id.contains_key(id) => {
                let what = "a request with this requestId is already in flight";
                Some(ErrorData::invalid_request(what, None))
            }
            None if self.without_id.len() >= MAX_WITHOUT_ID => {
                let what = "too many requests without a requestId are in flight";
                Some(ErrorData::new(UNAVAILABLE, what, None))
            }
            _ => None,
        };
        if let Some(error) = error {
            return Err(self.refuse_request(request_id, error));
        }
        if request_id.is_none() {
            self.check_order()?;
        }
        let number = self.open(request_id.clone(), is_bare);
        match request_id {
            Some(id) => drop(self.by_id.insert(id, number)),
            None => self.without_id.push_back((number, None)),
        }
        Ok(RequestId::Number(number))
    }

    /// Refuses a message that may be no request. Requests in flight are left alone.
    pub(super) fn refuse(
        &mut self,
        request_id: Option<RequestId>,
        error: ErrorData,
    ) -> DecodeError {
        let id = request_id.map(|id| RequestId::Number(self.open(Some(id), false)));
        DecodeError::Request { id, error }
    }

    /// Refuses a request. Without an id it has its place in the order of responses.
    pub(super) fn refuse_request(
        &mut self,
        request_id: Option<RequestId>,
        error: ErrorData,
    ) -> DecodeError {
        let has_no_id = request_id.is_none();
        if has_no_id && let Err(unacceptable) = self.check_order() {
            return unacceptable;
        }
        let number = self.open(request_id, false);
        if has_no_id {
            self.without_id.push_back((number, None));
        }
        DecodeError::Request { id: Some(RequestId::Number(number)), error }
    }

    /// Fails if no other request without an id may await its response.
    fn check_order(&self) -> Result<(), DecodeError> {
        if self.waiting_bytes <= MAX_WAITING_BYTES && self.without_id.len() < MAX_AWAITING {
            return Ok(());
        }
        Err(DecodeError::Unacceptable(out_of_order()))
    }

    fn open(&mut self, request_id: Option<RequestId>, is_bare: bool) -> i64 {
        let number = self.next;
        self.next += 1;
        self.open.insert(number, PeerRequest { request_id, is_bare });
        number
    }

    /// Returns the request with this number, which is answered now. `None` if its peer no longer
    /// awaits a response.
    pub(super) fn answer(&mut self, id: &RequestId) -> Option<PeerRequest> {
        let RequestId::Number(number) = id else { return None };
        let open = self.open.get(number).cloned();
        self.answering = open.as_ref().map(|_| *number);
        open
    }

    /// Removes a request that is not answered.
    ///
    /// # Errors
    /// The reason to close, if the request has no id: the next response would be taken for its own.
    pub(super) fn on_unanswered(&mut self, id: &RequestId) -> Result<(), CloseReason> {
        let RequestId::Number(number) = id else { return Ok(()) };
        match self.open.remove(number).map(|open| open.request_id) {
            Some(Some(id)) => self.free_id(&id, *number),
            Some(None) => return Err(out_of_order()),
            None => {}
        }
        Ok(())
    }

    /// Frees `id`, if it is that of the request with this number.
    fn free_id(&mut self, id: &RequestId, number: i64) {
        if self.by_id.get(id) == Some(&number) {
            self.by_id.remove(id);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.open.len().max(self.by_id.len())
    }

    /// Records that the message encoded now answers no request, until [`answer`](Self::answer) says
    /// otherwise.
    pub(super) fn on_encoding(&mut self) {
        self.answering = None;
    }

    /// Removes the request with this id, which the peer has cancelled. Returns its number.
    pub(super) fn cancel(&mut self, request_id: &RequestId) -> Option<RequestId> {
        let number = self.by_id.remove(request_id)?;
        self.open.remove(&number);
        Some(RequestId::Number(number))
    }

    /// Removes all requests: a new peer awaits no response to them.
    pub(super) fn on_new_peer(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }

    /// Returns `message`, which was encoded last, unless it waits for earlier responses.
    pub(super) fn enqueue_in_order(&mut self, message: Message) -> Option<Message> {
        let Some(number) = self.answering.take() else { return Some(message) };
        let open = self.open.remove(&number);
        if let Some(id) = open.and_then(|open| open.request_id) {
            self.free_id(&id, number);
            return Some(message);
        }
        match self.without_id.binary_search_by_key(&number, |(number, _)| *number) {
            Err(_) => Some(message),
            Ok(0) => {
                self.without_id.pop_front();
                Some(message)
            }
            Ok(at) => {
                self.waiting_bytes += message.len();
                self.without_id[at].1 = Some(message);
                None
            }
        }
    }

    /// Returns the next response that no longer waits for others.
    pub(super) fn next_in_order(&mut self) -> Option<Message> {
        let (_, message) = self.without_id.front_mut()?;
        let message = message.take()?;
        self.without_id.pop_front();
        self.waiting_bytes -= message.len();
        Some(message)
    }
}

/// Returns the reason of a Close for responses that cannot be kept in order.
fn out_of_order() -> CloseReason {
    let what = "too much waits for the answer to a request without a requestId";
    CloseReason::new(CloseCode::Policy, what)
}
