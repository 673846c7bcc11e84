//! What a room knows of a client.

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, Instant},
};

/// State of a client.
#[derive(Debug, Default)]
pub(crate) struct Client {
    /// Types of messages that it wants; `None` for all.
    pub(crate) types: Option<HashSet<String>>,
    /// Times of its messages within the last second.
    recent: VecDeque<Instant>,
}

impl Client {
    /// Returns `true` if it wants messages of this type.
    pub(crate) fn wants(&self, kind: &str) -> bool {
        self.types.as_ref().is_none_or(|types| types.contains(kind))
    }

    /// Records a message. Returns `true` unless it is one more than `rate` within a second.
    pub(crate) fn may_send(&mut self, rate: usize) -> bool {
        let now = Instant::now();
        while self.recent.front().is_some_and(|then| now - *then > Duration::from_secs(1)) {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.recent.truncate(rate.saturating_add(1));
        self.recent.len() <= rate
    }
}
