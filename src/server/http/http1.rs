//! HTTP/1.1 settings for connections before the upgrade.

use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;

use super::progress::MAX_HEAD_BYTES;

/// Longest timeout given to hyper, which panics if the deadline overflows.
const MAX_HEAD_TIMEOUT: Duration = Duration::from_secs(86_400);

/// Returns HTTP/1.1 with a bound on the size of each head, and on its time if there is one.
pub(in crate::server) fn http1(head_timeout: Option<Duration>) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(head_timeout.map(|timeout| timeout.min(MAX_HEAD_TIMEOUT)))
        // Hardly ever reached: `WriteTimeout` reads less of a head.
        .max_buf_size(MAX_HEAD_BYTES + (8 << 10));
    http
}
