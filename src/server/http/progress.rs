//! [`Progress`]: the progress of a client through its requests, up to the upgrade.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{body::Body, pending::PendingSlot};

/// Largest head of a request, in bytes; leaves room for large tokens.
pub(in crate::server) const MAX_HEAD_BYTES: usize = 64 << 10;

/// Stage of a client before its connection is upgraded.
///
/// | from | to | when |
/// |---|---|---|
/// | `Head` | `Requested` | a request has come; for one to the fallback, the slot is suspended |
/// | `Head` | `TooLarge` | the head has more than [`MAX_HEAD_BYTES`] |
/// | `Requested` | `Answered` | all of the response is made |
/// | `Answered` | `Head` | all of the response is written; the slot is taken again |
/// | `Requested` | `Upgrading` | the response is 101 |
/// | `Upgrading` | `Upgraded` | all of it is written; the slot is given up for good |
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stage {
    /// TLS handshake, or the head of a request.
    Head,
    TooLarge,
    Requested,
    Answered,
    Upgrading,
    Upgraded,
}

/// Progress of a client before its connection is upgraded.
#[derive(Debug)]
pub(in crate::server) struct Progress {
    slot: PendingSlot,
    stage: Mutex<Stage>,
    /// Number of requests so far.
    requests: AtomicU64,
    was_served: AtomicBool,
    /// `true` once the response that follows is an upgrade: read at each I/O, without the lock.
    upgrading: Arc<AtomicBool>,
}

impl Progress {
    /// Creates the progress of a client that has a slot, at the head of its first request.
    pub(in crate::server) fn new(slot: PendingSlot) -> Arc<Self> {
        Arc::new(Self {
            slot,
            stage: Mutex::new(Stage::Head),
            requests: AtomicU64::new(0),
            was_served: AtomicBool::new(false),
            upgrading: Arc::default(),
        })
    }

    /// Records that a request has come. The slot is suspended if it is for the fallback.
    pub(in crate::server) fn set_requested(&self, is_for_fallback: bool) {
        if std::mem::replace(&mut *self.stage(), Stage::Requested) != Stage::Requested {
            self.requests.fetch_add(1, Relaxed);
        }
        if is_for_fallback {
            self.was_served.store(true, Relaxed);
            self.slot.suspend();
        }
    }

    /// Records that the response is an upgrade. The progress ends when it is written.
    pub(in crate::server) fn set_upgrading(&self) {
        *self.stage() = Stage::Upgrading;
        self.upgrading.store(true, Relaxed);
    }

    /// Returns `true` if the head of the request had more than [`MAX_HEAD_BYTES`].
    pub(in crate::server) fn is_too_large(&self) -> bool {
        *self.stage() == Stage::TooLarge
    }

    /// Returns how many requests have come.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Returns `true` if the client has got a response, or the fallback makes one.
    pub(in crate::server) fn was_served(&self) -> bool {
        self.was_served.load(Relaxed)
    }

    /// Returns `true` while a request is answered.
    pub(in crate::server) fn is_busy(&self) -> bool {
        matches!(*self.stage(), Stage::Requested | Stage::Answered)
    }

    /// Resolves when the connection is evicted.
    pub(in crate::server) async fn evicted(&self) {
        self.slot.evicted().await;
    }

    /// Returns the flag that is set once the response is an upgrade.
    pub(super) fn upgrading(&self) -> Arc<AtomicBool> {
        self.upgrading.clone()
    }

    /// Records that the head of the request has more than [`MAX_HEAD_BYTES`].
    pub(super) fn set_too_large(&self) {
        *self.stage() = Stage::TooLarge;
    }

    /// Returns `true` once the response is an upgrade, written or not.
    pub(in crate::server) fn is_upgrading(&self) -> bool {
        self.upgrading.load(Relaxed)
    }

    /// Returns `true` once the upgrade is written.
    pub(super) fn is_upgraded(&self) -> bool {
        *self.stage() == Stage::Upgraded
    }

    /// Returns `true` while the head of a request is read, or was found too large.
    pub(super) fn is_at_head(&self) -> bool {
        matches!(*self.stage(), Stage::Head | Stage::TooLarge)
    }

    /// Records that all of the response is made.
    fn set_answered(&self) {
        let mut stage = self.stage();
        if *stage == Stage::Requested {
            *stage = Stage::Answered;
            self.was_served.store(true, Relaxed);
        }
    }

    /// Records that everything is written.
    pub(super) fn set_flushed(&self) {
        let mut stage = self.stage();
        match *stage {
            Stage::Answered => {
                *stage = Stage::Head;
                drop(stage);
                self.slot.resume();
            }
            Stage::Upgrading => {
                *stage = Stage::Upgraded;
                drop(stage);
                self.slot.release();
            }
            Stage::Head | Stage::TooLarge | Stage::Requested | Stage::Upgraded => {}
        }
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Body of a response that records in the progress when all of it is made.
pub(in crate::server) struct TrackedBody {
    body: Body,
    progress: Arc<Progress>,
}

impl TrackedBody {
    /// Wraps the body of a response.
    pub(in crate::server) fn new(body: Body, progress: Arc<Progress>) -> Self {
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
