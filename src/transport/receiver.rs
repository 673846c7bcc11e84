//! [`Receiver`]: tells when a stream is to be polled: not before it has woken its reader.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{AcqRel, Release},
        },
    },
    task::{Context, Poll, Wake, Waker},
};

use futures::task::AtomicWaker;

/// Task that reads from a stream, and whether there is a reason to poll that.
///
/// rmcp polls its transport several times for each message: at every turn of its loop, whatever has
/// woken that. A stream that was pending and has woken nobody since is still pending.
pub(super) struct Receiver {
    state: Arc<State>,
    /// The waker with which the stream is polled.
    waker: Waker,
}

#[derive(Default)]
struct State {
    /// `true` if the stream is to be polled. It was never polled, was last ready, or since then has
    /// woken its reader or had something done to it.
    is_due: AtomicBool,
    task: AtomicWaker,
}

impl Receiver {
    /// Marks the stream as to be polled next time: it was ready, or something was done to it.
    pub(super) fn poll_again(&self) {
        self.state.is_due.store(true, Release);
    }

    /// Ready with the waker with which the stream is to be polled, if there is a reason to.
    pub(super) fn poll_woken(&self, cx: &mut Context<'_>) -> Poll<Waker> {
        // Registered before the check, so that no later wake-up is lost.
        self.state.task.register(cx.waker());
        if self.state.is_due.swap(false, AcqRel) {
            Poll::Ready(self.waker.clone())
        } else {
            Poll::Pending
        }
    }
}

impl Default for Receiver {
    fn default() -> Self {
        let state = Arc::new(State { is_due: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { waker: Waker::from(state.clone()), state }
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("is_due", &self.state.is_due).finish_non_exhaustive()
    }
}

impl Wake for State {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_due.store(true, Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use tokio_test::{assert_pending, assert_ready, task::spawn};

    use super::*;

    #[test]
    fn a_stream_is_polled_again_when_it_has_woken_or_something_was_done_to_it() {
        let receiver = Receiver::default();
        let mut task = spawn(());
        let waker = assert_ready!(task.enter(|cx, _| receiver.poll_woken(cx)));
        assert_pending!(task.enter(|cx, _| receiver.poll_woken(cx)));
        assert!(!task.is_woken());

        waker.wake_by_ref();
        assert!(task.is_woken());
        assert_ready!(task.enter(|cx, _| receiver.poll_woken(cx)));
        assert_pending!(task.enter(|cx, _| receiver.poll_woken(cx)));

        receiver.poll_again();
        assert!(!task.is_woken());
        assert_ready!(task.enter(|cx, _| receiver.poll_woken(cx)));
    }

    #[test]
    fn the_task_that_polled_last_is_woken_also_if_that_was_in_vain() {
        let receiver = Receiver::default();
        let (mut first, mut second) = (spawn(()), spawn(()));
        let waker = assert_ready!(first.enter(|cx, _| receiver.poll_woken(cx)));
        assert_pending!(second.enter(|cx, _| receiver.poll_woken(cx)));
        waker.wake();
        assert!(second.is_woken() && !first.is_woken());
    }
}
