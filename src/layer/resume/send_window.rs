//! [`SendWindow`]: the numbers of a session, and the messages that are kept; no I/O.

use std::{collections::VecDeque, fmt};

use tokio::time::Instant;

use crate::link::Outgoing;

/// An acknowledgement is due after this many messages, or this many bytes.
const ACK_MESSAGES: u64 = 64;
const ACK_BYTES: usize = 64 << 10;

/// Bytes that a kept message is charged beside its payload.
const OVERHEAD: usize = 64;

/// Capacity of the queue that is kept when it is empty.
const KEPT_CAPACITY: usize = 256;

/// A fault of the peer, as the reason that it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("resume: {0}")]
pub(super) struct Violation(&'static str);

/// Both directions of a session. Messages are numbered from 1 in each.
///
/// ```text
///  outbound   1 … acked │ acked+1 …  handed │ handed+1 … taken
///             forgotten │ kept, on the wire │ kept, still to be handed to the link
/// ```
pub(super) struct SendWindow {
    window_bytes: usize,
    kept: VecDeque<Outgoing>,
    kept_bytes: usize,
    acked: u64,
    /// The last that was handed to the present link, and to any.
    handed: u64,
    sent: u64,
    inbound: Inbound,
}

#[derive(Debug, Default)]
struct Inbound {
    received: u64,
    /// Number that the peer was told last.
    told: u64,
    /// Size of what it was not told of, and the moment at which the first of that came.
    bytes: usize,
    since: Option<Instant>,
}

impl SendWindow {
    pub(super) fn new(window_bytes: usize) -> Self {
        Self {
            window_bytes,
            kept: VecDeque::new(),
            kept_bytes: 0,
            acked: 0,
            handed: 0,
            sent: 0,
            inbound: Inbound::default(),
        }
    }

    /// Returns `true` if nothing more should be taken before an acknowledgement comes.
    pub(super) fn is_full(&self) -> bool {
        self.kept_bytes >= self.window_bytes
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Numbers a message, and keeps it.
    pub(super) fn take(&mut self, message: Outgoing) {
        self.kept_bytes += cost(&message);
        self.kept.push_back(message);
    }

    /// Returns the next message for the link, and records that it was handed to it.
    pub(super) fn hand_over(&mut self) -> Option<Outgoing> {
        let at = usize::try_from(self.handed - self.acked).ok()?;
        let next = self.kept.get(at)?.clone();
        self.handed += 1;
        self.sent = self.sent.max(self.handed);
        Some(next)
    }

    /// Returns `true` if the link has been handed all that is kept.
    pub(super) fn is_handed_over(&self) -> bool {
        self.handed - self.acked == self.kept.len() as u64
    }

    /// Drops the messages that the peer has received. Returns `true` if there are more of them than
    /// before.
    pub(super) fn acknowledge(&mut self, received: u64) -> Result<bool, Violation> {
        if received > self.handed {
            return Err(Violation("acknowledged what was not sent"));
        }
        let before = self.acked;
        self.forget(received)?;
        Ok(received > before)
    }

    /// Number of messages that the peer has acknowledged.
    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    fn forget(&mut self, received: u64) -> Result<(), Violation> {
        if received < self.acked {
            return Err(Violation("an acknowledgement went back"));
        }
        for _ in self.acked..received {
            if let Some(message) = self.kept.pop_front() {
                self.kept_bytes -= cost(&message);
            }
        }
        self.acked = received;
        if self.kept.is_empty() && self.kept.capacity() > KEPT_CAPACITY {
            self.kept = VecDeque::new();
        }
        Ok(())
    }

    /// Goes on over a new link, and returns how many messages are to be sent again. `received` is
    /// the number of messages that the peer said on it to have received, `told` the number that it
    /// was told this side has received.
    pub(super) fn resume(&mut self, received: u64, told: u64) -> Result<u64, Violation> {
        if received > self.sent {
            return Err(Violation("received more than was sent"));
        }
        self.forget(received)?;
        self.handed = received;
        self.inbound = Inbound { received: told, told, ..Inbound::default() };
        Ok(self.sent - received)
    }

    /// Records that a message of the peer was counted under this number.
    pub(super) fn note_received(&mut self, number: u64, size: usize) {
        self.inbound.received = number;
        self.inbound.bytes += size;
        if self.inbound.since.is_none() {
            self.inbound.since = Some(Instant::now());
        }
    }

    /// Returns the moment since which the peer could have been told of a message and was not.
    pub(super) fn unacknowledged_since(&self) -> Option<Instant> {
        self.inbound.since
    }

    /// Returns `true` if so much has come that the peer must be told at once.
    pub(super) fn is_ack_due(&self) -> bool {
        let Inbound { received, told, bytes, .. } = &self.inbound;
        received - told >= ACK_MESSAGES || *bytes >= ACK_BYTES
    }

    /// Returns the count for an acknowledgement, and records that the peer was told it.
    pub(super) fn acknowledgement(&mut self) -> u64 {
        let received = self.inbound.received;
        self.inbound = Inbound { received, told: received, ..Inbound::default() };
        received
    }
}

fn cost(message: &Outgoing) -> usize {
    message.message.len() + OVERHEAD
}

impl fmt::Debug for SendWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendWindow")
            .field("acked", &self.acked)
            .field("handed", &self.handed)
            .field("kept", &self.kept.len())
            .field("kept_bytes", &self.kept_bytes)
            .field("inbound", &self.inbound)
            .finish_non_exhaustive()
    }
}
