//! [`Bounds`] of a pipe.

use std::time::Duration;

/// Time without a part or a heartbeat after which the link is lost.
pub(super) const SILENCE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that each part counts besides its payload.
pub(super) const PART_COST: u64 = 64;

/// Bounds of a pipe, in bytes.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Bounds {
    /// Payload of one part.
    pub(super) part: usize,
    /// Parts that the other end has not read.
    pub(super) credit: u64,
    /// Messages that wait to be sent, beyond which no more are taken.
    pub(super) queue: usize,
    /// Largest message.
    pub(super) message: usize,
}

impl Bounds {
    /// Returns the bounds of a pipe over a bus that takes `max_payload`, with the largest message.
    pub(in super::super) fn new(max_payload: usize, message: usize) -> Self {
        Self {
            part: (256 << 10).min(max_payload.saturating_sub(64)).max(1),
            credit: 1 << 20,
            // A client that stops at its own window, of 1 MiB and one message, has fewer on the way.
            queue: 4 << 20,
            message,
        }
    }

    /// Returns the bytes that wait for this end in the bus at most: the credit and small parts.
    pub(in super::super) fn subscription(&self) -> usize {
        2 * usize::try_from(self.credit).unwrap_or(usize::MAX / 2)
    }
}
