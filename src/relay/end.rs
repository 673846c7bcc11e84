//! [`End`]: the side of a relay that is no WebSocket.

use std::fmt;

use futures::{Sink, Stream};

use super::message::RawMessage;
use crate::decode::malformed::Malformed;

/// End of a relay: a `Stream<Item = Result<RawMessage, Malformed>>` that is also a
/// `Sink<RawMessage>`.
///
/// An alias: it is implemented for everything that has this shape. What is [`Malformed`] ends
/// nothing: its sender, or whoever waits for it, is told. The end of the stream ends the relay, as
/// does an error of the sink.
pub trait End:
    Stream<Item = Result<RawMessage, Malformed>>
    + Sink<RawMessage, Error = <Self as End>::Failure>
    + Send
    + 'static
{
    /// Error of the sink.
    type Failure: fmt::Display + Send;
}

impl<T> End for T
where
    T: Stream<Item = Result<RawMessage, Malformed>>
        + Sink<RawMessage, Error: fmt::Display + Send>
        + Send
        + 'static,
{
    type Failure = <T as Sink<RawMessage>>::Error;
}
