//! Ctrl-C, and SIGTERM where there is one: both ask a server to let everybody finish.

use std::io;

pub(crate) struct Stop(#[cfg(unix)] tokio::signal::unix::Signal);

impl Stop {
    /// Catches the signals from now on.
    #[cfg(unix)]
    pub(crate) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        Ok(Self(signal(SignalKind::terminate())?))
    }

    #[cfg(not(unix))]
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self())
    }

    /// Waits for one of them.
    pub(crate) async fn asked(&mut self) {
        #[cfg(unix)]
        let terminated = self.0.recv();
        #[cfg(not(unix))]
        let terminated = std::future::pending::<Option<()>>();
        tokio::select! {
            _ = terminated => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    }
}
