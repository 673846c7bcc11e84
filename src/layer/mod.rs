//! The layers of a connection, one adaptor each, from the wire up:
//!
//! | layer | takes | is | does |
//! |---|---|---|---|
//! | [`Socket`] | a byte stream | `Duplex<Message, Message>` | RFC 6455: frames, limits, the closing handshake; with the feature `deflate`, RFC 7692 |
//! | [`Heartbeat`] | a `Duplex<Message, Message>` | the same | pings, and reports a peer that is gone |
//! | `Rate` (feature `rate-limit`) | a `Duplex<Message, Message>` | the same | limits how many messages per second are read |
//! | [`Reconnect`] | the first link, and a source of more | `Duplex<Outgoing, LinkEvent<Message>>` | one connection after the other |
//! | [`Resume`] | a `Duplex<Outgoing, LinkEvent<Message>>` | the same | numbers messages, and sends again what a lost connection took with it |
//! | [`SharedLink`] | a `Duplex<Outgoing, LinkEvent<Message>>` | a sink of `Message`, a stream of `LinkEvent`, and `Clone` | the queue, and who reads and writes |
//! | [`Framed`] | a sink of `Message`, a stream of `Message` or `LinkEvent` | a duplex of JSON-RPC messages | encodes and decodes |
//! | [`Correlation`] | a [`Framed`] over [`SharedLink`], which it takes apart | the same | knows every request in flight, ends each once |
//!
//! [`WebSocketTransport`](crate::WebSocketTransport) puts rmcp on top. A layer of your own goes
//! between [`Heartbeat`] and [`Reconnect`]: it is any [`Duplex`](crate::duplex::Duplex) of
//! [`Message`](crate::Message)s, and [`Builder::over`](crate::transport::Builder::over) takes it.
//!
//! What is below [`SharedLink`] is polled with one waker for reading and writing alike, so a layer
//! may write from `poll_next`, and what it leaves pending there is taken up again by whichever side
//! moves next.

pub(crate) mod codec;
pub mod correlation;
#[cfg(test)]
pub(crate) mod fake;
pub mod framed;
pub mod heartbeat;
#[cfg(feature = "rate-limit")]
#[cfg_attr(docsrs, doc(cfg(feature = "rate-limit")))]
pub mod rate;
pub mod reconnect;
mod replies;
pub mod resume;
pub mod shared_link;
pub mod socket;

#[cfg(feature = "rate-limit")]
#[doc(inline)]
pub use self::rate::Rate;
#[doc(inline)]
pub use self::{
    correlation::Correlation, framed::Framed, heartbeat::Heartbeat, reconnect::Reconnect,
    resume::Resume, shared_link::SharedLink, socket::Socket,
};
