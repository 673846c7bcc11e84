//! The count of what was received, shared with whoever makes the next link.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::frame::SessionFrame;
use crate::link::{LinkUp, PeerLimits, Resumed};

/// The longest time that a lost session is waited for, whatever the peer promises: calls hang
/// meanwhile. A session that is resumed later still goes on.
const MAX_WINDOW: Duration = Duration::from_secs(3600);

/// How a session begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SessionStart {
    /// Both ends have opened it.
    #[default]
    Open,
    /// This side has sent `@open {}`, and the `@session` that answers it is still to come.
    Opening,
    /// The peer does not speak the extension: nothing is counted, and nothing outlives the link.
    Plain,
}

/// How many data messages were received in the session: a cheap handle on the count of a
/// [`Resume`](super::Resume).
///
/// A peer that is told a count sends again what is beyond it, over the link on which it is told. So
/// nothing may come from an older link any more: whoever tells the count has to
/// [`freeze`](Self::freeze) it first.
#[derive(Debug, Clone, Default)]
pub struct ReceiveCount(Arc<Mutex<Count>>, PeerLimits);

#[derive(Debug, Default)]
struct Count {
    received: u64,
    frozen: bool,
    /// How many freezes there were, and restarts.
    freezes: u64,
    heard: bool,
    kept_bytes: usize,
    /// How the next session begins.
    start: SessionStart,
    session: Option<Box<SessionFrame>>,
    /// The session is over, and the next one has not begun.
    forgotten: bool,
}

/// What a link means that was made with a frozen count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thawed {
    /// It goes on from this count.
    Counts(u64),
    /// The peer has been told of a newer link already: nothing that comes over this one counts.
    Superseded,
    /// It was told a count that is no longer true.
    Stale,
}

impl ReceiveCount {
    /// Says how the session begins on the link that is handed on next as
    /// [`LinkUp::NewPeer`](crate::link::LinkUp::NewPeer), or on the first.
    pub fn begin(&self, start: SessionStart) {
        let mut count = self.lock();
        count.start = start;
        count.session = None;
        count.forgotten = false;
    }

    /// The session is over: nobody resumes it, and what was lost with its link is lost for good.
    pub fn forget(&self) {
        let mut count = self.lock();
        count.session = None;
        count.forgotten = true;
    }

    /// Limits of the peer, set anew for each link by whoever makes it.
    #[must_use]
    pub fn peer(&self) -> &PeerLimits {
        &self.1
    }

    /// Records what the peer announced when the session was opened or resumed: its window and its
    /// limits.
    pub fn note(&self, session: SessionFrame) {
        self.1.add(session.limits());
        let mut count = self.lock();
        count.session = Some(Box::new(session));
        count.forgotten = false;
    }

    /// What the peer said last of the session, if it is one that this side may resume.
    #[must_use]
    pub fn session(&self) -> Option<SessionFrame> {
        self.lock().session.as_deref().cloned()
    }

    /// How many data messages were received and counted. To be told to the peer, it has to be frozen.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.lock().received
    }

    /// Stops the count until the link is there for which it is frozen: what still arrives over
    /// another is dropped, and the peer sends it again. Of several freezes the last one counts.
    ///
    /// A count that is frozen stays so. So this is called when nothing is left to do but to tell it.
    #[must_use = "nothing is received until there is a link for it"]
    pub fn freeze(&self) -> FrozenCount {
        let mut count = self.lock();
        count.frozen = true;
        count.freezes += 1;
        FrozenCount { received: count.received, freeze: count.freezes }
    }

    /// Whether the count stands still, so that nothing is received before there is another link.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.lock().frozen
    }

    /// Whether anything has arrived over the present link. Then the peer has all that it was told
    /// when that link was made.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        let count = self.lock();
        count.heard && !count.frozen
    }

    /// How many bytes were kept for the peer when the last link was lost: what a session without a
    /// link costs.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        self.lock().kept_bytes
    }

    /// Counts a data message. `None` where it must not be taken.
    pub(super) fn count(&self) -> Option<u64> {
        let mut count = self.lock();
        if count.frozen {
            return None;
        }
        count.heard = true;
        count.received += 1;
        Some(count.received)
    }

    /// Whether what arrived otherwise may be taken.
    pub(super) fn hear(&self) -> bool {
        let mut count = self.lock();
        count.heard = true;
        !count.frozen
    }

    pub(super) fn keeps(&self, bytes: usize) {
        self.lock().kept_bytes = bytes;
    }

    /// There is a link for this freeze.
    pub(super) fn thaw(&self, freeze: u64) -> Thawed {
        let mut count = self.lock();
        match (count.frozen, freeze == count.freezes) {
            (true, true) => {
                count.frozen = false;
                count.heard = false;
                Thawed::Counts(count.received)
            }
            (true, false) => Thawed::Superseded,
            (false, _) => Thawed::Stale,
        }
    }

    /// A new session begins. How it does, holds for this one.
    pub(super) fn restart(&self) -> SessionStart {
        let mut count = self.lock();
        let (start, session) = (mem::take(&mut count.start), count.session.take());
        *count = Count { freezes: count.freezes + 1, session, ..Count::default() };
        start
    }

    /// Returns `true` if a session that begins as `start` is one that this side asked for.
    pub(super) fn has_dialled(&self, start: SessionStart) -> bool {
        start == SessionStart::Opening || self.lock().session.is_some()
    }

    /// Returns the time to wait for the session without a link, if this side opened it: as long as
    /// the peer keeps it, and [`MAX_WINDOW`] at most.
    pub(super) fn window(&self) -> Option<Duration> {
        let count = self.lock();
        if count.forgotten {
            return Some(Duration::ZERO);
        }
        let window = |session: &SessionFrame| Duration::from_secs(session.window_s.into());
        count.session.as_deref().map(|session| window(session).min(MAX_WINDOW))
    }

    fn lock(&self) -> MutexGuard<'_, Count> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A count that stands still until there is a link for it. Dropped, it leaves that to the next one.
#[derive(Debug)]
#[must_use = "nothing is received until there is a link for it"]
pub struct FrozenCount {
    received: u64,
    freeze: u64,
}

impl FrozenCount {
    /// What the peer is to be told.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The session goes on over the link with which this is handed on, on which the peer said how
    /// many messages it has `received`.
    #[must_use]
    pub fn resumed(self, received: u64) -> LinkUp {
        LinkUp::Resumed(Resumed { received, replayed: 0, freeze: self.freeze })
    }
}
