//! [`Outbound`]: what one end of a pipe sends, as numbered parts, within its credit.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    super::part::{Part, PartKind},
    bounds::{Bounds, PART_COST},
    error::PipeError,
};
use crate::{close::CloseReason, message::Message};

/// Messages to be sent, and the numbers of their parts. Without I/O.
#[derive(Debug)]
pub(super) struct Outbound {
    bounds: Bounds,
    messages: VecDeque<Message>,
    /// Size of all of them, each counted with the cost of a part.
    bytes: usize,
    /// Bytes of the first message that were sent.
    offset: usize,
    /// Number of the last part that was made.
    number: u64,
    /// Cost of the parts so far.
    sent: u64,
    /// Cost of the parts that the peer has read.
    read: u64,
    close: CloseState,
}

/// Close of this end.
///
/// | from | to | when |
/// |---|---|---|
/// | `None` | `Queued` | this end closes; it sends no more messages |
/// | `Queued` | `Sent` | the part is made |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CloseState {
    None,
    Queued,
    Sent,
}

impl Outbound {
    /// Creates the sender with the number of the last part that was sent.
    pub(super) fn new(bounds: Bounds, number: u64) -> Self {
        Self {
            bounds,
            messages: VecDeque::new(),
            bytes: 0,
            offset: 0,
            number,
            sent: 0,
            read: 0,
            close: CloseState::None,
        }
    }

    /// Returns `true` if another message may be queued.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < self.bounds.queue
    }

    /// Returns `true` if nothing waits to be sent.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Returns `true` if this end has closed.
    pub(super) fn is_closed(&self) -> bool {
        self.close != CloseState::None
    }

    /// Returns `true` if the Close was sent, so that the peer knows of the end.
    pub(super) fn has_sent_close(&self) -> bool {
        self.close == CloseState::Sent
    }

    /// Returns the number of the last part.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Queues a message. Nothing is queued behind a Close.
    pub(super) fn push(&mut self, message: Message) {
        if self.is_closed() {
            return;
        }
        if matches!(message, Message::Close(_)) {
            self.close = CloseState::Queued;
        }
        self.bytes += message.len() + PART_COST as usize;
        self.messages.push_back(message);
    }

    /// Records what the peer has read so far.
    ///
    /// # Errors
    /// [`PipeError::Credit`] when that is less than before, or more than was sent.
    pub(super) fn set_read(&mut self, read: u64) -> Result<(), PipeError> {
        if !(self.read..=self.sent).contains(&read) {
            return Err(PipeError::Credit);
        }
        self.read = read;
        Ok(())
    }

    /// Returns the part that says how much was `read` here so far.
    pub(super) fn credit(&mut self, read: u64) -> Bytes {
        self.part(PartKind::Credit, &read.to_be_bytes())
    }

    /// Returns the next part of the messages, if there is one and the credit is enough for it.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        let (kind, bytes) = match self.messages.front()? {
            Message::Text(text) => (PartKind::Text, Bytes::from(text.clone())),
            Message::Binary(bytes) => (PartKind::Binary, bytes.clone()),
            Message::Ping(bytes) => (PartKind::Ping, bytes.clone()),
            Message::Pong(bytes) => (PartKind::Pong, bytes.clone()),
            Message::Close(reason) => {
                let reason = reason.clone();
                return Some(self.close_with(reason));
            }
        };
        let end = bytes.len().min(self.offset + self.bounds.part);
        let cost = (end - self.offset) as u64 + PART_COST;
        if self.sent - self.read + cost > self.bounds.credit {
            return None;
        }
        self.sent += cost;
        let payload = bytes.slice(self.offset..end);
        if end < bytes.len() {
            self.offset = end;
            return Some(self.part(PartKind::More, &payload));
        }
        self.pop();
        Some(self.part(kind, &payload))
    }

    /// Returns the part that closes at once, whatever waits: with the reason of the Close that is
    /// queued, else with this one.
    pub(super) fn close_now(&mut self, reason: CloseReason) -> Bytes {
        let queued = self.messages.drain(..).find_map(|message| match message {
            Message::Close(reason) => Some(reason),
            _ => None,
        });
        self.close_with(queued.unwrap_or(Some(reason)))
    }

    fn close_with(&mut self, reason: Option<CloseReason>) -> Bytes {
        self.messages.clear();
        self.bytes = 0;
        self.close = CloseState::Sent;
        let payload = reason.map_or_else(Vec::new, |reason| {
            let code = u16::from(reason.code).to_be_bytes();
            [&code, reason.wire_reason().as_bytes()].concat()
        });
        self.part(PartKind::Close, &payload)
    }

    fn pop(&mut self) {
        self.offset = 0;
        if let Some(message) = self.messages.pop_front() {
            self.bytes -= message.len() + PART_COST as usize;
        }
    }

    fn part(&mut self, kind: PartKind, payload: &[u8]) -> Bytes {
        self.number += 1;
        Part::encode(kind, self.number, payload)
    }
}
