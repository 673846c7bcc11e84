//! [`ReceiveCount`]: the number of messages received, shared with whoever makes the next link.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::frame::SessionFrame;
use crate::link::{LinkUp, PeerLimits, Resumed};

/// Longest time for which a lost session is waited for, since calls hang meanwhile. It holds
/// whatever the peer promises. A session that is resumed later still goes on.
const MAX_WINDOW: Duration = Duration::from_secs(3600);

/// State in which a session begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SessionStart {
    /// Opened by both ends.
    #[default]
    Open,
    /// Requested by this side's `@open {}`, which no `@session` has answered yet.
    Opening,
    /// Plain, since the peer does not have the extension: nothing outlives the link.
    Plain,
}

/// A cheap handle on the number of data messages that a [`Resume`](super::Resume) has received.
///
/// A peer that is told this number sends again what is beyond it, on the link on which it was told.
/// Nothing may then come from an older link any more, so whoever tells it has to
/// [`freeze`](Self::freeze) the count first.
#[derive(Debug, Clone, Default)]
pub struct ReceiveCount(Arc<Mutex<Count>>, PeerLimits);

#[derive(Debug, Default)]
struct Count {
    received: u64,
    frozen: bool,
    /// Number of freezes and restarts so far.
    freezes: u64,
    has_received: bool,
    kept_bytes: usize,
    /// State in which the next session begins.
    start: SessionStart,
    session: Option<Box<SessionFrame>>,
    /// `true` from the end of a session to the start of the next.
    forgotten: bool,
}

/// Meaning of a link that was made with a frozen count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thawed {
    /// The session goes on from this count.
    Counts(u64),
    /// The peer has been told of a newer link already: nothing that comes over this one counts.
    Superseded,
    /// The peer was told a count that is no longer true.
    Stale,
}

impl ReceiveCount {
    /// Sets the state in which the session begins: on the first link, or on the next that comes as
    /// [`LinkUp::NewPeer`](crate::link::LinkUp::NewPeer).
    pub fn begin(&self, start: SessionStart) {
        let mut count = self.lock();
        count.start = start;
        count.session = None;
        count.forgotten = false;
    }

    /// Ends the session: nobody resumes it, and what was lost with its link is lost for good.
    pub fn forget(&self) {
        let mut count = self.lock();
        count.session = None;
        count.forgotten = true;
    }

    /// Returns the limits of the peer, which whoever makes a link sets anew for each.
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

    /// Returns the latest description of the session by the peer, if this side may resume it.
    #[must_use]
    pub fn session(&self) -> Option<SessionFrame> {
        self.lock().session.as_deref().cloned()
    }

    /// Returns the number of data messages received. It has to be frozen before a peer is told it.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.lock().received
    }

    /// Stops the count until the link comes up for which it is frozen. Messages over another are
    /// dropped, and the peer sends them again. Of several freezes the last one counts.
    ///
    /// Only that link ends the freeze, so this is called right before the peer is told the number.
    #[must_use = "nothing is received until there is a link for it"]
    pub fn freeze(&self) -> FrozenCount {
        let mut count = self.lock();
        count.frozen = true;
        count.freezes += 1;
        FrozenCount { received: count.received, freeze: count.freezes }
    }

    /// Returns `true` if the count is frozen, so that nothing is received before the next link.
    pub(crate) fn is_frozen(&self) -> bool {
        self.lock().frozen
    }

    /// Returns `true` if anything has arrived over the present link. Then the peer has read all
    /// that it was told when that link was made.
    #[must_use]
    pub fn has_received(&self) -> bool {
        let count = self.lock();
        count.has_received && !count.frozen
    }

    /// Returns the number of bytes kept for the peer when the last link was lost. That is what a
    /// session without a link costs.
    #[cfg(any(test, feature = "server"))]
    pub(crate) fn kept_bytes(&self) -> usize {
        self.lock().kept_bytes
    }

    /// Counts a data message, and returns its number. `None` if the count is frozen.
    pub(super) fn count(&self) -> Option<u64> {
        let mut count = self.lock();
        if count.frozen {
            return None;
        }
        count.has_received = true;
        count.received += 1;
        Some(count.received)
    }

    /// Records that something arrived that is not counted. Returns `true` if it may be taken.
    pub(super) fn note_uncounted(&self) -> bool {
        let mut count = self.lock();
        count.has_received = true;
        !count.frozen
    }

    /// Records the number of bytes kept for the peer.
    pub(super) fn set_kept_bytes(&self, bytes: usize) {
        self.lock().kept_bytes = bytes;
    }

    /// Ends the freeze with this number, for which there is a link now.
    pub(super) fn thaw(&self, freeze: u64) -> Thawed {
        let mut count = self.lock();
        match (count.frozen, freeze == count.freezes) {
            (true, true) => {
                count.frozen = false;
                count.has_received = false;
                Thawed::Counts(count.received)
            }
            (true, false) => Thawed::Superseded,
            (false, _) => Thawed::Stale,
        }
    }

    /// Begins another session, and returns the state in which it begins.
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

    /// Returns the time to wait for the session without a link, if this side opened it. That is as
    /// long as the peer keeps it, and [`MAX_WINDOW`] at most.
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

/// A count that is frozen until there is a link for it. Dropping it does not end the freeze.
#[derive(Debug)]
#[must_use = "nothing is received until there is a link for it"]
pub struct FrozenCount {
    received: u64,
    freeze: u64,
}

impl FrozenCount {
    /// Returns the number that the peer is to be told.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Returns the [`LinkUp`] of a link on which the session goes on. `received` is the number of
    /// messages that the peer said on it to have received.
    #[must_use]
    pub fn resumed(self, received: u64) -> LinkUp {
        LinkUp::Resumed(Resumed { received, replayed: 0, freeze: self.freeze })
    }
}
