//! [`NewLink`]: a connection whose client asks for a session.

use std::{
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll},
};

use futures::{FutureExt, Sink, SinkExt, Stream};
use pin_project_lite::pin_project;

use crate::{
    close::CloseReason,
    duplex::{BoxLink, forward_sink},
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
        Self { link, stats, permit, limits, address: address.map(address_prefix) }
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
        let _ = self.link.flush().now_or_never();
    }

    /// Queues a message without waiting: there is room on a link that has carried nothing yet.
    ///
    /// Whoever uses the link next notices if it is lost.
    fn send_now(&mut self, message: Message) {
        let _ = self.link.feed(message).now_or_never();
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

    forward_sink!(link, Message: poll_ready, start_send, poll_flush, poll_close);
}
