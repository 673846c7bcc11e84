//! Requests that a stopping peer has refused: they were not processed, and are sent again over the
//! next connection.

use std::{mem, pin::Pin, task::Context, time::Duration};

use tokio::time::{Sleep, sleep};

/// Time within which a stopping peer must close the connection. A drain takes 30 s at most by
/// default.
const PATIENCE: Duration = Duration::from_secs(60);

/// State of a peer that may be stopping.
///
/// | state | on a refusal | on the loss of the connection | on the next |
/// |---|---|---|---|
/// | `No` | holds requests back: `Holding` | – | – |
/// | `Holding` | the request waits too | `Lost` | – |
/// | `Holding`, after 60 s | requests go out again: `Disbelieved` | – | – |
/// | `Disbelieved` | the refusal is passed up | `No` | – |
/// | `Lost` | – | – | requests go out, `No` |
#[derive(Debug, Default)]
pub(super) enum Stopping {
    #[default]
    No,
    Holding(Pin<Box<Sleep>>),
    Disbelieved,
    Lost,
}

impl Stopping {
    /// Returns `true` if a refusal means that the connection will be closed.
    pub(super) fn is_believed(&self) -> bool {
        !matches!(self, Self::Disbelieved)
    }

    /// Records a refusal.
    pub(super) fn begin(&mut self) {
        if let Self::No = self {
            tracing::info!("the peer is stopping: requests wait for the next connection");
            *self = Self::Holding(Box::pin(sleep(PATIENCE)));
        }
    }

    /// Returns `true` once, when a peer that announced a stop has not closed in time.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        if let Self::Holding(timer) = self
            && timer.as_mut().poll(cx).is_ready()
        {
            tracing::warn!("the peer said that it stops, and has not within {PATIENCE:?}");
            *self = Self::Disbelieved;
            return true;
        }
        false
    }

    /// Records the loss of the connection.
    pub(super) fn lose(&mut self) {
        *self = match mem::take(self) {
            Self::Holding(_) | Self::Lost => Self::Lost,
            Self::No | Self::Disbelieved => Self::No,
        };
    }

    /// Records the next connection. Returns `true` if requests were held back for it.
    pub(super) fn end(&mut self) -> bool {
        matches!(mem::take(self), Self::Holding(_) | Self::Lost)
    }
}
