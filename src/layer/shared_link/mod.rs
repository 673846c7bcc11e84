//! [`SharedLink`]: the outbound queue and the one lock of a connection.
//!
//! rmcp drives a transport from several tasks at once: its loop receives, and every send is waited
//! for by a task of its own. `SharedLink` lets all of them drive the same link without a task that
//! does it for them. Each message gets a ticket when it is queued, at once and in order; whoever
//! comes to the lock next writes *all* that is queued and flushes once, and a [`Flushed`] future
//! resolves when its ticket is through.
//!
//! # Who waits for whom
//! The reader waits for nothing but the link. Writers wait for room in the link, and drive it.
//! Where nothing can be written before more is read, a writer reads on: at most 256 items and 1 MiB
//! after a failed write, for its reader to take. What is beyond a writer, the next link and the
//! peer's first words on it, is read by the reader alone, so the layers above must not stop reading
//! for want of room while that is so.
//!
//! The link below is always polled with one waker, which wakes the reader and one of those who
//! write: readiness to read or write is never lost to a task that did not need it.

mod read_ahead;
mod state;
mod submit;
mod wakers;

use std::{
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, atomic::AtomicBool},
    task::{Context, Poll, ready},
};

use futures::{Sink, Stream};
use tokio::sync::watch;
use tracing::Span;

use self::state::{Inner, State};
use crate::{
    duplex::Duplex,
    error::{CloseCode, CloseReason, Error, LinkError},
    event::{self, Event, Events, Notices},
    link::{LinkEvent, Outgoing, Retention},
    message::Message,
};

/// Size charged for a request that waits before the queue, in bytes.
const REQUEST: usize = 512;

/// The bound of a [`SharedLink`]'s queue.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The queue is full from this many bytes on: 1 MiB. A full queue keeps `poll_ready` pending. While
    /// there is no link, and another follows, [`Correlation`](super::Correlation) refuses what comes then.
    pub queue_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { queue_bytes: 1 << 20 }
    }
}

impl Config {
    /// Sets [`queue_bytes`](Self::queue_bytes).
    #[must_use]
    pub fn queue_bytes(mut self, bytes: usize) -> Self {
        self.queue_bytes = bytes;
        self
    }
}

/// A link that several tasks may drive: a cheap handle on the one queue and lock.
///
/// As a `Sink` it takes a message at any time, in order, and says by `poll_ready` whether it should
/// be given more. As a `Stream` it has one reader: of several clones, the last to be polled is woken.
#[derive(Debug, Clone)]
#[must_use = "a layer does nothing unless polled"]
pub struct SharedLink {
    inner: Arc<Inner>,
    ticket: u64,
    survives: bool,
}

/// Why a message was not taken by [`SharedLink::try_send`].
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
    /// Takes over `inner`: links one after the other, such as a [`Reconnect`](super::Reconnect).
    pub fn new<L>(inner: L, config: Config) -> Self
    where
        L: Duplex<Outgoing, LinkEvent<Message>> + Send + 'static,
    {
        Self::with_notices(inner, config, Notices::default(), Span::none())
    }

    /// The same, where the state is told elsewhere too, which is [`event::State::Connected`] from
    /// now on, and with the span in which the end is traced.
    pub(crate) fn with_notices<L>(inner: L, config: Config, notices: Notices, span: Span) -> Self
    where
        L: Duplex<Outgoing, LinkEvent<Message>> + Send + 'static,
    {
        notices.state.send_replace(event::State::Connected);
        let inner = Inner::new(Box::pin(inner), config.queue_bytes, notices, span);
        Self { inner: Arc::new(inner), ticket: 0, survives: false }
    }

    /// The state of the connection, now and as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<event::State> {
        self.inner.notices.state.subscribe()
    }

    /// What happens to the connection from now on, where it has more than one link.
    pub(crate) fn events(&self) -> Option<Events<Event>> {
        self.inner.notices.subscribe()
    }

    /// The number of the message that was queued last by this handle; the first of all has 1.
    #[must_use]
    pub fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Queues `message` if there is room, without waiting, neither for the link nor for those who use
    /// it: whoever reads from it writes the message.
    ///
    /// # Errors
    /// [`TrySendError`], with nothing queued.
    pub fn try_send(&self, message: Message) -> Result<(), TrySendError> {
        self.inner.submit.put(message, self.inner.queue_bytes)?;
        self.inner.wakers.wake_reader();
        Ok(())
    }

    /// Whether the next message that this handle queues means something to a peer that knows nothing
    /// of what was before: [after a restart](crate::link::LinkUp::NewPeer) it is still sent, and
    /// nothing else is.
    pub fn survives(&mut self, survives: bool) {
        self.survives = survives;
    }

    /// Other links may follow this one: where a write fails, nobody need wait for what becomes of it.
    pub(super) fn outlive(&self) {
        self.inner.lock().outlives = true;
    }

    /// After a restart, holds what has survived until it is [released](Self::release), and lets pass
    /// what is queued meanwhile and does not survive. Off until this is called.
    pub fn hold_on_restart(&self) {
        self.inner.lock().holds = true;
    }

    /// A peer that was lost may return on the next link: what is queued is kept for it.
    #[cfg(any(test, feature = "server"))]
    pub(super) fn expect_return(&self) {
        self.inner.lock().returns = true;
    }

    /// The peer that has returned begins anew: what does not survive a restart is not sent.
    pub(super) fn begin_anew(&self) {
        self.inner.begin_anew(&mut self.inner.lock());
        self.inner.wakers.wake_writer();
        self.inner.wakers.wake_reader();
    }

    /// Sends what was held.
    pub fn release(&self) {
        self.inner.lock().release();
        self.inner.wakers.wake_writer();
        self.inner.wakers.wake_reader();
    }

    /// Keeps queued messages that survive a restart for the next link; all others are still written
    /// to this one, later ones too. Lasts until the next link is there, or it is
    /// [released](Self::release).
    pub(super) fn hold(&self) {
        let mut state = self.inner.lock();
        state.hold();
        self.inner.submit.note_queued(state.queued_bytes);
        drop(state);
        // Nobody waits for a link that may be long in coming.
        self.inner.wakers.wake_flushed(u64::MAX);
        self.inner.wakers.wake_reader();
    }

    /// Queues `message` before all others, held or not.
    pub fn send_first(&self, message: Message) {
        let mut state = self.inner.lock();
        if state.accepts().is_ok() {
            state.push_first(message);
            drop(state);
            self.inner.wakers.wake_reader();
        }
    }

    /// Takes the message with this ticket out of the queue. `false` if it is no longer there.
    pub fn withdraw(&self, ticket: u64) -> bool {
        let mut state = self.inner.lock();
        ticket > state.handed && self.inner.withdraw(&mut state, ticket)
    }

    /// Takes those of the messages with these tickets, in ascending order, out of the queue that are
    /// still there. The number of the last message that was handed to the link.
    pub(super) fn withdraw_all(&self, tickets: &[u64]) -> u64 {
        let mut state = self.inner.lock();
        let handed = state.handed;
        self.inner.forget(&mut state, |next| tickets.binary_search(&next.seq).is_ok());
        handed
    }

    /// Whether there is no room for what survives a restart, or does not, while the queue is detained.
    /// For answers there is as long as the peer that awaits them may come back.
    pub(super) fn is_stopped(&self, survives: bool, answers: bool) -> bool {
        let mut state = self.inner.lock();
        if !state.is_detained() || !state.is_full(survives, self.inner.queue_bytes) {
            return false;
        }
        if !state.is_cut_off() || state.returns {
            return !answers;
        }
        // What would not be sent after a restart makes room first.
        self.inner.forget(&mut state, |next| next.retention == Retention::ThisPeer);
        state.is_full(survives, self.inner.queue_bytes)
    }

    /// Returns `true` if the queue is held back, and the `requests` that wait before it are more
    /// than it had room for.
    pub(super) fn is_overrun(&self, requests: usize) -> bool {
        requests >= self.inner.queue_bytes / REQUEST && self.inner.lock().is_detained()
    }

    /// Returns `true` if nothing can be written before more is read: a write has failed, there is
    /// no link, or it is unknown who is at its other end.
    pub(super) fn is_stuck(&self) -> bool {
        self.inner.lock().is_stuck()
    }

    /// Wakes the reader, for whom there is something that did not come over the link.
    pub(super) fn wake_reader(&self) {
        self.inner.wakers.wake_reader();
    }

    /// The reason that `poll_close` gives to the peer, in place of 1000. The last call counts.
    pub fn close_with(&self, reason: CloseReason) {
        self.inner.lock().close_reason = Some(reason);
    }

    /// Resolves when everything queued so far is written and flushed, or with the error that
    /// ended the link before. While there is no link, or what there is waits for a new peer, it does
    /// not wait. Dropping it takes nothing back.
    pub fn flushed(&self) -> Flushed {
        let mut state = self.inner.lock();
        state.flushes += 1;
        state.waiting += 1;
        let key = (state.queued, state.flushes);
        Flushed { inner: self.inner.clone(), key, waits: true }
    }

    /// How many bytes wait to be handed to the link.
    #[cfg(feature = "server")]
    pub(crate) fn queued_bytes(&self) -> usize {
        self.inner.submit.bytes()
    }

    /// How many messages were handed to the link: what has a higher ticket never left this side.
    #[must_use]
    pub fn handed(&self) -> u64 {
        self.inner.lock().handed
    }

    /// The same for when the present link began.
    pub(super) fn began(&self) -> u64 {
        self.inner.lock().began
    }

    /// Ends the connection at once, without the closing handshake, for everyone who waits on it.
    pub fn cut(&self) {
        self.finish(self.inner.lock());
    }

    /// The same, for a reason of this side's own.
    pub(super) fn cut_for(&self, error: Error) {
        let mut state = self.inner.lock();
        self.inner.end(&mut state, error);
        self.finish(state);
    }

    fn finish(&self, mut state: MutexGuard<'_, State>) {
        let reason = CloseReason::new(CloseCode::Normal, "closed by this side");
        self.inner.end(&mut state, LinkError::Closed(reason).into());
        let link = state.link.take();
        drop(state);
        drop(link);
    }
}

/// See [`SharedLink::flushed`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Flushed {
    inner: Arc<Inner>,
    /// The ticket it waits for, and a number that tells it from others with the same one.
    key: (u64, u64),
    /// It is one of those whom `State::waiting` counts.
    waits: bool,
}

impl Future for Flushed {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let inner = &*this.inner;
        let mut state = inner.lock();
        let mut polled = Poll::Ready(Ok(()));
        if state.flushed < this.key.0 {
            inner.wakers.register_flush(this.key, cx.waker());
            let written = inner.poll_write(&mut state);
            if state.flushed < this.key.0 && !state.is_detained() {
                polled = written;
            }
        }
        if polled.is_ready() && this.waits {
            this.waits = false;
            state.waiting -= 1;
            inner.wakers.deregister_flush(this.key);
        }
        polled
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        if !self.waits {
            return;
        }
        let inner = &*self.inner;
        let mut state = inner.lock();
        state.waiting -= 1;
        let was_woken = !inner.wakers.deregister_flush(self.key);
        let (waiting, unflushed) = (state.waiting, state.flushed < state.queued);
        drop(state);
        match waiting {
            0 if unflushed => inner.wakers.wake_reader(),
            // It was woken to write for all, and does not.
            _ if unflushed && was_woken => inner.wakers.wake_writer(),
            _ => {}
        }
    }
}

impl Stream for SharedLink {
    type Item = Result<LinkEvent<Message>, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let inner = &*self.inner;
        // Before it is seen what was offered: what is offered from now on wakes.
        inner.wakers.register_reader(cx.waker());
        let mut state = inner.lock();
        let polled = if let Some(item) = state.read_ahead.pop() {
            Poll::Ready(Ok(item))
        } else if let Some(end) = &state.end {
            Poll::Ready(Err(end.clone()))
        } else {
            inner.poll_serve(&mut state, cx)
        };
        if polled.is_ready() {
            inner.wakers.deregister_reader();
        }
        polled.map(Some)
    }
}

impl Sink<Message> for SharedLink {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let inner = &*self.inner;
        let mut state = inner.lock();
        if let Some(end) = &state.end {
            return Poll::Ready(Err(end.clone()));
        }
        if !state.is_full(false, inner.queue_bytes) {
            return Poll::Ready(Ok(()));
        }
        inner.wakers.register_sink(cx.waker());
        let written = inner.poll_write(&mut state);
        if state.end.is_none() && !state.is_full(false, inner.queue_bytes) {
            inner.wakers.deregister_sink(cx.waker());
            return Poll::Ready(Ok(()));
        }
        written
    }

    fn start_send(mut self: Pin<&mut Self>, item: Message) -> Result<(), Error> {
        let survives = mem::take(&mut self.survives);
        let ticket = self.inner.push(&mut self.inner.lock(), item, survives)?;
        self.ticket = ticket;
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let inner = &*self.inner;
        let mut state = inner.lock();
        inner.wakers.register_sink(cx.waker());
        let written = inner.poll_write(&mut state);
        if written.is_ready() {
            inner.wakers.deregister_sink(cx.waker());
        }
        written
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let inner = &*self.inner;
        let mut state = inner.lock();
        inner.wakers.register_sink(cx.waker());
        let closed = ready!(inner.poll_close(&mut state));
        inner.wakers.deregister_sink(cx.waker());
        self.finish(state);
        Poll::Ready(closed)
    }
}

#[cfg(test)]
mod tests;
