//! Items that were read for the reader, and not taken by it yet.

use std::collections::VecDeque;

use crate::{link::LinkEvent, message::Message};

/// Bounds on what a writer reads, in items and in bytes; the last item may exceed the latter.
const MAX_ITEMS: usize = 256;
const MAX_BYTES: usize = 1 << 20;

/// Items that were read in one turn, or by a writer after a write had failed, in order.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    items: VecDeque<LinkEvent<Message>>,
    bytes: usize,
}

impl ReadAhead {
    pub(super) fn push(&mut self, item: LinkEvent<Message>) {
        self.bytes += size(&item);
        self.items.push_back(item);
    }

    pub(super) fn extend(&mut self, items: Vec<LinkEvent<Message>>) {
        self.bytes += items.iter().map(size).sum::<usize>();
        // Nearly always the queue is empty, and the memory is taken over.
        if self.items.is_empty() {
            self.items = items.into();
        } else {
            self.items.extend(items);
        }
    }

    pub(super) fn pop(&mut self) -> Option<LinkEvent<Message>> {
        let item = self.items.pop_front()?;
        self.bytes -= size(&item);
        if self.items.is_empty() {
            // Frees the memory, since most sessions are idle most of the time.
            self.items = VecDeque::new();
        }
        Some(item)
    }

    pub(super) fn is_full(&self) -> bool {
        self.items.len() >= MAX_ITEMS || self.bytes >= MAX_BYTES
    }
}

fn size(item: &LinkEvent<Message>) -> usize {
    match item {
        LinkEvent::Item(message) => message.len(),
        LinkEvent::Down(_) | LinkEvent::Up(_) => 0,
    }
}
