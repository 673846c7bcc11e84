//! A lock that nobody waits for.

use std::{
    fmt, mem,
    sync::{
        Arc, PoisonError,
        atomic::Ordering::{AcqRel, Acquire, Relaxed},
    },
};

use super::wakers::WakerSet;
// Named by the parent, since a test replaces them by loom's.
use super::{AtomicU8, Mutex, MutexGuard};

/// The value is free.
const FREE: u8 = 0;
/// The value is in use.
const TAKEN: u8 = 1;
/// The value is to be dropped.
const DISCARDED: u8 = 2;

/// Role of a task that found the value taken, by which it is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiter {
    /// The reader.
    Reader = 4,
    /// The users of the sink, and the first of the flushes.
    Writer = 8,
}

/// A value that one thread at a time uses, and that anyone can drop.
///
/// Whoever finds the value taken leaves a note of what it wants, and is woken by who has it: the
/// note and the lock are one atomic number, so that none is lost. Its waker has to be registered
/// before.
pub(super) struct TryLock<T> {
    /// [`TAKEN`], and the notes for who has it.
    flags: AtomicU8,
    /// Locked by who has set [`TAKEN`], so nobody waits for it.
    value: Mutex<Option<T>>,
    wakers: Arc<WakerSet>,
}

impl<T> TryLock<T> {
    pub(super) fn new(value: T, wakers: Arc<WakerSet>) -> Self {
        Self { flags: AtomicU8::new(FREE), value: Mutex::new(Some(value)), wakers }
    }

    /// Takes the value if it is free.
    pub(super) fn try_lock(&self) -> Option<Guard<'_, T>> {
        self.flags.compare_exchange(FREE, TAKEN, Acquire, Relaxed).ok()?;
        Some(self.guard())
    }

    /// Takes the value if it is free. Else `waiter` is woken when it is.
    pub(super) fn try_lock_or_wait(&self, waiter: Waiter) -> Option<Guard<'_, T>> {
        self.try_lock().or_else(|| self.leave_note(waiter as u8))
    }

    /// Drops the value: at once, or when who uses it lets go of it.
    pub(super) fn discard(&self) {
        if let Some(mut guard) = self.leave_note(DISCARDED) {
            let value = guard.value.as_mut().and_then(|value| value.take());
            drop(guard);
            drop(value);
        }
    }

    /// Leaves a note for who has the value, or takes it if nobody has.
    fn leave_note(&self, note: u8) -> Option<Guard<'_, T>> {
        let before = self.flags.fetch_or(TAKEN | note, AcqRel);
        (before & TAKEN == 0).then(|| self.guard())
    }

    fn guard(&self) -> Guard<'_, T> {
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        Guard { lock: self, value: Some(value) }
    }
}

impl<T> fmt::Debug for TryLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TryLock").finish_non_exhaustive()
    }
}

/// Guard of the value of a [`TryLock`].
pub(super) struct Guard<'a, T> {
    lock: &'a TryLock<T>,
    value: Option<MutexGuard<'a, Option<T>>>,
}

impl<T> Guard<'_, T> {
    /// Returns the value, unless it was dropped.
    pub(super) fn get(&mut self) -> Option<&mut T> {
        self.value.as_mut()?.as_mut()
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        let is_there = self.get().is_some();
        drop(mem::take(&mut self.value));
        let notes = self.lock.flags.swap(FREE, AcqRel);
        if notes & DISCARDED != 0 && is_there {
            self.lock.discard();
        }
        if notes & Waiter::Reader as u8 != 0 {
            self.lock.wakers.wake_reader();
        }
        if notes & Waiter::Writer as u8 != 0 {
            self.lock.wakers.wake_sinks();
            self.lock.wakers.wake_writer();
        }
    }
}
