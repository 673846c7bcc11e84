//! The requests of the peer that await their answers.

use std::collections::{HashMap, VecDeque};

use rmcp::{ErrorData, model::RequestId};

use crate::{
    close::{CloseCode, CloseReason},
    framing::decode_error::DecodeError,
    message::Message,
    rpc_code::UNAVAILABLE,
};

/// How many requests without an id may be open.
const MAX_NAMELESS: usize = 1024;

/// How many may wait for an answer, those included which are refused.
const MAX_WAITING: usize = 4 * MAX_NAMELESS;

/// How many bytes of answers may wait for another.
const MAX_KEPT: usize = 4 << 20;

/// Each has a number here, which is never used again and which nobody else is told.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    began: i64,
    open: HashMap<i64, Open>,
    /// Those whose peer has given them an id that no other may have meanwhile.
    named: HashMap<RequestId, i64>,
    /// Those without an id are answered in this order.
    nameless: VecDeque<(i64, Option<Message>)>,
    kept: usize,
    /// Which of them the last message that was encoded answers.
    answering: Option<i64>,
}

/// What its answer depends on.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) request_id: Option<RequestId>,
    /// It asks for a tool by its bare name.
    pub(super) is_bare: bool,
}

impl Inbound {
    /// The number of a request that begins.
    pub(super) fn begin(
        &mut self,
        request_id: Option<RequestId>,
        is_bare: bool,
    ) -> Result<RequestId, DecodeError> {
        let error = match &request_id {
            Some(id) if self.named.contains_key(id) => {
                let what = "a request with this requestId is already in flight";
                Some(ErrorData::invalid_request(what, None))
            }
            None if self.nameless.len() >= MAX_NAMELESS => {
                let what = "too many requests without a requestId are in flight";
                Some(ErrorData::new(UNAVAILABLE, what, None))
            }
            _ => None,
        };
        if let Some(error) = error {
            return Err(self.refuse_request(request_id, error));
        }
        if request_id.is_none() {
            self.check()?;
        }
        let number = self.open(request_id.clone(), is_bare);
        match request_id {
            Some(id) => drop(self.named.insert(id, number)),
            None => self.nameless.push_back((number, None)),
        }
        Ok(RequestId::Number(number))
    }

    /// Refuses a message that was no request, or nobody can tell. Nothing that is open is touched.
    pub(super) fn refuse(
        &mut self,
        request_id: Option<RequestId>,
        error: ErrorData,
    ) -> DecodeError {
        let id = request_id.map(|id| RequestId::Number(self.open(Some(id), false)));
        DecodeError::Request { id, error }
    }

    /// Refuses a request, which has its place in the order if it has no id.
    pub(super) fn refuse_request(
        &mut self,
        request_id: Option<RequestId>,
        error: ErrorData,
    ) -> DecodeError {
        let is_nameless = request_id.is_none();
        if is_nameless && let Err(unacceptable) = self.check() {
            return unacceptable;
        }
        let number = self.open(request_id, false);
        if is_nameless {
            self.nameless.push_back((number, None));
        }
        DecodeError::Request { id: Some(RequestId::Number(number)), error }
    }

    /// Whether another request without an id may wait for its answer.
    fn check(&self) -> Result<(), DecodeError> {
        if self.kept <= MAX_KEPT && self.nameless.len() < MAX_WAITING {
            return Ok(());
        }
        Err(DecodeError::Unacceptable(out_of_order()))
    }

    fn open(&mut self, request_id: Option<RequestId>, is_bare: bool) -> i64 {
        let number = self.began;
        self.began += 1;
        self.open.insert(number, Open { request_id, is_bare });
        number
    }

    /// The request that is answered now; `None` if its peer awaits no answer any more.
    pub(super) fn answer(&mut self, id: &RequestId) -> Option<Open> {
        let RequestId::Number(number) = id else { return None };
        let open = self.open.get(number).cloned();
        self.answering = open.as_ref().map(|_| *number);
        open
    }

    /// Forgets a request that is not answered. One without an id keeps its place, or the next answer
    /// would be taken for its own.
    pub(super) fn forget(&mut self, id: &RequestId) -> Result<(), CloseReason> {
        let RequestId::Number(number) = id else { return Ok(()) };
        match self.open.remove(number).map(|open| open.request_id) {
            Some(Some(id)) => self.forget_name(&id, *number),
            Some(None) => return Err(out_of_order()),
            None => {}
        }
        Ok(())
    }

    /// Frees the id of the request with this number, if it has it and not another.
    fn forget_name(&mut self, id: &RequestId, number: i64) {
        if self.named.get(id) == Some(&number) {
            self.named.remove(id);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.open.len().max(self.named.len())
    }

    /// What is encoded now answers nothing.
    pub(super) fn nothing_answered(&mut self) {
        self.answering = None;
    }

    /// The peer wants no answer any more to the request that it calls so. Its number.
    pub(super) fn cancelled(&mut self, request_id: &RequestId) -> Option<RequestId> {
        let number = self.named.remove(request_id)?;
        self.open.remove(&number);
        Some(RequestId::Number(number))
    }

    /// The peer is another, and awaits none of these answers.
    pub(super) fn on_new_peer(&mut self) {
        *self = Self { began: self.began, ..Self::default() };
    }

    /// The message, if no other comes before it.
    pub(super) fn enqueue_in_order(&mut self, message: Message) -> Option<Message> {
        let Some(number) = self.answering.take() else { return Some(message) };
        let open = self.open.remove(&number);
        if let Some(id) = open.and_then(|open| open.request_id) {
            self.forget_name(&id, number);
            return Some(message);
        }
        match self.nameless.binary_search_by_key(&number, |(nameless, _)| *nameless) {
            Err(_) => Some(message),
            Ok(0) => {
                self.nameless.pop_front();
                Some(message)
            }
            Ok(place) => {
                self.kept += message.len();
                self.nameless[place].1 = Some(message);
                None
            }
        }
    }

    /// The next message that no other comes before any more.
    pub(super) fn next_in_order(&mut self) -> Option<Message> {
        let (_, message) = self.nameless.front_mut()?;
        let message = message.take()?;
        self.nameless.pop_front();
        self.kept -= message.len();
        Some(message)
    }
}

/// The reason for which a peer is closed whose answers cannot be kept in order.
fn out_of_order() -> CloseReason {
    let what = "too much waits for the answer to a request without a requestId";
    CloseReason::new(CloseCode::Policy, what)
}
