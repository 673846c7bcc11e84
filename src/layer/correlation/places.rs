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

/// How many there are is in the upper bits, their weight in the lower: two sums that change at once.
const ONE: u64 = 1 << 40;

/// The places of one connection.
#[derive(Debug, Default)]
pub(super) struct Places {
    requests: AtomicU64,
    notifications: AtomicU64,
    freed: AtomicWaker,
}

impl Places {
    /// How many requests are being handled, and their weight.
    pub(super) fn requests(&self) -> (usize, usize) {
        let taken = self.requests.load(SeqCst);
        ((taken / ONE) as usize, (taken % ONE) as usize)
    }

    pub(super) fn take_request(self: &Arc<Self>, weight: usize) -> Place {
        let taken = ONE + (weight as u64).min(ONE / 1024);
        self.requests.fetch_add(taken, SeqCst);
        Place { places: Some(self.clone()), notification: false, taken }
    }

    /// A place for a notification where fewer than `limit` are taken. Who gets none is woken when one
    /// is free.
    pub(super) fn poll_notification(
        self: &Arc<Self>,
        limit: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Place> {
        let full = || self.notifications.load(SeqCst) / ONE >= limit as u64;
        if full() {
            self.freed.register(cx.waker());
            if full() {
                return Poll::Pending;
            }
        }
        // Only the reader of the connection takes any.
        self.notifications.fetch_add(ONE, SeqCst);
        Poll::Ready(Place { places: Some(self.clone()), notification: true, taken: ONE })
    }
}

/// A place, in the extensions of a request or notification. It is free again when those are dropped,
/// which is the end of the handler, unless that gives them away. A clone takes no place.
#[derive(Debug, Default)]
pub(crate) struct Place {
    places: Option<Arc<Places>>,
    notification: bool,
    taken: u64,
}

impl Clone for Place {
    fn clone(&self) -> Self {
        Self { places: None, ..*self }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(places) = &self.places else { return };
        if self.notification {
            places.notifications.fetch_sub(self.taken, SeqCst);
            places.freed.wake();
        } else {
            places.requests.fetch_sub(self.taken, SeqCst);
        }
    }
}
