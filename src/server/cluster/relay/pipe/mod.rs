//! [`Pipe`]: a link over a bus, which loses no message in silence.
//!
//! A bus may lose messages, and the counts of a session do not heal a loss *inside* a link. So each
//! part has a number, and the first that is not the next ends the link, as any link ends:
//!
//! | | the link |
//! |---|---|
//! | a part whose number is not the next, a heartbeat whose number is higher than that of the last part | is lost |
//! | 5 s without a part or a heartbeat | is lost |
//! | a part that is malformed, or more than the credit | is lost |
//! | messages that the bus has dropped, a bus that is away when there is something to send | is lost |
//! | nobody at the other end, as the answer to a heartbeat | is lost |
//! | a Close of the other end | ends with it |
//!
//! What had arrived in order is delivered first.
//!
//! Heartbeats leave every second. They have the number of the last part, so that its loss is
//! noticed. The end that has the client also asks for an answer, so that an instance that is gone
//! is noticed at once where the bus knows it.
//!
//! # Who waits for whom
//! A bus never makes its user wait. So each end may have 1 MiB under way, in parts that the other
//! has not read; no more than that waits there for its reader. Whoever polls either half takes in
//! what the bus has, so that credit and heartbeats wait for no reader.

pub(super) mod bounds;
mod error;
mod inbound;
mod outbound;

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, Sink, Stream, StreamExt, future::BoxFuture};
use tokio::time::Instant;

use self::{
    bounds::{Bounds, SILENCE_TIMEOUT},
    error::PipeError,
    inbound::Inbound,
    outbound::Outbound,
};
use super::{
    count::RelaySlot,
    part::{Part, PartKind},
};
use crate::{
    close::{CloseCode, CloseReason},
    cluster::{
        bus::{AskError, Bus, PublishError},
        subject::Subject,
        subscription::{Delivery, Subscription},
    },
    error::{Error, LinkError},
    message::Message,
    stats::Stats,
    time::{Timer, deadline_in},
};

/// Interval of the heartbeats.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Time after which a part is published again that the bus had no room for.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// End of a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PipeEnd {
    /// End at the instance that has the session.
    Session,
    /// End at the instance that has the client.
    Client,
}

/// State of the link, as far as the other end decides it. What this end closes is in [`Outbound`].
///
/// | from | to | when |
/// |---|---|---|
/// | `Open` | `Closed` | the Close of the other end was read |
/// | `Open` | `Lost` | see the table of the module |
///
/// Once the Close has arrived, nothing is lost any more.
#[derive(Debug)]
enum State {
    Open,
    Closed,
    Lost(Error),
}

/// Link over a bus: one end of it.
pub(super) struct Pipe {
    bus: Arc<dyn Bus>,
    end: PipeEnd,
    subscription: Subscription,
    /// Subject of the other end.
    to: Subject,
    state: State,
    inbound: Inbound,
    outbound: Outbound,
    /// Part that has its number, and that the bus has not taken yet.
    unsent: Option<Bytes>,
    /// Counters of messages, where they are counted here.
    stats: Option<Stats>,
    last_heard: Instant,
    silence: Timer,
    heartbeat: Timer,
    retry: Timer,
    /// Question whether the other end is there, until it is answered.
    asking: Option<BoxFuture<'static, Result<Bytes, AskError>>>,
    /// Tasks that wait for a message, and for room.
    ///
    /// A poll of either half may take in what the other waits for. Then that is woken, also where
    /// one task polls both, since it may have polled the other half before.
    reader: Option<Waker>,
    writer: Option<Waker>,
    _slot: Option<RelaySlot>,
}

impl Pipe {
    /// Creates this end of a pipe whose first part was sent, `Go` by the end that has the client.
    pub(super) fn new(
        bus: Arc<dyn Bus>,
        end: PipeEnd,
        subscription: Subscription,
        to: Subject,
        bounds: Bounds,
        stats: Option<Stats>,
    ) -> Self {
        let (sent, received) = match end {
            PipeEnd::Session => (0, 1),
            PipeEnd::Client => (1, 0),
        };
        let (mut silence, mut heartbeat) = (Timer::default(), Timer::default());
        silence.set(deadline_in(SILENCE_TIMEOUT));
        heartbeat.set(deadline_in(HEARTBEAT_INTERVAL));
        Self {
            bus,
            end,
            subscription,
            to,
            state: State::Open,
            inbound: Inbound::new(bounds, received),
            outbound: Outbound::new(bounds, sent),
            unsent: None,
            stats,
            last_heard: Instant::now(),
            silence,
            heartbeat,
            retry: Timer::default(),
            asking: None,
            reader: None,
            writer: None,
            _slot: None,
        }
    }

    /// Gives the pipe its slot among the relayed links, which it has for as long as it lives.
    pub(super) fn with_slot(mut self, slot: RelaySlot) -> Self {
        self._slot = Some(slot);
        self
    }

    /// Returns `true` if the other end has closed, so that this one sends nothing more.
    pub(super) fn has_heard_close(&self) -> bool {
        self.inbound.is_closed()
    }

    /// Takes in what has arrived, and sends what is due.
    pub(super) fn poll_drive(&mut self, cx: &mut Context<'_>) {
        let mut has_news = false;
        while self.is_open() {
            match self.subscription.poll_next_unpin(cx) {
                Poll::Ready(Some(delivery)) => {
                    has_news = true;
                    if let Err(cause) = self.on_delivery(delivery) {
                        self.lose(cause);
                    }
                }
                Poll::Ready(None) => self.lose(PipeError::BusEnded),
                Poll::Pending => break,
            }
        }
        self.poll_timers(cx);
        has_news |= self.poll_send_due(cx);
        if has_news || matches!(self.state, State::Lost(_)) {
            for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
                waker.wake();
            }
        }
    }

    /// Returns `true` while parts are awaited.
    fn is_open(&self) -> bool {
        matches!(self.state, State::Open) && !self.inbound.is_closed()
    }

    fn on_delivery(&mut self, delivery: Delivery) -> Result<(), PipeError> {
        if delivery.dropped_before > 0 {
            return Err(PipeError::Dropped);
        }
        let size = delivery.payload.len();
        let part = Part::parse(&delivery.payload).ok_or(PipeError::Malformed)?;
        if let Some(reply_to) = delivery.reply_to.filter(|_| part.kind == PartKind::Heartbeat) {
            let _ = self.bus.publish(&reply_to, Bytes::new());
        }
        if let Some(stats) = &self.stats
            && !matches!(part.kind, PartKind::Heartbeat | PartKind::Credit)
        {
            stats.record_bytes_received(size);
        }
        if let Some(read) = self.inbound.accept(part)? {
            self.outbound.set_read(read)?;
        }
        self.last_heard = Instant::now();
        Ok(())
    }

    /// Sends a due heartbeat, and looks for the silence of the other end.
    fn poll_timers(&mut self, cx: &mut Context<'_>) {
        while self.is_open() && self.silence.poll(cx).is_ready() {
            if self.last_heard.elapsed() >= SILENCE_TIMEOUT {
                self.lose(PipeError::Silence);
            } else {
                self.silence.set(self.last_heard + SILENCE_TIMEOUT);
            }
        }
        self.poll_answer(cx);
        while self.is_open() && self.heartbeat.poll(cx).is_ready() {
            self.heartbeat.set(deadline_in(HEARTBEAT_INTERVAL));
            self.send_heartbeat();
            self.poll_answer(cx);
        }
    }

    /// Polls the question whether the other end is there. The first poll sends it.
    fn poll_answer(&mut self, cx: &mut Context<'_>) {
        if let Some(asking) = &mut self.asking
            && let Poll::Ready(answer) = asking.poll_unpin(cx)
        {
            self.asking = None;
            if answer == Err(AskError::Nobody) && self.is_open() {
                self.lose(PipeError::Nobody);
            }
        }
    }

    /// Sends a heartbeat, and has it answered where that is of use.
    fn send_heartbeat(&mut self) {
        // Whether this fails is of no matter: an outage shows by the next part, or by the silence.
        // A part that waits to be sent has its number already, and would look lost.
        if self.unsent.is_none() {
            let heartbeat = Part::encode(PartKind::Heartbeat, self.outbound.number(), &[]);
            let _ = self.bus.publish(&self.to, heartbeat);
        }
        if self.end == PipeEnd::Client && self.asking.is_none() {
            // Without a number: a question may overtake what was published before.
            let question = Part::encode(PartKind::Heartbeat, 0, &[]);
            let (bus, to) = (self.bus.clone(), self.to.clone());
            self.asking =
                Some(async move { bus.ask(&to, question, SILENCE_TIMEOUT).await }.boxed());
        }
    }

    /// Publishes the parts that are due, as far as the credit and the bus allow. Returns `true` if
    /// there were any.
    fn publish_due(&mut self) -> bool {
        let mut has_published = false;
        while matches!(self.state, State::Open)
            && let Some(part) = self.unsent.take().or_else(|| self.next_part())
        {
            match self.publish(part.clone()) {
                Ok(()) => has_published = true,
                Err(PublishError::Full) => {
                    self.unsent = Some(part);
                    self.retry.set(deadline_in(RETRY_INTERVAL));
                    break;
                }
                Err(error) => self.lose(PipeError::NotSent(error)),
            }
        }
        has_published
    }

    /// Returns the next part to be sent: credit first.
    fn next_part(&mut self) -> Option<Bytes> {
        if self.outbound.has_sent_close() {
            return None;
        }
        match self.inbound.due_credit() {
            Some(read) => Some(self.outbound.credit(read)),
            None => self.outbound.next(),
        }
    }

    /// Publishes the parts that are due, and later what the bus does not take now. Returns `true`
    /// if there were any.
    fn poll_send_due(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_published = self.publish_due();
        while self.unsent.is_some() && self.retry.poll(cx).is_ready() {
            has_published |= self.publish_due();
        }
        has_published
    }

    fn publish(&self, part: Bytes) -> Result<(), PublishError> {
        let size = part.len();
        self.bus.publish(&self.to, part)?;
        if let Some(stats) = &self.stats {
            stats.record_bytes_sent(size);
        }
        Ok(())
    }

    /// Records that the link is lost, and tells the other end if it still hears.
    fn lose(&mut self, cause: PipeError) {
        tracing::debug!(%cause, end = ?self.end, "the relay is lost");
        self.close_now();
        self.state = State::Lost(cause.into());
    }

    /// Sends a Close without waiting, unless one was sent.
    fn close_now(&mut self) {
        if self.outbound.has_sent_close() {
            return;
        }
        if let Some(unsent) = self.unsent.take()
            && self.publish(unsent).is_err()
        {
            return;
        }
        let close = self.outbound.close_now(CloseCode::Abnormal.into());
        let _ = self.publish(close);
    }

    /// Returns the next message that is whole, and publishes the credit for it.
    fn pop(&mut self, cx: &mut Context<'_>) -> Option<Message> {
        let popped = self.inbound.pop().unwrap_or_else(|cause| {
            self.lose(cause);
            None
        });
        if self.poll_send_due(cx)
            && let Some(writer) = self.writer.take()
        {
            writer.wake();
        }
        match &popped {
            Some(Message::Close(_)) => self.state = State::Closed,
            Some(message) if message.is_data() => {
                if let Some(stats) = &self.stats {
                    stats.record_message_received();
                }
            }
            _ => {}
        }
        popped
    }

    /// Fails if the link takes no messages.
    fn check_writable(&self) -> Result<(), Error> {
        match &self.state {
            State::Lost(error) => Err(error.clone()),
            State::Open if !self.inbound.is_closed() => Ok(()),
            State::Open | State::Closed => Err(ended()),
        }
    }
}

/// Returns the error of a use of a link that has ended.
fn ended() -> Error {
    LinkError::Closed(CloseReason::new(CloseCode::Abnormal, "the relay has ended")).into()
}

impl Stream for Pipe {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.reader = None;
        self.poll_drive(cx);
        // Nothing is read past what was lost, or past a Close.
        if !matches!(self.state, State::Closed)
            && let Some(message) = self.pop(cx)
        {
            return Poll::Ready(Some(Ok(message)));
        }
        match &self.state {
            State::Lost(error) => Poll::Ready(Some(Err(error.clone()))),
            State::Closed => Poll::Ready(None),
            State::Open => {
                self.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Sink<Message> for Pipe {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.writer = None;
        self.poll_drive(cx);
        self.check_writable()?;
        if self.outbound.is_closed() {
            return Poll::Ready(Err(ended()));
        }
        if self.outbound.has_room() {
            return Poll::Ready(Ok(()));
        }
        self.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        self.check_writable()?;
        if self.outbound.is_closed() {
            return Err(ended());
        }
        if let Some(stats) = self.stats.as_ref().filter(|_| message.is_data()) {
            stats.record_message_sent();
        }
        self.outbound.push(message);
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.writer = None;
        self.poll_drive(cx);
        self.check_writable()?;
        if self.outbound.is_empty() && self.unsent.is_none() {
            return Poll::Ready(Ok(()));
        }
        self.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Closes the link, and waits for the other end to do so too.
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.outbound.push(Message::Close(Some(CloseCode::Normal.into())));
        self.poll_drive(cx);
        while !matches!(self.state, State::Closed) && self.pop(cx).is_some() {}
        if !self.is_open() {
            self.publish_due();
            return Poll::Ready(Ok(()));
        }
        self.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.close_now();
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe")
            .field("end", &self.end)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
