//! [`SharedLink`]: the outbound queue of a connection, and who reads and writes it.
//!
//! rmcp drives a transport from several tasks at once: its loop receives, and every send is waited
//! for by a task of its own. `SharedLink` lets all of them drive the same link without a task that
//! does it for them. Each message gets a number when it is queued, at once and in order; whoever
//! comes to the link next writes *all* that is queued and flushes once, and a [`Flushed`] future
//! resolves when its message is through.
//!
//! # Who waits for whom
//! There are two locks. Each line waits for the lines above it at most, and never for one below:
//!
//! | | waits for |
//! |---|---|
//! | the list of wakers | nothing: it is locked to change it, and nobody is woken meanwhile |
//! | the state: the queue, its numbers, what is known of the link | nothing: it is locked to look or to change it, and nothing is polled and nobody is woken meanwhile |
//! | `reserve`, `send`, `try_send`, and all else that queues, takes back, holds or releases | the state |
//! | the link: reading, writing, closing | nobody waits for it: who finds it taken leaves a note, and is woken when it is free |
//! | the reader | the link; for no write |
//! | a writer | the link, and room in it; where nothing can be written before more is read, it reads |
//! | `cut`, where a transport is dropped | the state; who has the link drops it |
//!
//! So no system call keeps anybody from sending, and nobody blocks a thread. Who has the link takes
//! each message out of the queue when the link is ready for it, not before: what is taken back or
//! held is not sent. The link is polled by one task at a time, and always with one waker, which
//! wakes the reader and one of those who write: readiness to read or write is never lost to a task
//! that did not need it.
//!
//! What is read ahead of the reader is bounded: in one turn 32 messages and 64 KiB, after a failed
//! write 256 items and 1 MiB, one message more in each case. What is beyond a writer, the next link
//! and the peer's first words on it, is read by the reader alone, so the layers above must not stop
//! reading for want of room while that is so.

mod driver;
pub(crate) mod flushed;
mod inner;
mod io;
mod read_ahead;
mod state;
mod try_lock;
mod wakers;

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU8},
    },
    task::{Context, Poll, ready},
};

use futures::{Sink, Stream, task::AtomicWaker};
use tokio::sync::watch;

pub use self::flushed::Flushed;
use self::{inner::Inner, try_lock::Waiter};
use crate::{
    close::{CloseCode, CloseReason},
    duplex::Duplex,
    end_report::EndReport,
    error::{Error, LinkError},
    event::{ConnectionEvents, Event, Events, State},
    link::{LinkEvent, Outgoing, Retention},
    message::Message,
};

/// Size charged for a request that waits before the queue, in bytes.
const REQUEST: usize = 512;

/// The bound of a [`SharedLink`]'s queue.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) queue_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { queue_bytes: 1 << 20 }
    }
}

impl Config {
    /// Sets the size from which on the queue is full, in bytes: 1 MiB. A full queue keeps
    /// `poll_ready` pending. While there is no link, and another follows,
    /// [`Correlation`](super::Correlation) refuses what comes then. Requests of a client whose
    /// session may be resumed wait for that.
    #[must_use]
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }
}

/// A link that several tasks may drive: a cheap handle on the one queue.
///
/// As a `Sink` it takes a message at any time, in order, and says by `poll_ready` whether it should
/// be given more. As a `Stream` it has one reader: of several clones, the last to be polled is
/// woken.
#[derive(Debug, Clone)]
#[must_use = "a layer does nothing unless polled"]
pub struct SharedLink {
    inner: Arc<Inner>,
}

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
    /// Takes over `links`, one after the other, such as a [`Reconnect`](super::Reconnect).
    pub fn new<L>(links: L, config: Config) -> Self
    where
        L: Duplex<Outgoing, LinkEvent<Message>> + Send + 'static,
    {
        Self::with_events(links, config, ConnectionEvents::default(), None)
    }

    /// Takes over `links`, and reports the state to `events`, and the end by `end_report`.
    ///
    /// The state is [`State::Connected`] from now on.
    pub(crate) fn with_events<L>(
        links: L,
        config: Config,
        events: ConnectionEvents,
        end_report: Option<EndReport>,
    ) -> Self
    where
        L: Duplex<Outgoing, LinkEvent<Message>> + Send + 'static,
    {
        events.state.send_replace(State::Connected);
        let inner = Inner::new(Box::pin(links), config.queue_bytes, events, end_report);
        Self { inner: Arc::new(inner) }
    }

    /// Returns a receiver of the connection's state, now and as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.inner.events.state.subscribe()
    }

    /// Returns the events of the connection from now on, if it may have more than one link.
    pub(crate) fn events(&self) -> Option<Events<Event>> {
        self.inner.events.subscribe()
    }

    /// Returns the number of the message that was queued last; the first of all has 1.
    pub(super) fn last_seq(&self) -> u64 {
        self.inner.lock().seq()
    }

    /// Returns the number and size of the largest message that [`try_send`](Self::try_send) has
    /// queued since this was last asked.
    pub(super) fn take_largest_broadcast(&self) -> Option<(u64, usize)> {
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
    pub(super) fn reserve_answer(&self) -> Result<Slot<'_>, QueueFull> {
        if !self.make_room(Retention::ThisPeer, true) {
            return Err(QueueFull);
        }
        Ok(Slot { link: self, retention: Retention::ThisPeer })
    }

    /// Makes room in a full queue while it is detained, if it can. Returns `true` if there is room.
    fn make_room(&self, retention: Retention, answers: bool) -> bool {
        if !self.inner.is_detained() {
            return true;
        }
        let limit = self.inner.queue_bytes;
        let has_room = self.inner.lock().make_room(retention, answers, limit);
        self.inner.wakers.wake_sinks();
        has_room
    }

    /// Queues `message`, however full the queue is.
    pub(super) fn enqueue(
        &self,
        message: Message,
        retention: Retention,
    ) -> Result<(u64, Flushed), Error> {
        let seq = self.inner.push(self.inner.lock(), message, retention)?;
        Ok((seq, Flushed::new(self.inner.clone(), seq)))
    }

    /// Queues `message` before all others, held or not.
    pub(super) fn send_first(&self, message: Message) {
        let mut state = self.inner.lock();
        if state.accepts().is_ok() {
            state.push_first(message);
            drop(state);
            self.inner.wakers.wake_reader();
        }
    }

    /// Writes what is queued as far as the link takes it, unless somebody uses the link.
    pub(crate) fn write_now(&self) {
        if let Some(mut driver) = self.inner.driver.try_lock()
            && let Some(driver) = driver.get()
        {
            // The rest is written by those who wait for it, or by the reader.
            let _ = self.inner.poll_write(driver);
        }
    }

    /// Returns a future that resolves when everything queued so far is written and flushed.
    pub fn flushed(&self) -> Flushed {
        let seq = self.last_seq();
        Flushed::new(self.inner.clone(), seq)
    }

    /// Removes the message with this number from the queue. Returns `false` if it is no longer
    /// there.
    pub(super) fn withdraw(&self, seq: u64) -> bool {
        let was_there = self.inner.lock().withdraw(seq);
        if was_there {
            self.inner.wakers.wake_sinks();
        }
        was_there
    }

    /// Removes the messages with these numbers, in ascending order, that are still in the queue.
    /// Returns the number of the last message that was handed to the link.
    pub(super) fn withdraw_all(&self, seqs: &[u64]) -> u64 {
        let mut state = self.inner.lock();
        let handed = state.handed();
        let any = state.forget(|next| seqs.binary_search(&next.seq).is_ok());
        drop(state);
        if any {
            self.inner.wakers.wake_sinks();
        }
        handed
    }

    /// Records that other links may follow this one. Then nobody need wait for what becomes of a
    /// failed write.
    pub(super) fn outlive(&self) {
        self.inner.lock().reconnects();
    }

    /// Holds messages for [any peer](Retention::AnyPeer) after a restart until they are
    /// [released](Self::release). The rest of what is queued meanwhile passes. Off until this is
    /// called.
    pub(super) fn hold_on_restart(&self) {
        self.inner.lock().hold_on_restart();
    }

    /// Records that a peer that was lost may return on the next link: what is queued is kept for
    /// it.
    #[cfg(any(test, feature = "server"))]
    pub(super) fn expect_return(&self) {
        self.inner.lock().expect_return();
    }

    /// Keeps queued messages for any peer for the next link. All others are still written to this
    /// one, later ones too. Lasts until the next link is there, or it is [released](Self::release).
    pub(super) fn hold(&self) {
        self.inner.lock().hold();
        // The next link may be long in coming: nobody waits for it.
        self.inner.wakers.wake_all_writers();
        self.inner.wakers.wake_reader();
    }

    /// Releases the messages that were held.
    pub(super) fn release(&self) {
        self.inner.lock().release();
        self.inner.wake_writers();
        self.inner.wakers.wake_reader();
    }

    /// Records that the peer which has returned begins anew: what is for the former only is not
    /// sent.
    pub(super) fn begin_anew(&self) {
        self.inner.lock().begin_anew();
        self.inner.wake_writers();
        self.inner.wakers.wake_reader();
    }

    /// Returns `true` if the queue is held back and more `requests` wait before it than it had room
    /// for. A side that dials again lets them wait until it is known that no session is resumed.
    pub(super) fn is_overrun(&self, requests: usize) -> bool {
        if requests < self.inner.queue_bytes / REQUEST || !self.inner.is_detained() {
            return false;
        }
        let state = self.inner.lock();
        state.is_cut_off() || !state.dials_again()
    }

    /// Returns `true` if the queue is full after a write has failed, and the next link, which this
    /// side makes, may go on where this one did.
    pub(super) fn is_full_until_resumed(&self) -> bool {
        self.is_full_until_dialed() && !self.inner.lock().is_cut_off()
    }

    /// Returns `true` if the queue is full, and nothing in it can be sent at present, on the side
    /// that makes the next link.
    pub(super) fn is_full_until_dialed(&self) -> bool {
        if !self.inner.is_detained() {
            return false;
        }
        let state = self.inner.lock();
        state.dials_again() && state.is_full(Retention::AnyPeer, self.inner.queue_bytes)
    }

    /// Returns `true` if what is queued stays there until another link comes, or its peer is known.
    pub(crate) fn is_detained(&self) -> bool {
        self.inner.is_detained()
    }

    /// Returns `true` if nothing can be written before more is read. A write has failed, there is
    /// no link, or it is unknown who is at its other end.
    pub(super) fn is_stuck(&self) -> bool {
        self.inner.lock().is_stuck()
    }

    /// Wakes the reader, for whom there is something that did not come over the link.
    pub(super) fn wake_reader(&self) {
        self.inner.wakers.wake_reader();
    }

    /// Returns the number of bytes that wait to be handed to the link.
    #[cfg(feature = "server")]
    pub(crate) fn queued_bytes(&self) -> usize {
        self.inner.lock().queued_bytes()
    }

    /// Returns the number of the last message that was handed to the link. Messages with a higher
    /// one never left this side.
    pub(super) fn handed(&self) -> u64 {
        self.inner.lock().handed()
    }

    /// Returns that number as it was when the present link began.
    pub(super) fn began(&self) -> u64 {
        self.inner.lock().began()
    }

    /// Sets the reason that `poll_close` gives to the peer, in place of 1000. The last call counts.
    pub fn close_with(&self, reason: CloseReason) {
        self.inner.lock().close_reason = Some(reason);
    }

    /// Ends the connection at once, without the closing handshake, for everyone who waits on it.
    pub(crate) fn cut(&self) {
        let reason = CloseReason::new(CloseCode::Normal, "closed by this side");
        self.cut_for(LinkError::Closed(reason).into());
    }

    /// Cuts the connection for a reason of this side's own.
    pub(super) fn cut_for(&self, error: Error) {
        self.inner.end(error);
        self.inner.driver.discard();
    }

    /// Writes what is queued, if nobody else uses the link. The waker has to be registered.
    fn poll_write(&self) -> Poll<Result<(), Error>> {
        match self.inner.driver.try_lock_or_wait(Waiter::Writer) {
            Some(mut driver) => match driver.get() {
                Some(driver) => self.inner.poll_write(driver),
                None => Poll::Ready(self.inner.lock().ended()),
            },
            None => Poll::Pending,
        }
    }

    /// Returns what was read before, or the end.
    fn next_read(&self) -> Option<Result<LinkEvent<Message>, Error>> {
        let mut state = self.inner.lock();
        match state.read_ahead.pop() {
            Some(item) => Some(Ok(item)),
            None => state.ended().err().map(Err),
        }
    }
}

impl Stream for SharedLink {
    type Item = Result<LinkEvent<Message>, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(item) = self.next_read() {
            return Poll::Ready(Some(item));
        }
        let inner = &*self.inner;
        // Registered before the queue is looked at, so that later messages wake the reader.
        inner.wakers.register_reader(cx.waker());
        let mut driver = inner.driver.try_lock_or_wait(Waiter::Reader);
        // A writer may have read meanwhile.
        let mut polled = self.next_read().map_or(Poll::Pending, Poll::Ready);
        if polled.is_pending()
            && let Some(driver) = driver.as_mut().and_then(|driver| driver.get())
        {
            polled = inner.poll_serve(driver, cx);
        }
        if polled.is_ready() {
            inner.wakers.deregister_reader();
        }
        polled.map(Some)
    }
}

impl Sink<Message> for SharedLink {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let has_room = || {
            let state = self.inner.lock();
            state.ended().map(|()| !state.is_full(Retention::ThisPeer, self.inner.queue_bytes))
        };
        if has_room()? {
            return Poll::Ready(Ok(()));
        }
        self.inner.wakers.register_sink(cx.waker());
        let written = self.poll_write();
        if !has_room()? {
            return written;
        }
        self.inner.wakers.deregister_sink(cx.waker());
        Poll::Ready(Ok(()))
    }

    fn start_send(self: Pin<&mut Self>, item: Message) -> Result<(), Error> {
        self.inner.push(self.inner.lock(), item, Retention::ThisPeer).map(drop)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.wakers.register_sink(cx.waker());
        let written = self.poll_write();
        if written.is_ready() {
            self.inner.wakers.deregister_sink(cx.waker());
        }
        written
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.wakers.register_sink(cx.waker());
        let Some(mut driver) = self.inner.driver.try_lock_or_wait(Waiter::Writer) else {
            return Poll::Pending;
        };
        let closed = match driver.get() {
            Some(driver) => ready!(self.inner.poll_close(driver)),
            None => Ok(()),
        };
        drop(driver);
        self.inner.wakers.deregister_sink(cx.waker());
        self.cut();
        Poll::Ready(closed)
    }
}

#[cfg(test)]
mod tests;
