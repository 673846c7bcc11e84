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
mod hold;
mod inner;
mod io;
pub(crate) mod queue;
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

pub use self::{
    flushed::Flushed,
    queue::{QueueFull, Slot, TrySendError},
};
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
    /// [`Correlation`](super::Correlation) refuses what comes then, except on a client whose
    /// session may be resumed. There requests wait for that, up to 128 times this size; each counts
    /// as its JSON and 512 bytes more. Once decoded, many small values may take more.
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

    /// Writes what is queued as far as the link takes it, unless somebody uses the link.
    pub(crate) fn write_now(&self) {
        if let Some(mut driver) = self.inner.driver.try_lock()
            && let Some(driver) = driver.get()
        {
            // The rest is written by those who wait for it, or by the reader.
            let _ = self.inner.poll_write(driver);
        }
    }

    /// Wakes the reader, for whom there is something that did not come over the link.
    pub(super) fn wake_reader(&self) {
        self.inner.wakers.wake_reader();
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
