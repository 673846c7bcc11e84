//! One waker for a link that several tasks drive.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, PoisonError, atomic::Ordering::SeqCst},
    task::{Wake, Waker},
};

// The parent says which: a test puts loom's there.
use super::{AtomicBool, Mutex, MutexGuard};

/// The place of a flush in line: the message that it waits for, and a number of its own.
pub(super) type Place = (u64, u64);

/// Wakes those who wait for a link.
///
/// A task sits down *before* it polls the link, so that a wake-up between its poll and its return
/// finds it. Who is woken has lost the seat and takes it again at the next poll.
#[derive(Debug, Default)]
pub(super) struct FanOut {
    seats: Mutex<Seats>,
    news: AtomicBool,
}

#[derive(Debug, Default)]
struct Seats {
    /// Who waits for messages.
    reader: Option<Waker>,
    /// Who uses the sink: its owner, and the reader that writes answers of its own.
    sinks: Vec<Waker>,
    /// Who waits for a flush, in order.
    flushes: VecDeque<(Place, Waker)>,
}

impl Seats {
    /// Where a flush sits, or would sit.
    fn find(&self, place: Place) -> Result<usize, usize> {
        self.flushes.binary_search_by_key(&place, |(taken, _)| *taken)
    }
}

impl FanOut {
    pub(super) fn sit_reader(&self, waker: &Waker) {
        match &mut self.lock().reader {
            Some(previous) => previous.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    pub(super) fn leave_reader(&self) {
        self.lock().reader = None;
    }

    pub(super) fn sit_sink(&self, waker: &Waker) {
        let mut seats = self.lock();
        if !seats.sinks.iter().any(|taken| taken.will_wake(waker)) {
            seats.sinks.push(waker.clone());
        }
    }

    pub(super) fn leave_sink(&self, waker: &Waker) {
        self.lock().sinks.retain(|taken| !taken.will_wake(waker));
    }

    pub(super) fn sit_flush(&self, place: Place, waker: &Waker) {
        let mut seats = self.lock();
        match seats.find(place) {
            Ok(at) => seats.flushes[at].1.clone_from(waker),
            Err(at) => seats.flushes.insert(at, (place, waker.clone())),
        }
    }

    /// Whether it still had its seat: if not, it has been woken.
    pub(super) fn leave_flush(&self, place: Place) -> bool {
        let mut seats = self.lock();
        let found = seats.find(place);
        found.is_ok_and(|at| seats.flushes.remove(at).is_some())
    }

    pub(super) fn wake_reader(&self) {
        let reader = self.lock().reader.take();
        reader.into_iter().for_each(Waker::wake);
    }

    /// Wakes the flush that is first in line: one writes for all.
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
        let mut seats = self.lock();
        let after = seats.flushes.partition_point(|((waited, _), _)| *waited <= ticket);
        let flushed: Vec<_> = seats.flushes.drain(..after).collect();
        let sinks = mem::take(&mut seats.sinks);
        drop(seats);
        flushed.into_iter().for_each(|(_, waker)| waker.wake());
        sinks.into_iter().for_each(Waker::wake);
    }

    pub(super) fn wake_all(&self) {
        let seats = mem::take(&mut *self.lock());
        seats.reader.into_iter().chain(seats.sinks).for_each(Waker::wake);
        seats.flushes.into_iter().for_each(|(_, waker)| waker.wake());
    }

    /// Whether the link has woken anyone since this was last asked. Asked *before* the link is
    /// polled, so that what happens during the poll is news for the next.
    pub(super) fn take_news(&self) -> bool {
        self.news.swap(false, SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The link has something to read, or room to write: nobody knows which.
impl Wake for FanOut {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.news.store(true, SeqCst);
        let mut seats = self.lock();
        let (reader, sinks) = (seats.reader.take(), mem::take(&mut seats.sinks));
        let writer = seats.flushes.pop_front();
        drop(seats);
        reader.into_iter().chain(sinks).for_each(Waker::wake);
        writer.into_iter().for_each(|(_, waker)| waker.wake());
    }
}
