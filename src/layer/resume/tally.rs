//! The count of what was received, shared with whoever makes the next link.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::link::{Resumed, Up};

/// How many data messages were received in the session: a cheap handle on the count of a
/// [`Resume`](super::Resume).
///
/// A peer that is told a count sends again what is beyond it, over the link on which it is told. So
/// nothing may come from an older link any more: whoever tells the count has to
/// [`freeze`](Self::freeze) it first.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<Mutex<Count>>);

#[derive(Debug, Default)]
struct Count {
    received: u64,
    frozen: bool,
    /// How many freezes there were, and restarts.
    freezes: u64,
    heard: bool,
    kept_bytes: usize,
}

/// What a link means that was made with a frozen count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thaw {
    /// It goes on from this count.
    Counts(u64),
    /// The peer has been told of a newer link already: nothing that comes over this one counts.
    Superseded,
    /// It was told a count that is no longer true.
    Stale,
}

impl Tally {
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
    pub fn freeze(&self) -> Frozen {
        let mut count = self.lock();
        count.frozen = true;
        count.freezes += 1;
        Frozen { received: count.received, freeze: count.freezes }
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
    pub(super) fn thaw(&self, freeze: u64) -> Thaw {
        let mut count = self.lock();
        match (count.frozen, freeze == count.freezes) {
            (true, true) => {
                count.frozen = false;
                count.heard = false;
                Thaw::Counts(count.received)
            }
            (true, false) => Thaw::Superseded,
            (false, _) => Thaw::Stale,
        }
    }

    /// A new session begins.
    pub(super) fn restart(&self) {
        let mut count = self.lock();
        let freezes = count.freezes + 1;
        *count = Count { freezes, ..Count::default() };
    }

    fn lock(&self) -> MutexGuard<'_, Count> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A count that stands still until there is a link for it. Dropped, it leaves that to the next one.
#[derive(Debug)]
#[must_use = "nothing is received until there is a link for it"]
pub struct Frozen {
    received: u64,
    freeze: u64,
}

impl Frozen {
    /// What the peer is to be told.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The session goes on over the link with which this is handed on, on which the peer said how
    /// many messages it has `received`.
    #[must_use]
    pub fn resumed(self, received: u64) -> Up {
        Up::Resumed(Resumed { received, replayed: 0, freeze: self.freeze })
    }
}
