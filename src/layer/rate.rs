//! [`Rate`]: bounds how many messages per second are read from the peer.
//!
//! Items are [`Message`]s; only text and binary messages count, whatever they say. What is too much
//! is no error: the layer stops reading until the next message fits, and the peer feels it as
//! back-pressure, first in the buffers of the network, then in its own queue. Nothing is lost and
//! nothing overtakes: the one message that was read and does not fit yet is kept, and nothing is
//! read past it. Control messages and the end of the link pass at once unless they are behind it.
//! Everything outbound passes at once.
//!
//! ```
//! use std::num::NonZeroU32;
//!
//! use mcp_ws_transport::{layer::{Rate, rate}, transport};
//!
//! const RATE: NonZeroU32 = NonZeroU32::new(100).unwrap();
//!
//! let rate = rate::Config::new(RATE);
//! let config = transport::Config::default().layer(move |link| Rate::new(link, rate.clone()));
//! # drop(config);
//! ```
//!
//! Each connection has a limiter of its own, since each link has a layer of its own.
//!
//! # The heartbeat below
//! A message is kept for one period at most, a second where the rate is 1. For that long
//! [`Heartbeat`](super::Heartbeat) below is not polled, and it pings only when all that has arrived
//! is read. Whatever is read counts as received, so a peer is not taken for gone because its pong is
//! behind its own messages. The other way round it may be: one that floods this side far above the
//! rate finds the answer to its own ping late, by as much as it had sent before.

use std::{
    num::NonZeroU32,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{Sink, Stream};
use governor::{
    Quota, RateLimiter, clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    duplex::{Duplex, forward_sink},
    error::Error,
    message::Message,
};

/// Rate that a [`Rate`] allows.
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) messages_per_second: NonZeroU32,
    pub(crate) burst: NonZeroU32,
}

impl Config {
    /// Creates the settings for this number of messages per second, and as many in a burst.
    #[must_use]
    pub fn new(messages_per_second: NonZeroU32) -> Self {
        Self { messages_per_second, burst: messages_per_second }
    }

    /// Sets how many messages may pass at once after a pause: by default as many as in one second.
    ///
    /// The clock ticks in milliseconds, so less than a few milliseconds' worth lowers the rate.
    #[must_use]
    pub fn burst(mut self, messages: NonZeroU32) -> Self {
        self.burst = messages;
        self
    }
}

/// tokio's clock, which counts from when the layer was made.
#[derive(Debug)]
struct Clock {
    start: Instant,
}

impl clock::Clock for Clock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX).into()
    }
}

pin_project! {
    /// Reads no more messages per second than its [`Config`] says, and leaves the rest with the
    /// peer.
    #[derive(Debug)]
    #[must_use = "a layer does nothing unless polled"]
    pub struct Rate<S> {
        limiter: RateLimiter<NotKeyed, InMemoryState, Clock, NoOpMiddleware<Nanos>>,
        // Message that was read, and does not fit before `timer` fires.
        kept: Option<Message>,
        // A write has failed: no more will arrive than has by now.
        broken: bool,
        #[pin]
        timer: Sleep,
        #[pin]
        inner: S,
    }
}

impl<S: Duplex<Message, Message>> Rate<S> {
    /// Limits what is read from `inner`; a first burst may pass at once.
    pub fn new(inner: S, config: Config) -> Self {
        let start = Instant::now();
        let quota = Quota::per_second(config.messages_per_second).allow_burst(config.burst);
        Self {
            limiter: RateLimiter::direct_with_clock(quota, Clock { start }),
            kept: None,
            broken: false,
            timer: sleep_until(start),
            inner,
        }
    }
}

impl<S: Duplex<Message, Message>> Stream for Rate<S> {
    type Item = Result<Message, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        let mut waits = this.kept.is_some();
        if !waits {
            match ready!(this.inner.poll_next(cx)) {
                Some(Ok(message)) if message.is_data() => *this.kept = Some(message),
                other => return Poll::Ready(other),
            }
        }
        // The Close that explains a failed write may be behind more than fits.
        while !*this.broken {
            if waits {
                ready!(this.timer.as_mut().poll(cx));
            }
            let Err(not_yet) = this.limiter.check() else { break };
            let due = this.limiter.clock().start + not_yet.earliest_possible().into();
            this.timer.as_mut().reset(due);
            waits = true;
        }
        Poll::Ready(this.kept.take().map(Ok))
    }
}

impl<S: Duplex<Message, Message>> Sink<Message> for Rate<S> {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = self.project();
        this.inner.poll_ready(cx).map_err(|error| {
            *this.broken = true;
            error
        })
    }

    fn start_send(self: Pin<&mut Self>, item: Message) -> Result<(), Error> {
        let this = self.project();
        this.inner.start_send(item).inspect_err(|_| *this.broken = true)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = self.project();
        this.inner.poll_flush(cx).map_err(|error| {
            *this.broken = true;
            error
        })
    }

    forward_sink!(inner, Message: poll_close);
}

#[cfg(test)]
mod tests;
