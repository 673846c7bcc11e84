//! The shape that every layer has: a [`Stream`] of what comes in and a [`Sink`] for what goes out.

use std::pin::Pin;

use futures::{Sink, Stream};

use crate::{error::Error, message::Message};

/// A `Stream<Item = Result<In, Error>>` that is also a `Sink<Out, Error = Error>`.
///
/// An alias: it is implemented for everything that has this shape and cannot be implemented
/// otherwise. A layer takes one `Duplex` and is another.
pub trait Duplex<Out, In>:
    Stream<Item = Result<In, Error>> + Sink<Out, Error = Error> + sealed::Sealed<Out, In>
{
}

impl<T, Out, In> Duplex<Out, In> for T where
    T: Stream<Item = Result<In, Error>> + Sink<Out, Error = Error>
{
}

/// A stack of layers over one connection whose type no longer matters.
pub type BoxLink = Pin<Box<dyn Duplex<Message, Message> + Send>>;

mod sealed {
    #[expect(unnameable_types, reason = "this is what seals `Duplex`")]
    pub trait Sealed<Out, In> {}

    impl<T, Out, In> Sealed<Out, In> for T where
        T: super::Stream<Item = Result<In, super::Error>> + super::Sink<Out, Error = super::Error>
    {
    }
}

/// Hands the named `Sink` methods to the pinned field `$field` of a `pin_project_lite` struct.
macro_rules! forward_sink {
    ($field:ident, $item:ty: $($method:ident),+) => {
        $(forward_sink!(@$method $field, $item);)+
    };
    (@poll_ready $field:ident, $item:ty) => {
        fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
            self.project().$field.poll_ready(cx)
        }
    };
    (@start_send $field:ident, $item:ty) => {
        fn start_send(self: Pin<&mut Self>, item: $item) -> Result<(), Error> {
            self.project().$field.start_send(item)
        }
    };
    (@poll_flush $field:ident, $item:ty) => {
        fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
            self.project().$field.poll_flush(cx)
        }
    };
    (@poll_close $field:ident, $item:ty) => {
        fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
            self.project().$field.poll_close(cx)
        }
    };
}

pub(crate) use forward_sink;
