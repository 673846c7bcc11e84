//! [`Shortage`]: the reason why there is no room for a notification.

use std::fmt;

/// Reason why a notification is dropped.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shortage {
    /// The notification alone may take more memory than all may.
    TooLarge { decoded_bytes: usize, limit: usize },
    /// The notification may, with those handled or waiting, take more memory than all may.
    Memory { limit: usize },
    /// Too many bytes wait already.
    Backlog { limit: usize },
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { decoded_bytes, limit } => write!(
                f,
                "decoded, it may take {decoded_bytes} bytes, more than max_inbound_memory, {limit}"
            ),
            Self::Memory { limit } => write!(
                f,
                "with those whose handlers have not ended it may take more than \
                 max_inbound_memory, {limit} bytes"
            ),
            Self::Backlog { limit } => {
                write!(f, "more than max_held_bytes, {limit} bytes, would wait for handlers to end")
            }
        }
    }
}
