//! What was handed up and is still being handled. rmcp makes a task of each request and of each
//! notification, and keeps no count of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use futures::task::AtomicWaker;

/// The count in the upper bits, and the decoded size in the lower: two sums that change at once.
const ONE: u64 = 1 << 40;

/// Slots of one connection, one for each handler that runs.
#[derive(Debug, Default)]
pub(super) struct HandlerSlots {
    requests: AtomicU64,
    notifications: AtomicU64,
    freed: AtomicWaker,
}

impl HandlerSlots {
    /// How many requests are being handled, and their decoded size.
    pub(super) fn requests(&self) -> (usize, usize) {
        let taken = self.requests.load(SeqCst);
        ((taken / ONE) as usize, (taken % ONE) as usize)
    }

    pub(super) fn take_request(self: &Arc<Self>, decoded_size: usize) -> HandlerSlot {
        let taken = ONE + (decoded_size as u64).min(ONE / 1024);
        self.requests.fetch_add(taken, SeqCst);
        HandlerSlot { slots: Some(self.clone()), notification: false, taken }
    }

    /// Ready with a slot for a notification where fewer than `limit` are taken. Who gets none is
    /// woken when one is free.
    pub(super) fn poll_notification(
        self: &Arc<Self>,
        limit: usize,
        cx: &mut Context<'_>,
    ) -> Poll<HandlerSlot> {
        let full = || self.notifications.load(SeqCst) / ONE >= limit as u64;
        if full() {
            self.freed.register(cx.waker());
            if full() {
                return Poll::Pending;
            }
        }
        // Only the reader of the connection takes any.
        self.notifications.fetch_add(ONE, SeqCst);
        Poll::Ready(HandlerSlot { slots: Some(self.clone()), notification: true, taken: ONE })
    }
}

/// Slot of a handler, in the extensions of a request or notification. It is free again when those
/// are dropped, which is the end of the handler, unless that gives them away. A clone takes none.
#[derive(Debug, Default)]
pub(crate) struct HandlerSlot {
    slots: Option<Arc<HandlerSlots>>,
    notification: bool,
    taken: u64,
}

impl Clone for HandlerSlot {
    fn clone(&self) -> Self {
        Self { slots: None, ..*self }
    }
}

impl Drop for HandlerSlot {
    fn drop(&mut self) {
        let Some(slots) = &self.slots else { return };
        if self.notification {
            slots.notifications.fetch_sub(self.taken, SeqCst);
            slots.freed.wake();
        } else {
            slots.requests.fetch_sub(self.taken, SeqCst);
        }
    }
}
