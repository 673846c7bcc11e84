//! [`Stop`]: the signals that ask this process to stop.

use std::io;

/// SIGINT and SIGTERM, caught from the start.
pub(crate) struct Stop {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    #[cfg(unix)]
    pub(crate) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    #[cfg(not(unix))]
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for one of them.
    #[cfg(unix)]
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    #[cfg(not(unix))]
    pub(crate) async fn asked(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// Waits until the process that has started this one has ended.
#[cfg(unix)]
pub(crate) async fn parent_gone() {
    use rustix::process::getppid;

    let parent = getppid();
    while getppid() == parent {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}

#[cfg(not(unix))]
pub(crate) async fn parent_gone() {
    std::future::pending().await
}
