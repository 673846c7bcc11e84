//! What goes into the queue of a [`SharedLink`], and what is taken back out of it.

use super::{SharedLink, flushed::Flushed};
use crate::{error::Error, link::Retention, message::Message};

/// Size of what may wait for the queue until a session is resumed, as a multiple of the queue's.
const WAITING_FACTOR: usize = 128;

/// Room for one message, by [`SharedLink::reserve`].
#[derive(Debug)]
#[must_use = "nothing is sent unless it is used"]
pub struct Slot<'a> {
    link: &'a SharedLink,
    retention: Retention,
}

impl Slot<'_> {
    /// Queues `message`. Returns its number in the order of all that was queued, of which the first
    /// has 1, and a future that resolves when it is written.
    ///
    /// # Errors
    /// The error that ended the link, if that has happened, or is about to: a Close is on its way.
    pub fn send(self, message: Message) -> Result<(u64, Flushed), Error> {
        self.link.enqueue(message, self.retention)
    }
}

/// Error of [`SharedLink::reserve`]: the queue is full, and may stay so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the outbound queue is full")]
pub struct QueueFull;

/// Error of [`SharedLink::try_send`], with nothing queued.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TrySendError {
    /// The queue is full: the peer does not read as fast as it is written to.
    #[error("the outbound queue is full")]
    Full,
    /// The link has ended, or is about to: a Close is on its way.
    #[error("the link has ended")]
    Closed,
}

impl SharedLink {
    /// Returns the number of the message that was queued last; the first of all has 1.
    pub(in crate::layer) fn last_seq(&self) -> u64 {
        self.inner.lock().seq()
    }

    /// Takes the number and size of the largest message that [`try_send`](Self::try_send) has
    /// queued since the last call.
    pub(in crate::layer) fn take_largest_broadcast(&self) -> Option<(u64, usize)> {
        self.inner.lock().largest_broadcast.take()
    }

    /// Queues `message` if there is room: whoever reads from the link writes it.
    ///
    /// # Errors
    /// [`TrySendError`], with nothing queued.
    pub fn try_send(&self, message: Message) -> Result<(), TrySendError> {
        let mut state = self.inner.lock();
        if state.accepts().is_err() {
            return Err(TrySendError::Closed);
        }
        if state.queued_bytes() >= self.inner.queue_bytes {
            return Err(TrySendError::Full);
        }
        state.note_broadcast(message.len());
        let pushed = self.inner.push(state, message, Retention::ThisPeer);
        pushed.map_err(|_| TrySendError::Closed)?;
        self.inner.wakers.wake_reader();
        Ok(())
    }

    /// Reserves room for one message. There is always room while a peer reads what is queued: who
    /// sends waits for that, and `poll_ready` says when there is little. While there is no link, or
    /// what is queued waits for a peer, a full queue has none.
    ///
    /// # Errors
    /// [`QueueFull`].
    pub fn reserve(&self, retention: Retention) -> Result<Slot<'_>, QueueFull> {
        if !self.make_room(retention, false) {
            return Err(QueueFull);
        }
        Ok(Slot { link: self, retention })
    }

    /// Reserves room for an answer to a request of the peer. There is room as long as the peer that
    /// awaits it may come back.
    ///
    /// # Errors
    /// [`QueueFull`].
    pub(in crate::layer) fn reserve_answer(&self) -> Result<Slot<'_>, QueueFull> {
        if !self.make_room(Retention::ThisPeer, true) {
            return Err(QueueFull);
        }
        Ok(Slot { link: self, retention: Retention::ThisPeer })
    }

    /// Makes room in a full queue while sending is paused, if it can. Returns `true` if there is
    /// room.
    fn make_room(&self, retention: Retention, answers: bool) -> bool {
        if !self.inner.is_paused() {
            return true;
        }
        let limit = self.inner.queue_bytes;
        let has_room = self.inner.lock().make_room(retention, answers, limit);
        self.inner.wakers.wake_sinks();
        has_room
    }

    /// Queues `message`, however full the queue is.
    pub(in crate::layer) fn enqueue(
        &self,
        message: Message,
        retention: Retention,
    ) -> Result<(u64, Flushed), Error> {
        let seq = self.inner.push(self.inner.lock(), message, retention)?;
        Ok((seq, Flushed::new(self.inner.clone(), seq)))
    }

    /// Queues `message` before all others, held or not.
    pub(in crate::layer) fn send_first(&self, message: Message) {
        let mut state = self.inner.lock();
        if state.accepts().is_ok() {
            state.push_first(message);
            drop(state);
            self.inner.wakers.wake_reader();
        }
    }

    /// Returns a future that resolves when everything queued so far is written and flushed.
    pub fn flushed(&self) -> Flushed {
        let seq = self.last_seq();
        Flushed::new(self.inner.clone(), seq)
    }

    /// Removes the message with this number from the queue. Returns `false` if it is no longer
    /// there.
    pub(in crate::layer) fn withdraw(&self, seq: u64) -> bool {
        let was_there = self.inner.lock().withdraw(seq);
        if was_there {
            self.inner.wakers.wake_sinks();
        }
        was_there
    }

    /// Removes the messages with these numbers, in ascending order, that are still in the queue.
    /// Returns the number of the last message that was handed to the link.
    pub(in crate::layer) fn withdraw_all(&self, seqs: &[u64]) -> u64 {
        let mut state = self.inner.lock();
        let handed = state.handed();
        let any = state.forget(|next| seqs.binary_search(&next.seq).is_ok());
        drop(state);
        if any {
            self.inner.wakers.wake_sinks();
        }
        handed
    }

    /// Returns `true` if sending is paused and as many `bytes` wait for the queue as may: the size
    /// of the queue, or [`WAITING_FACTOR`] times as many on a side that dials again, until it is
    /// known that no session is resumed.
    pub(in crate::layer) fn is_overrun(&self, bytes: usize) -> bool {
        let limit = self.inner.queue_bytes;
        if bytes < limit || !self.inner.is_paused() {
            return false;
        }
        let may_be_resumed = self.inner.lock().may_be_resumed();
        !may_be_resumed || bytes >= limit.saturating_mul(WAITING_FACTOR)
    }

    /// Returns `true` if the queue is full until it is known whether the session is resumed: the
    /// next link, which this side makes, may go on where this one did.
    pub(in crate::layer) fn is_full_until_resumed(&self) -> bool {
        self.is_full_until_dialed() && self.inner.lock().may_be_resumed()
    }

    /// Returns `true` if the queue is full and sending is paused, on the side that makes the next
    /// link.
    pub(in crate::layer) fn is_full_until_dialed(&self) -> bool {
        if !self.inner.is_paused() {
            return false;
        }
        let state = self.inner.lock();
        state.dials_again() && state.is_full(Retention::AnyPeer, self.inner.queue_bytes)
    }

    /// Returns the number of bytes that wait to be handed to the link.
    #[cfg(feature = "server")]
    pub(crate) fn queued_bytes(&self) -> usize {
        self.inner.lock().queued_bytes()
    }

    /// Returns the number of the last message that was handed to the link. Messages with a higher
    /// one never left this side.
    pub(in crate::layer) fn handed(&self) -> u64 {
        self.inner.lock().handed()
    }

    /// Returns the number of the last message that was handed to a link before the present one.
    pub(in crate::layer) fn began(&self) -> u64 {
        self.inner.lock().began()
    }
}
