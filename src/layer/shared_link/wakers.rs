//! One waker for a link that several tasks drive.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, PoisonError, atomic::Ordering::SeqCst},
    task::{Wake, Waker},
};

// The parent says which: a test puts loom's there.
use super::{AtomicBool, Mutex, MutexGuard};

/// The key of a flush in the queue: the message that it waits for, and a number of its own.
pub(super) type FlushKey = (u64, u64);

/// Wakes those who wait for a link.
///
/// A task sits down *before* it polls the link, so that a wake-up between its poll and its return
/// finds it. Who is woken has lost the seat and takes it again at the next poll.
#[derive(Debug, Default)]
pub(super) struct WakerSet {
    waiters: Mutex<Waiters>,
    woken: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiters {
    /// Who waits for messages.
    reader: Option<Waker>,
    /// Who uses the sink: its owner, and the reader that writes answers of its own.
    sinks: Vec<Waker>,
    /// Who waits for a flush, in order.
    flushes: VecDeque<(FlushKey, Waker)>,
}

impl Waiters {
    /// Where a flush sits, or would sit.
    fn find(&self, key: FlushKey) -> Result<usize, usize> {
        self.flushes.binary_search_by_key(&key, |(taken, _)| *taken)
    }
}

impl WakerSet {
    pub(super) fn register_reader(&self, waker: &Waker) {
        match &mut self.lock().reader {
            Some(previous) => previous.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    pub(super) fn deregister_reader(&self) {
        self.lock().reader = None;
    }

    pub(super) fn register_sink(&self, waker: &Waker) {
        let mut waiters = self.lock();
        if !waiters.sinks.iter().any(|taken| taken.will_wake(waker)) {
            waiters.sinks.push(waker.clone());
        }
    }

    pub(super) fn deregister_sink(&self, waker: &Waker) {
        self.lock().sinks.retain(|taken| !taken.will_wake(waker));
    }

    pub(super) fn register_flush(&self, key: FlushKey, waker: &Waker) {
        let mut waiters = self.lock();
        match waiters.find(key) {
            Ok(at) => waiters.flushes[at].1.clone_from(waker),
            Err(at) => waiters.flushes.insert(at, (key, waker.clone())),
        }
    }

    /// Whether it still had its seat: if not, it has been woken.
    pub(super) fn deregister_flush(&self, key: FlushKey) -> bool {
        let mut waiters = self.lock();
        let found = waiters.find(key);
        found.is_ok_and(|at| waiters.flushes.remove(at).is_some())
    }

    pub(super) fn wake_reader(&self) {
        let reader = self.lock().reader.take();
        reader.into_iter().for_each(Waker::wake);
    }

    /// Wakes the flush that is first in inner: one writes for all.
    pub(super) fn wake_writer(&self) {
        let first = self.lock().flushes.pop_front();
        first.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Wakes the users of the sink, for whom there may be room.
    pub(super) fn wake_sinks(&self) {
        let sinks = mem::take(&mut self.lock().sinks);
        sinks.into_iter().for_each(Waker::wake);
    }

    /// Wakes those whose messages are flushed, and the users of the sink.
    pub(super) fn wake_flushed(&self, ticket: u64) {
        let mut waiters = self.lock();
        let after = waiters.flushes.partition_point(|((waited, _), _)| *waited <= ticket);
        let flushed: Vec<_> = waiters.flushes.drain(..after).collect();
        let sinks = mem::take(&mut waiters.sinks);
        drop(waiters);
        flushed.into_iter().for_each(|(_, waker)| waker.wake());
        sinks.into_iter().for_each(Waker::wake);
    }

    pub(super) fn wake_all(&self) {
        let waiters = mem::take(&mut *self.lock());
        waiters.reader.into_iter().chain(waiters.sinks).for_each(Waker::wake);
        waiters.flushes.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Whether the link has woken anyone since this was last asked. Asked *before* the link is
    /// polled, so that what happens during the poll is news for the next.
    pub(super) fn take_woken(&self) -> bool {
        self.woken.swap(false, SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The link has something to read, or room to write: nobody knows which.
impl Wake for WakerSet {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, SeqCst);
        let mut waiters = self.lock();
        let (reader, sinks) = (waiters.reader.take(), mem::take(&mut waiters.sinks));
        let writer = waiters.flushes.pop_front();
        drop(waiters);
        reader.into_iter().chain(sinks).for_each(Waker::wake);
        writer.into_iter().for_each(|(_, waker)| waker.wake());
    }
}
