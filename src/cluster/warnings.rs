//! [`SharedWarnLimit`]: rate limit for the warnings of a bus.

use std::sync::{Mutex, PoisonError};

use crate::warn_limit::WarnLimit;

/// Rate limit for warnings of one kind, shared by those who warn: three pass at once, then one in
/// ten seconds.
///
/// Hidden: it is for the crates of the buses, so that they log as this one does.
#[derive(Debug, Default)]
pub struct SharedWarnLimit(Mutex<WarnLimit>);

impl SharedWarnLimit {
    /// Admits one warning, and returns the number suppressed since the last; `None` suppresses it.
    pub fn admit(&self) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).admit()
    }
}
