//! [`Throttle`]: rate limit for log lines.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

const WINDOW: Duration = Duration::from_secs(10);
const PER_WINDOW: u64 = 5;

/// Passes five lines in ten seconds, so that no client can fill the log.
#[derive(Debug, Default)]
pub(super) struct Throttle(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    since: Option<Instant>,
    lines: u64,
    /// Lines suppressed since the last one that passed.
    held_back: u64,
}

impl Throttle {
    /// Asks to log one line. Returns the number of lines suppressed before it, or `None` if this
    /// one is suppressed too.
    pub(super) fn pass(&self) -> Option<u64> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if window.since.is_none_or(|since| since.elapsed() >= WINDOW) {
            window.since = Some(Instant::now());
            window.lines = 0;
        }
        if window.lines == PER_WINDOW {
            window.held_back += 1;
            return None;
        }
        window.lines += 1;
        Some(std::mem::take(&mut window.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_five_lines_in_ten_seconds() {
        let throttle = Throttle::default();
        let passed = |n| (0..n).filter_map(|_| throttle.pass()).collect::<Vec<_>>();
        assert_eq!(passed(1000), [0; 5]);
        tokio::time::advance(WINDOW - Duration::from_millis(1)).await;
        assert_eq!(passed(5), [0; 0]);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(passed(6), [1000, 0, 0, 0, 0]);
        tokio::time::advance(WINDOW).await;
        assert_eq!(passed(1), [1]);
    }
}
