//! A link whose other end is the test.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use futures::{Sink, Stream};

use crate::{
    close::CloseCode,
    error::{Error, LinkError},
    message::Message,
};

/// The near end, a duplex for the layer under test.
#[derive(Debug)]
pub(crate) struct Link(Peer);

/// The far end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer(Arc<Mutex<Wire>>);

#[derive(Debug, Default)]
struct Wire {
    inbound: VecDeque<Result<Message, Error>>,
    outbound: Vec<Message>,
    flushes: usize,
    polls: usize,
    blocked: bool,
    broken: bool,
    closed: bool,
    waker: Option<Waker>,
}

pub(crate) fn link() -> (Link, Peer) {
    let peer = Peer::default();
    (Link(peer.clone()), peer)
}

impl Peer {
    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut Wire)) {
        let mut wire = self.wire();
        change(&mut wire);
        let waker = wire.waker.take();
        drop(wire);
        waker.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn send(&self, message: Message) {
        self.change(|wire| wire.inbound.push_back(Ok(message)));
    }

    /// Lets writes wait from now on, or no longer.
    pub(crate) fn block(&self, blocked: bool) {
        self.change(|wire| wire.blocked = blocked);
    }

    /// Lets writes fail from now on.
    pub(crate) fn break_writes(&self) {
        self.change(|wire| wire.broken = true);
    }

    /// Returns what has been written since the last call.
    pub(crate) fn sent(&self) -> Vec<Message> {
        std::mem::take(&mut self.wire().outbound)
    }

    pub(crate) fn flushes(&self) -> usize {
        self.wire().flushes
    }

    /// Returns the number of times that the near end was asked for a message.
    pub(crate) fn polls(&self) -> usize {
        self.wire().polls
    }

    /// Returns how many messages the near end has not read.
    pub(crate) fn unread(&self) -> usize {
        self.wire().inbound.len()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.wire().closed
    }

    /// Returns `true` if the near end is gone.
    pub(crate) fn is_dropped(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Link {
    fn poll_write(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut wire = self.0.wire();
        if wire.broken {
            return Poll::Ready(Err(LinkError::Closed(CloseCode::Abnormal.into()).into()));
        }
        if wire.blocked {
            wire.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl Stream for Link {
    type Item = Result<Message, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut wire = self.0.wire();
        wire.polls += 1;
        match wire.inbound.pop_front() {
            Some(item) => Poll::Ready(Some(item)),
            None => {
                wire.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Sink<Message> for Link {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_write(cx)
    }

    fn start_send(self: Pin<&mut Self>, item: Message) -> Result<(), Error> {
        self.0.wire().outbound.push(item);
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let flushed = self.poll_write(cx);
        if flushed.is_ready() {
            self.0.wire().flushes += 1;
        }
        flushed
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let written = self.poll_write(cx);
        if written.is_ready() {
            self.0.wire().closed = true;
        }
        written
    }
}
