//! [`NewLink`]: a connection whose client asks for a session.

use std::{
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{FutureExt, Sink, SinkExt, Stream, task::noop_waker_ref};
use pin_project_lite::pin_project;

use crate::{
    close::CloseReason,
    duplex::BoxLink,
    error::Error,
    layer::resume::frame::{Frame, SessionFrame},
    link::MessageLimits,
    message::Message,
    server::http::limits::{Permit, address_prefix},
    stats::Stats,
};

pin_project! {
    /// Connection whose client asks for a session. Dropping it gives its permit back.
    pub(in crate::server) struct NewLink {
        #[pin]
        link: BoxLink,
        // Message that is sent before all others, once the layers of the link take one.
        first: Option<Box<Message>>,
        pub(super) stats: Stats,
        permit: Option<Permit>,
        limits: MessageLimits,
        // Address or network that it comes from.
        address: Option<IpAddr>,
    }
}

impl NewLink {
    /// Creates it from a `link` to a client, with the limits that it announced.
    pub(in crate::server) fn new(
        link: BoxLink,
        stats: Stats,
        permit: Option<Permit>,
        limits: MessageLimits,
        address: Option<IpAddr>,
    ) -> Self {
        let address = address.map(address_prefix);
        Self { link, first: None, stats, permit, limits, address }
    }

    /// Returns the counters of the link.
    #[cfg(feature = "cluster")]
    pub(in crate::server) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Returns the IPv4 address or the IPv6 /64 that it comes from.
    pub(in crate::server) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Updates the limits of the client by those that it announces again.
    pub(super) fn update_limits(&mut self, limits: MessageLimits) {
        self.limits = limits.or(self.limits);
    }

    /// Returns the limits of the client.
    pub(in crate::server) fn limits(&self) -> MessageLimits {
        self.limits
    }

    /// Queues the frame that describes its session; the link's next user flushes it.
    pub(super) fn send_session(&mut self, session: SessionFrame) {
        self.send_now(Frame::Session(session).encode());
    }

    /// Closes the link with this reason, without waiting.
    pub(in crate::server) fn close_with(mut self, reason: CloseReason) {
        self.send_now(Message::Close(Some(reason)));
        let _ = self.flush().now_or_never();
    }

    /// Queues a message without waiting, before all that are sent on the link; its next user
    /// flushes it, and notices if the link is lost.
    pub(in crate::server) fn send_now(&mut self, message: Message) {
        self.first = Some(Box::new(message));
        let _ = Pin::new(self).poll_first(&mut Context::from_waker(noop_waker_ref()));
    }

    /// Hands the first message, if there is one, to the link as soon as that takes it.
    fn poll_first(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut this = self.project();
        if this.first.is_some() {
            ready!(this.link.as_mut().poll_ready(cx))?;
            if let Some(first) = this.first.take() {
                this.link.start_send(*first)?;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Stream for NewLink {
    type Item = Result<Message, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.project().link.poll_next(cx)
    }
}

impl Sink<Message> for NewLink {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(self.as_mut().poll_first(cx))?;
        self.project().link.poll_ready(cx)
    }

    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        self.project().link.start_send(message)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(self.as_mut().poll_first(cx))?;
        self.project().link.poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(self.as_mut().poll_first(cx))?;
        self.project().link.poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio_test::{assert_pending, assert_ready_ok, task::spawn};

    use super::*;
    use crate::layer::fake;

    /// A layer of the link may take nothing for a while, as one that counts messages per second.
    #[test]
    fn what_comes_first_waits_for_a_link_that_takes_nothing_yet() {
        let (link, peer) = fake::link();
        let (stats, limits) = (Stats::default(), MessageLimits::default());
        let mut link = NewLink::new(Box::pin(link), stats, None, limits, None);
        peer.block(true);
        link.send_now(Message::text("first"));
        let mut link = spawn(link);
        assert_pending!(link.enter(|cx, link| link.poll_flush(cx)));
        assert_pending!(link.enter(|cx, link| link.poll_ready(cx)));
        peer.block(false);
        assert!(link.is_woken());
        assert_ready_ok!(link.enter(|cx, link| link.poll_ready(cx)));
        link.enter(|_, link| link.start_send(Message::text("second"))).unwrap();
        assert_ready_ok!(link.enter(|cx, link| link.poll_flush(cx)));
        assert_eq!(peer.sent(), [Message::text("first"), Message::text("second")]);

        // At once, though no message follows.
        link.enter(|_, link| link.get_mut().send_now(Message::text("third")));
        assert_eq!(peer.sent(), [Message::text("third")]);
    }
}
