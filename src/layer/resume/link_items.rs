//! `Resume::on_item`: counting, acknowledgements, control frames, and the loss and return of the
//! link.

use std::{mem, pin::Pin, task::Context};

use super::{
    OwnFlush, Phase, Resume,
    frame::Frame,
    is_control,
    receive_count::{SessionStart, Thawed},
    send_window::SendWindow,
};
use crate::{
    close::{CloseCode, CloseReason},
    duplex::Duplex,
    error::{Error, LinkError},
    link::{LinkEvent, LinkUp, Outgoing, Resumed},
    message::Message,
    time::{Timer, deadline_in},
};

impl<S: Duplex<Outgoing, LinkEvent<Message>>> Resume<S> {
    /// Handles `item`, and returns what is for the layer above.
    pub(super) fn on_item(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        item: LinkEvent<Message>,
    ) -> Option<Result<LinkEvent<Message>, Error>> {
        let this = self.as_mut().project();
        let message = match item {
            LinkEvent::Item(message) => message,
            LinkEvent::Down(down) => {
                this.receive_count.set_kept_bytes(this.send_window.kept_bytes());
                *this.ack_overdue = false;
                *this.flush = OwnFlush::Done;
                *this.timer = Timer::default();
                this.ack_deadline.reset();
                *this.ping_unflushed = false;
                if *this.start != SessionStart::Open {
                    *this.phase = Phase::Gone(down.cause.clone());
                    return Some(Ok(LinkEvent::Down(down)));
                }
                if let Some(window) = this.receive_count.window() {
                    this.timer.set(deadline_in(window));
                }
                *this.phase = Phase::Lost(down);
                return None;
            }
            LinkEvent::Up(LinkUp::Resumed(resumed)) => return Some(self.resume(cx, resumed)),
            LinkEvent::Up(up) => {
                this.read_queue.never_count();
                *this.start = this.receive_count.restart();
                *this.dialled |= this.receive_count.has_dialled(*this.start);
                *this.send_window = SendWindow::new(this.config.window(*this.dialled));
                *this.flush = OwnFlush::Due;
                this.timer.clear();
                this.ack_deadline.reset();
                let Phase::Lost(down) = mem::replace(this.phase, Phase::Live) else {
                    return Some(Ok(LinkEvent::Up(up)));
                };
                *this.phase = Phase::Restarted(down.cause.clone(), up);
                return Some(Ok(LinkEvent::Down(down)));
            }
        };
        match &message {
            _ if *this.start == SessionStart::Plain => Some(Ok(LinkEvent::Item(message))),
            _ if *this.start == SessionStart::Opening && message.is_data() => {
                if let Message::Text(text) = &message
                    && let Ok(Some(Frame::Session(session))) = Frame::parse(text)
                    && !session.resumed
                {
                    *this.start = SessionStart::Open;
                    this.receive_count.note(session);
                    return None;
                }
                let reason = "resume: the first message is not the @session that was asked for";
                Some(Err(self.refuse(cx, CloseCode::Protocol, reason.into())))
            }
            Message::Text(text) if is_control(text) => {
                if !this.receive_count.note_uncounted() {
                    return None;
                }
                let reason = match Frame::parse(text) {
                    Ok(Some(Frame::Ack(received))) => {
                        match this.send_window.acknowledge(received) {
                            Ok(progress) => {
                                if progress {
                                    this.ack_deadline.reset();
                                }
                                if *this.awaits_ack && !this.send_window.is_full() {
                                    *this.awaits_ack = false;
                                    cx.waker().wake_by_ref();
                                }
                                return None;
                            }
                            Err(violation) => violation.to_string(),
                        }
                    }
                    Err(malformed) => malformed.to_string(),
                    Ok(_) => "resume: the session is open already".into(),
                };
                Some(Err(self.refuse(cx, CloseCode::Protocol, reason)))
            }
            Message::Pong(payload) => {
                if !this.ack_deadline.pong(payload) {
                    return Some(Ok(LinkEvent::Item(message)));
                }
                cx.waker().wake_by_ref();
                None
            }
            // Counted by the caller that passes it on.
            _ => Some(Ok(LinkEvent::Item(message))),
        }
    }

    /// Returns `true` if `item` is a message that the session counts.
    pub(super) fn is_numbered(&self, item: &LinkEvent<Message>) -> bool {
        matches!(item, LinkEvent::Item(message) if message.is_data())
            && self.start == SessionStart::Open
    }

    /// Counts a message. Returns `false` if it must be dropped.
    pub(super) fn count(self: Pin<&mut Self>, item: &LinkEvent<Message>) -> bool {
        let this = self.project();
        let LinkEvent::Item(message) = item else { return true };
        let Some(number) = this.receive_count.count() else { return false };
        this.send_window.note_received(number, message.len());
        true
    }

    /// Continues or restarts the session on a new link.
    fn resume(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        resumed: Resumed,
    ) -> Result<LinkEvent<Message>, Error> {
        let this = self.as_mut().project();
        let told = match this.receive_count.thaw(resumed.freeze) {
            Thawed::Counts(received) => received,
            Thawed::Superseded => this.receive_count.received(),
            Thawed::Stale => {
                let reason = "resume: the count that the peer was told has moved on";
                return Err(self.refuse(cx, CloseCode::Internal, reason.into()));
            }
        };
        *this.phase = Phase::Live;
        *this.flush = OwnFlush::Due;
        // The server accepts the former secret until it receives something; an attempt that this
        // client has given up may still arrive with it.
        *this.ack_overdue = this.receive_count.session().is_some();
        this.timer.clear();
        this.ack_deadline.reset();
        this.read_queue.forget_uncounted();
        if mem::take(this.awaits_ack) {
            cx.waker().wake_by_ref();
        }
        match this.send_window.resume(resumed.received, told) {
            Ok(replayed) => Ok(LinkEvent::Up(LinkUp::Resumed(Resumed { replayed, ..resumed }))),
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
        let close = Outgoing::new(0, Message::Close(Some(reason.clone())));
        if this.inner.as_mut().start_send(close).is_ok() {
            let _ = this.inner.poll_flush(cx);
        }
        let error = Error::from(LinkError::closed_here(&reason));
        *this.phase = Phase::Ended(error.clone());
        error
    }
}
