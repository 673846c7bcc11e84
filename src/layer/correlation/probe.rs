//! [`Probe`]: requests that are sent to a peer that has as many as it takes, and answers none.

use std::{task::Context, time::Duration};

use crate::time::{Timer, deadline_in};

/// Time without an answer after which one more request is sent.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);

/// Allowance of requests in flight beyond what the peer has said that it takes. The answers to
/// those that it has may be lost, and nothing else may ever make room.
///
/// | what happens | what follows |
/// |---|---|
/// | requests have waited for 10 s, and the peer has answered none of those that it has | one more is sent |
/// | it is refused | it waits again, and the next is sent after 10 s |
/// | it is answered | one more may be in flight from now on |
/// | another peer follows | no more than it has said are sent |
#[derive(Debug, Default)]
pub(super) struct Probe {
    extra: usize,
    timer: Timer,
}

impl Probe {
    /// Returns how many more requests may be in flight than the peer has said that it takes.
    pub(super) fn extra(&self) -> usize {
        self.extra
    }

    /// Records an answer to a request of ours.
    pub(super) fn note_answered(&mut self) {
        self.timer.clear();
    }

    /// Records that the peer has refused a request since it has too many. Returns `true` if one was
    /// allowed beyond its limit, which the refusal takes back.
    pub(super) fn note_refused(&mut self) -> bool {
        let is_probe = self.extra > 0;
        self.extra = self.extra.saturating_sub(1);
        is_probe
    }

    /// Lets one more be sent when it is time. `waits` says that requests wait for an answer.
    pub(super) fn poll(&mut self, waits: bool, cx: &mut Context<'_>) {
        if !waits {
            self.timer.clear();
            return;
        }
        if !self.timer.is_set() {
            self.timer.set(deadline_in(PROBE_INTERVAL));
        }
        while self.timer.poll(cx).is_ready() {
            self.extra += 1;
            self.timer.set(deadline_in(PROBE_INTERVAL));
        }
    }
}
