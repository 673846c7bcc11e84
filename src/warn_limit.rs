//! [`WarnLimit`]: rate limit for warnings that peers can cause.

use std::time::Duration;

use tokio::time::Instant;

/// The warnings that are logged at once.
const BURST: u32 = 3;

/// The pause between two warnings after those.
const PAUSE: Duration = Duration::from_secs(10);

/// Rate limit for warnings of one kind, about one peer or about all that are refused. The first
/// three pass, then one in ten seconds.
#[derive(Debug, Default)]
pub(crate) struct WarnLimit {
    logged: u32,
    last: Option<Instant>,
    suppressed: u64,
}

impl WarnLimit {
    /// Admits one warning, and returns the number suppressed since the last; `None` suppresses it.
    pub(crate) fn admit(&mut self) -> Option<u64> {
        let now = Instant::now();
        let is_soon = self.last.is_some_and(|last| now - last < PAUSE);
        if self.logged >= BURST && is_soon {
            self.suppressed += 1;
            return None;
        }
        self.logged = self.logged.saturating_add(1);
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_few_warnings_pass_at_once_and_then_one_in_a_while() {
        let mut limit = WarnLimit::default();
        for _ in 0..BURST {
            assert_eq!(limit.admit(), Some(0));
        }
        for _ in 0..100 {
            assert_eq!(limit.admit(), None);
        }
        tokio::time::advance(PAUSE).await;
        assert_eq!(limit.admit(), Some(100));
        assert_eq!(limit.admit(), None);
    }
}
