//! Requests that a stopping peer has refused: they were not processed, and are sent again over the
//! next connection.

use std::{mem, pin::Pin, task::Context, time::Duration};

use rmcp::model::RequestId;
use tokio::time::{Sleep, sleep};

use super::{ATTEMPTS, Restart};
use crate::{
    decode::Role,
    framing::Framing,
    layer::{SharedLink, correlation::Correlation},
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
    /// Keeps a request for the next connection, since the peer is stopping. Returns `false` if the
    /// refusal is to be passed up.
    pub(in super::super) fn put_off(&mut self, id: &RequestId) -> bool {
        let stops = |restart: &Restart| !matches!(restart.stopping, Stopping::Disbelieved);
        if !self.restart.as_deref().is_some_and(stops) {
            return false;
        }
        let call = self.outbound.get(id).filter(|call| call.refusals + 1 < ATTEMPTS);
        let Some(message) = call.and_then(|call| call.kept.clone()) else { return false };
        self.framed.get_ref().hold();
        let Ok(ticket) = self.send_kept(id, &message) else { return false };
        if let Some(call) = self.outbound.get_mut(id) {
            call.ticket = ticket;
            call.refusals += 1;
        }
        if let Some(restart) = &mut self.restart
            && matches!(restart.stopping, Stopping::No)
        {
            tracing::info!("the peer is stopping: requests wait for the next connection");
            restart.stopping = Stopping::Holding(Box::pin(sleep(PATIENCE)));
        }
        true
    }
}
