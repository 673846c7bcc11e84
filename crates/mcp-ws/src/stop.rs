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

/// Process that has started this one.
pub(crate) struct Parent {
    #[cfg(unix)]
    id: Option<rustix::process::Pid>,
}

impl Parent {
    /// Returns the present one.
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(unix)]
            id: rustix::process::getppid(),
        }
    }

    /// Waits until it has ended.
    #[cfg(unix)]
    pub(crate) async fn gone(&self) {
        while rustix::process::getppid() == self.id {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }

    #[cfg(not(unix))]
    pub(crate) async fn gone(&self) {
        std::future::pending().await
    }
}
