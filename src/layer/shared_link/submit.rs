//! What is offered to a link by those who must not wait for it.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use super::TrySendError;
use crate::message::Message;

/// Messages on their way to the queue, behind a lock that is never held for longer than it takes to
/// add one.
#[derive(Debug, Default)]
pub(super) struct SubmitQueue {
    offered: Mutex<VecDeque<Message>>,
    /// The size of all that is offered, and whether there is any.
    bytes: AtomicUsize,
    waiting: AtomicBool,
    /// The size of what is in the queue.
    queued_bytes: AtomicUsize,
    closed: AtomicBool,
}

impl SubmitQueue {
    /// Adds `message`, unless `limit` bytes are waiting already, here or in the queue.
    pub(super) fn put(&self, message: Message, limit: usize) -> Result<(), TrySendError> {
        if self.closed.load(SeqCst) {
            return Err(TrySendError::Closed);
        }
        let mut offered = self.lock();
        if self.bytes.load(SeqCst) + self.queued_bytes.load(SeqCst) >= limit {
            return Err(TrySendError::Full);
        }
        self.bytes.fetch_add(message.len(), SeqCst);
        offered.push_back(message);
        self.waiting.store(true, SeqCst);
        Ok(())
    }

    /// Whether anything was offered since it was last taken.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.load(SeqCst)
    }

    /// All that was offered since the last time.
    pub(super) fn take(&self) -> VecDeque<Message> {
        let mut offered = self.lock();
        self.waiting.store(false, SeqCst);
        self.bytes.store(0, SeqCst);
        mem::take(&mut *offered)
    }

    /// Says what is in the queue.
    pub(super) fn note_queued(&self, bytes: usize) {
        self.queued_bytes.store(bytes, SeqCst);
    }

    /// The size of all that is offered or queued.
    #[cfg(feature = "server")]
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(SeqCst) + self.queued_bytes.load(SeqCst)
    }

    /// Takes nothing more.
    pub(super) fn close(&self) {
        self.closed.store(true, SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Message>> {
        self.offered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
