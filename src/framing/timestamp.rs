//! Timestamps in messages.

use chrono::{SecondsFormat, Utc};

/// Returns the present time in UTC, to the millisecond (ISO 8601, as JavaScript writes it).
pub(super) fn iso_8601() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Returns the present time in milliseconds since 1970.
pub(super) fn unix_millis() -> i64 {
    Utc::now().timestamp_millis()
}
