//! Messages read before their reader asked for them, in order and bounded, without I/O.

use std::{collections::VecDeque, mem};

use bytes::Bytes;

use crate::{
    link::LinkEvent,
    message::{Message, Text},
};

/// Bound on uncounted messages, in bytes, beyond which a peer with a full window is closed. A peer
/// that stops at its own window, of 1 MiB and one message, has fewer in flight.
pub(super) const MAX_UNCOUNTED: usize = 4 << 20;

/// Bound on queued messages, in bytes, up to which the side that dialled counts what arrives.
const MAX_COUNTED: usize = 16 << 20;

/// Memory of an item besides its payload, in bytes. That is its slot, the spare slots that a queue
/// may have, and the allocator's overhead.
pub(super) const OVERHEAD: usize = 128;

/// Size below which a payload is copied out of the socket's read buffer. Otherwise a message of two
/// bytes could keep a buffer of 8 KiB alive, which a peer could fill with pings.
const COPIED: usize = 8 << 10;

/// Number of queue slots that are kept allocated.
const SPARE_SLOTS: usize = 64;

/// Items that were read while nothing could be written.
///
/// Counted items come first: a message is counted here only if none before it is uncounted.
#[derive(Debug, Default)]
pub(super) struct ReadQueue {
    items: VecDeque<Queued>,
    bytes: usize,
    uncounted_bytes: usize,
}

/// Item that waits; `is_uncounted` if its reader still has to count it.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) item: LinkEvent<Message>,
    pub(super) is_uncounted: bool,
}

impl Queued {
    /// Returns the memory that the item takes, in bytes.
    fn cost(&self) -> usize {
        match &self.item {
            LinkEvent::Item(message) => message.len() + OVERHEAD,
            LinkEvent::Down(_) | LinkEvent::Up(_) => OVERHEAD,
        }
    }
}

impl ReadQueue {
    /// Adds an item that is counted, or has no number.
    pub(super) fn push_counted(&mut self, item: LinkEvent<Message>) {
        self.push(Queued { item, is_uncounted: false });
    }

    /// Adds a message that its reader will count.
    pub(super) fn push_uncounted(&mut self, item: LinkEvent<Message>) {
        let queued = Queued { item, is_uncounted: true };
        self.uncounted_bytes += queued.cost();
        self.push(queued);
    }

    fn push(&mut self, mut queued: Queued) {
        self.bytes += queued.cost();
        if let LinkEvent::Item(message) = &mut queued.item {
            detach(message);
        }
        if self.items.len() == self.items.capacity() {
            self.items.reserve_exact(SPARE_SLOTS.max(self.items.len() / 4));
        }
        self.items.push_back(queued);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Removes the first item.
    pub(super) fn pop(&mut self) -> Option<Queued> {
        let queued = self.items.pop_front()?;
        let cost = queued.cost();
        self.bytes -= cost;
        self.uncounted_bytes -= if queued.is_uncounted { cost } else { 0 };
        if self.items.is_empty() && self.items.capacity() > SPARE_SLOTS {
            self.items = VecDeque::new();
        }
        Some(queued)
    }

    /// Returns the memory that the items take, in bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns `true` if more uncounted bytes wait than any window has room for.
    pub(super) fn is_beyond_any_window(&self) -> bool {
        self.uncounted_bytes >= MAX_UNCOUNTED
    }

    /// Returns `true` if the next message may be counted before its reader takes it.
    pub(super) fn has_credit(&self) -> bool {
        self.uncounted_bytes == 0 && self.bytes < MAX_COUNTED
    }

    /// Drops the uncounted items, which the peer sends again.
    pub(super) fn forget_uncounted(&mut self) {
        if self.uncounted_bytes > 0 {
            self.items.retain(|queued| !queued.is_uncounted);
            self.bytes -= mem::take(&mut self.uncounted_bytes);
        }
    }

    /// Marks all items as not to be counted, since their session is over; they are still delivered.
    pub(super) fn never_count(&mut self) {
        self.uncounted_bytes = 0;
        self.items.iter_mut().for_each(|queued| queued.is_uncounted = false);
    }
}

/// Copies a small payload into memory of its own.
fn detach(message: &mut Message) {
    let own = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    match message {
        Message::Text(text) if text.as_bytes().len() < COPIED => {
            *text = Text::from_validated(own(text.as_bytes()));
        }
        Message::Binary(bytes) if bytes.len() < COPIED => *bytes = own(bytes),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_takes_no_more_than_it_is_charged() {
        let place = size_of::<Queued>() * 5 / 4;
        let allocation = 32;
        assert!(place + allocation <= OVERHEAD, "{place} + {allocation}");
        let mut queue = ReadQueue::default();
        (0..100_000).for_each(|_| queue.push_counted(LinkEvent::Item(Message::text("{}"))));
        let places = queue.items.capacity() * size_of::<Queued>();
        assert!(places + 100_000 * allocation <= queue.bytes, "{places}, {}", queue.bytes);
    }

    #[test]
    fn a_small_message_does_not_keep_the_buffer_it_was_read_into() {
        let buffer = Bytes::from(vec![b'x'; 2 * COPIED]);
        let (small, large) = (buffer.slice(..2), buffer.slice(2..2 + COPIED));
        let mut queue = ReadQueue::default();
        queue.push_counted(LinkEvent::Item(Message::Binary(small.clone())));
        queue.push_uncounted(LinkEvent::Item(Message::Text(Text::from_validated(small.clone()))));
        queue.push_uncounted(LinkEvent::Item(Message::Binary(large.clone())));
        for (bytes, shared) in [(&small, false), (&small, false), (&large, true)] {
            let queued = queue.pop().unwrap();
            let kept = match queued.item {
                LinkEvent::Item(Message::Binary(bytes)) => bytes,
                LinkEvent::Item(Message::Text(text)) => text.into(),
                other => panic!("{other:?}"),
            };
            assert_eq!((&kept, kept.as_ptr() == bytes.as_ptr()), (bytes, shared));
        }
        assert_eq!((queue.bytes, queue.uncounted_bytes), (0, 0));
    }
}
