//! [`Resume`]: numbers the messages of a session, and sends again what a lost connection took with
//! it.
//!
//! It sits between [`Reconnect`](super::Reconnect) and [`SharedLink`](super::SharedLink), and
//! speaks [`mcp.resume.v1`](crate::guide::resume_v1) with its like. Whoever makes the links does
//! the opening: it exchanges [`OpenFrame`] and [`SessionFrame`] with the peer, tells the count of
//! the [`ReceiveCount`], and hands the link on with what came of it.
//!
//! | from below | the layer | upwards |
//! |---|---|---|
//! | a data message | counts it | the same |
//! | `@ack` | forgets what is acknowledged | nothing |
//! | any other text that begins with `@`, a number that cannot be | closes the link with 1002 | that error, for good |
//! | [`LinkEvent::Down`] | takes no more, and keeps what it has | nothing, until the session is taken for lost: there is none, or its window is over |
//! | [`LinkUp::Resumed`], also of a session that was taken for lost | sends again what the peer has not received | the same, with how many those are |
//! | any other [`LinkUp`] | forgets all, and begins as the source [said](ReceiveCount::begin) | the [`LinkEvent::Down`], unless it was told; then the same |
//! | an error | | the same, for good |
//!
//! While the link is down nothing is taken: `poll_ready` fails with the cause, and what becomes of
//! it is read from the stream. So whatever this layer has was handed to a link, and may have been
//! received; what never was is still in the queue above.
//!
//! # Who waits for whom
//! Reading never waits for writing. While `poll_ready` is pending, because the window is full or
//! the link takes nothing, whoever polls it, reader or writer, reads the link on. So
//! acknowledgements, pongs, the end of the link and the next link are dealt with at once.
//! Messages wait in order for their reader.
//!
//! Let D be the side that dialled, and A the one that accepted. Each line waits for the lines above
//! it, and never for one below:
//!
//! | | waits for |
//! |---|---|
//! | D reads, counts and acknowledges | nothing, as long as less than 16 MiB wait for D's reader |
//! | A's window has room | D's `@ack` |
//! | A's queue has room | A's window |
//! | A's reader takes a message, so A counts and acknowledges it | A's queue, which has to take the answer of a message that is refused |
//! | D's window has room | A's `@ack` |
//! | D's queue has room | D's window |
//! | D's reader takes a message | D's queue |
//!
//! So no two sides wait for each other, and each wait is bounded in memory and time:
//!
//! | what | bound | then |
//! |---|---|---|
//! | sent and not acknowledged | [`Config::window_bytes`], and one message | `poll_ready` is pending |
//! | … and the peer acknowledges nothing | [`Config::ack_timeout`] | 1008, the session is over |
//! | read, not counted, window full | 4 MiB: a peer that stops at its own window sends less | 1008, the session is over |
//! | read, not counted, window not full | 4 MiB | not read on: the network tells the peer, and the write timeout of the link is the deadline |
//! | read and counted, by D | 16 MiB | not counted, as by A |
//! | without a link | `window_s` of `@session`, an hour at most | the loss is told |
//!
//! What one arriving message of an open session becomes:
//!
//! | who reads | A | D |
//! |---|---|---|
//! | the reader, when none waits | counts it, and passes it on | the same |
//! | the reader, when some wait | takes the first of those, and counts it if that is still to be done | the same |
//! | a writer | lets it wait, uncounted | counts it, and lets it wait; uncounted beyond 16 MiB |
//!
//! A count that is [frozen](ReceiveCount::freeze) takes nothing: the message is dropped, and sent
//! again. What waits uncounted is dropped when the session is resumed, since it is sent again too.
//! When the session is over it is delivered, and never counted.

mod ack_deadline;
mod blocked_send;
mod config;
pub(crate) mod frame;
mod link_items;
mod read_queue;
pub(crate) mod receive_count;
pub(crate) mod secret;
mod send_window;

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{Sink, Stream};
use pin_project_lite::pin_project;
use tokio::{task::coop::poll_proceed, time::Instant};

#[cfg(feature = "server")]
#[cfg_attr(docsrs, doc(cfg(feature = "server")))]
pub use self::secret::Secrets;
use self::{
    ack_deadline::AckDeadline,
    read_queue::{Queued, ReadQueue},
    send_window::SendWindow,
};
pub use self::{
    config::Config,
    frame::{ControlFrameError, Frame, OpenFrame, SUBPROTOCOL, SessionFrame},
    receive_count::{FrozenCount, ReceiveCount, SessionStart},
    secret::{NotAToken, Secret, SessionId},
};
use crate::{
    duplex::{Duplex, forward_sink},
    error::Error,
    link::{Down, LinkEvent, LinkUp, Outgoing},
    message::{Message, Text},
    time::Timer,
};

/// Time after which messages are acknowledged, however few there are.
const ACK_DELAY: Duration = Duration::from_secs(1);

/// State of the link.
///
/// | | read from below | told above | takes messages |
/// |---|---|---|---|
/// | `Live` | messages | messages | yes |
/// | `Lost` | [`LinkEvent::Down`] | nothing yet | no |
/// | `Gone` | the same, and there is no session, or it was kept for as long as it had to be. Where it still is, it goes on | the [`LinkEvent::Down`] | no |
/// | `Restarted` | [`LinkUp::NewPeer`] | the [`LinkEvent::Down`] | no |
/// | `Ended` | an error, or what must not be | the error | no |
#[derive(Debug)]
enum Phase {
    Live,
    Lost(Down),
    Gone(Error),
    Restarted(Error, LinkUp),
    Ended(Error),
}

impl Phase {
    /// Fails with what keeps messages from being sent.
    fn obstacle(&self) -> Result<(), Error> {
        match self {
            Self::Live => Ok(()),
            Self::Lost(Down { cause, .. })
            | Self::Gone(cause)
            | Self::Restarted(cause, _)
            | Self::Ended(cause) => Err(cause.clone()),
        }
    }
}

/// Flush of the messages that this layer sends by itself, and of those that opened the link or
/// filled the window.
///
/// | | the stream |
/// |---|---|
/// | `Done` | has nothing to flush |
/// | `Deferred` | flushes at its next poll: messages sent with an acknowledgement share the flush |
/// | `Due` | flushes before it waits |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnFlush {
    Done,
    Deferred,
    Due,
}

impl OwnFlush {
    /// Requests a flush, unless one is requested already.
    fn request(&mut self) {
        if *self == Self::Done {
            *self = Self::Due;
        }
    }
}

pin_project! {
    /// A layer of one session over one connection after the other.
    #[derive(Debug)]
    #[must_use = "a layer does nothing unless polled"]
    pub struct Resume<S> {
        send_window: SendWindow,
        receive_count: ReceiveCount,
        start: SessionStart,
        phase: Phase,
        // Items read while nothing could be written.
        read_queue: ReadQueue,
        config: Config,
        // `true` if this side dialled. Once known, it stays so.
        dialled: bool,
        ack_deadline: AckDeadline,
        // A ping of that deadline is not flushed yet.
        ping_unflushed: bool,
        // `true` while someone waits for an acknowledgement.
        awaits_ack: bool,
        flush: OwnFlush,
        ack_overdue: bool,
        timer: Timer,
        #[pin]
        inner: S,
    }
}

impl<S: Duplex<Outgoing, LinkEvent<Message>>> Resume<S> {
    /// Creates the layer with a new session over `inner`, whose first link is up.
    pub fn new(inner: S, config: Config) -> Self {
        Self::with_receive_count(inner, config, ReceiveCount::default())
    }

    /// Creates the layer with the handle on its count that the source of the links has.
    pub fn with_receive_count(inner: S, config: Config, receive_count: ReceiveCount) -> Self {
        let start = receive_count.restart();
        let dialled = receive_count.has_dialled(start);
        Self {
            send_window: SendWindow::new(config.window(dialled)),
            start,
            receive_count,
            phase: Phase::Live,
            read_queue: ReadQueue::default(),
            dialled,
            ack_deadline: AckDeadline::new(config.ack_timeout),
            ping_unflushed: false,
            config,
            awaits_ack: false,
            flush: OwnFlush::Due,
            ack_overdue: false,
            timer: Timer::default(),
            inner,
        }
    }

    /// Hands a due acknowledgement to the link, and messages that are sent again. The stream
    /// reports a failed write.
    fn poll_own(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut this = self.project();
        this.phase.obstacle()?;
        if *this.ack_overdue || this.send_window.is_ack_due() {
            ready!(this.inner.as_mut().poll_ready(cx))?;
            *this.ack_overdue = false;
            *this.flush = OwnFlush::Deferred;
            let ack = Frame::Ack(this.send_window.acknowledgement()).encode();
            this.inner.as_mut().start_send(Outgoing::new(0, ack))?;
        }
        while !this.send_window.is_handed_over() {
            ready!(this.inner.as_mut().poll_ready(cx))?;
            this.flush.request();
            if let Some(next) = this.send_window.hand_over() {
                this.inner.as_mut().start_send(next)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Returns `true` if an acknowledgement has become due.
    fn poll_ack_due(self: Pin<&mut Self>, cx: &mut Context<'_>) -> bool {
        let this = self.project();
        if *this.ack_overdue || !matches!(this.phase, Phase::Live) {
            return false;
        }
        // Once set, the timer is left alone until it fires, whatever has been acknowledged since.
        loop {
            if this.timer.is_set() && this.timer.poll(cx).is_pending() {
                return false;
            }
            let Some(since) = this.send_window.unacknowledged_since() else { return false };
            let due = since + ACK_DELAY;
            if due <= Instant::now() {
                *this.ack_overdue = true;
                return true;
            }
            this.timer.set(due);
        }
    }

    /// Resolves to the end of the lost link once the peer need no longer keep the session.
    fn poll_gone(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<LinkEvent<Message>> {
        let this = self.project();
        let Phase::Lost(down) = &*this.phase else { return Poll::Pending };
        ready!(this.timer.poll(cx));
        // It is forgotten where the peer has said that it is gone.
        let may_resume = this.receive_count.session().is_some();
        let down = Down { may_resume, ..down.clone() };
        *this.phase = Phase::Gone(down.cause.clone());
        Poll::Ready(LinkEvent::Down(down))
    }

    /// Resolves to the next item that is not of this layer's own concern.
    fn poll_item(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<LinkEvent<Message>, Error>>> {
        let this = self.as_mut().project();
        if let Phase::Restarted(..) = this.phase
            && let Phase::Restarted(_, up) = mem::replace(this.phase, Phase::Live)
        {
            return Poll::Ready(Some(Ok(LinkEvent::Up(up))));
        }
        loop {
            let _ = self.as_mut().poll_own(cx);
            let item = match self.as_mut().project().inner.poll_next(cx) {
                Poll::Ready(Some(Ok(item))) => item,
                Poll::Ready(Some(Err(error))) => {
                    *self.project().phase = Phase::Ended(error.clone());
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    if self.as_mut().poll_ack_due(cx) {
                        continue;
                    }
                    if let Poll::Ready(down) = self.as_mut().poll_gone(cx) {
                        return Poll::Ready(Some(Ok(down)));
                    }
                    let this = self.as_mut().project();
                    match this.flush {
                        OwnFlush::Done => return Poll::Pending,
                        OwnFlush::Deferred => {
                            *this.flush = OwnFlush::Due;
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        OwnFlush::Due => {}
                    }
                    let flushed = ready!(this.inner.poll_flush(cx));
                    *this.flush = OwnFlush::Done;
                    if flushed.is_ok() {
                        return Poll::Pending;
                    }
                    continue;
                }
            };
            if let Some(item) = self.as_mut().on_item(cx, item) {
                return Poll::Ready(Some(item));
            }
        }
    }
}

/// Returns `true` if `text` is a control frame: no JSON text begins with `@`.
fn is_control(text: &Text) -> bool {
    text.as_bytes().first() == Some(&b'@')
}

impl<S: Duplex<Outgoing, LinkEvent<Message>>> Stream for Resume<S> {
    type Item = Result<LinkEvent<Message>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if !self.read_queue.is_empty() {
                // The reader may take many small messages in one step; other tasks have a turn too.
                ready!(poll_proceed(cx)).made_progress();
            }
            let queued = match self.as_mut().project().read_queue.pop() {
                Some(queued) => queued,
                None => {
                    if let Phase::Ended(error) = &self.phase {
                        return Poll::Ready(Some(Err(error.clone())));
                    }
                    match ready!(self.as_mut().poll_item(cx)) {
                        Some(Ok(item)) => Queued { is_uncounted: self.is_numbered(&item), item },
                        end => return Poll::Ready(end),
                    }
                }
            };
            let Queued { item, is_uncounted } = queued;
            if !is_uncounted || self.as_mut().count(&item) {
                return Poll::Ready(Some(Ok(item)));
            }
        }
    }
}

impl<S: Duplex<Outgoing, LinkEvent<Message>>> Sink<Outgoing> for Resume<S> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            let polled = self.as_mut().poll_room(cx);
            if polled.is_ready() || self.start == SessionStart::Plain {
                return polled;
            }
            if self.as_mut().poll_read_ahead(cx)?.is_pending() {
                return self.poll_overdue(cx).map(Err);
            }
        }
    }

    fn start_send(self: Pin<&mut Self>, mut item: Outgoing) -> Result<(), Error> {
        let this = self.project();
        if let Phase::Ended(error) = this.phase {
            return Err(error.clone());
        }
        if *this.start == SessionStart::Plain {
            return this.inner.start_send(item);
        }
        match item.message {
            Message::Text(text) if is_control(&text) => item.message = Message::Binary(text.into()),
            Message::Text(_) | Message::Binary(_) => {}
            _ => return this.inner.start_send(item),
        }
        this.send_window.take(item);
        // The link may be lost between `poll_ready` and `start_send`.
        if !matches!(this.phase, Phase::Live) {
            return Ok(());
        }
        match this.send_window.hand_over() {
            Some(next) => this.inner.start_send(next),
            None => Ok(()),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(self.as_mut().poll_own(cx))?;
        let this = self.project();
        let flushed = ready!(this.inner.poll_flush(cx));
        *this.flush = OwnFlush::Done;
        Poll::Ready(flushed)
    }

    forward_sink!(inner, Outgoing: poll_close);
}

#[cfg(test)]
mod tests;
