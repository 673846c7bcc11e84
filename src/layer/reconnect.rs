//! [`Reconnect`]: one connection after the other, as a [`LinkSource`] provides them.
//!
//! ```text
//!               the end of the link is read, or a write has failed
//!      ┌──────┐ ───────────────────────────────────────────────► ┌─────────┐
//!      │ live │                      `Down`                      │ waiting │
//!      └──────┘ ◄─────────────────────────────────────────────── └─────────┘
//!          │           the source has the next link: `Up`             │
//!          └────────────►  ended: the source has no more  ◄───────────┘
//! ```
//!
//! A source dials, or waits for the peer to come back: this layer does not know which.
//!
//! A failed write does not end the link by itself: the *stream* reports the loss, as
//! [`LinkEvent::Down`] or the final error. What has already arrived is read first, since a Close of
//! the peer's explains more than "broken pipe".
//!
//! # Who waits for whom
//! The stream waits for the link and the source, and for no write. It alone notices that a link has
//! ended or has been replaced, and drives what is below: whoever is above has to poll it, whatever
//! they wait for themselves. The sink waits for the link, whose write timeout is the deadline; it
//! fails at once when there is no link.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{Sink, Stream, task::AtomicWaker};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use crate::{
    close::{CloseCode, CloseReason},
    duplex::Duplex,
    error::{Error, LinkError},
    link::{Down, LinkEvent, LinkUp, Outgoing},
    message::Message,
};

/// Time for which a Close that explains a failed write is looked for. It may have arrived and not
/// been read yet.
const CLOSE_SEARCH_TIME: Duration = Duration::from_millis(100);

/// A provider of links, one after the other.
pub trait LinkSource {
    /// Type of the links.
    type Link: Duplex<Message, Message>;

    /// Returns `true` if another link may follow the one that was lost for this `cause`. Then
    /// [`poll_next_link`](Self::poll_next_link) resolves sooner or later, to that link or an error.
    fn on_lost(self: Pin<&mut Self>, cause: &Error) -> bool;

    /// Resolves to the next link, which takes the place of the present one if there is one.
    ///
    /// # Errors
    /// The reason for which there are no more.
    fn poll_next_link(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Self::Link, LinkUp), Error>>;

    /// Tells the source that the current link works. It has carried a message each way, and where
    /// it began a session anew a second one inbound, since the first only answers `initialize`.
    /// Control frames of the WebSocket and of [`Resume`](crate::layer::Resume) do not count. The
    /// default implementation does nothing.
    fn carried(self: Pin<&mut Self>) {}

    /// Returns the reason with which a link is closed whose place the latest link takes: by default
    /// 4409.
    fn superseded_reason(&self) -> CloseReason {
        LinkError::taken_over().close_reason()
    }

    /// Returns the handle by which this source is asked for another link. That then comes from
    /// [`poll_next_link`](Self::poll_next_link). The default handle has no effect.
    fn reconnect_handle(&self) -> ReconnectHandle {
        ReconnectHandle::default()
    }
}

/// A cheap handle that asks a [`LinkSource`] for another link, whatever the state of the present
/// one.
#[derive(Debug, Clone, Default)]
pub struct ReconnectHandle(Arc<(AtomicBool, AtomicWaker)>);

impl ReconnectHandle {
    /// Asks for another link, now.
    pub fn reconnect(&self) {
        self.0.0.store(true, SeqCst);
        self.0.1.wake();
    }

    /// Ready once for each request since it was last ready; polled by the source.
    pub fn poll_requested(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.1.register(cx.waker());
        if self.0.0.swap(false, SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// A source without further links.
#[derive(Debug)]
pub struct SingleLink<L>(std::marker::PhantomData<fn() -> L>);

impl<L: Duplex<Message, Message>> LinkSource for SingleLink<L> {
    type Link = L;

    fn on_lost(self: Pin<&mut Self>, _: &Error) -> bool {
        false
    }

    fn poll_next_link(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Result<(L, LinkUp), Error>> {
        Poll::Pending
    }
}

pin_project! {
    /// A layer of one link after the other.
    #[derive(Debug)]
    #[must_use = "a layer does nothing unless polled"]
    pub struct Reconnect<S>
    where
        S: LinkSource,
    {
        #[pin]
        source: S,
        #[pin]
        link: Option<S::Link>,
        unproven: Unproven,
        // Error of a write that has failed, and the end of the search for the peer's reason.
        broken: Option<(Error, Pin<Box<Sleep>>)>,
        // Link that took over, and has yet to be reported.
        taken: Option<LinkUp>,
        // A Close of ours was sent: there is no next link.
        closing: bool,
        // Reason for which there are no more links.
        end: Option<Error>,
    }
}

/// Messages that the present link has yet to carry before it counts as one that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unproven {
    outbound: u8,
    inbound: u8,
}

impl Unproven {
    /// Requires one message each way, and a second inbound one where the session is new. The first
    /// answers `initialize`, which a server may do and end at once.
    fn new(up: &LinkUp) -> Self {
        let inbound = if matches!(up, LinkUp::Resumed(_)) { 1 } else { 2 };
        Self { outbound: 1, inbound }
    }

    fn is_over(self) -> bool {
        self.outbound == 0 && self.inbound == 0
    }

    /// Records a message. Returns `true` once, when nothing is left to be carried.
    fn note(&mut self, message: &Message, way: impl FnOnce(&mut Self) -> &mut u8) -> bool {
        let data = match message {
            // A control frame of the session begins with `@`.
            Message::Text(text) => !text.as_bytes().starts_with(b"@"),
            Message::Binary(_) => true,
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => false,
        };
        if !data || self.is_over() {
            return false;
        }
        let left = way(self);
        *left = left.saturating_sub(1);
        self.is_over()
    }
}

impl<L: Duplex<Message, Message>> Reconnect<SingleLink<L>> {
    /// Creates the layer over a single link.
    pub fn single(link: L) -> Self {
        Self::new(link, SingleLink(std::marker::PhantomData))
    }
}

impl<S: LinkSource> Reconnect<S> {
    /// Creates the layer over `link` first, then over those of `source`.
    pub fn new(link: S::Link, source: S) -> Self {
        let unproven = Unproven::new(&LinkUp::NewPeer);
        Self {
            source,
            link: Some(link),
            unproven,
            broken: None,
            taken: None,
            closing: false,
            end: None,
        }
    }

    /// Records the loss of the link. Returns what is reported of it.
    fn lose(self: Pin<&mut Self>, cause: Error) -> Result<LinkEvent<Message>, Error> {
        let mut this = self.project();
        *this.broken = None;
        if *this.closing || !this.source.as_mut().on_lost(&cause) {
            // The link stays, for its closing handshake.
            *this.end = Some(cause.clone());
            return Err(cause);
        }
        this.link.set(None);
        Ok(LinkEvent::Down(Down::new(cause)))
    }

    /// Puts a newer link in the place of the present one. Returns what is reported of it.
    fn replace(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        next: S::Link,
        up: LinkUp,
    ) -> LinkEvent<Message> {
        let mut this = self.project();
        *this.unproven = Unproven::new(&up);
        let Some(mut link) = this.link.as_mut().as_pin_mut() else {
            this.link.set(Some(next));
            return LinkEvent::Up(up);
        };
        let close = Message::Close(Some(this.source.superseded_reason()));
        if matches!(link.as_mut().poll_ready(cx), Poll::Ready(Ok(())))
            && link.as_mut().start_send(close).is_ok()
        {
            let _ = link.poll_flush(cx);
        }
        *this.broken = None;
        *this.taken = Some(up);
        this.link.set(Some(next));
        LinkEvent::Down(Down::new(LinkError::taken_over().into()))
    }

    /// Records the error of a use of the link's sink, if it is the first. Returns `outcome`.
    fn note_write<T>(self: Pin<&mut Self>, outcome: Result<T, Error>) -> Result<T, Error> {
        let this = self.project();
        if let Err(error) = &outcome
            && this.broken.is_none()
        {
            *this.broken = Some((error.clone(), Box::pin(sleep(CLOSE_SEARCH_TIME))));
        }
        outcome
    }

    /// Returns the link, if it takes messages.
    fn writable(self: Pin<&mut Self>) -> Result<Pin<&mut S::Link>, Error> {
        let this = self.project();
        if let Some(end) = this.end {
            return Err(end.clone());
        }
        if let Some((error, _)) = this.broken {
            return Err(error.clone());
        }
        let down = || LinkError::Closed(CloseCode::Abnormal.into()).into();
        this.link.as_pin_mut().ok_or_else(down)
    }
}

impl<S: LinkSource> Stream for Reconnect<S> {
    type Item = Result<LinkEvent<Message>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.as_mut().project();
        if let Some(end) = this.end {
            return Poll::Ready(Some(Err(end.clone())));
        }
        if let Some(up) = this.taken.take() {
            return Poll::Ready(Some(Ok(LinkEvent::Up(up))));
        }
        if !*this.closing
            && let Poll::Ready(next) = this.source.as_mut().poll_next_link(cx)
        {
            return Poll::Ready(Some(match next {
                Ok((link, up)) => Ok(self.replace(cx, link, up)),
                Err(error) => {
                    *this.end = Some(error.clone());
                    Err(error)
                }
            }));
        }
        let Some(link) = this.link.as_mut().as_pin_mut() else { return Poll::Pending };
        let cause = match (link.poll_next(cx), this.broken) {
            (Poll::Ready(Some(Ok(Message::Close(reason)))), _) => {
                LinkError::closed_by_peer(reason).into()
            }
            (Poll::Ready(Some(Ok(message))), _) => {
                if this.unproven.note(&message, |left| &mut left.inbound) {
                    this.source.carried();
                }
                return Poll::Ready(Some(Ok(LinkEvent::Item(message))));
            }
            (Poll::Ready(_), Some((error, _))) => error.clone(),
            (Poll::Ready(Some(Err(error))), None) => error,
            (Poll::Ready(None), None) => LinkError::Closed(CloseCode::Abnormal.into()).into(),
            (Poll::Pending, Some((error, timer))) => {
                ready!(timer.as_mut().poll(cx));
                error.clone()
            }
            (Poll::Pending, None) => return Poll::Pending,
        };
        Poll::Ready(Some(self.lose(cause)))
    }
}

impl<S: LinkSource> Sink<Outgoing> for Reconnect<S> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let ready = ready!(self.as_mut().writable()?.poll_ready(cx));
        Poll::Ready(self.note_write(ready))
    }

    fn start_send(mut self: Pin<&mut Self>, item: Outgoing) -> Result<(), Error> {
        if matches!(item.message, Message::Close(_)) {
            *self.as_mut().project().closing = true;
        }
        self.as_mut().writable()?;
        let this = self.as_mut().project();
        if this.unproven.note(&item.message, |left| &mut left.outbound) {
            this.source.carried();
        }
        let sent = self.as_mut().writable()?.start_send(item.message);
        self.note_write(sent)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let flushed = ready!(self.as_mut().writable()?.poll_flush(cx));
        Poll::Ready(self.note_write(flushed))
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let this = self.project();
        *this.closing = true;
        match this.link.as_pin_mut() {
            Some(link) => link.poll_close(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}
