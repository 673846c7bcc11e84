//! [`Shared`]: the outbound queue and the one lock of a connection.
//!
//! rmcp drives a transport from several tasks at once: its loop receives, and every send is waited
//! for by a task of its own. `Shared` lets all of them drive the same link without a task that does
//! it for them. Each message gets a ticket when it is queued, at once and in order; whoever comes to
//! the lock next writes *all* that is queued and flushes once, and a [`Flushed`] future resolves when
//! its ticket is through.
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

mod desk;
mod fan_out;
mod inbox;
mod mailbox;

use std::{
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, atomic::AtomicBool},
    task::{Context, Poll, ready},
};

use futures::{Sink, Stream};
use tokio::sync::watch;
use tracing::Span;

use self::desk::{Desk, Line};
use crate::{
    duplex::Duplex,
    error::{CloseCode, CloseReason, Error, LinkError},
    event::{Event, Events, Notices, State},
    link::{Link, Numbered},
    message::Message,
};

/// Size charged for a request that waits before the queue, in bytes.
const REQUEST: usize = 512;

/// The bound of a [`Shared`]'s queue.
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
pub struct Shared {
    line: Arc<Line>,
    ticket: u64,
    survives: bool,
}

/// Why a message was not taken by [`Shared::offer`].
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NotTaken {
    /// The queue is full: the peer does not read as fast as it is written to.
    #[error("the outbound queue is full")]
    Full,
    /// The link has ended, or is about to: a Close is on its way.
    #[error("the link has ended")]
    Ended,
}

impl Shared {
    /// Takes over `line`: links one after the other, such as a [`Relink`](super::Relink).
    pub fn new<L>(line: L, config: Config) -> Self
    where
        L: Duplex<Numbered, Link<Message>> + Send + 'static,
    {
        Self::with_notices(line, config, Notices::default(), Span::none())
    }

    /// The same, where the state is told elsewhere too, which is [`State::Connected`] from now on, and
    /// with the span in which the end is traced.
    pub(crate) fn with_notices<L>(line: L, config: Config, notices: Notices, span: Span) -> Self
    where
        L: Duplex<Numbered, Link<Message>> + Send + 'static,
    {
        notices.state.send_replace(State::Connected);
        let line = Line::new(Box::pin(line), config.queue_bytes, notices, span);
        Self { line: Arc::new(line), ticket: 0, survives: false }
    }

    /// The state of the connection, now and as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.line.notices.state.subscribe()
    }

    /// What happens to the connection from now on, where it has more than one link.
    pub(crate) fn events(&self) -> Option<Events<Event>> {
        self.line.notices.subscribe()
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
    /// [`NotTaken`], with nothing queued.
    pub fn offer(&self, message: Message) -> Result<(), NotTaken> {
        self.line.mailbox.put(message, self.line.queue_bytes)?;
        self.line.fan_out.wake_reader();
        Ok(())
    }

    /// Whether the next message that this handle queues means something to a peer that knows nothing
    /// of what was before: [after a restart](crate::link::Up::Restarted) it is still sent, and nothing
    /// else is.
    pub fn survives(&mut self, survives: bool) {
        self.survives = survives;
    }

    /// Other links may follow this one: where a write fails, nobody need wait for what becomes of it.
    pub(super) fn outlive(&self) {
        self.line.lock().outlives = true;
    }

    /// After a restart, holds what has survived until it is [released](Self::release), and lets pass
    /// what is queued meanwhile and does not survive. Off until this is called.
    pub fn hold_on_restart(&self) {
        self.line.lock().holds = true;
    }

    /// A peer that was lost may return on the next link: what is queued is kept for it.
    #[cfg(any(test, feature = "server"))]
    pub(super) fn expect_return(&self) {
        self.line.lock().returns = true;
    }

    /// The peer that has returned begins anew: what does not survive a restart is not sent.
    pub(super) fn begin_anew(&self) {
        self.line.begin_anew(&mut self.line.lock());
        self.line.fan_out.wake_writer();
        self.line.fan_out.wake_reader();
    }

    /// Sends what was held.
    pub fn release(&self) {
        self.line.lock().release();
        self.line.fan_out.wake_writer();
        self.line.fan_out.wake_reader();
    }

    /// Keeps queued messages that survive a restart for the next link; all others are still written
    /// to this one, later ones too. Lasts until the next link is there, or it is
    /// [released](Self::release).
    pub(super) fn hold(&self) {
        let mut desk = self.line.lock();
        desk.hold();
        self.line.mailbox.note_queued(desk.queued_bytes);
        drop(desk);
        // Nobody waits for a link that may be long in coming.
        self.line.fan_out.wake_flushed(u64::MAX);
        self.line.fan_out.wake_reader();
    }

    /// Queues `message` before all others, held or not.
    pub fn send_first(&self, message: Message) {
        let mut desk = self.line.lock();
        if desk.accepts().is_ok() {
            desk.push_first(message);
            drop(desk);
            self.line.fan_out.wake_reader();
        }
    }

    /// Takes the message with this ticket out of the queue. `false` if it is no longer there.
    pub fn withdraw(&self, ticket: u64) -> bool {
        let mut desk = self.line.lock();
        ticket > desk.handed && self.line.withdraw(&mut desk, ticket)
    }

    /// Takes those of the messages with these tickets, in ascending order, out of the queue that are
    /// still there. The number of the last message that was handed to the link.
    pub(super) fn withdraw_all(&self, tickets: &[u64]) -> u64 {
        let mut desk = self.line.lock();
        let handed = desk.handed;
        self.line.forget(&mut desk, |next| tickets.binary_search(&next.ticket).is_ok());
        handed
    }

    /// Whether there is no room for what survives a restart, or does not, while the queue is detained.
    /// For answers there is as long as the peer that awaits them may come back.
    pub(super) fn is_stopped(&self, survives: bool, answers: bool) -> bool {
        let mut desk = self.line.lock();
        if !desk.is_detained() || !desk.is_full(survives, self.line.queue_bytes) {
            return false;
        }
        if !desk.is_cut_off() || desk.returns {
            return !answers;
        }
        // What would not be sent after a restart makes room first.
        self.line.forget(&mut desk, |next| !next.survives);
        desk.is_full(survives, self.line.queue_bytes)
    }

    /// Returns `true` if the queue is held back, and the `requests` that wait before it are more
    /// than it had room for.
    pub(super) fn is_overrun(&self, requests: usize) -> bool {
        requests >= self.line.queue_bytes / REQUEST && self.line.lock().is_detained()
    }

    /// Returns `true` if nothing can be written before more is read: a write has failed, there is
    /// no link, or it is unknown who is at its other end.
    pub(super) fn is_stuck(&self) -> bool {
        self.line.lock().is_stuck()
    }

    /// Wakes the reader, for whom there is something that did not come over the link.
    pub(super) fn wake_reader(&self) {
        self.line.fan_out.wake_reader();
    }

    /// The reason that `poll_close` gives to the peer, in place of 1000. The last call counts.
    pub fn close_with(&self, reason: CloseReason) {
        self.line.lock().parting = Some(reason);
    }

    /// Resolves when everything queued so far is written and flushed, or with the error that
    /// ended the link before. While there is no link, or what there is waits for a new peer, it does
    /// not wait. Dropping it takes nothing back.
    pub fn flushed(&self) -> Flushed {
        let mut desk = self.line.lock();
        desk.flushes += 1;
        desk.waiting += 1;
        let place = (desk.queued, desk.flushes);
        Flushed { line: self.line.clone(), place, waits: true }
    }

    /// How many bytes wait to be handed to the link.
    #[cfg(feature = "server")]
    pub(crate) fn queued_bytes(&self) -> usize {
        self.line.mailbox.bytes()
    }

    /// How many messages were handed to the link: what has a higher ticket never left this side.
    #[must_use]
    pub fn handed(&self) -> u64 {
        self.line.lock().handed
    }

    /// The same for when the present link began.
    pub(super) fn began(&self) -> u64 {
        self.line.lock().began
    }

    /// Ends the connection at once, without the closing handshake, for everyone who waits on it.
    pub fn cut(&self) {
        self.finish(self.line.lock());
    }

    /// The same, for a reason of this side's own.
    pub(super) fn cut_for(&self, error: Error) {
        let mut desk = self.line.lock();
        self.line.end(&mut desk, error);
        self.finish(desk);
    }

    fn finish(&self, mut desk: MutexGuard<'_, Desk>) {
        let reason = CloseReason::new(CloseCode::Normal, "closed by this side");
        self.line.end(&mut desk, LinkError::Closed(reason).into());
        let link = desk.link.take();
        drop(desk);
        drop(link);
    }
}

/// See [`Shared::flushed`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Flushed {
    line: Arc<Line>,
    /// The ticket it waits for, and a number that tells it from others with the same one.
    place: (u64, u64),
    /// It is one of those whom `Desk::waiting` counts.
    waits: bool,
}

impl Future for Flushed {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let line = &*this.line;
        let mut desk = line.lock();
        let mut polled = Poll::Ready(Ok(()));
        if desk.flushed < this.place.0 {
            line.fan_out.sit_flush(this.place, cx.waker());
            let written = line.poll_write(&mut desk);
            if desk.flushed < this.place.0 && !desk.is_detained() {
                polled = written;
            }
        }
        if polled.is_ready() && this.waits {
            this.waits = false;
            desk.waiting -= 1;
            line.fan_out.leave_flush(this.place);
        }
        polled
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        if !self.waits {
            return;
        }
        let line = &*self.line;
        let mut desk = line.lock();
        desk.waiting -= 1;
        let was_woken = !line.fan_out.leave_flush(self.place);
        let (waiting, unflushed) = (desk.waiting, desk.flushed < desk.queued);
        drop(desk);
        match waiting {
            0 if unflushed => line.fan_out.wake_reader(),
            // It was woken to write for all, and does not.
            _ if unflushed && was_woken => line.fan_out.wake_writer(),
            _ => {}
        }
    }
}

impl Stream for Shared {
    type Item = Result<Link<Message>, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let line = &*self.line;
        // Before it is seen what was offered: what is offered from now on wakes.
        line.fan_out.sit_reader(cx.waker());
        let mut desk = line.lock();
        let polled = if let Some(item) = desk.inbox.pop() {
            Poll::Ready(Ok(item))
        } else if let Some(end) = &desk.end {
            Poll::Ready(Err(end.clone()))
        } else {
            line.poll_serve(&mut desk, cx)
        };
        if polled.is_ready() {
            line.fan_out.leave_reader();
        }
        polled.map(Some)
    }
}

impl Sink<Message> for Shared {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let line = &*self.line;
        let mut desk = line.lock();
        if let Some(end) = &desk.end {
            return Poll::Ready(Err(end.clone()));
        }
        if !desk.is_full(false, line.queue_bytes) {
            return Poll::Ready(Ok(()));
        }
        line.fan_out.sit_sink(cx.waker());
        let written = line.poll_write(&mut desk);
        if desk.end.is_none() && !desk.is_full(false, line.queue_bytes) {
            line.fan_out.leave_sink(cx.waker());
            return Poll::Ready(Ok(()));
        }
        written
    }

    fn start_send(mut self: Pin<&mut Self>, item: Message) -> Result<(), Error> {
        let survives = mem::take(&mut self.survives);
        let ticket = self.line.push(&mut self.line.lock(), item, survives)?;
        self.ticket = ticket;
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let line = &*self.line;
        let mut desk = line.lock();
        line.fan_out.sit_sink(cx.waker());
        let written = line.poll_write(&mut desk);
        if written.is_ready() {
            line.fan_out.leave_sink(cx.waker());
        }
        written
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let line = &*self.line;
        let mut desk = line.lock();
        line.fan_out.sit_sink(cx.waker());
        let closed = ready!(line.poll_close(&mut desk));
        line.fan_out.leave_sink(cx.waker());
        self.finish(desk);
        Poll::Ready(closed)
    }
}

#[cfg(test)]
mod tests;
