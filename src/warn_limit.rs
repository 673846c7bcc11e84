//! [`WarnLimit`]: rate limit for warnings that peers can cause.

use std::time::Duration;

use tokio::time::Instant;

/// The warnings that are logged at once.
const BURST: u32 = 3;

/// The pause after which one more is logged.
const PAUSE: Duration = Duration::from_secs(10);

/// Rate limit for warnings of one kind, about one peer or about all that are refused. Three pass at
/// once, then one in ten seconds; after half a minute without any, three again.
#[derive(Debug, Default)]
pub(crate) struct WarnLimit {
    /// Time from which on three pass at once again.
    rested: Option<Instant>,
    suppressed: u64,
}

impl WarnLimit {
    /// Admits one warning, and returns the number suppressed since the last; `None` suppresses it.
    pub(crate) fn admit(&mut self) -> Option<u64> {
        let now = Instant::now();
        let rested = self.rested.map_or(now, |rested| rested.max(now)) + PAUSE;
        if rested - now > PAUSE * BURST {
            self.suppressed += 1;
            return None;
        }
        self.rested = Some(rested);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

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
        advance(PAUSE - Duration::from_millis(1)).await;
        assert_eq!(limit.admit(), None);
        advance(Duration::from_millis(1)).await;
        assert_eq!(limit.admit(), Some(101));
        assert_eq!(limit.admit(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_rest_a_few_pass_at_once_again_and_no_more() {
        let mut limit = WarnLimit::default();
        for rest in [PAUSE * BURST, PAUSE * BURST * 100] {
            let admitted = (0..10).filter_map(|_| limit.admit()).count();
            assert_eq!(admitted, BURST as usize);
            advance(rest).await;
        }
        assert_eq!(limit.admit(), Some(7));
    }
}
