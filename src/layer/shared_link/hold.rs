//! What a [`SharedLink`] is told of the links and peers that may follow one another.

use super::SharedLink;

impl SharedLink {
    /// Records that other links may follow this one. Then nobody need wait for what becomes of a
    /// failed write.
    pub(in crate::layer) fn outlive(&self) {
        self.inner.lock().reconnects();
    }

    /// Holds messages for [any peer](crate::link::Retention::AnyPeer) after a restart until they
    /// are [released](Self::release). The rest of what is queued meanwhile passes. Off until this
    /// is called.
    pub(in crate::layer) fn hold_on_restart(&self) {
        self.inner.lock().hold_on_restart();
    }

    /// Records that a peer that was lost may return on the next link: what is queued is kept for
    /// it.
    #[cfg(any(test, feature = "server"))]
    pub(in crate::layer) fn expect_return(&self) {
        self.inner.lock().expect_return();
    }

    /// Keeps queued messages for any peer for the next link. All others are still written to this
    /// one, later ones too. Lasts until the next link is there, or it is [released](Self::release).
    pub(in crate::layer) fn hold(&self) {
        self.inner.lock().hold();
        // The next link may be long in coming: nobody waits for it.
        self.inner.wakers.wake_all_writers();
        self.inner.wakers.wake_reader();
    }

    /// Releases the messages that were held.
    pub(in crate::layer) fn release(&self) {
        self.inner.lock().release();
        self.inner.wake_writers();
        self.inner.wakers.wake_reader();
    }

    /// Records that the peer which has returned begins anew: what is for the former only is not
    /// sent.
    pub(in crate::layer) fn begin_anew(&self) {
        self.inner.lock().begin_anew();
        self.inner.wake_writers();
        self.inner.wakers.wake_reader();
    }

    /// Returns `true` if sending is paused until another link comes, or its peer is known.
    pub(crate) fn is_paused(&self) -> bool {
        self.inner.is_paused()
    }

    /// Returns `true` if nothing can be written before more is read. A write has failed, there is
    /// no link, or it is unknown who is at its other end.
    pub(in crate::layer) fn is_stuck(&self) -> bool {
        self.inner.lock().is_stuck()
    }
}
