//! Items that a writer has read for the reader.

use std::collections::VecDeque;

use crate::{link::Link, message::Message};

/// Bounds on what a writer reads, in items and in bytes; the last item may exceed the latter.
const MAX_ITEMS: usize = 256;
const MAX_BYTES: usize = 1 << 20;

/// Items that were read after a write had failed, in order.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    items: VecDeque<Link<Message>>,
    bytes: usize,
}

impl Inbox {
    pub(super) fn push(&mut self, item: Link<Message>) {
        self.bytes += size(&item);
        self.items.push_back(item);
    }

    pub(super) fn pop(&mut self) -> Option<Link<Message>> {
        let item = self.items.pop_front()?;
        self.bytes -= size(&item);
        Some(item)
    }

    pub(super) fn is_full(&self) -> bool {
        self.items.len() >= MAX_ITEMS || self.bytes >= MAX_BYTES
    }
}

fn size(item: &Link<Message>) -> usize {
    match item {
        Link::Item(message) => message.len(),
        Link::Down(_) | Link::Up(_) => 0,
    }
}
