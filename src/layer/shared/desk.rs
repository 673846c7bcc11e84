//! What the lock of a [`Shared`](super::Shared) guards: the link and the queue in front of it.

use std::{
    collections::VecDeque,
    fmt, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use futures::{SinkExt, StreamExt};
use tokio::{
    sync::watch,
    time::{Instant, Sleep, sleep},
};

use tracing::Span;

use super::{fan_out::FanOut, mailbox::Mailbox};
use crate::{
    duplex::BoxLink,
    error::{CloseCode, CloseReason, Error, LinkError},
    event::State,
    message::Message,
};

/// How many messages are read at most while looking for the cause of a failed write.
const INBOX: usize = 256;

/// How long the cause of a failed write is looked for: the Close that explains it may have arrived
/// without having been reported yet.
const EXPLANATION: Duration = Duration::from_millis(100);

/// How long the reader leaves a message to those who wait for it. Not shorter than the kernel's own
/// tick: a timer that is the next to fire costs as much to set as half a call.
const PATIENCE: Duration = Duration::from_millis(100);

/// A timer for something that was noted when it was set.
type Timer<T> = Option<(T, Pin<Box<Sleep>>)>;

/// The lock, and what is told outside of it.
#[derive(Debug)]
pub(super) struct Line {
    desk: Mutex<Desk>,
    pub(super) mailbox: Mailbox,
    pub(super) fan_out: Arc<FanOut>,
    pub(super) queue_bytes: usize,
    pub(super) state: watch::Sender<State>,
    span: Span,
    waker: Waker,
}

pub(super) struct Desk {
    pub(super) link: Option<BoxLink>,
    queue: VecDeque<Message>,
    pub(super) queued_bytes: usize,
    /// Read while looking for the cause of a failed write, and not yet taken.
    pub(super) inbox: VecDeque<Message>,
    /// How many messages were ever queued, handed to the link, and flushed.
    pub(super) queued: u64,
    pub(super) handed: u64,
    pub(super) flushed: u64,
    /// How many futures were ever made that wait for a flush, and how many still do.
    pub(super) flushes: u64,
    pub(super) waiting: usize,
    /// The last message when the reader began to wait for somebody to write it.
    patience: Timer<u64>,
    /// The link had nothing to read, or no room to write, when it was last asked; it wakes someone
    /// when that changes.
    dry: bool,
    blocked: bool,
    /// A write has failed, for this reason or for one that the peer has already sent.
    broken: Timer<Error>,
    /// The reason to be given when this side closes.
    pub(super) parting: Option<CloseReason>,
    /// The reason in a Close of ours: whatever follows it, this is why the link ended.
    farewell: Option<CloseReason>,
    /// Why the link ended, for everyone who asks from then on.
    pub(super) end: Option<Error>,
}

impl Line {
    pub(super) fn new(
        link: BoxLink,
        queue_bytes: usize,
        state: watch::Sender<State>,
        span: Span,
    ) -> Self {
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
            patience: None,
            dry: false,
            blocked: false,
            broken: None,
            parting: None,
            farewell: None,
            end: None,
        };
        let waker = Waker::from(fan_out.clone());
        let mailbox = Mailbox::default();
        Self { desk: Mutex::new(desk), mailbox, fan_out, queue_bytes, state, span, waker }
    }

    /// The desk, with all that was offered in its queue.
    pub(super) fn lock(&self) -> MutexGuard<'_, Desk> {
        let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        for message in self.mailbox.take() {
            // Behind a Close of ours nothing is written.
            if desk.farewell.is_none() {
                let _ = self.push(&mut desk, message);
            }
        }
        desk
    }

    /// Queues `message` and returns its ticket.
    pub(super) fn push(&self, desk: &mut Desk, message: Message) -> Result<u64, Error> {
        if matches!(message, Message::Close(_)) {
            self.mailbox.close();
        }
        let ticket = desk.push(message)?;
        self.mailbox.note_queued(desk.queued_bytes);
        Ok(ticket)
    }

    /// Reads one message and, where nobody else does, writes what is queued.
    pub(super) fn poll_serve(
        &self,
        desk: &mut Desk,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Message, Error>> {
        if self.fan_out.take_news() {
            desk.dry = false;
            desk.blocked = false;
        }
        // rmcp polls its transport at every turn of its loop, whatever woke that.
        if !desk.dry
            && let Poll::Ready(item) = self.poll_read(desk)
        {
            return Poll::Ready(item);
        }
        if desk.broken.is_some() || desk.is_left_alone(cx) {
            // If the write fails, the reader is the one to tell.
            if let Poll::Ready(Err(error)) = self.poll_write(desk) {
                return Poll::Ready(desk.inbox.pop_front().ok_or(error));
            }
        }
        Poll::Pending
    }

    fn poll_read(&self, desk: &mut Desk) -> Poll<Result<Message, Error>> {
        let mut cx = Context::from_waker(&self.waker);
        let Some(link) = desk.link.as_mut().filter(|_| desk.broken.is_none()) else {
            return Poll::Pending;
        };
        let polled = link.poll_next_unpin(&mut cx);
        desk.dry = polled.is_pending();
        let error = match ready!(polled) {
            Some(Ok(Message::Close(reason))) => LinkError::closed_by_peer(reason).into(),
            Some(Ok(message)) => return Poll::Ready(Ok(message)),
            Some(Err(error)) => error,
            None => LinkError::Closed(CloseCode::Abnormal.into()).into(),
        };
        Poll::Ready(Err(self.end(desk, error)))
    }

    /// Writes all that is queued, then flushes once, until nothing is left.
    pub(super) fn poll_write(&self, desk: &mut Desk) -> Poll<Result<(), Error>> {
        let mut cx = Context::from_waker(&self.waker);
        if let Some(end) = &desk.end {
            return Poll::Ready(Err(end.clone()));
        }
        if desk.broken.is_some() {
            return self.poll_explain(desk).map(Err);
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
                self.mailbox.note_queued(desk.queued_bytes);
                desk.handed += 1;
                if let Err(error) = link.start_send_unpin(message) {
                    break Poll::Ready(Err(error));
                }
            }
        };
        desk.blocked = polled.is_pending();
        match ready!(polled) {
            Ok(()) => {
                if mem::replace(&mut desk.flushed, desk.handed) != desk.handed {
                    self.fan_out.wake_flushed(desk.handed);
                }
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                desk.broken = Some((error, Box::pin(sleep(EXPLANATION))));
                self.poll_explain(desk).map(Err)
            }
        }
    }

    /// Ends the link after a failed write. The peer may have said why before it stopped reading, so
    /// what has already arrived is read first: the cause is worth more than "broken pipe".
    fn poll_explain(&self, desk: &mut Desk) -> Poll<Error> {
        let mut cx = Context::from_waker(&self.waker);
        let Some((error, timer)) = &mut desk.broken else { return Poll::Pending };
        let mut cause = error.clone();
        while desk.inbox.len() < INBOX
            && let Some(link) = &mut desk.link
        {
            match link.poll_next_unpin(&mut cx) {
                Poll::Ready(Some(Ok(Message::Close(reason)))) => {
                    cause = LinkError::closed_by_peer(reason).into();
                    break;
                }
                Poll::Ready(Some(Ok(message))) => desk.inbox.push_back(message),
                Poll::Ready(_) => break,
                Poll::Pending => {
                    ready!(timer.as_mut().poll(&mut cx));
                    break;
                }
            }
        }
        Poll::Ready(self.end(desk, cause))
    }

    /// Stores the first error that ends the link, tells everyone, and returns it.
    pub(super) fn end(&self, desk: &mut Desk, error: Error) -> Error {
        if let Some(end) = &desk.end {
            return end.clone();
        }
        let error = desk.farewell.take().map_or(error, |own| LinkError::Closed(own).into());
        let reason = match &error {
            Error::Link(error) => error.close_reason(),
            other => CloseReason::new(CloseCode::Internal, other.to_string()),
        };
        tracing::debug!(parent: &self.span, %reason, "connection ended");
        desk.end = Some(error.clone());
        desk.queue = VecDeque::new();
        desk.queued_bytes = 0;
        self.mailbox.close();
        drop(self.mailbox.take());
        desk.broken = None;
        desk.patience = None;
        self.state.send_replace(State::Closed(reason));
        self.fan_out.wake_all();
        error
    }

    /// Closes the link, after all that is queued is written.
    pub(super) fn poll_close(&self, desk: &mut Desk) -> Poll<Result<(), Error>> {
        if let Some(reason) = desk.parting.take() {
            // On a link that has ended there is nobody to tell.
            let _ = self.push(desk, Message::Close(Some(reason)));
        }
        if desk.end.is_none() {
            let _ = ready!(self.poll_write(desk));
        }
        let Some(link) = &mut desk.link else { return Poll::Ready(Ok(())) };
        link.poll_close_unpin(&mut Context::from_waker(&self.waker))
    }
}

impl Desk {
    fn push(&mut self, message: Message) -> Result<u64, Error> {
        if let Some(end) = &self.end {
            return Err(end.clone());
        }
        if let Message::Close(reason) = &message {
            self.farewell = reason.clone();
        }
        self.queued += 1;
        self.queued_bytes += message.len();
        self.queue.push_back(message);
        Ok(self.queued)
    }

    /// Whether something could be written and nobody else will: where someone waits for it, the
    /// writing is left to them, since by then more has gathered and goes out with the same flush.
    /// But a future may also be kept without being polled.
    fn is_left_alone(&mut self, cx: &mut Context<'_>) -> bool {
        if self.flushed == self.queued || self.blocked {
            return false;
        }
        if self.waiting == 0 {
            return true;
        }
        let last = self.queued;
        let (awaited, timer) =
            self.patience.get_or_insert_with(|| (last, Box::pin(sleep(PATIENCE))));
        while timer.as_mut().poll(cx).is_ready() {
            if self.flushed < *awaited {
                self.patience = None;
                return true;
            }
            *awaited = last;
            timer.as_mut().reset(Instant::now() + PATIENCE);
        }
        false
    }
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
