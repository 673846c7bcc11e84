//! The CPU time of idle sessions, whose heartbeats go on.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::common::{
    Result,
    machine::cpu_time,
    server::{Process, Server},
};

/// A multiple of the interval between heartbeats, 20 s.
pub(crate) const WINDOW: Duration = Duration::from_secs(20);

/// The shares of a core that the server and the clients take. `None` where that cannot be told.
pub(crate) async fn measure(
    server: &Server,
    clients: &Process,
    window: Duration,
) -> Result<Option<[f64; 2]>> {
    let now = || Some([cpu_time(server.pid())?, cpu_time(clients.pid())?]);
    let (before, start) = (now(), Instant::now());
    sleep(window).await;
    let (after, elapsed) = (now(), start.elapsed());
    Ok(before.zip(after).map(|([server, clients], after)| {
        [after[0] - server, after[1] - clients].map(|cpu| cpu.as_secs_f64() / elapsed.as_secs_f64())
    }))
}
