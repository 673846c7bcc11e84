//! [`NewLink`]: a connection on which a client has asked for a session.

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
    /// Connection on which a client has asked for a session. Its permit is given back with it.
    pub(in crate::server) struct NewLink {
        #[pin]
        link: BoxLink,
        pub(super) stats: Stats,
        permit: Option<Permit>,
        limits: MessageLimits,
        // Where it comes from, as far as addresses are told apart.
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

    pub(super) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Updates the limits that the client announces again.
    pub(super) fn update_limits(&mut self, limits: MessageLimits) {
        self.limits = limits.or(self.limits);
    }

    /// Returns the limits of the client.
    pub(super) fn limits(&self) -> MessageLimits {
        self.limits
    }

    /// Queues the answer about its session; written by whoever gets the link.
    pub(super) fn send_session(&mut self, session: SessionFrame) {
        self.send_now(Frame::Session(session).encode());
    }

    /// Closes the link, which gets no session, with this reason.
    pub(super) fn close_with(mut self, reason: CloseReason) {
        self.send_now(Message::Close(Some(reason)));
        let _ = self.link.flush().now_or_never();
    }

    /// Sends at once: there is room on a link on which nothing was said yet. One that is lost meanwhile
    /// is lost to whoever gets it.
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
