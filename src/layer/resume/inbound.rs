//! Inbound half of [`Resume`]: counting, acknowledgements and control frames.

use std::{mem, pin::Pin, task::Context};

use super::{Frame, Phase, Resume, Start, is_control, ledger::Ledger, tally::Thaw};
use crate::{
    duplex::Duplex,
    error::{CloseCode, CloseReason, Error, LinkError},
    link::{Link, Numbered, Resumed, Up},
    message::Message,
    time::after,
};

impl<S: Duplex<Numbered, Link<Message>>> Resume<S> {
    /// Handles `item`, and returns what is for the layer above.
    pub(super) fn take_in(
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
                this.ack_deadline.reset();
                *this.ping_unflushed = false;
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
                this.ahead.never_count();
                *this.start = this.tally.restart();
                *this.dialled |= this.tally.has_dialled(*this.start);
                *this.ledger = Ledger::new(this.config.window(*this.dialled));
                *this.unflushed = true;
                this.timer.clear();
                this.ack_deadline.reset();
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
                        Ok(progress) => {
                            if progress {
                                this.ack_deadline.reset();
                            }
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
            Message::Pong(payload) => {
                if !this.ack_deadline.pong(payload) {
                    return Some(Ok(Link::Item(message)));
                }
                cx.waker().wake_by_ref();
                None
            }
            // Counted by whoever passes it on.
            _ => Some(Ok(Link::Item(message))),
        }
    }

    /// Returns `true` if `item` is a message that the session counts.
    pub(super) fn is_numbered(&self, item: &Link<Message>) -> bool {
        matches!(item, Link::Item(message) if message.is_data()) && self.start == Start::Open
    }

    /// Counts a message. Returns `false` if it must be dropped.
    pub(super) fn count(self: Pin<&mut Self>, item: &Link<Message>) -> bool {
        let this = self.project();
        let Link::Item(message) = item else { return true };
        let Some(number) = this.tally.count() else { return false };
        this.ledger.received(number, message.len());
        true
    }

    /// Continues or restarts the session on a new link.
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
        this.ack_deadline.reset();
        this.ahead.forget_uncounted();
        if mem::take(this.starved) {
            cx.waker().wake_by_ref();
        }
        match this.ledger.resume(resumed.received, told) {
            Ok(replayed) => Ok(Link::Up(Up::Resumed(Resumed { replayed, ..resumed }))),
            Err(violation) => Err(self.refuse(cx, CloseCode::Protocol, violation.to_string())),
        }
    }

    /// Ends the session, and tells the peer why.
    pub(super) fn refuse(
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
        let error = Error::from(LinkError::closed_here(&reason));
        *this.phase = Phase::Ended(error.clone());
        error
    }
}
