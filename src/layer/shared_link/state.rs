//! What the lock of a [`SharedLink`](super::SharedLink) guards: the link and the queue in front of
//! it.

use std::{
    collections::VecDeque,
    fmt, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use futures::{SinkExt, StreamExt};
use tokio::time::{Instant, Sleep, sleep};

use tracing::Span;

use super::{read_ahead::ReadAhead, submit::SubmitQueue, wakers::WakerSet};
use crate::{
    duplex::Duplex,
    error::{CloseCode, CloseReason, Error, LinkError},
    event::{self, Event, Notices},
    link::{Down, LinkEvent, LinkUp, Outgoing, Retention},
    message::Message,
};

/// How long the reader leaves a message to those who wait for it. Not shorter than the kernel's own
/// tick: a timer that is the next to fire costs as much to set as half a call.
const PATIENCE: Duration = Duration::from_millis(100);

/// Links, one after the other, whose type no longer matters.
pub(super) type BoxLinks = Pin<Box<dyn Duplex<Outgoing, LinkEvent<Message>> + Send>>;

/// The lock, and what is told outside of it.
#[derive(Debug)]
pub(super) struct Inner {
    state: Mutex<State>,
    pub(super) submit: SubmitQueue,
    pub(super) wakers: Arc<WakerSet>,
    pub(super) queue_bytes: usize,
    pub(super) notices: Notices,
    span: Span,
    waker: Waker,
}

pub(super) struct State {
    pub(super) link: Option<BoxLinks>,
    queue: VecDeque<Outgoing>,
    pub(super) queued_bytes: usize,
    /// What goes out before anything in the queue, and whether that is flushed.
    priority: VecDeque<Message>,
    priority_bytes: usize,
    priority_flushed: bool,
    /// Another link may follow, and be long in coming.
    pub(super) outlives: bool,
    /// After a restart, the queue waits until it is released.
    pub(super) holds: bool,
    held: bool,
    /// It is not known yet whether the peer is another: what is queued meanwhile waits too.
    unsure: bool,
    /// A peer that was lost may be back on the next link, and await its answers.
    pub(super) returns: bool,
    /// Items read after a write had failed, not yet taken by the reader.
    pub(super) read_ahead: ReadAhead,
    /// How many messages were ever queued, handed to the link, and flushed.
    pub(super) queued: u64,
    pub(super) handed: u64,
    pub(super) flushed: u64,
    /// How many futures were ever made that wait for a flush, and how many still do.
    pub(super) flushes: u64,
    pub(super) waiting: usize,
    /// The last message when the reader began to wait for somebody to write it.
    patience: Option<(u64, Pin<Box<Sleep>>)>,
    /// The link had nothing to read, or no room to write, when it was last asked; it wakes someone
    /// when that changes.
    read_pending: bool,
    write_pending: bool,
    /// A write has failed, or the link is down. What becomes of it is read from the link.
    stuck: bool,
    /// There is no link.
    down: bool,
    /// What had been handed over when the present link began.
    pub(super) began: u64,
    /// The reason to be given when this side closes.
    pub(super) close_reason: Option<CloseReason>,
    /// The reason in a Close of ours: whatever follows it, this is why the link ended.
    sent_close: Option<CloseReason>,
    /// Why the link ended, for everyone who asks from then on.
    pub(super) end: Option<Error>,
}

impl Inner {
    pub(super) fn new(link: BoxLinks, queue_bytes: usize, notices: Notices, span: Span) -> Self {
        let wakers = Arc::new(WakerSet::default());
        let state = State {
            link: Some(link),
            queue: VecDeque::new(),
            queued_bytes: 0,
            priority: VecDeque::new(),
            priority_bytes: 0,
            priority_flushed: true,
            outlives: false,
            holds: false,
            held: false,
            unsure: false,
            returns: false,
            read_ahead: ReadAhead::default(),
            queued: 0,
            handed: 0,
            flushed: 0,
            flushes: 0,
            waiting: 0,
            patience: None,
            read_pending: false,
            write_pending: false,
            stuck: false,
            down: false,
            began: 0,
            close_reason: None,
            sent_close: None,
            end: None,
        };
        let waker = Waker::from(wakers.clone());
        let submit = SubmitQueue::default();
        Self { state: Mutex::new(state), submit, wakers, queue_bytes, notices, span, waker }
    }

    /// The state, with all that was offered in its queue.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if self.submit.is_waiting() {
            self.collect(&mut state);
        }
        state
    }

    /// Queues what was offered. Apart, since there is seldom any, and the lock is taken all the time.
    #[cold]
    fn collect(&self, state: &mut State) {
        for message in self.submit.take() {
            let _ = self.push(state, message, false);
        }
    }

    /// Queues `message` and returns its ticket.
    pub(super) fn push(
        &self,
        state: &mut State,
        message: Message,
        survives: bool,
    ) -> Result<u64, Error> {
        if matches!(message, Message::Close(_)) {
            self.submit.close();
        }
        let ticket = state.push(message, survives)?;
        if state.down {
            // Whoever keeps it has to know how much that is.
            state.read_pending = false;
        }
        self.submit.note_queued(state.queued_bytes);
        Ok(ticket)
    }

    /// Reads one item and, where nobody else does, writes what is queued.
    pub(super) fn poll_serve(
        &self,
        state: &mut State,
        cx: &mut Context<'_>,
    ) -> Poll<Result<LinkEvent<Message>, Error>> {
        if self.wakers.take_woken() {
            state.read_pending = false;
            state.write_pending = false;
        }
        // rmcp polls its transport at every turn of its loop, whatever woke that.
        if !state.read_pending
            && let Poll::Ready(item) = self.poll_read(state)
        {
            return Poll::Ready(item);
        }
        if state.is_left_alone(cx) {
            // If the write fails, the reader is the one to tell.
            let written = self.poll_write(state);
            if let Some(item) = state.read_ahead.pop() {
                return Poll::Ready(Ok(item));
            }
            if let Poll::Ready(Err(error)) = written {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Pending
    }

    fn poll_read(&self, state: &mut State) -> Poll<Result<LinkEvent<Message>, Error>> {
        let mut cx = Context::from_waker(&self.waker);
        let Some(link) = state.link.as_mut() else { return Poll::Pending };
        let polled = link.poll_next_unpin(&mut cx);
        state.read_pending = polled.is_pending();
        Poll::Ready(match ready!(polled) {
            // After a Close of ours there is no other link.
            Some(Ok(LinkEvent::Down(down))) if state.sent_close.is_some() => {
                Err(self.end(state, down.cause))
            }
            Some(Ok(LinkEvent::Down(down))) => Ok(LinkEvent::Down(self.down(state, down))),
            Some(Ok(LinkEvent::Up(up))) => {
                self.up(state, &up);
                Ok(LinkEvent::Up(up))
            }
            Some(item) => item.map_err(|error| self.end(state, error)),
            None => Err(self.end(state, LinkError::Closed(CloseCode::Abnormal.into()).into())),
        })
    }

    /// What was handed over shares the fate of the link, and nobody need wait for it.
    fn down(&self, state: &mut State, down: Down) -> Down {
        state.stuck = true;
        state.down = true;
        state.flushed = state.handed;
        // Nobody waits for a link that may be long in coming.
        self.wakers.wake_flushed(u64::MAX);
        Down { handed: state.handed, ..down }
    }

    fn up(&self, state: &mut State, up: &LinkUp) {
        state.stuck = false;
        state.down = false;
        state.write_pending = false;
        state.began = state.handed;
        match up {
            LinkUp::NewPeer => self.begin_anew(state),
            LinkUp::Unverified => {
                state.held = true;
                state.unsure = true;
            }
            LinkUp::Resumed(_) => {}
        }
        self.notices.state.send_replace(event::State::Connected);
        self.wakers.wake_writer();
    }

    /// The peer knows nothing of what was before.
    pub(super) fn begin_anew(&self, state: &mut State) {
        state.held = state.holds;
        state.unsure = false;
        state.priority.clear();
        state.priority_bytes = 0;
        self.forget(state, |next| next.retention == Retention::ThisPeer);
    }

    /// Takes out of the queue what `unwanted` says, and whether there was any.
    pub(super) fn forget(&self, state: &mut State, unwanted: impl Fn(&Outgoing) -> bool) -> bool {
        let any = state.forget(unwanted);
        self.submit.note_queued(state.queued_bytes);
        if any {
            self.wakers.wake_sinks();
        }
        any
    }

    /// Removes the message with this ticket from the queue. Returns `true` if it was there.
    pub(super) fn withdraw(&self, state: &mut State, ticket: u64) -> bool {
        let was_there = state.withdraw(ticket).is_some();
        if was_there {
            self.submit.note_queued(state.queued_bytes);
            self.wakers.wake_sinks();
        }
        was_there
    }

    /// Writes all that is queued, then flushes once, until nothing is left.
    pub(super) fn poll_write(&self, state: &mut State) -> Poll<Result<(), Error>> {
        let mut cx = Context::from_waker(&self.waker);
        loop {
            if let Some(end) = &state.end {
                return Poll::Ready(Err(end.clone()));
            }
            while state.stuck {
                // Whoever waits for a write may be the only one to poll. But nothing is written over the
                // next link before the reader knows of it.
                if state.down || state.read_ahead.is_full() {
                    return Poll::Pending;
                }
                let item = ready!(self.poll_read(state))?;
                state.read_ahead.push(item);
                self.wakers.wake_reader();
            }
            let polled = state.poll_hand_over(&mut cx);
            self.submit.note_queued(state.queued_bytes);
            state.write_pending = polled.is_pending();
            if ready!(polled).is_err() {
                state.stuck = true;
                if state.outlives {
                    self.wakers.wake_flushed(u64::MAX);
                }
                continue;
            }
            state.priority_flushed = true;
            if mem::replace(&mut state.flushed, state.handed) != state.handed {
                self.wakers.wake_flushed(state.handed);
            }
            // What is held waits for more than the link.
            return if state.queue.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
    }

    /// Stores the first error that ends the link, tells everyone, and returns it.
    pub(super) fn end(&self, state: &mut State, error: Error) -> Error {
        if let Some(end) = &state.end {
            return end.clone();
        }
        let error =
            state.sent_close.take().map_or(error, |own| LinkError::closed_here(&own).into());
        let reason = match &error {
            Error::Link(error) => error.close_reason(),
            Error::Handshake(error) => CloseReason::new(CloseCode::Abnormal, error.to_string()),
            Error::Message(error) => CloseReason::new(CloseCode::Internal, error.to_string()),
        };
        tracing::debug!(parent: &self.span, %reason, "connection ended");
        state.end = Some(error.clone());
        state.queue = VecDeque::new();
        state.priority = VecDeque::new();
        state.priority_bytes = 0;
        state.queued_bytes = 0;
        state.stuck = false;
        state.down = false;
        state.release();
        self.submit.close();
        drop(self.submit.take());
        state.patience = None;
        self.notices.state.send_replace(event::State::Closed(reason));
        self.notices.announce(|| Event::Closed(error.clone()));
        self.wakers.wake_all();
        error
    }

    /// Closes the link, after all that is queued is written.
    pub(super) fn poll_close(&self, state: &mut State) -> Poll<Result<(), Error>> {
        if let Some(reason) = state.close_reason.take() {
            // On a link that has ended there is nobody to tell. It does not wait for what is held.
            let _ = self.push(state, Message::Close(Some(reason)), false);
        }
        if state.end.is_none() && !state.is_severed() {
            let written = self.poll_write(state);
            if written.is_pending()
                && !state.is_severed()
                && !(state.held && state.priority_flushed)
            {
                return Poll::Pending;
            }
        }
        let Some(link) = &mut state.link else { return Poll::Ready(Ok(())) };
        link.poll_close_unpin(&mut Context::from_waker(&self.waker))
    }
}

impl State {
    /// Whether anything is written at all. Behind a Close of ours nothing is.
    pub(super) fn accepts(&self) -> Result<(), Error> {
        match (&self.end, &self.sent_close) {
            (Some(end), _) => Err(end.clone()),
            (None, Some(own)) => Err(LinkError::closed_here(own).into()),
            (None, None) => Ok(()),
        }
    }

    fn push(&mut self, message: Message, survives: bool) -> Result<u64, Error> {
        self.accepts()?;
        if let Message::Close(reason) = &message {
            self.sent_close = reason.clone();
        }
        let waits = survives || self.unsure && self.sent_close.is_none();
        if self.held && !waits {
            self.push_first(message);
            return Ok(self.queued);
        }
        self.queued += 1;
        self.queued_bytes += message.len();
        let retention = if survives { Retention::AnyPeer } else { Retention::ThisPeer };
        self.queue.push_back(Outgoing { retention, ..Outgoing::new(self.queued, message) });
        Ok(self.queued)
    }

    /// Queues `message` before all others.
    pub(super) fn push_first(&mut self, message: Message) {
        self.priority_bytes += message.len();
        self.priority.push_back(message);
        self.priority_flushed = false;
    }

    /// Keeps what survives a restart, and moves the rest before it. Nothing follows a Close.
    pub(super) fn hold(&mut self) {
        if self.held || self.accepts().is_err() {
            return;
        }
        self.held = true;
        let (stays, goes): (VecDeque<_>, VecDeque<_>) = mem::take(&mut self.queue)
            .into_iter()
            .partition(|next| next.retention == Retention::AnyPeer);
        self.queue = stays;
        self.handed = self.queue.front().map_or(self.queued, |next| next.seq - 1);
        for next in goes {
            self.queued_bytes -= next.message.len();
            self.push_first(next.message);
        }
    }

    /// Lets the queue go on after a restart.
    pub(super) fn release(&mut self) {
        self.held = false;
        self.unsure = false;
    }

    /// Whether there is no room within `limit` bytes for what survives a restart, or does not.
    pub(super) fn is_full(&self, survives: bool, limit: usize) -> bool {
        let passes = self.held && !self.unsure && !self.down && !survives;
        limit <= if passes { self.priority_bytes } else { self.queued_bytes }
    }

    /// Whether what is queued may stay there for longer than a peer takes to read.
    pub(super) fn is_detained(&self) -> bool {
        self.is_severed() || self.held
    }

    /// Whether there is no link, as far as is known.
    fn is_severed(&self) -> bool {
        self.down || self.stuck && self.outlives
    }

    /// Returns `true` if nothing can be written before more is read: a write has failed, there is
    /// no link, or it is unknown who is at its other end.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck || self.unsure
    }

    /// Whether there is no peer for what is queued, or none yet.
    pub(super) fn is_cut_off(&self) -> bool {
        self.down || self.held
    }

    /// Removes one message, by binary search: many may be given up one by one.
    fn withdraw(&mut self, ticket: u64) -> Option<Outgoing> {
        let at = self.queue.binary_search_by_key(&ticket, |next| next.seq).ok()?;
        let gone = self.queue.remove(at)?;
        self.queued_bytes -= gone.message.len();
        self.handed = self.queue.front().map_or(self.queued, |next| next.seq - 1);
        Some(gone)
    }

    /// Nobody need wait for what is taken out.
    fn forget(&mut self, unwanted: impl Fn(&Outgoing) -> bool) -> bool {
        let before = self.queue.len();
        let gone = &mut self.queued_bytes;
        self.queue.retain(|next| {
            let stays = !unwanted(next);
            *gone -= if stays { 0 } else { next.message.len() };
            stays
        });
        if before == self.queue.len() {
            return false;
        }
        self.handed = self.queue.front().map_or(self.queued, |next| next.seq - 1);
        true
    }

    fn poll_hand_over(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Some(link) = &mut self.link else { return Poll::Ready(Ok(())) };
        while !self.priority.is_empty() || !self.held && !self.queue.is_empty() {
            ready!(link.poll_ready_unpin(cx))?;
            if let Some(message) = self.priority.pop_front() {
                self.priority_bytes -= message.len();
                link.start_send_unpin(Outgoing::new(0, message))?;
            } else if let Some(next) = self.queue.pop_front() {
                self.queued_bytes -= next.message.len();
                self.handed = next.seq;
                link.start_send_unpin(next)?;
            }
        }
        link.poll_flush_unpin(cx)
    }

    /// Whether something could be written and nobody else will: where someone waits for it, the
    /// writing is left to them, since by then more has gathered and goes out with the same flush.
    /// But a future may also be kept without being polled.
    fn is_left_alone(&mut self, cx: &mut Context<'_>) -> bool {
        let idle = self.held || self.flushed == self.queued;
        if self.write_pending || self.priority_flushed && idle {
            return false;
        }
        if self.waiting == 0 || !self.priority_flushed {
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

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("queued", &self.queued)
            .field("handed", &self.handed)
            .field("flushed", &self.flushed)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}
