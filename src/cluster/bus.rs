//! [`Bus`]: what carries messages between the instances of a server.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::{subject::Subject, subscription::Subscription};

/// Carrier of small messages between the instances of one server.
///
/// It may lose messages, and never repeats one. Those that one instance publishes on one subject
/// arrive in that order, at every instance that has subscribed to it, the publisher included. A
/// message that is published while nobody subscribes is gone: nothing is kept.
///
/// | | |
/// |---|---|
/// | [`publish`](Self::publish) | to all who have subscribed; never waits |
/// | [`subscribe`](Self::subscribe) | receives what is published from then on |
/// | [`ask`](Self::ask) | publishes, and waits for the first answer |
///
/// The answer to a question is published on the [`reply_to`](super::Delivery::reply_to) that it
/// came with.
pub trait Bus: Send + Sync + 'static {
    /// Publishes a message, without waiting: what cannot be taken at once is not sent later.
    ///
    /// `Ok` says that the bus has taken it, not that anybody receives it.
    ///
    /// # Errors
    /// [`PublishError`] when it is not sent.
    fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), PublishError>;

    /// Subscribes to the messages on a subject, from when the future resolves until the
    /// [`Subscription`] is dropped. It goes on by itself after the bus was away.
    ///
    /// At most `max_bytes` of messages wait for the subscriber; what comes beyond is dropped, and
    /// counted in the [`Delivery`](super::Delivery) that follows.
    ///
    /// # Errors
    /// [`SubscribeError`] when there is no subscription.
    fn subscribe(
        &self,
        subject: &Subject,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Subscription, SubscribeError>>;

    /// Publishes a question, and returns the first answer to it.
    ///
    /// # Errors
    /// [`AskError`] when there is no answer within `timeout`.
    fn ask(
        &self,
        subject: &Subject,
        payload: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Bytes, AskError>>;

    /// Returns the size of the largest payload, in bytes.
    fn max_payload(&self) -> usize;

    /// Returns a receiver for whether the bus is connected, which follows each change.
    fn watch_up(&self) -> watch::Receiver<bool>;
}

impl<B: Bus + ?Sized> Bus for Arc<B> {
    fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), PublishError> {
        (**self).publish(subject, payload)
    }

    fn subscribe(
        &self,
        subject: &Subject,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Subscription, SubscribeError>> {
        (**self).subscribe(subject, max_bytes)
    }

    fn ask(
        &self,
        subject: &Subject,
        payload: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Bytes, AskError>> {
        (**self).ask(subject, payload, timeout)
    }

    fn max_payload(&self) -> usize {
        (**self).max_payload()
    }

    fn watch_up(&self) -> watch::Receiver<bool> {
        (**self).watch_up()
    }
}

/// Error of [`Bus::publish`]: the message is not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The bus is not connected.
    #[error("the bus is away")]
    Away,
    /// More waits to be written than the bus takes.
    #[error("the bus does not keep up")]
    Full,
    /// The payload is larger than [`Bus::max_payload`].
    #[error("{size} bytes, the bus takes {max}")]
    TooLarge {
        /// Size of the payload, in bytes.
        size: usize,
        /// Size of the largest payload, in bytes.
        max: usize,
    },
}

/// Error of [`Bus::subscribe`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The bus is not connected.
    #[error("the bus is away")]
    Away,
    /// The bus refuses it, for this reason.
    #[error("the bus refuses to subscribe: {0}")]
    Refused(String),
}

/// Error of [`Bus::ask`]: there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// Nobody has subscribed to the subject.
    ///
    /// Right after the bus was away this may be said of somebody who has not come back yet.
    #[error("nobody has subscribed")]
    Nobody,
    /// Somebody may have received the question, and there was no answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The question could not be sent.
    #[error(transparent)]
    NotSent(#[from] PublishError),
}
