//! How far a client is before its connection is upgraded: a [`Progress`] is followed from request to
//! request, each to the last byte of its answer.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep_until},
};

use super::{body::Body, lobby::PendingSlot};
use crate::{header_case::ExactCase, time::deadline_in, upgrade::Io};

/// Largest head of a request, in bytes; leaves room for large tokens.
pub(super) const MAX_HEAD_BYTES: usize = 64 << 10;

/// | from | to | when |
/// |---|---|---|
/// | `Head` | `Requested` | a request has come; for what is elsewhere, its slot is given up |
/// | `Requested` | `Answered` | all of the answer is made |
/// | `Answered` | `Head` | all of it is written; the slot is taken again |
/// | `Requested` | `Upgraded` | the answer is 101; the slot is given up for good |
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    /// In the TLS handshake, or in the head of a request.
    Head,
    Requested,
    Answered,
    Upgraded,
}

/// A client on the porch.
#[derive(Debug)]
pub(super) struct Progress {
    slot: PendingSlot,
    stage: Mutex<Stage>,
    was_served: AtomicBool,
    /// `true` once the response that follows is an upgrade.
    upgraded: Arc<AtomicBool>,
    is_too_large: AtomicBool,
}

impl Progress {
    pub(super) fn new(slot: PendingSlot) -> Arc<Self> {
        Arc::new(Self {
            slot,
            stage: Mutex::new(Stage::Head),
            was_served: AtomicBool::new(false),
            upgraded: Arc::default(),
            is_too_large: AtomicBool::new(false),
        })
    }

    /// A request has come, which is `elsewhere` if it is for the fallback: no matter for strangers.
    pub(super) fn set_requested(&self, elsewhere: bool) {
        *self.stage() = Stage::Requested;
        if elsewhere {
            self.was_served.store(true, Relaxed);
            self.slot.suspend();
        }
    }

    /// The answer is an upgrade, with which the progress ends.
    pub(super) fn set_upgraded(&self) {
        *self.stage() = Stage::Upgraded;
        self.upgraded.store(true, Relaxed);
        self.slot.release();
    }

    /// `true` if the head of the request had more than [`MAX_HEAD_BYTES`].
    pub(super) fn is_too_large(&self) -> bool {
        self.is_too_large.load(Relaxed)
    }

    /// Whether it has got an answer, or the fallback makes one: to end it then is to refuse nobody.
    pub(super) fn was_served(&self) -> bool {
        self.was_served.load(Relaxed)
    }

    /// Whether a request is being answered.
    pub(super) fn is_busy(&self) -> bool {
        matches!(*self.stage(), Stage::Requested | Stage::Answered)
    }

    /// Resolves when somebody else needs the slot.
    pub(super) async fn evicted(&self) {
        self.slot.evicted().await;
    }

    fn is_upgraded(&self) -> bool {
        self.upgraded.load(Relaxed)
    }

    fn is_at_head(&self) -> bool {
        *self.stage() == Stage::Head
    }

    fn set_answered(&self) {
        let mut stage = self.stage();
        if *stage == Stage::Requested {
            *stage = Stage::Answered;
            self.was_served.store(true, Relaxed);
        }
    }

    /// All that there was to write is written.
    fn set_flushed(&self) {
        let mut stage = self.stage();
        if *stage == Stage::Answered {
            *stage = Stage::Head;
            drop(stage);
            self.slot.resume();
        }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a visitor is answered.
pub(super) struct TrackedBody {
    body: Body,
    progress: Arc<Progress>,
}

impl TrackedBody {
    pub(super) fn new(body: Body, progress: Arc<Progress>) -> Self {
        Self { body, progress }
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        self.progress.set_answered();
    }
}

impl http_body::Body for TrackedBody {
    type Data = Bytes;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Stream of an HTTP connection before the upgrade: a client that reads nothing of a response for
/// too long is cut, and a request's head is bounded. Upgraded connections are unaffected.
pub(super) struct WriteTimeout<I> {
    stream: ExactCase<I>,
    progress: Arc<Progress>,
    patience: Duration,
    /// Since nothing could be written.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Bytes read of the current head, and possibly of what follows.
    head: usize,
}

impl<I: Io> WriteTimeout<I> {
    pub(super) fn new(stream: I, progress: Arc<Progress>, patience: Duration) -> Self {
        let stream = ExactCase::answer(stream, progress.upgraded.clone());
        Self { stream, progress, patience, stalled: None, head: 0 }
    }

    pub(super) fn into_inner(self) -> I {
        self.stream.into_inner()
    }

    /// Reads at most the bytes that a head may have.
    fn poll_read_head(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut step = [0; 4 << 10];
        let room = buffer.remaining().min(step.len()).min(MAX_HEAD_BYTES - self.head);
        if room == 0 && buffer.remaining() > 0 {
            self.progress.is_too_large.store(true, Relaxed);
            let what = "the head of the request is too large";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, what)));
        }
        let mut step = ReadBuf::new(&mut step[..room]);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut step))?;
        buffer.put_slice(step.filled());
        self.head += step.filled().len();
        Poll::Ready(Ok(()))
    }

    /// The `outcome` of an attempt to write, unless it is time to give up.
    fn timed<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() || self.progress.is_upgraded() {
            self.stalled = None;
            return outcome;
        }
        let patience = self.patience;
        let stalled =
            self.stalled.get_or_insert_with(|| Box::pin(sleep_until(deadline_in(patience))));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<I: Io> AsyncRead for WriteTimeout<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.progress.is_upgraded() && self.progress.is_at_head() {
            return self.poll_read_head(cx, buffer);
        }
        self.head = 0;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<I: Io> AsyncWrite for WriteTimeout<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.timed(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.timed(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        // hyper flushes when it has nothing more to write.
        if matches!(outcome, Poll::Ready(Ok(()))) {
            self.progress.set_flushed();
        }
        self.timed(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.timed(cx, outcome)
    }
}
