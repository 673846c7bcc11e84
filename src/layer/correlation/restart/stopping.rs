//! Requests that a stopping peer has refused: they were not processed, and are sent again over the
//! next connection.

use std::{mem, pin::Pin, task::Context, time::Duration};

use futures::Sink;
use rmcp::{
    ErrorData,
    model::{JsonRpcError, RequestId},
};
use tokio::time::{Sleep, sleep};

use super::{ATTEMPTS, Restart};
use crate::{
    decode::Role,
    framing::Framing,
    layer::{
        SharedLink,
        correlation::{Correlation, UNAVAILABLE},
    },
};

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

/// Returns `true` if `error` refuses a request because the peer is stopping.
fn is_stopping(error: &ErrorData) -> bool {
    error.code == UNAVAILABLE
        && error.data.as_ref().is_some_and(|data| data["reason"] == "stopping")
}

impl Restart {
    /// Resumes sending to a peer that announced a stop and did not close.
    pub(in super::super) fn poll_stopping(&mut self, shared: &SharedLink, cx: &mut Context<'_>) {
        if let Stopping::Holding(timer) = &mut self.stopping
            && timer.as_mut().poll(cx).is_ready()
        {
            tracing::warn!("the peer said that it stops, and has not within {PATIENCE:?}");
            self.stopping = Stopping::Disbelieved;
            // What waits for the peer to initialize waits on.
            if !self.waits && !self.repeated {
                shared.release();
            }
        }
    }
}

impl<R: Role, F: Framing<R>> Correlation<R, F> {
    /// Moves a request to the next connection, if `error` says that the peer is stopping. Returns
    /// `true` if nothing is to be passed up.
    pub(in super::super) fn retry_refused(&mut self, error: &JsonRpcError) -> bool {
        if !self.config.retry_refused || !is_stopping(&error.error) {
            return false;
        }
        let id = error.id.as_ref().and_then(|id| self.outbound.answered_by(id));
        let (Some(restart), Some(id)) = (&mut self.restart, id) else { return false };
        if restart.repeats(&id) {
            // It is repeated on the next connection as well, which is asked for in a while.
            return true;
        }
        !matches!(restart.stopping, Stopping::Disbelieved) && self.put_off(&id).is_some()
    }

    fn put_off(&mut self, id: &RequestId) -> Option<()> {
        let restart = self.restart.as_mut()?;
        let call = self.outbound.get_mut(id).filter(|call| call.refusals + 1 < ATTEMPTS)?;
        let message = self.framed.again(call.kept.as_ref()?);
        let shared = self.framed.get_mut();
        shared.hold();
        shared.survives(true);
        if Pin::new(&mut *shared).start_send(message).is_err() {
            shared.survives(false);
            return None;
        }
        call.ticket = shared.ticket();
        call.refusals += 1;
        if matches!(restart.stopping, Stopping::No) {
            tracing::info!("the peer is stopping: requests wait for the next connection");
            restart.stopping = Stopping::Holding(Box::pin(sleep(PATIENCE)));
        }
        Some(())
    }
}
