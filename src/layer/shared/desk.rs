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
use tokio::time::{Instant, Sleep, sleep};

use tracing::Span;

use super::{fan_out::FanOut, inbox::Inbox, mailbox::Mailbox};
use crate::{
    duplex::Duplex,
    error::{CloseCode, CloseReason, Error, LinkError},
    event::{Event, Notices, State},
    link::{Down, Link, Numbered, Up},
    message::Message,
};

/// How long the reader leaves a message to those who wait for it. Not shorter than the kernel's own
/// tick: a timer that is the next to fire costs as much to set as half a call.
const PATIENCE: Duration = Duration::from_millis(100);

/// Links, one after the other, whose type no longer matters.
pub(super) type BoxLine = Pin<Box<dyn Duplex<Numbered, Link<Message>> + Send>>;

/// The lock, and what is told outside of it.
#[derive(Debug)]
pub(super) struct Line {
    desk: Mutex<Desk>,
    pub(super) mailbox: Mailbox,
    pub(super) fan_out: Arc<FanOut>,
    pub(super) queue_bytes: usize,
    pub(super) notices: Notices,
    span: Span,
    waker: Waker,
}

pub(super) struct Desk {
    pub(super) link: Option<BoxLine>,
    queue: VecDeque<Numbered>,
    pub(super) queued_bytes: usize,
    /// What goes out before anything in the queue, and whether that is flushed.
    urgent: VecDeque<Message>,
    urgent_bytes: usize,
    urgent_flushed: bool,
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
    pub(super) inbox: Inbox,
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
    dry: bool,
    blocked: bool,
    /// A write has failed, or the link is down. What becomes of it is read from the link.
    stuck: bool,
    /// There is no link.
    down: bool,
    /// What had been handed over when the present link began.
    pub(super) began: u64,
    /// The reason to be given when this side closes.
    pub(super) parting: Option<CloseReason>,
    /// The reason in a Close of ours: whatever follows it, this is why the link ended.
    farewell: Option<CloseReason>,
    /// Why the link ended, for everyone who asks from then on.
    pub(super) end: Option<Error>,
}

impl Line {
    pub(super) fn new(link: BoxLine, queue_bytes: usize, notices: Notices, span: Span) -> Self {
        let fan_out = Arc::new(FanOut::default());
        let desk = Desk {
            link: Some(link),
            queue: VecDeque::new(),
            queued_bytes: 0,
            urgent: VecDeque::new(),
            urgent_bytes: 0,
            urgent_flushed: true,
            outlives: false,
            holds: false,
            held: false,
            unsure: false,
            returns: false,
            inbox: Inbox::default(),
            queued: 0,
            handed: 0,
            flushed: 0,
            flushes: 0,
            waiting: 0,
            patience: None,
            dry: false,
            blocked: false,
            stuck: false,
            down: false,
            began: 0,
            parting: None,
            farewell: None,
            end: None,
        };
        let waker = Waker::from(fan_out.clone());
        let mailbox = Mailbox::default();
        Self { desk: Mutex::new(desk), mailbox, fan_out, queue_bytes, notices, span, waker }
    }

    /// The desk, with all that was offered in its queue.
    pub(super) fn lock(&self) -> MutexGuard<'_, Desk> {
        let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        if self.mailbox.is_waiting() {
            self.collect(&mut desk);
        }
        desk
    }

    /// Queues what was offered. Apart, since there is seldom any, and the lock is taken all the time.
    #[cold]
    fn collect(&self, desk: &mut Desk) {
        for message in self.mailbox.take() {
            let _ = self.push(desk, message, false);
        }
    }

    /// Queues `message` and returns its ticket.
    pub(super) fn push(
        &self,
        desk: &mut Desk,
        message: Message,
        survives: bool,
    ) -> Result<u64, Error> {
        if matches!(message, Message::Close(_)) {
            self.mailbox.close();
        }
        let ticket = desk.push(message, survives)?;
        if desk.down {
            // Whoever keeps it has to know how much that is.
            desk.dry = false;
        }
        self.mailbox.note_queued(desk.queued_bytes);
        Ok(ticket)
    }

    /// Reads one item and, where nobody else does, writes what is queued.
    pub(super) fn poll_serve(
        &self,
        desk: &mut Desk,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Link<Message>, Error>> {
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
        if desk.is_left_alone(cx) {
            // If the write fails, the reader is the one to tell.
            let written = self.poll_write(desk);
            if let Some(item) = desk.inbox.pop() {
                return Poll::Ready(Ok(item));
            }
            if let Poll::Ready(Err(error)) = written {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Pending
    }

    fn poll_read(&self, desk: &mut Desk) -> Poll<Result<Link<Message>, Error>> {
        let mut cx = Context::from_waker(&self.waker);
        let Some(link) = desk.link.as_mut() else { return Poll::Pending };
        let polled = link.poll_next_unpin(&mut cx);
        desk.dry = polled.is_pending();
        Poll::Ready(match ready!(polled) {
            // After a Close of ours there is no other link.
            Some(Ok(Link::Down(down))) if desk.farewell.is_some() => {
                Err(self.end(desk, down.cause))
            }
            Some(Ok(Link::Down(down))) => Ok(Link::Down(self.down(desk, down))),
            Some(Ok(Link::Up(up))) => {
                self.up(desk, &up);
                Ok(Link::Up(up))
            }
            Some(item) => item.map_err(|error| self.end(desk, error)),
            None => Err(self.end(desk, LinkError::Closed(CloseCode::Abnormal.into()).into())),
        })
    }

    /// What was handed over shares the fate of the link, and nobody need wait for it.
    fn down(&self, desk: &mut Desk, down: Down) -> Down {
        desk.stuck = true;
        desk.down = true;
        desk.flushed = desk.handed;
        // Nobody waits for a link that may be long in coming.
        self.fan_out.wake_flushed(u64::MAX);
        Down { handed: desk.handed, ..down }
    }

    fn up(&self, desk: &mut Desk, up: &Up) {
        desk.stuck = false;
        desk.down = false;
        desk.blocked = false;
        desk.began = desk.handed;
        match up {
            Up::Restarted => self.begin_anew(desk),
            Up::Returned => {
                desk.held = true;
                desk.unsure = true;
            }
            Up::Resumed(_) => {}
        }
        self.notices.state.send_replace(State::Connected);
        self.fan_out.wake_writer();
    }

    /// The peer knows nothing of what was before.
    pub(super) fn begin_anew(&self, desk: &mut Desk) {
        desk.held = desk.holds;
        desk.unsure = false;
        desk.urgent.clear();
        desk.urgent_bytes = 0;
        self.forget(desk, |next| !next.survives);
    }

    /// Takes out of the queue what `unwanted` says, and whether there was any.
    pub(super) fn forget(&self, desk: &mut Desk, unwanted: impl Fn(&Numbered) -> bool) -> bool {
        let any = desk.forget(unwanted);
        self.mailbox.note_queued(desk.queued_bytes);
        if any {
            self.fan_out.wake_sinks();
        }
        any
    }

    /// Removes the message with this ticket from the queue. Returns `true` if it was there.
    pub(super) fn withdraw(&self, desk: &mut Desk, ticket: u64) -> bool {
        let was_there = desk.withdraw(ticket).is_some();
        if was_there {
            self.mailbox.note_queued(desk.queued_bytes);
            self.fan_out.wake_sinks();
        }
        was_there
    }

    /// Writes all that is queued, then flushes once, until nothing is left.
    pub(super) fn poll_write(&self, desk: &mut Desk) -> Poll<Result<(), Error>> {
        let mut cx = Context::from_waker(&self.waker);
        loop {
            if let Some(end) = &desk.end {
                return Poll::Ready(Err(end.clone()));
            }
            while desk.stuck {
                // Whoever waits for a write may be the only one to poll. But nothing is written over the
                // next link before the reader knows of it.
                if desk.down || desk.inbox.is_full() {
                    return Poll::Pending;
                }
                let item = ready!(self.poll_read(desk))?;
                desk.inbox.push(item);
                self.fan_out.wake_reader();
            }
            let polled = desk.poll_hand_over(&mut cx);
            self.mailbox.note_queued(desk.queued_bytes);
            desk.blocked = polled.is_pending();
            if ready!(polled).is_err() {
                desk.stuck = true;
                if desk.outlives {
                    self.fan_out.wake_flushed(u64::MAX);
                }
                continue;
            }
            desk.urgent_flushed = true;
            if mem::replace(&mut desk.flushed, desk.handed) != desk.handed {
                self.fan_out.wake_flushed(desk.handed);
            }
            // What is held waits for more than the link.
            return if desk.queue.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
    }

    /// Stores the first error that ends the link, tells everyone, and returns it.
    pub(super) fn end(&self, desk: &mut Desk, error: Error) -> Error {
        if let Some(end) = &desk.end {
            return end.clone();
        }
        let error = desk.farewell.take().map_or(error, |own| LinkError::closed_here(&own).into());
        let reason = match &error {
            Error::Link(error) => error.close_reason(),
            Error::Handshake(error) => CloseReason::new(CloseCode::Abnormal, error.to_string()),
            Error::Message(error) => CloseReason::new(CloseCode::Internal, error.to_string()),
        };
        tracing::debug!(parent: &self.span, %reason, "connection ended");
        desk.end = Some(error.clone());
        desk.queue = VecDeque::new();
        desk.urgent = VecDeque::new();
        desk.urgent_bytes = 0;
        desk.queued_bytes = 0;
        desk.stuck = false;
        desk.down = false;
        desk.release();
        self.mailbox.close();
        drop(self.mailbox.take());
        desk.patience = None;
        self.notices.state.send_replace(State::Closed(reason));
        self.notices.announce(|| Event::Closed(error.clone()));
        self.fan_out.wake_all();
        error
    }

    /// Closes the link, after all that is queued is written.
    pub(super) fn poll_close(&self, desk: &mut Desk) -> Poll<Result<(), Error>> {
        if let Some(reason) = desk.parting.take() {
            // On a link that has ended there is nobody to tell. It does not wait for what is held.
            let _ = self.push(desk, Message::Close(Some(reason)), false);
        }
        if desk.end.is_none() && !desk.is_severed() {
            let written = self.poll_write(desk);
            if written.is_pending() && !desk.is_severed() && !(desk.held && desk.urgent_flushed) {
                return Poll::Pending;
            }
        }
        let Some(link) = &mut desk.link else { return Poll::Ready(Ok(())) };
        link.poll_close_unpin(&mut Context::from_waker(&self.waker))
    }
}

impl Desk {
    /// Whether anything is written at all. Behind a Close of ours nothing is.
    pub(super) fn accepts(&self) -> Result<(), Error> {
        match (&self.end, &self.farewell) {
            (Some(end), _) => Err(end.clone()),
            (None, Some(own)) => Err(LinkError::closed_here(own).into()),
            (None, None) => Ok(()),
        }
    }

    fn push(&mut self, message: Message, survives: bool) -> Result<u64, Error> {
        self.accepts()?;
        if let Message::Close(reason) = &message {
            self.farewell = reason.clone();
        }
        let waits = survives || self.unsure && self.farewell.is_none();
        if self.held && !waits {
            self.push_first(message);
            return Ok(self.queued);
        }
        self.queued += 1;
        self.queued_bytes += message.len();
        self.queue.push_back(Numbered { survives, ..Numbered::new(self.queued, message) });
        Ok(self.queued)
    }

    /// Queues `message` before all others.
    pub(super) fn push_first(&mut self, message: Message) {
        self.urgent_bytes += message.len();
        self.urgent.push_back(message);
        self.urgent_flushed = false;
    }

    /// Keeps what survives a restart, and moves the rest before it. Nothing follows a Close.
    pub(super) fn hold(&mut self) {
        if self.held || self.accepts().is_err() {
            return;
        }
        self.held = true;
        let (stays, goes): (VecDeque<_>, VecDeque<_>) =
            mem::take(&mut self.queue).into_iter().partition(|next| next.survives);
        self.queue = stays;
        self.handed = self.queue.front().map_or(self.queued, |next| next.ticket - 1);
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
        limit <= if passes { self.urgent_bytes } else { self.queued_bytes }
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
    fn withdraw(&mut self, ticket: u64) -> Option<Numbered> {
        let at = self.queue.binary_search_by_key(&ticket, |next| next.ticket).ok()?;
        let gone = self.queue.remove(at)?;
        self.queued_bytes -= gone.message.len();
        self.handed = self.queue.front().map_or(self.queued, |next| next.ticket - 1);
        Some(gone)
    }

    /// Nobody need wait for what is taken out.
    fn forget(&mut self, unwanted: impl Fn(&Numbered) -> bool) -> bool {
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
        self.handed = self.queue.front().map_or(self.queued, |next| next.ticket - 1);
        true
    }

    fn poll_hand_over(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Some(link) = &mut self.link else { return Poll::Ready(Ok(())) };
        while !self.urgent.is_empty() || !self.held && !self.queue.is_empty() {
            ready!(link.poll_ready_unpin(cx))?;
            if let Some(message) = self.urgent.pop_front() {
                self.urgent_bytes -= message.len();
                link.start_send_unpin(Numbered::new(0, message))?;
            } else if let Some(next) = self.queue.pop_front() {
                self.queued_bytes -= next.message.len();
                self.handed = next.ticket;
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
        if self.blocked || self.urgent_flushed && idle {
            return false;
        }
        if self.waiting == 0 || !self.urgent_flushed {
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
