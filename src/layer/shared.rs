//! [`Shared`]: the outbound queue and the one lock of a connection.
//!
//! rmcp drives a transport from several tasks at once: its loop receives, and every send is waited
//! for by a task of its own. `Shared` lets all of them drive the same link without a task that does
//! it for them. Each message gets a ticket when it is queued, at once and in order; whoever comes to
//! the lock next writes *all* that is queued and flushes once, and a [`Flushed`] future resolves when
//! its ticket is through.
//!
//! The link below is always polled with one waker (`fan_out.rs`) that wakes everyone who waits here:
//! readiness to read or write is never lost to a task that did not need it.

use std::{
    collections::VecDeque,
    fmt, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    task::{Context, Poll, Waker, ready},
};

use futures::{Sink, SinkExt, Stream, StreamExt};
use tokio::sync::watch;

use self::fan_out::{FanOut, Seat};
use crate::{
    duplex::{BoxLink, Duplex},
    error::{CloseCode, CloseReason, Error, LinkError},
    event::State,
    message::Message,
};

#[path = "fan_out.rs"]
mod fan_out;

/// How many messages are read at most while looking for the cause of a failed write.
const INBOX: usize = 256;

/// The bound of a [`Shared`]'s queue.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The queue is full from this many bytes on: 1 MiB. A full queue keeps `poll_ready` pending.
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
}

#[derive(Debug)]
struct Line {
    desk: Mutex<Desk>,
    fan_out: Arc<FanOut>,
    waker: Waker,
    queue_bytes: usize,
    state: watch::Sender<State>,
}

/// What the lock guards.
struct Desk {
    link: Option<BoxLink>,
    queue: VecDeque<Message>,
    queued_bytes: usize,
    /// Read while looking for the cause of a failed write, and not yet taken.
    inbox: VecDeque<Message>,
    /// How many messages were ever queued, handed to the link, and flushed.
    queued: u64,
    handed: u64,
    flushed: u64,
    /// How many futures were ever made that wait for a flush.
    flushes: u64,
    /// How many [`Flushed`] wait, each of which will write when it is polled.
    waiting: usize,
    /// The link had nothing to read when it was last polled.
    dry: bool,
    /// The reason in a Close of ours: whatever follows it, this is why the link ended.
    farewell: Option<CloseReason>,
    /// Why the link ended, for everyone who asks from then on.
    end: Option<Error>,
}

impl Shared {
    /// Takes over `link`.
    pub fn new<L>(link: L, config: Config) -> Self
    where
        L: Duplex<Message, Message> + Send + 'static,
    {
        Self::with_state(Box::pin(link), config, watch::Sender::new(State::Connecting))
    }

    /// The same, with the channel on which the state is told; it is [`State::Connected`] from now on.
    pub fn with_state(link: BoxLink, config: Config, state: watch::Sender<State>) -> Self {
        state.send_replace(State::Connected);
        let fan_out = Arc::new(FanOut::default());
        let desk = Desk {
            link: Some(link),
            queue: VecDeque::new(),
            queued_bytes: 0,
            inbox: VecDeque::new(),
            queued: 0,
            handed: 0,
            flushed: 0,
            flushes: 0,
            waiting: 0,
            dry: false,
            farewell: None,
            end: None,
        };
        let line = Line {
            desk: Mutex::new(desk),
            waker: Waker::from(fan_out.clone()),
            fan_out,
            queue_bytes: config.queue_bytes,
            state,
        };
        Self { line: Arc::new(line) }
    }

    /// The state of the connection, now and as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.line.state.subscribe()
    }

    /// The number of the message queued last; the first has 1.
    #[must_use]
    pub fn ticket(&self) -> u64 {
        self.line.lock().queued
    }

    /// Resolves when everything queued so far is written and flushed, or with the error that
    /// ended the link before. Dropping it takes nothing back.
    pub fn flushed(&self) -> Flushed {
        let mut desk = self.line.lock();
        desk.flushes += 1;
        desk.waiting += 1;
        let (number, ticket) = (desk.flushes, desk.queued);
        Flushed { line: self.line.clone(), number, ticket, waits: true }
    }

    /// How many messages were handed to the link: what has a higher ticket never left this side.
    #[must_use]
    pub fn handed(&self) -> u64 {
        self.line.lock().handed
    }

    /// Ends the connection at once, without the closing handshake, for everyone who waits on it.
    pub fn cut(&self) {
        let mut desk = self.line.lock();
        self.line.end(&mut desk, LinkError::Closed(local_close()).into());
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
    /// Tells it from others with the same ticket.
    number: u64,
    ticket: u64,
    /// It is one of those whom [`Desk::waiting`] counts.
    waits: bool,
}

impl Flushed {
    /// Waits no longer.
    fn leave(&mut self, desk: &mut Desk) {
        if mem::take(&mut self.waits) {
            desk.waiting -= 1;
        }
        self.line.fan_out.leave(Seat::Flushed(self.number));
    }
}

impl Future for Flushed {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let line = self.line.clone();
        let mut desk = line.lock();
        let mut polled = Poll::Ready(Ok(()));
        if desk.flushed < self.ticket {
            line.fan_out.sit(Seat::Flushed(self.number), cx.waker());
            let written = line.poll_write(&mut desk);
            if desk.flushed < self.ticket {
                polled = written;
            }
        }
        if polled.is_ready() {
            self.leave(&mut desk);
        }
        polled
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        if !self.waits {
            return;
        }
        let line = self.line.clone();
        let mut desk = line.lock();
        self.leave(&mut desk);
        if desk.waiting == 0 && desk.flushed < desk.queued {
            drop(desk);
            line.fan_out.wake_reader();
        }
    }
}

impl Stream for Shared {
    type Item = Result<Message, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let line = &*self.line;
        let mut desk = line.lock();
        if let Some(message) = desk.inbox.pop_front() {
            return Poll::Ready(Some(Ok(message)));
        }
        if let Some(end) = &desk.end {
            return Poll::Ready(Some(Err(end.clone())));
        }
        line.fan_out.sit(Seat::Reader, cx.waker());
        let mut polled = line.poll_read(&mut desk);
        if polled.is_pending() && desk.waiting == 0 && desk.flushed < desk.queued {
            // Nobody else will write this. Where someone waits, the writing is left to them: by
            // then more has gathered, and goes out with the same flush.
            if let Poll::Ready(Err(error)) = line.poll_write(&mut desk) {
                polled = match desk.inbox.pop_front() {
                    Some(message) => Poll::Ready(Some(Ok(message))),
                    None => Poll::Ready(Some(Err(error))),
                };
            }
        }
        if polled.is_ready() {
            line.fan_out.leave(Seat::Reader);
        }
        polled
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
        if desk.queued_bytes < line.queue_bytes {
            return Poll::Ready(Ok(()));
        }
        line.fan_out.sit(Seat::Sink, cx.waker());
        let written = line.poll_write(&mut desk);
        if desk.end.is_none() && desk.queued_bytes < line.queue_bytes {
            line.fan_out.leave_sink(cx.waker());
            return Poll::Ready(Ok(()));
        }
        written
    }

    fn start_send(self: Pin<&mut Self>, item: Message) -> Result<(), Error> {
        let mut desk = self.line.lock();
        if let Some(end) = &desk.end {
            return Err(end.clone());
        }
        if let Message::Close(reason) = &item {
            desk.farewell = reason.clone();
        }
        desk.queued += 1;
        desk.queued_bytes += item.len();
        desk.queue.push_back(item);
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let line = &*self.line;
        let mut desk = line.lock();
        line.fan_out.sit(Seat::Sink, cx.waker());
        let written = line.poll_write(&mut desk);
        if written.is_ready() {
            line.fan_out.leave_sink(cx.waker());
        }
        written
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let line = &*self.line;
        let mut desk = line.lock();
        line.fan_out.sit(Seat::Sink, cx.waker());
        if desk.end.is_none() {
            let _ = ready!(line.poll_write(&mut desk));
        }
        let Some(link) = &mut desk.link else {
            return Poll::Ready(Ok(()));
        };
        let closed = ready!(link.poll_close_unpin(&mut Context::from_waker(&line.waker)));
        line.fan_out.leave_sink(cx.waker());
        line.end(&mut desk, LinkError::Closed(local_close()).into());
        let link = desk.link.take();
        drop(desk);
        drop(link);
        Poll::Ready(closed)
    }
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes all that is queued, then flushes once, until nothing is left.
    fn poll_write(&self, desk: &mut Desk) -> Poll<Result<(), Error>> {
        let mut cx = Context::from_waker(&self.waker);
        if let Some(end) = &desk.end {
            return Poll::Ready(Err(end.clone()));
        }
        let polled = loop {
            let Some(link) = &mut desk.link else { break Poll::Ready(Ok(())) };
            if desk.queue.is_empty() {
                break link.poll_flush_unpin(&mut cx);
            }
            match link.poll_ready_unpin(&mut cx) {
                Poll::Ready(Ok(())) => {}
                other => break other,
            }
            if let Some(message) = desk.queue.pop_front() {
                desk.queued_bytes -= message.len();
                desk.handed += 1;
                if let Err(error) = link.start_send_unpin(message) {
                    break Poll::Ready(Err(error));
                }
            }
        };
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => {
                if mem::replace(&mut desk.flushed, desk.handed) != desk.handed {
                    self.fan_out.wake_writers();
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.explain(desk, error))),
        }
    }

    fn poll_read(&self, desk: &mut Desk) -> Poll<Option<Result<Message, Error>>> {
        // rmcp polls its transport at every turn of its loop, whatever woke that.
        let news = self.fan_out.take_news();
        if desk.dry && !news {
            return Poll::Pending;
        }
        let Some(link) = &mut desk.link else { return Poll::Ready(None) };
        let polled = link.poll_next_unpin(&mut Context::from_waker(&self.waker));
        desk.dry = polled.is_pending();
        let error = match ready!(polled) {
            Some(Ok(Message::Close(reason))) => closed_by_peer(reason),
            Some(Ok(message)) => return Poll::Ready(Some(Ok(message))),
            Some(Err(error)) => error,
            None => LinkError::Closed(CloseCode::Abnormal.into()).into(),
        };
        self.end(desk, error.clone());
        Poll::Ready(Some(Err(error)))
    }

    /// Ends the link after a failed write. The peer may have said why before it stopped reading, so
    /// what has already arrived is read first: the cause is worth more than "broken pipe".
    fn explain(&self, desk: &mut Desk, error: Error) -> Error {
        let mut cx = Context::from_waker(&self.waker);
        let mut cause = error;
        if let Some(link) = &mut desk.link {
            while desk.inbox.len() < INBOX
                && let Poll::Ready(Some(Ok(message))) = link.poll_next_unpin(&mut cx)
            {
                if let Message::Close(reason) = message {
                    cause = closed_by_peer(reason);
                    break;
                }
                desk.inbox.push_back(message);
            }
        }
        self.end(desk, cause.clone());
        cause
    }

    /// Stores the first error that ends the link, and tells everyone.
    fn end(&self, desk: &mut Desk, error: Error) {
        if desk.end.is_some() {
            return;
        }
        let error = desk.farewell.take().map_or(error, |own| LinkError::Closed(own).into());
        let reason = match &error {
            Error::Link(error) => error.close_reason(),
            other => CloseReason::new(CloseCode::Internal, other.to_string()),
        };
        tracing::debug!(%reason, "connection ended");
        desk.end = Some(error);
        desk.queue = VecDeque::new();
        desk.queued_bytes = 0;
        self.state.send_replace(State::Closed(reason));
        self.fan_out.wake_all();
    }
}

fn closed_by_peer(reason: Option<CloseReason>) -> Error {
    LinkError::Closed(reason.unwrap_or_else(|| CloseCode::NoStatus.into())).into()
}

fn local_close() -> CloseReason {
    CloseReason::new(CloseCode::Normal, "closed by this side")
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk")
            .field("queued", &self.queued)
            .field("handed", &self.handed)
            .field("flushed", &self.flushed)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio_test::{
        assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task::spawn,
    };

    use super::*;
    use crate::layer::fake;

    fn shared() -> (Shared, fake::Peer) {
        let (link, peer) = fake::link();
        (Shared::new(link, Config::default().queue_bytes(10)), peer)
    }

    fn queue(shared: &mut Shared, text: &'static str) -> Flushed {
        shared.start_send_unpin(Message::text(text)).unwrap();
        shared.flushed()
    }

    #[test]
    fn one_flush_serves_everyone_who_waits() {
        let (mut shared, peer) = shared();
        let tickets = ["a", "b", "c"].map(|text| queue(&mut shared, text));
        let [a, mut b, mut c] = tickets.map(spawn);
        drop(a);
        assert_ready_ok!(c.poll());
        assert_ready_ok!(b.poll());
        assert_eq!(peer.sent(), ["a", "b", "c"].map(Message::text));
        assert_eq!(peer.flushes(), 1);
    }

    #[test]
    fn whoever_writes_wakes_the_others() {
        let (mut shared, peer) = shared();
        peer.block(true);
        let (mut a, mut b) = (spawn(queue(&mut shared, "a")), spawn(queue(&mut shared, "b")));
        let mut reader = spawn(shared.clone());
        assert_pending!(reader.poll_next());
        assert_pending!(a.poll());
        assert_pending!(b.poll());
        peer.block(false);
        assert!(a.is_woken() && b.is_woken() && reader.is_woken());
        assert_ready_ok!(a.poll());
        assert_ready_ok!(b.poll());
    }

    #[test]
    fn the_reader_writes_what_nobody_waits_for() {
        let (mut shared, peer) = shared();
        drop(queue(&mut shared, "a"));
        assert_pending!(spawn(shared).poll_next());
        assert_eq!(peer.sent(), [Message::text("a")]);
    }

    #[test]
    fn the_reader_leaves_writing_to_who_waits_and_takes_it_over_from_them() {
        let (mut shared, peer) = shared();
        let a = queue(&mut shared, "a");
        let mut reader = spawn(shared);
        assert_pending!(reader.poll_next());
        assert!(peer.sent().is_empty());
        drop(a);
        assert!(reader.is_woken());
        assert_pending!(reader.poll_next());
        assert_eq!(peer.sent(), [Message::text("a")]);
    }

    #[test]
    fn a_link_without_news_is_not_polled_again() {
        let (shared, peer) = shared();
        let mut reader = spawn(shared);
        assert_pending!(reader.poll_next());
        let polls = peer.polls();
        for _ in 0..3 {
            assert_pending!(reader.poll_next());
        }
        assert!(peer.polls() <= polls + 1);
        peer.send(Message::text("a"));
        assert!(reader.is_woken());
        assert!(assert_ready!(reader.poll_next()).unwrap().is_ok());
    }

    #[test]
    fn a_reader_that_was_dropped_loses_nothing() {
        let (mut shared, peer) = shared();
        assert_pending!(spawn(shared.next()).poll());
        peer.send(Message::text("a"));
        let a = assert_ready!(spawn(shared.next()).poll());
        assert_eq!(a.unwrap().unwrap(), Message::text("a"));
    }

    #[test]
    fn a_full_queue_takes_more_but_asks_for_none() {
        let (mut shared, peer) = shared();
        peer.block(true);
        let mut sink = spawn(shared.clone());
        assert_ready_ok!(sink.enter(|cx, mut sink| sink.poll_ready_unpin(cx)));
        drop(queue(&mut shared, "0123456789"));
        assert_pending!(sink.enter(|cx, mut sink| sink.poll_ready_unpin(cx)));
        let mut over = spawn(queue(&mut shared, "over"));
        assert_pending!(over.poll());
        peer.block(false);
        assert!(sink.is_woken());
        assert_ready_ok!(sink.enter(|cx, mut sink| sink.poll_ready_unpin(cx)));
        assert_ready_ok!(over.poll());
        assert_eq!(peer.sent(), ["0123456789", "over"].map(Message::text));
    }

    #[test]
    fn everyone_hears_why_it_ended() {
        let (mut shared, peer) = shared();
        peer.block(true);
        let mut a = spawn(queue(&mut shared, "a"));
        assert_pending!(a.poll());
        let restart = CloseReason::new(CloseCode::Restart, "back soon");
        peer.send(Message::Close(Some(restart.clone())));
        let error = assert_ready!(spawn(shared.next()).poll()).unwrap().unwrap_err();
        assert!(matches!(&error, Error::Link(LinkError::Closed(reason)) if *reason == restart));
        assert!(a.is_woken());
        assert_eq!(assert_ready_err!(a.poll()).to_string(), error.to_string());
        let late = shared.start_send_unpin(Message::text("late")).unwrap_err();
        assert_eq!(late.to_string(), error.to_string());
        assert_eq!(*shared.state().borrow(), State::Closed(restart));
    }

    #[test]
    fn a_failed_write_is_explained_by_what_the_peer_said_before() {
        let (mut shared, peer) = shared();
        peer.send(Message::text("last words"));
        peer.send(Message::Close(Some(CloseCode::TooBig.into())));
        peer.break_writes();
        let error = assert_ready_err!(spawn(queue(&mut shared, "a")).poll());
        assert!(error.to_string().contains("1009"), "{error}");
        let words = assert_ready!(spawn(shared.next()).poll()).unwrap().unwrap();
        assert_eq!(words, Message::text("last words"));
        assert!(assert_ready!(spawn(shared.next()).poll()).unwrap().is_err());
    }

    #[test]
    fn what_was_never_handed_over_is_known() {
        let (mut shared, peer) = shared();
        assert_ready_ok!(spawn(queue(&mut shared, "a")).poll());
        peer.block(true);
        assert_pending!(spawn(queue(&mut shared, "b")).poll());
        assert_eq!((shared.ticket(), shared.handed()), (2, 1));
    }

    #[test]
    fn closing_writes_what_is_queued_first() {
        let (mut shared, peer) = shared();
        peer.block(true);
        let mut a = spawn(queue(&mut shared, "a"));
        let mut closing = spawn(shared.close());
        assert_pending!(closing.poll());
        peer.block(false);
        assert_ready_ok!(closing.poll());
        assert_eq!(peer.sent(), [Message::text("a")]);
        assert!(peer.is_closed());
        assert_ready_ok!(a.poll());
    }

    #[test]
    fn a_cut_reaches_everyone_at_once() {
        let (mut shared, peer) = shared();
        peer.block(true);
        let mut a = spawn(queue(&mut shared, "a"));
        let mut reader = spawn(shared.clone());
        assert_pending!(a.poll());
        assert_pending!(reader.poll_next());
        shared.cut();
        assert!(a.is_woken() && reader.is_woken());
        assert_ready_err!(a.poll());
        assert!(assert_ready!(reader.poll_next()).unwrap().is_err());
    }
}
