//! State that the clones of a [`SharedLink`](super::SharedLink) share.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Acquire, Release, SeqCst},
        },
    },
    task::Waker,
};

use super::{
    driver::{BoxLinks, Driver},
    state::State,
    try_lock::TryLock,
    wakers::WakerSet,
};
use crate::{
    close::{CloseCode, CloseReason},
    end_report::EndReport,
    error::Error,
    event::{self, ConnectionEvents, Event},
    link::Retention,
    message::Message,
};

/// State and driver of a link, behind their locks, and what is known without them.
#[derive(Debug)]
pub(super) struct Inner {
    state: Mutex<State>,
    /// [`State::is_paused`] when the state was last unlocked.
    is_paused: AtomicBool,
    pub(super) driver: TryLock<Driver>,
    pub(super) wakers: Arc<WakerSet>,
    /// The waker by which the link is polled.
    pub(super) waker: Waker,
    /// Number of the last message that was flushed, written by who has the driver.
    pub(super) flushed: AtomicU64,
    /// Number of futures ever made that wait for a flush.
    pub(super) flushes: AtomicU64,
    /// Number of those that still wait.
    pub(super) waiting: AtomicUsize,
    pub(super) queue_bytes: usize,
    pub(super) events: ConnectionEvents,
    /// `None` where this is a layer by itself.
    end_report: Option<EndReport>,
}

impl Inner {
    pub(super) fn new(
        links: BoxLinks,
        queue_bytes: usize,
        events: ConnectionEvents,
        end_report: Option<EndReport>,
    ) -> Self {
        let wakers = Arc::new(WakerSet::default());
        Self {
            state: Mutex::new(State::new()),
            is_paused: AtomicBool::new(false),
            driver: TryLock::new(Driver::new(links), wakers.clone()),
            waker: Waker::from(wakers.clone()),
            wakers,
            flushed: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            queue_bytes,
            events,
            end_report,
        }
    }

    /// Locks the state: for a moment, in which nothing is polled and nobody is woken.
    pub(super) fn lock(&self) -> Locked<'_> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Locked { is_paused: &self.is_paused, state }
    }

    /// Returns `true` if sending is paused, by [`State::is_paused`].
    pub(super) fn is_paused(&self) -> bool {
        self.is_paused.load(Acquire)
    }

    /// Number of the last message that was flushed.
    pub(super) fn flushed(&self) -> u64 {
        self.flushed.load(SeqCst)
    }

    /// Queues `message` and returns its number.
    pub(super) fn push(
        &self,
        mut state: Locked<'_>,
        message: Message,
        retention: Retention,
    ) -> Result<u64, Error> {
        let seq = state.push(message, retention)?;
        if state.is_down() {
            drop(state);
            // The layer that keeps it has to learn its size.
            self.wakers.set_woken();
        }
        Ok(seq)
    }

    /// Wakes those who write: there is something that they may write now.
    pub(super) fn wake_writers(&self) {
        self.wakers.wake_sinks();
        self.wakers.wake_writer();
    }

    /// Stores the first error that ends the link, tells everyone, and returns it.
    pub(super) fn end(&self, error: Error) -> Error {
        let mut state = self.lock();
        let (error, unsent) = match state.end(error) {
            Ok(ended) => ended,
            Err(before) => return before,
        };
        drop(state);
        drop(unsent);
        let reason = match &error {
            Error::Link(error) => error.close_reason(),
            Error::Handshake(error) => CloseReason::new(CloseCode::Abnormal, error.to_string()),
            Error::Message(error) => CloseReason::new(CloseCode::Internal, error.to_string()),
        };
        if let Some(report) = &self.end_report {
            report.end(&reason);
        }
        self.events.state.send_replace(event::State::Closed(reason));
        self.events.announce(|| Event::Closed(error.clone()));
        self.wakers.wake_reader();
        self.wakers.wake_all_writers();
        error
    }
}

/// Guard of the locked state.
pub(super) struct Locked<'a> {
    is_paused: &'a AtomicBool,
    state: MutexGuard<'a, State>,
}

impl Deref for Locked<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.is_paused.store(self.state.is_paused(), Release);
    }
}
