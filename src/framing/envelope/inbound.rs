//! The requests of the peer that await their answers.

use std::collections::{HashMap, VecDeque};

use rmcp::{ErrorData, model::RequestId};

use crate::{framing::Unreadable, message::Message};

/// How many requests without an id may be open.
const MAX_NAMELESS: usize = 1024;

/// How many bytes of answers may wait for another.
const MAX_KEPT: usize = 4 << 20;

#[derive(Debug, Default)]
pub(super) struct Inbound {
    /// Whether each asks for a tool by its bare name.
    open: HashMap<RequestId, bool>,
    /// Those without an id have one that is not told to anybody. They are answered in this order.
    nameless: VecDeque<(RequestId, Option<Message>)>,
    began: u64,
    kept: usize,
    /// The id belongs to another that is in flight, and the next error is for its double.
    doubled: Option<RequestId>,
    /// Which of the nameless the last message that was encoded answers.
    turn: Option<RequestId>,
}

impl Inbound {
    /// The id for a request that begins; `None` where there are too many without one.
    pub(super) fn begin(
        &mut self,
        id: Option<RequestId>,
        is_bare: bool,
    ) -> Result<Option<RequestId>, Unreadable> {
        let id = match id {
            Some(id) if self.open.contains_key(&id) => {
                self.doubled = Some(id.clone());
                let what = "a request with this requestId is already in flight";
                let error = ErrorData::invalid_request(what, None);
                return Err(Unreadable::Request { id: Some(id), error });
            }
            Some(id) => id,
            None if self.nameless.len() >= MAX_NAMELESS || self.kept > MAX_KEPT => {
                return Ok(None);
            }
            None => {
                let id = RequestId::String(format!("\u{2033}{}", self.began).into());
                self.began += 1;
                self.nameless.push_back((id.clone(), None));
                id
            }
        };
        self.open.insert(id.clone(), is_bare);
        Ok(Some(id))
    }

    /// A request has its result: whether it asked for a tool by its bare name, and the id to return.
    pub(super) fn answered(&mut self, id: &RequestId) -> (bool, Option<RequestId>) {
        (self.open.remove(id).unwrap_or(false), self.outward(id))
    }

    /// A request has an error: the id to return.
    pub(super) fn failed(&mut self, id: &RequestId) -> Option<RequestId> {
        if self.doubled.take_if(|doubled| doubled == id).is_none() {
            self.open.remove(id);
        }
        self.outward(id)
    }

    /// The peer is another, and awaits none of these answers. Ids are not used again.
    pub(super) fn restart(&mut self) {
        *self = Self { began: self.began, ..Self::default() };
    }

    /// The peer wants no answer any more.
    pub(super) fn cancelled(&mut self, id: &RequestId) {
        self.open.remove(id);
    }

    fn outward(&mut self, id: &RequestId) -> Option<RequestId> {
        if self.nameless.iter().any(|(nameless, _)| nameless == id) {
            self.turn = Some(id.clone());
            return None;
        }
        Some(id.clone())
    }

    /// The message, if no other comes before it.
    pub(super) fn in_turn(&mut self, message: Message) -> Option<Message> {
        let Some(turn) = self.turn.take() else { return Some(message) };
        match self.nameless.iter().position(|(id, _)| *id == turn) {
            None => Some(message),
            Some(0) => {
                self.nameless.pop_front();
                Some(message)
            }
            Some(place) => {
                self.kept += message.len();
                self.nameless[place].1 = Some(message);
                None
            }
        }
    }

    /// The next message that no other comes before any more.
    pub(super) fn next_in_turn(&mut self) -> Option<Message> {
        let (_, message) = self.nameless.front_mut()?;
        let message = message.take()?;
        self.nameless.pop_front();
        self.kept -= message.len();
        Some(message)
    }
}
