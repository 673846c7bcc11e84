//! [`HandlerSlots`]: counts of the handlers that still run. rmcp makes a task of each request and
//! of each notification, and keeps no count of them.

use std::{
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll},
    thread,
};

use futures::task::AtomicWaker;

/// Share of one handler in a sum of handlers (upper bits) and of their decoded size (lower ones).
/// Both change at once.
const ONE_HANDLER: u64 = 1 << 40;

/// Slots of one connection, one for each handler that runs.
#[derive(Debug, Default)]
pub(crate) struct HandlerSlots {
    requests: AtomicU64,
    notifications: AtomicU64,
    freed: AtomicWaker,
    /// Numbers of the requests whose handlers have panicked; `true` if there are any.
    panicked: Mutex<Vec<u64>>,
    has_panicked: AtomicBool,
    panic: AtomicWaker,
}

impl HandlerSlots {
    /// Returns the number of requests that are being handled, and their decoded size.
    pub(super) fn requests(&self) -> (usize, usize) {
        count_and_size(&self.requests)
    }

    /// Returns the number of notifications that are being handled, and their decoded size. The size
    /// includes those that wait.
    pub(super) fn notifications(&self) -> (usize, usize) {
        count_and_size(&self.notifications)
    }

    /// Returns the memory of what is being handled or waits for that, in bytes. Each message has
    /// extensions of this size, and so has the connection.
    #[cfg(feature = "server")]
    pub(crate) fn bytes(self: &Arc<Self>, extensions: usize) -> usize {
        // Each slot holds a reference, and so do the connection, whose extensions count too, and
        // the caller.
        let copies = Arc::strong_count(self) - 1;
        self.requests().1 + self.notifications().1 + copies * extensions
    }

    /// Returns the slot of the request with this number.
    pub(super) fn take_request(self: &Arc<Self>, number: u64, decoded_size: usize) -> HandlerSlot {
        self.take(Handles::Request(number), ONE_HANDLER + bounded(decoded_size))
    }

    /// Returns the slot of a notification that waits: it counts by its size alone until it
    /// [begins](Self::poll_begin).
    pub(super) fn take_notification(self: &Arc<Self>, decoded_size: usize) -> HandlerSlot {
        self.take(Handles::Notification, bounded(decoded_size))
    }

    fn take(self: &Arc<Self>, handles: Handles, taken: u64) -> HandlerSlot {
        self.of(handles).fetch_add(taken, SeqCst);
        HandlerSlot { slots: Some(self.clone()), handles, taken }
    }

    /// Ready when the notification with this `slot` may be handled, since fewer than `limit` are.
    /// Otherwise the reader is woken when one has ended.
    pub(super) fn poll_begin(
        &self,
        slot: &mut HandlerSlot,
        limit: usize,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let full = || self.notifications().0 >= limit;
        if full() {
            self.freed.register(cx.waker());
            if full() {
                return Poll::Pending;
            }
        }
        // No race: only the reader of the connection begins slots.
        slot.begin();
        Poll::Ready(())
    }

    /// Takes the numbers of the requests whose handlers have panicked. The reader is woken when
    /// there are more.
    pub(super) fn poll_panicked(&self, cx: &mut Context<'_>) -> Poll<Vec<u64>> {
        self.panic.register(cx.waker());
        if !self.has_panicked.swap(false, SeqCst) {
            return Poll::Pending;
        }
        let mut panicked = self.panicked.lock().unwrap_or_else(PoisonError::into_inner);
        Poll::Ready(mem::take(&mut panicked))
    }

    fn note_panicked(&self, request: u64) {
        self.panicked.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        self.has_panicked.store(true, SeqCst);
        self.panic.wake();
    }

    fn of(&self, handles: Handles) -> &AtomicU64 {
        match handles {
            Handles::Request(_) => &self.requests,
            Handles::Notification => &self.notifications,
        }
    }
}

fn count_and_size(taken: &AtomicU64) -> (usize, usize) {
    let taken = taken.load(SeqCst);
    ((taken / ONE_HANDLER) as usize, (taken % ONE_HANDLER) as usize)
}

fn bounded(decoded_size: usize) -> u64 {
    (decoded_size as u64).min(ONE_HANDLER / 1024)
}

/// Kind of message that a handler handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handles {
    /// The request with this number.
    Request(u64),
    Notification,
}

/// Slot of a handler, in the extensions of a request or notification. It is free again when those
/// are dropped, which is the end of the handler, unless that gives them away. A clone takes none.
/// One that is dropped by a panic tells the request whose handler it was.
#[derive(Debug)]
pub(crate) struct HandlerSlot {
    slots: Option<Arc<HandlerSlots>>,
    handles: Handles,
    taken: u64,
}

impl Default for HandlerSlot {
    /// Creates the slot of no handler.
    fn default() -> Self {
        Self { slots: None, handles: Handles::Notification, taken: 0 }
    }
}

impl HandlerSlot {
    /// Counts a notification as one that is being handled.
    pub(super) fn begin(&mut self) {
        if let Some(slots) = &self.slots {
            slots.of(self.handles).fetch_add(ONE_HANDLER, SeqCst);
            self.taken += ONE_HANDLER;
        }
    }
}

impl Clone for HandlerSlot {
    fn clone(&self) -> Self {
        Self { slots: None, ..*self }
    }
}

impl Drop for HandlerSlot {
    fn drop(&mut self) {
        let Some(slots) = &self.slots else { return };
        slots.of(self.handles).fetch_sub(self.taken, SeqCst);
        match self.handles {
            Handles::Notification => slots.freed.wake(),
            Handles::Request(number) if thread::panicking() => slots.note_panicked(number),
            Handles::Request(_) => {}
        }
    }
}
