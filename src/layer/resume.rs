//! [`Resume`]: numbers the messages of a session, and sends again what a lost connection took with
//! it.
//!
//! It sits between [`Relink`](super::Relink) and [`Shared`](super::Shared), and speaks
//! [`mcp.resume.v1`](protocol) with its like. Whoever makes the links does the opening: it exchanges
//! [`Open`] and [`Session`] with the peer, tells the count of the [`Tally`], and hands the link on
//! with what came of it.
//!
//! | from below | the layer | upwards |
//! |---|---|---|
//! | a data message | counts it | the same |
//! | `@ack` | forgets what is acknowledged | nothing |
//! | any other text that begins with `@`, a number that cannot be | closes the link with 1002 | that error, for good |
//! | [`Link::Down`] | takes no more, and keeps what it has | nothing, until the session is taken for lost: there is none, or its window is over |
//! | [`Up::Resumed`], also of a session that was taken for lost | sends again what the peer has not received | the same, with how many those are |
//! | any other [`Up`] | forgets all, and begins as the source [said](Tally::begin) | the [`Link::Down`], unless it was told; then the same |
//! | an error | | the same, for good |
//!
//! While the link is down nothing is taken: `poll_ready` fails with the cause, and what becomes of it
//! is read from the stream. So whatever this layer has was handed to a link, and may have been
//! received; what never was is still in the queue above.
//!
//! While the window is full, `poll_ready` is pending. Acknowledgements are read all the same, also by
//! a task that only writes: what is before them waits here for the reader.

mod frame;
mod ledger;
mod secret;
mod tally;

#[doc = include_str!("resume/protocol.md")]
pub mod protocol {}

use std::{
    collections::VecDeque,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{Sink, Stream};
use pin_project_lite::pin_project;
use tokio::time::Instant;

#[cfg(feature = "server")]
#[cfg_attr(docsrs, doc(cfg(feature = "server")))]
pub use self::secret::Secrets;
pub use self::{
    frame::{Frame, Malformed, Open, SUBPROTOCOL, Session},
    secret::{NotAToken, Secret, SessionId},
    tally::{Frozen, Start, Tally},
};
use self::{ledger::Ledger, tally::Thaw};
use crate::{
    duplex::{Duplex, forward_sink},
    error::{CloseCode, CloseReason, Error, LinkError},
    link::{Down, Link, Numbered, Resumed, Up},
    message::{Message, Text},
    time::{Timer, after},
};

/// A message is acknowledged when this time has passed, however few there are.
const ACK_DELAY: Duration = Duration::from_secs(1);

/// How many items are read at most for a reader that does not come, while the window is full.
const AHEAD: usize = 256;

/// The same in bytes, but for the last.
const AHEAD_BYTES: usize = 256 << 10;

/// The bound of what a [`Resume`] keeps.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// From this many bytes on nothing more is taken before the peer acknowledges: 1 MiB. A message
    /// counts 64 bytes more than its payload.
    ///
    /// Less than 128 KiB is slow: a peer need not acknowledge less than 64 KiB within a second.
    pub window_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { window_bytes: 1 << 20 }
    }
}

impl Config {
    /// Sets [`window_bytes`](Self::window_bytes).
    #[must_use]
    pub fn window_bytes(mut self, bytes: usize) -> Self {
        self.window_bytes = bytes;
        self
    }
}

/// How it stands with the link.
///
/// | | read from below | told above | takes messages |
/// |---|---|---|---|
/// | `Live` | messages | messages | yes |
/// | `Lost` | [`Link::Down`] | nothing yet | no |
/// | `Gone` | the same, and there is no session, or it was kept for as long as it had to be. Where it still is, it goes on | the [`Link::Down`] | no |
/// | `Restarted` | [`Up::Restarted`] | the [`Link::Down`] | no |
/// | `Ended` | an error, or what must not be | the error | no |
#[derive(Debug)]
enum Phase {
    Live,
    Lost(Down),
    Gone(Error),
    Restarted(Error, Up),
    Ended(Error),
}

impl Phase {
    /// What keeps messages from being sent.
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

pin_project! {
    /// One session over one connection after the other.
    #[derive(Debug)]
    #[must_use = "a layer does nothing unless polled"]
    pub struct Resume<S> {
        ledger: Ledger,
        tally: Tally,
        start: Start,
        phase: Phase,
        // Read while the window was full.
        ahead: VecDeque<Link<Message>>,
        ahead_bytes: usize,
        // Someone waits for an acknowledgement.
        starved: bool,
        // What opened the link need not have been flushed either.
        unflushed: bool,
        // It is an acknowledgement, which others that are about to be sent may take along.
        waits: bool,
        ack_overdue: bool,
        timer: Timer,
        #[pin]
        inner: S,
    }
}

impl<S: Duplex<Numbered, Link<Message>>> Resume<S> {
    /// A new session over `inner`, whose first link is there.
    pub fn new(inner: S, config: Config) -> Self {
        Self::with_tally(inner, config, Tally::default())
    }

    /// The same, with the handle on the count that the source of the links has.
    pub fn with_tally(inner: S, config: Config, tally: Tally) -> Self {
        Self {
            ledger: Ledger::new(config.window_bytes),
            start: tally.restart(),
            tally,
            phase: Phase::Live,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            starved: false,
            unflushed: true,
            waits: false,
            ack_overdue: false,
            timer: Timer::default(),
            inner,
        }
    }

    /// Hands to the link what it has to be handed beside new messages. A write that fails is for the
    /// link's own stream to tell.
    fn poll_own(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut this = self.project();
        this.phase.obstacle()?;
        if *this.ack_overdue || this.ledger.is_ack_due() {
            ready!(this.inner.as_mut().poll_ready(cx))?;
            *this.ack_overdue = false;
            *this.unflushed = true;
            *this.waits = true;
            let ack = Frame::Ack(this.ledger.tell()).encode();
            this.inner.as_mut().start_send(Numbered::new(0, ack))?;
        }
        while !this.ledger.is_handed_over() {
            ready!(this.inner.as_mut().poll_ready(cx))?;
            *this.unflushed = true;
            if let Some(next) = this.ledger.hand_over() {
                this.inner.as_mut().start_send(next)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether an acknowledgement is due by now that was not before.
    fn is_overdue(self: Pin<&mut Self>, cx: &mut Context<'_>) -> bool {
        let this = self.project();
        if *this.ack_overdue || !matches!(this.phase, Phase::Live) {
            return false;
        }
        // Once set, the timer is left alone until it fires, whatever has been acknowledged since.
        loop {
            if this.timer.is_set() && this.timer.poll(cx).is_pending() {
                return false;
            }
            let Some(since) = this.ledger.unacknowledged_since() else { return false };
            let due = since + ACK_DELAY;
            if due <= Instant::now() {
                *this.ack_overdue = true;
                return true;
            }
            this.timer.set(due);
        }
    }

    /// The end of the lost link, when the peer need no longer keep the session.
    fn poll_gone(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Link<Message>> {
        let this = self.project();
        let Phase::Lost(down) = &*this.phase else { return Poll::Pending };
        ready!(this.timer.poll(cx));
        let down = down.clone();
        *this.phase = Phase::Gone(down.cause.clone());
        Poll::Ready(Link::Down(down))
    }

    /// The next item that is not of this layer's own concern.
    fn poll_item(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Link<Message>, Error>>> {
        let this = self.as_mut().project();
        if let Phase::Restarted(..) = this.phase
            && let Phase::Restarted(_, up) = mem::replace(this.phase, Phase::Live)
        {
            return Poll::Ready(Some(Ok(Link::Up(up))));
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
                    if self.as_mut().is_overdue(cx) {
                        continue;
                    }
                    if let Poll::Ready(down) = self.as_mut().poll_gone(cx) {
                        return Poll::Ready(Some(Ok(down)));
                    }
                    let this = self.as_mut().project();
                    if !*this.unflushed {
                        return Poll::Pending;
                    }
                    if mem::take(this.waits) {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    let flushed = ready!(this.inner.poll_flush(cx));
                    *this.unflushed = false;
                    if flushed.is_ok() {
                        return Poll::Pending;
                    }
                    continue;
                }
            };
            if let Some(item) = self.as_mut().take_in(cx, item) {
                return Poll::Ready(Some(item));
            }
        }
    }

    /// What of `item` is for the layer above.
    fn take_in(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        item: Link<Message>,
    ) -> Option<Result<Link<Message>, Error>> {
        let this = self.as_mut().project();
        let message = match item {
            Link::Item(message) => message,
            Link::Down(down) => {
                this.tally.keeps(this.ledger.kept_bytes());
                *this.ack_overdue = false;
                *this.unflushed = false;
                this.timer.clear();
                if *this.start != Start::Open {
                    *this.phase = Phase::Gone(down.cause.clone());
                    return Some(Ok(Link::Down(down)));
                }
                if let Some(window) = this.tally.window() {
                    this.timer.set(after(window));
                }
                *this.phase = Phase::Lost(down);
                return None;
            }
            Link::Up(Up::Resumed(resumed)) => return Some(self.resume(cx, resumed)),
            Link::Up(up) => {
                this.ledger.restart();
                *this.start = this.tally.restart();
                *this.unflushed = true;
                this.timer.clear();
                let Phase::Lost(down) = mem::replace(this.phase, Phase::Live) else {
                    return Some(Ok(Link::Up(up)));
                };
                *this.phase = Phase::Restarted(down.cause.clone(), up);
                return Some(Ok(Link::Down(down)));
            }
        };
        match &message {
            _ if *this.start == Start::Plain => Some(Ok(Link::Item(message))),
            _ if *this.start == Start::Opening && message.is_data() => {
                if let Message::Text(text) = &message
                    && let Ok(Some(Frame::Session(session))) = Frame::parse(text)
                    && !session.resumed
                {
                    *this.start = Start::Open;
                    this.tally.note(session);
                    return None;
                }
                let reason = "resume: the first message is not the @session that was asked for";
                Some(Err(self.refuse(cx, CloseCode::Protocol, reason.into())))
            }
            Message::Text(text) if is_control(text) => {
                if !this.tally.hear() {
                    return None;
                }
                let reason = match Frame::parse(text) {
                    Ok(Some(Frame::Ack(received))) => match this.ledger.acknowledge(received) {
                        Ok(()) => {
                            if *this.starved && !this.ledger.is_full() {
                                *this.starved = false;
                                cx.waker().wake_by_ref();
                            }
                            return None;
                        }
                        Err(violation) => violation.to_string(),
                    },
                    Err(malformed) => malformed.to_string(),
                    Ok(_) => "resume: the session is open already".into(),
                };
                Some(Err(self.refuse(cx, CloseCode::Protocol, reason)))
            }
            _ if message.is_data() => {
                let number = this.tally.count()?;
                this.ledger.received(number, message.len());
                Some(Ok(Link::Item(message)))
            }
            _ => Some(Ok(Link::Item(message))),
        }
    }

    /// There is a new link for the session.
    fn resume(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        resumed: Resumed,
    ) -> Result<Link<Message>, Error> {
        let this = self.as_mut().project();
        let told = match this.tally.thaw(resumed.freeze) {
            Thaw::Counts(received) => received,
            Thaw::Superseded => this.tally.received(),
            Thaw::Stale => {
                let reason = "resume: the count that the peer was told has moved on";
                return Err(self.refuse(cx, CloseCode::Internal, reason.into()));
            }
        };
        *this.phase = Phase::Live;
        *this.unflushed = true;
        // Until it hears something the server takes the former secret too, with which an attempt that
        // this client has given up may yet arrive there.
        *this.ack_overdue = this.tally.session().is_some();
        this.timer.clear();
        if mem::take(this.starved) {
            cx.waker().wake_by_ref();
        }
        match this.ledger.resume(resumed.received, told) {
            Ok(replayed) => Ok(Link::Up(Up::Resumed(Resumed { replayed, ..resumed }))),
            Err(violation) => Err(self.refuse(cx, CloseCode::Protocol, violation.to_string())),
        }
    }

    /// Ends the session, and tells the peer why.
    fn refuse(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        code: CloseCode,
        reason: String,
    ) -> Error {
        let mut this = self.project();
        let reason = CloseReason::new(code, reason);
        let close = Numbered::new(0, Message::Close(Some(reason.clone())));
        if this.inner.as_mut().start_send(close).is_ok() {
            let _ = this.inner.poll_flush(cx);
        }
        let error = Error::from(LinkError::Closed(reason));
        *this.phase = Phase::Ended(error.clone());
        error
    }

    /// Ready when there is room in the window.
    fn poll_room(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while self.ledger.is_full() {
            *self.as_mut().project().starved = true;
            if self.ahead.len() >= AHEAD || self.ahead_bytes >= AHEAD_BYTES {
                return Poll::Pending;
            }
            match self.as_mut().poll_item(cx) {
                Poll::Ready(Some(item)) => {
                    let (item, this) = (item?, self.as_mut().project());
                    *this.ahead_bytes += size(&item);
                    this.ahead.push_back(item);
                }
                Poll::Ready(None) => {
                    return Poll::Ready(Err(LinkError::Closed(CloseCode::Abnormal.into()).into()));
                }
                Poll::Pending if self.ledger.is_full() => return Poll::Pending,
                Poll::Pending => break,
            }
            // For whoever reads.
            cx.waker().wake_by_ref();
            self.phase.obstacle()?;
        }
        *self.project().starved = false;
        Poll::Ready(Ok(()))
    }
}

fn size(item: &Link<Message>) -> usize {
    match item {
        Link::Item(message) => message.len(),
        Link::Down(_) | Link::Up(_) => 0,
    }
}

/// No JSON text begins so.
fn is_control(text: &Text) -> bool {
    text.as_bytes().first() == Some(&b'@')
}

impl<S: Duplex<Numbered, Link<Message>>> Stream for Resume<S> {
    type Item = Result<Link<Message>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.as_mut().project();
        if let Some(item) = this.ahead.pop_front() {
            *this.ahead_bytes -= size(&item);
            return Poll::Ready(Some(Ok(item)));
        }
        if let Phase::Ended(error) = this.phase {
            return Poll::Ready(Some(Err(error.clone())));
        }
        self.poll_item(cx)
    }
}

impl<S: Duplex<Numbered, Link<Message>>> Sink<Numbered> for Resume<S> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(self.as_mut().poll_own(cx))?;
        ready!(self.as_mut().poll_room(cx))?;
        self.project().inner.poll_ready(cx)
    }

    fn start_send(self: Pin<&mut Self>, mut item: Numbered) -> Result<(), Error> {
        let this = self.project();
        if let Phase::Ended(error) = this.phase {
            return Err(error.clone());
        }
        if *this.start == Start::Plain {
            return this.inner.start_send(item);
        }
        match item.message {
            Message::Text(text) if is_control(&text) => item.message = Message::Binary(text.into()),
            Message::Text(_) | Message::Binary(_) => {}
            _ => return this.inner.start_send(item),
        }
        this.ledger.take(item);
        // Between being asked whether it takes a message and being given it, the link may be lost.
        if !matches!(this.phase, Phase::Live) {
            return Ok(());
        }
        match this.ledger.hand_over() {
            Some(next) => this.inner.start_send(next),
            None => Ok(()),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(self.as_mut().poll_own(cx))?;
        let this = self.project();
        let flushed = ready!(this.inner.poll_flush(cx));
        *this.unflushed = false;
        *this.waits = false;
        Poll::Ready(flushed)
    }

    forward_sink!(inner, Numbered: poll_close);
}

#[cfg(test)]
mod tests;
