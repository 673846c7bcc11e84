//! [`Inbound`]: what one end of a pipe receives: the next part and no other, within its credit.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    super::part::{Part, PartKind},
    bounds::{Bounds, PART_COST},
    error::PipeError,
};
use crate::{
    close::CloseReason,
    message::{Message, Text},
};

/// Size from which on a payload is kept in the buffer that it came in, in bytes.
const LARGE: usize = 8 << 10;

/// Parts that have arrived and wait for their reader, in order. Without I/O.
#[derive(Debug)]
pub(super) struct Inbound {
    bounds: Bounds,
    parts: VecDeque<(PartKind, Bytes)>,
    /// Parts of a message whose last one has not been read.
    message: Vec<u8>,
    /// Number of the last part that has arrived.
    number: u64,
    /// Cost of the parts that have arrived so far.
    arrived: u64,
    /// Cost of the parts that were read.
    read: u64,
    /// Cost of the parts that the peer was last told to be read.
    credited: u64,
    is_closed: bool,
}

impl Inbound {
    /// Creates the receiver with the number of the last part that has arrived.
    pub(super) fn new(bounds: Bounds, number: u64) -> Self {
        Self {
            bounds,
            parts: VecDeque::new(),
            message: Vec::new(),
            number,
            arrived: 0,
            read: 0,
            credited: 0,
            is_closed: false,
        }
    }

    /// Returns `true` if a Close has arrived, so that nothing follows.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Takes a part in. Returns the credit that it grants, if it grants any.
    ///
    /// # Errors
    /// [`PipeError`] when it is not the next one, or more than the credit.
    pub(super) fn accept(&mut self, part: Part) -> Result<Option<u64>, PipeError> {
        if self.is_closed {
            return Ok(None);
        }
        // A heartbeat may come behind parts that were sent after it.
        if part.kind == PartKind::Heartbeat {
            return if part.number <= self.number { Ok(None) } else { Err(PipeError::Gap) };
        }
        if Some(part.number) != self.number.checked_add(1) {
            return Err(PipeError::Gap);
        }
        self.number = part.number;
        match part.kind {
            PartKind::Credit => {
                let read = part.payload.first_chunk().copied().map(u64::from_be_bytes);
                return read.map(Some).ok_or(PipeError::Malformed);
            }
            PartKind::Go => return Err(PipeError::Malformed),
            PartKind::Close => self.is_closed = true,
            _ => {
                self.arrived += cost(&part.payload);
                if self.arrived - self.read > self.bounds.credit {
                    return Err(PipeError::Credit);
                }
            }
        }
        self.parts.push_back((part.kind, unshared(part.payload)));
        Ok(None)
    }

    /// Returns the next message that is whole.
    ///
    /// # Errors
    /// [`PipeError`] when it is larger than may be, or its text is not UTF-8. Nothing follows.
    pub(super) fn pop(&mut self) -> Result<Option<Message>, PipeError> {
        let popped = self.pop_whole();
        if popped.is_err() {
            self.parts.clear();
        }
        popped
    }

    fn pop_whole(&mut self) -> Result<Option<Message>, PipeError> {
        while let Some((kind, payload)) = self.parts.pop_front() {
            if kind == PartKind::Close {
                return Ok(Some(Message::Close(close_reason(&payload))));
            }
            self.read += cost(&payload);
            if self.message.len() + payload.len() > self.bounds.message {
                return Err(PipeError::TooLarge);
            }
            match kind {
                PartKind::More => self.message.extend_from_slice(&payload),
                PartKind::Text => {
                    let text = Text::try_from(self.whole(payload));
                    return text
                        .map(|text| Some(Message::Text(text)))
                        .map_err(|_| PipeError::Malformed);
                }
                PartKind::Binary => return Ok(Some(Message::Binary(self.whole(payload)))),
                // Nothing comes between the parts of a message.
                _ if !self.message.is_empty() => return Err(PipeError::Malformed),
                PartKind::Ping => return Ok(Some(Message::Ping(payload))),
                _ => return Ok(Some(Message::Pong(payload))),
            }
        }
        Ok(None)
    }

    /// Returns what was read so far, if it is time that the peer is told of it.
    pub(super) fn due_credit(&mut self) -> Option<u64> {
        if self.read - self.credited < self.bounds.credit / 4 {
            return None;
        }
        self.credited = self.read;
        Some(self.read)
    }

    /// Returns the whole message whose last part is `rest`.
    fn whole(&mut self, rest: Bytes) -> Bytes {
        if self.message.is_empty() {
            return rest;
        }
        let mut message = std::mem::take(&mut self.message);
        message.extend_from_slice(&rest);
        message.into()
    }
}

/// Returns the payload in memory of its own where it is small: as a slice it would keep the whole
/// buffer that the bus has read it into.
fn unshared(payload: Bytes) -> Bytes {
    if payload.len() < LARGE { Bytes::copy_from_slice(&payload) } else { payload }
}

fn cost(payload: &Bytes) -> u64 {
    payload.len() as u64 + PART_COST
}

fn close_reason(payload: &Bytes) -> Option<CloseReason> {
    let (code, reason) = payload.split_first_chunk()?;
    let code = u16::from_be_bytes(*code);
    Some(CloseReason::new(code.into(), String::from_utf8_lossy(reason)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_part_does_not_keep_the_buffer_that_it_came_in() {
        let bounds = Bounds::new(1 << 20, 1 << 20);
        for (size, keeps) in [(0, false), (100, false), (LARGE - 1, false), (LARGE, true)] {
            let mut inbound = Inbound::new(bounds, 0);
            let read = Bytes::from(vec![b'x'; 64 << 10]);
            let part = Part { kind: PartKind::Text, number: 1, payload: read.slice(9..9 + size) };
            inbound.accept(part).unwrap();
            assert_eq!(read.is_unique(), !keeps, "{size}");
            let message = inbound.pop().unwrap().unwrap();
            assert_eq!(message, Message::text("x".repeat(size)));
        }
    }
}
