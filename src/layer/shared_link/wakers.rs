//! [`WakerSet`]: one waker for a link that several tasks drive.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, PoisonError, atomic::Ordering::SeqCst},
    task::{Wake, Waker},
};

// Named by the parent, since a test replaces them by loom's.
use super::{AtomicBool, AtomicWaker, Mutex, MutexGuard};

/// Order of the flushes: the number of the message that one waits for, and a number of its own.
pub(super) type FlushKey = (u64, u64);

/// Wakes those who wait for a link.
///
/// A task registers its waker *before* it polls the link, so that a wake-up during the poll is not
/// lost. Waking removes the waker; the task registers again at its next poll.
#[derive(Debug, Default)]
pub(super) struct WakerSet {
    /// Waker of the reader, and `true` while it waits: its waker stays there when it is woken.
    reader: AtomicWaker,
    reader_waits: AtomicBool,
    writers: Mutex<Writers>,
    woken: AtomicBool,
}

#[derive(Debug, Default)]
struct Writers {
    /// Wakers of the users of the sink: its owner, and the reader that writes replies of its own.
    sinks: Vec<Waker>,
    /// Wakers of those that wait for a flush, in order.
    flushes: VecDeque<(FlushKey, Waker)>,
    /// Number of the last message that was flushed.
    flushed: u64,
}

impl Writers {
    /// Returns the position of a flush, or where it would be.
    fn find(&self, key: FlushKey) -> Result<usize, usize> {
        self.flushes.binary_search_by_key(&key, |(registered, _)| *registered)
    }
}

impl WakerSet {
    pub(super) fn register_reader(&self, waker: &Waker) {
        self.reader.register(waker);
        // A swap, to see what came before the swap in `wake_reader`, if that was first.
        self.reader_waits.swap(true, SeqCst);
    }

    pub(super) fn deregister_reader(&self) {
        self.reader_waits.store(false, SeqCst);
    }

    pub(super) fn register_sink(&self, waker: &Waker) {
        let mut writers = self.lock();
        if !writers.sinks.iter().any(|registered| registered.will_wake(waker)) {
            writers.sinks.push(waker.clone());
        }
    }

    pub(super) fn deregister_sink(&self, waker: &Waker) {
        self.lock().sinks.retain(|registered| !registered.will_wake(waker));
    }

    /// Registers the waker of a flush. Returns `false` if that has happened: a waker that nobody
    /// needs would keep another from being woken.
    pub(super) fn register_flush(&self, key: FlushKey, waker: &Waker) -> bool {
        let mut writers = self.lock();
        if key.0 <= writers.flushed {
            return false;
        }
        match writers.find(key) {
            Ok(at) => writers.flushes[at].1.clone_from(waker),
            Err(at) => writers.flushes.insert(at, (key, waker.clone())),
        }
        true
    }

    /// Removes the waker of a flush. Returns `false` if it was not there: it has been woken.
    pub(super) fn deregister_flush(&self, key: FlushKey) -> bool {
        let mut writers = self.lock();
        let found = writers.find(key);
        found.is_ok_and(|at| writers.flushes.remove(at).is_some())
    }

    pub(super) fn wake_reader(&self) {
        if self.reader_waits.swap(false, SeqCst) {
            self.reader.wake();
        }
    }

    /// Wakes the first flush: one writes for all.
    pub(super) fn wake_writer(&self) {
        let first = self.lock().flushes.pop_front();
        first.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Wakes the users of the sink, for whom there may be room.
    pub(super) fn wake_sinks(&self) {
        let sinks = mem::take(&mut self.lock().sinks);
        sinks.into_iter().for_each(Waker::wake);
    }

    /// Wakes those whose messages are flushed, up to the number `seq`, and the users of the sink.
    pub(super) fn wake_flushed(&self, seq: u64) {
        let mut writers = self.lock();
        writers.flushed = seq;
        let after = writers.flushes.partition_point(|((waited, _), _)| *waited <= seq);
        let flushed: Vec<_> = writers.flushes.drain(..after).collect();
        let sinks = mem::take(&mut writers.sinks);
        drop(writers);
        flushed.into_iter().for_each(|(_, waker)| waker.wake());
        sinks.into_iter().for_each(Waker::wake);
    }

    /// Wakes all who write: nobody waits for what is queued.
    pub(super) fn wake_all_writers(&self) {
        let mut writers = self.lock();
        let (sinks, flushes) = (mem::take(&mut writers.sinks), mem::take(&mut writers.flushes));
        drop(writers);
        sinks.into_iter().for_each(Waker::wake);
        flushes.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Makes the reader poll the link at its next poll, without waking it.
    pub(super) fn set_woken(&self) {
        self.woken.store(true, SeqCst);
    }

    /// Returns `true` if the link has woken anyone since this was last called. Call it *before* the
    /// link is polled, so that a wake-up during the poll is there for the next.
    pub(super) fn take_woken(&self) -> bool {
        self.woken.swap(false, SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, Writers> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Called by the link when it has something to read, or room to write: it is unknown which.
impl Wake for WakerSet {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.set_woken();
        self.wake_reader();
        let mut writers = self.lock();
        let sinks = mem::take(&mut writers.sinks);
        let writer = writers.flushes.pop_front();
        drop(writers);
        sinks.into_iter().for_each(Waker::wake);
        writer.into_iter().for_each(|(_, waker)| waker.wake());
    }
}
