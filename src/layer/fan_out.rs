//! One waker for a link that several tasks drive.

use std::{
    mem,
    sync::{Arc, PoisonError, atomic::Ordering::SeqCst},
    task::{Wake, Waker},
};

// The parent says which: a test puts loom's there.
use super::{AtomicBool, Mutex, MutexGuard};

/// Who waits: the one reader, a user of the sink, or a flush by its number.
///
/// The sink has several users: the reader writes answers of its own through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seat {
    Reader,
    Sink,
    Flushed(u64),
}

/// Wakes everyone who has taken a seat.
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
    reader: Option<Waker>,
    writers: Vec<(Seat, Waker)>,
}

impl Seats {
    fn sink_of(&mut self, waker: &Waker) -> Option<&mut Waker> {
        let mut sinks = self.writers.iter_mut().filter(|(taken, _)| *taken == Seat::Sink);
        sinks.find(|(_, at)| at.will_wake(waker)).map(|(_, at)| at)
    }
}

impl FanOut {
    pub(super) fn sit(&self, seat: Seat, waker: &Waker) {
        let mut seats = self.lock();
        let place = match seat {
            Seat::Reader => seats.reader.as_mut(),
            Seat::Sink => seats.sink_of(waker),
            Seat::Flushed(_) => {
                seats.writers.iter_mut().find(|(taken, _)| *taken == seat).map(|(_, at)| at)
            }
        };
        match (place, seat) {
            (Some(previous), _) => previous.clone_from(waker),
            (None, Seat::Reader) => seats.reader = Some(waker.clone()),
            (None, _) => seats.writers.push((seat, waker.clone())),
        }
    }

    pub(super) fn leave(&self, seat: Seat) {
        let mut seats = self.lock();
        match seat {
            Seat::Reader => seats.reader = None,
            _ => seats.writers.retain(|(taken, _)| *taken != seat),
        }
    }

    /// Gives up the sink's seat of the task with this waker, and of no other.
    pub(super) fn leave_sink(&self, waker: &Waker) {
        self.lock().writers.retain(|(taken, at)| *taken != Seat::Sink || !at.will_wake(waker));
    }

    /// Wakes everyone but the reader, for whom a completed write is no news.
    pub(super) fn wake_writers(&self) {
        let writers = mem::take(&mut self.lock().writers);
        writers.into_iter().for_each(|(_, waker)| waker.wake());
    }

    pub(super) fn wake_reader(&self) {
        let reader = self.lock().reader.take();
        reader.into_iter().for_each(Waker::wake);
    }

    pub(super) fn wake_all(&self) {
        let seats = mem::take(&mut *self.lock());
        seats.reader.into_iter().for_each(Waker::wake);
        seats.writers.into_iter().for_each(|(_, waker)| waker.wake());
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

impl Wake for FanOut {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.news.store(true, SeqCst);
        self.wake_all();
    }
}
