//! [`Replies`]: how much of what this side says by itself may wait to be sent while it reads on.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{Sink, Stream};
use rmcp::service::RxJsonRpcMessage;

use super::codec::Codec;
use crate::{
    close::CloseReason,
    decode::PendingMethods,
    duplex::Duplex,
    error::{Error, LinkError},
    framing::Framing,
    link::LinkEvent,
    message::Message,
    role::McpRole,
};

/// Most bytes of replies that may wait in a link without room before no more is read. A peer that
/// sends rubbish and reads nothing is not buffered for. Not 0: two ends that both refuse something
/// would each wait for the other to read.
pub(super) const MAX_UNFLUSHED: usize = 1 << 20;

/// State of the messages that a [`Codec`] makes by itself, in the link below.
///
/// | state | a reply | the link has room | it is flushed | it has no room, and 1 MiB waits |
/// |---|---|---|---|---|
/// | `Flushed` | `Unflushed` | | | |
/// | `Unflushed` | adds to its bytes | its bytes are 0 | `Flushed` | reading waits; `Muted` where nothing can be written before more is read |
/// | `Muted`: what cannot be read is not answered, nor a ping of the framing | | `Unflushed` | `Flushed` | reading goes on |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Replies {
    #[default]
    Flushed,
    Unflushed {
        bytes: usize,
    },
    Muted,
}

type Decoded<R> = LinkEvent<RxJsonRpcMessage<R>>;

impl Replies {
    /// Hands all that `codec` has to say by itself to `link`. The end of the link is for the
    /// stream to tell, after all that had arrived before.
    pub(super) fn send<R, F, S>(&mut self, codec: &mut Codec<R, F>, mut link: Pin<&mut S>)
    where
        R: McpRole,
        F: Framing<R>,
        S: Sink<Message, Error = Error>,
    {
        while let Some(message) = codec.next_reply() {
            match self {
                Self::Flushed => *self = Self::Unflushed { bytes: message.len() },
                Self::Unflushed { bytes } => *bytes += message.len(),
                Self::Muted => {}
            }
            if let Err(error) = link.as_mut().start_send(message) {
                tracing::debug!(%error, "answer not sent");
            }
        }
    }

    /// Ready when more may be read, with the error of a failed write. `is_stuck` says that nothing
    /// can be written to the link before more is read.
    fn poll_room<S>(
        &mut self,
        mut link: Pin<&mut S>,
        is_stuck: impl Fn(&S) -> bool,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Error>>
    where
        S: Sink<Message, Error = Error>,
    {
        let bytes = match self {
            Self::Flushed => return Poll::Ready(None),
            Self::Unflushed { bytes } => *bytes,
            Self::Muted => MAX_UNFLUSHED,
        };
        let is_flushed = matches!(link.as_mut().poll_flush(cx), Poll::Ready(Ok(())));
        let mut failed = None;
        match link.as_mut().poll_ready(cx) {
            Poll::Ready(Err(error)) => failed = Some(error),
            _ if is_flushed => *self = Self::Flushed,
            Poll::Ready(Ok(())) => *self = Self::Unflushed { bytes: 0 },
            Poll::Pending if bytes < MAX_UNFLUSHED => {}
            Poll::Pending if !is_stuck(&link) => return Poll::Pending,
            Poll::Pending => *self = Self::Muted,
        }
        Poll::Ready(failed)
    }

    /// Reads from `link` and decodes until there is a message or an event. Where `is_stuck` says
    /// that nothing can be written to the link before more is read, reading goes on, and beyond
    /// [`MAX_UNFLUSHED`] neither unreadable messages nor pings are answered.
    pub(super) fn poll_decode<R, F, S, I>(
        &mut self,
        codec: &mut Codec<R, F>,
        mut link: Pin<&mut S>,
        calls: &dyn PendingMethods,
        is_stuck: impl Fn(&S) -> bool,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Decoded<R>, Error>>>
    where
        R: McpRole,
        F: Framing<R>,
        S: Duplex<Message, I> + Stream<Item = Result<I, Error>>,
        I: Into<LinkEvent<Message>>,
    {
        loop {
            if let Some(failed) = codec.next_failed() {
                return Poll::Ready(Some(Ok(LinkEvent::Item(failed))));
            }
            let failed = ready!(self.poll_room(link.as_mut(), &is_stuck, cx));
            // Messages that arrived before a write failed are not lost.
            let item = match (link.as_mut().poll_next(cx), failed) {
                (Poll::Pending, Some(error)) => Some(Err(error)),
                (polled, _) => ready!(polled),
            };
            let message = match item.map(|item| item.map(Into::into)) {
                Some(Ok(LinkEvent::Item(Message::Close(reason)))) => {
                    return Poll::Ready(Some(Err(LinkError::closed_by_peer(reason).into())));
                }
                Some(Ok(LinkEvent::Item(message))) if message.is_data() => message,
                Some(Ok(LinkEvent::Item(_))) => continue,
                Some(Ok(LinkEvent::Down(down))) => {
                    return Poll::Ready(Some(Ok(LinkEvent::Down(down))));
                }
                Some(Ok(LinkEvent::Up(up))) => return Poll::Ready(Some(Ok(LinkEvent::Up(up)))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            let decoded = codec.decode(message, calls, *self != Self::Muted);
            self.send(codec, link.as_mut());
            match decoded {
                Ok(None) => {}
                Ok(Some(message)) => return Poll::Ready(Some(Ok(LinkEvent::Item(message)))),
                Err(reason) => {
                    return Poll::Ready(Some(Err(close_for(link.as_mut(), &reason, cx))));
                }
            }
        }
    }
}

/// Closes `link` for a `reason` of this side's own. Returns the error that says so.
pub(super) fn close_for<S>(
    mut link: Pin<&mut S>,
    reason: &CloseReason,
    cx: &mut Context<'_>,
) -> Error
where
    S: Sink<Message, Error = Error>,
{
    let close = Message::Close(Some(reason.clone()));
    if link.as_mut().start_send(close).is_ok() {
        let _ = link.poll_flush(cx);
    }
    LinkError::closed_here(reason).into()
}
