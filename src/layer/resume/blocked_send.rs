//! `Resume::poll_ready`: waits for room in the window, and reads on meanwhile.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use super::{OwnFlush, Resume};
use crate::{
    close::CloseCode,
    duplex::Duplex,
    error::{Error, LinkError},
    link::{LinkEvent, Outgoing},
    message::Message,
};

impl<S: Duplex<Outgoing, LinkEvent<Message>>> Resume<S> {
    /// Ready when the window has room and the link takes a message.
    pub(super) fn poll_room(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        ready!(self.as_mut().poll_own(cx))?;
        loop {
            let mut this = self.as_mut().project();
            if !this.send_window.is_full() {
                *this.awaits_ack = false;
                this.ack_deadline.reset();
                return this.inner.poll_ready(cx);
            }
            if !mem::replace(this.awaits_ack, true) {
                // Whoever writes flushes behind the message that waits, which is too late for those that
                // the peer has to acknowledge.
                *this.flush = OwnFlush::Due;
            }
            if this.receive_count.is_frozen() {
                // Acknowledgements over this link are dropped.
                this.ack_deadline.reset();
                return Poll::Pending;
            }
            if *this.ping_unflushed {
                ready!(this.inner.as_mut().poll_flush(cx))?;
                *this.ping_unflushed = false;
                this.ack_deadline.flushed(this.send_window.kept_bytes());
            }
            ready!(this.ack_deadline.poll_ping_due(cx));
            ready!(this.inner.as_mut().poll_ready(cx))?;
            *this.ping_unflushed = true;
            this.inner.start_send(Outgoing::new(0, this.ack_deadline.ask()))?;
        }
    }

    /// Ready when the peer has left a full window unacknowledged for too long. To be asked when all
    /// that has arrived is read.
    pub(super) fn poll_overdue(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Error> {
        match self.ack_deadline.overdue() {
            Some(reason) if self.send_window.is_full() => {
                Poll::Ready(self.refuse(cx, CloseCode::Policy, reason.into()))
            }
            _ => Poll::Pending,
        }
    }

    /// Reads what arrives, and keeps for the reader what is for it. Ready when there may be room by
    /// now.
    pub(super) fn poll_read_ahead(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        let (mut has_changed, mut has_told) = (false, false);
        loop {
            if self.read_queue.is_beyond_any_window() && !self.send_window.is_full() {
                // The network is slow, and tells the peer so.
                return Poll::Pending;
            }
            let acked = self.send_window.acked();
            let polled = self.as_mut().poll_item(cx);
            has_changed |= acked != self.send_window.acked();
            let item = match polled {
                Poll::Ready(Some(item)) => item?,
                Poll::Ready(None) => {
                    return Poll::Ready(Err(LinkError::Closed(CloseCode::Abnormal.into()).into()));
                }
                Poll::Pending => {
                    self.phase.obstacle()?;
                    return if has_changed { Poll::Ready(Ok(())) } else { Poll::Pending };
                }
            };
            if !self.may_wait(&item) {
                continue;
            }
            has_changed = true;
            if !self.is_numbered(&item) {
                self.as_mut().project().read_queue.push_counted(item);
            } else if self.read_queue.is_beyond_any_window() {
                self.as_mut().project().read_queue.forget_uncounted();
                let reason = "resume: more was sent than a window holds".to_owned();
                return Poll::Ready(Err(self.refuse(cx, CloseCode::Policy, reason)));
            } else if !(self.dialled && self.read_queue.has_credit()) {
                self.as_mut().project().read_queue.push_uncounted(item);
            } else if self.as_mut().count(&item) {
                self.as_mut().project().read_queue.push_counted(item);
            }
            if !mem::replace(&mut has_told, true) {
                // The reader has something to take.
                cx.waker().wake_by_ref();
            }
            self.phase.obstacle()?;
        }
    }

    /// Returns `true` if `item` is for the reader, and may still be taken from this link.
    fn may_wait(&self, item: &LinkEvent<Message>) -> bool {
        match item {
            LinkEvent::Item(message) => message.is_data() && self.receive_count.note_uncounted(),
            LinkEvent::Down(_) | LinkEvent::Up(_) => true,
        }
    }
}
