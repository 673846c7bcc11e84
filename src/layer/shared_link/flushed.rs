//! Waiting until a message is written.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering::SeqCst},
    task::{Context, Poll},
};

use super::{inner::Inner, try_lock::Waiter, wakers::FlushKey};
use crate::error::Error;

/// Resolves when a message is written and flushed, or with the error that ended the link before.
///
/// Made by [`Slot::send`](super::Slot::send) and
/// [`SharedLink::flushed`](super::SharedLink::flushed). While there is no link, or what is queued
/// waits for a peer, it does not wait. Dropping it takes nothing back.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Flushed {
    inner: Arc<Inner>,
    key: FlushKey,
    stage: Stage,
}

/// Stage of a [`Flushed`].
///
/// | | counted in `Inner::waiting` | its waker |
/// |---|---|---|
/// | `Waiting` | yes | was never registered |
/// | `Registered` | yes | is there, unless it has been woken |
/// | `Done` | no | is gone |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Registered,
    Done,
}

impl Flushed {
    /// Waits for the message with the number `seq`.
    pub(super) fn new(inner: Arc<Inner>, seq: u64) -> Self {
        let key = (seq, inner.flushes.fetch_add(1, SeqCst));
        inner.waiting.fetch_add(1, SeqCst);
        Self { inner, key, stage: Stage::Waiting }
    }

    /// Ready if there is nothing to wait for.
    fn poll_outcome(&self) -> Poll<Result<(), Error>> {
        if self.inner.flushed() >= self.key.0 {
            return Poll::Ready(Ok(()));
        }
        let state = self.inner.lock();
        match state.ended() {
            Ok(()) if !state.is_paused() => Poll::Pending,
            ended => Poll::Ready(ended),
        }
    }

    /// Writes what is queued, with the waker registered where it has to wait.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let inner = &*self.inner;
        // Most messages are written at once.
        if let Some(mut driver) = inner.driver.try_lock() {
            if let Some(driver) = driver.get() {
                let _ = inner.poll_write(driver);
            }
            drop(driver);
            if let Poll::Ready(outcome) = self.poll_outcome() {
                return Poll::Ready(outcome);
            }
        }
        if !inner.wakers.register_flush(self.key, cx.waker()) {
            return Poll::Ready(Ok(()));
        }
        self.stage = Stage::Registered;
        if let Some(mut driver) = inner.driver.try_lock_or_wait(Waiter::Writer)
            && let Some(driver) = driver.get()
        {
            let _ = inner.poll_write(driver);
        }
        self.poll_outcome()
    }

    fn finish(&mut self) {
        if self.stage == Stage::Registered {
            self.inner.wakers.deregister_flush(self.key);
        }
        self.stage = Stage::Done;
        self.inner.waiting.fetch_sub(1, SeqCst);
    }
}

impl Future for Flushed {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut outcome = Poll::Ready(Ok(()));
        if this.inner.flushed() < this.key.0 {
            outcome = this.poll_write(cx);
        }
        if outcome.is_ready() && this.stage != Stage::Done {
            this.finish();
        }
        outcome
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        let inner = &*self.inner;
        let was_woken = match self.stage {
            Stage::Done => return,
            Stage::Waiting => false,
            Stage::Registered => !inner.wakers.deregister_flush(self.key),
        };
        let others = inner.waiting.fetch_sub(1, SeqCst) - 1;
        if inner.flushed() >= inner.lock().seq() {
            return;
        }
        if others == 0 {
            inner.wakers.wake_reader();
        } else if was_woken {
            // The wake-up was to write for all, which this one does not.
            inner.wakers.wake_writer();
        }
    }
}
