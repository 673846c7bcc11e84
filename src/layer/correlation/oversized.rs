//! [`ReadProgress`]: messages read by the peer, and the one that was too large for it. That matters
//! for a peer which closes with 1009 without having announced its limit.
//!
//! A peer reads in order, up to the first message that is too large. Of the messages that it may
//! not have read, that one is the largest, or was sent before the largest. So the peer has read
//! neither the largest nor any that was sent after it.

use std::cmp::Reverse;

use rmcp::model::RequestId;

use super::pending::{Call, PendingCalls};
use crate::{decode::method::Method, link::MessageLimits};

/// Record of what the present peer is known to have read.
#[derive(Debug, Default)]
pub(super) struct ReadProgress {
    /// Number of the last message that was certainly read, as were all before it.
    read: u64,
    /// Size of the largest of them, in bytes, as far as known.
    passed: usize,
    /// Number and size of the largest message sent after `read` that is no request in flight.
    other: Option<(u64, usize)>,
}

impl ReadProgress {
    /// Records that the peer has answered `call`.
    pub(super) fn note_answered(&mut self, call: &Call) {
        self.read = self.read.max(call.seq);
        self.passed = self.passed.max(call.size);
        if let Some((seq, size)) = self.other
            && seq <= self.read
        {
            self.passed = self.passed.max(size);
            self.other = None;
        }
    }

    /// Records a message that was sent, and is not a request in flight.
    pub(super) fn note_sent(&mut self, seq: u64, size: usize) {
        if seq > self.read && size > self.passed && self.other.is_none_or(|(_, other)| size > other)
        {
            self.other = Some((seq, size));
        }
    }

    /// Returns the size of the largest message that was certainly read.
    pub(super) fn passed(&self) -> usize {
        self.passed
    }

    /// Finds the message that was too large among those `handed` to the connection. Some of them
    /// are requests still `pending`.
    pub(super) fn find_too_large(&self, pending: &PendingCalls, handed: u64) -> Option<TooLarge> {
        let Self { read, passed, other } = *self;
        let before = pending.iter().filter(|(_, call)| call.seq <= read);
        let passed = before.map(|(_, call)| call.size).fold(passed, usize::max);
        let passed = passed.max(MessageLimits::MIN_MESSAGE);
        let unread = |call: &Call| call.seq <= handed && call.seq > read;
        let largest = pending
            .iter()
            .filter(|(_, call)| unread(call) && call.size > passed)
            .max_by_key(|(_, call)| (call.size, Reverse(call.seq)));
        let other = other.filter(|(seq, size)| {
            let is_largest = largest.is_none_or(|(_, call)| *size > call.size);
            *seq <= handed && *size > passed && is_largest
        });
        if let Some((seq, size)) = other {
            return Some(TooLarge { seq, size, request: None });
        }
        let (id, call) = largest?;
        let request = Some((id.clone(), call.method));
        Some(TooLarge { seq: call.seq, size: call.size, request })
    }
}

/// Message that a peer has closed its connection for.
#[derive(Debug)]
pub(super) struct TooLarge {
    /// Number of the message in the order of all that was queued.
    pub(super) seq: u64,
    /// Size of the message, in bytes.
    pub(super) size: usize,
    /// Request that it is; `None` if it is another message, or one that has ended.
    pub(super) request: Option<(RequestId, Method)>,
}
