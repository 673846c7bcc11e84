//! Points in time.

use std::time::Duration;

use tokio::time::Instant;

/// So far away that nobody waits for it, and near enough for every clock.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

/// The moment after `duration`, however long that is.
pub(crate) fn after(duration: Duration) -> Instant {
    Instant::now() + duration.min(FAR)
}

/// `moment` and `duration`, however long that is.
pub(crate) fn later(moment: Instant, duration: Duration) -> Instant {
    moment + duration.min(FAR)
}
