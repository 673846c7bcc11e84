//! Requests that a stopping peer has refused. They were not processed, and are sent again over the
//! next connection.

use std::{mem, pin::Pin, task::Context, time::Duration};

use tokio::time::{Instant, Sleep, sleep};

/// Time for which requests are held back at first. It doubles each time that the peer refuses one
/// again, since it may be a tool that says so, and not the peer.
const FIRST_HOLD: Duration = Duration::from_secs(5);

/// Time within which a stopping peer must close the connection. A drain takes 30 s at most by
/// default.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// State of a peer that may be stopping.
///
/// | state | on a refusal | when the timer fires | on another answer to what was sent since | on the loss of the connection | on the next |
/// |---|---|---|---|---|---|
/// | `No` | holds requests back for 5 s: `Holding` | – | – | – | – |
/// | `Holding` | the request waits too | requests go out again: `Asked`, or after 60 s in all `Disbelieved` | the same: `Disbelieved` | `Lost` | – |
/// | `Asked` | holds them back for twice the time: `Holding` | – | `Disbelieved` | `No` | – |
/// | `Disbelieved` | it is passed up | – | – | `No` | – |
/// | `Lost` | – | – | – | – | requests go out, `No` |
#[derive(Debug, Default)]
pub(super) enum Stopping {
    #[default]
    No,
    Holding(Box<Announced>),
    Asked(Box<Announced>),
    Disbelieved,
    Lost,
}

/// Stop that the peer has announced by a refusal.
#[derive(Debug)]
pub(super) struct Announced {
    since: Instant,
    /// Number of the last message that was queued before it.
    before: u64,
    /// Time for which requests are held back, and its end.
    hold: Duration,
    timer: Pin<Box<Sleep>>,
}

impl Stopping {
    /// Returns `true` if a refusal means that the connection will be closed.
    pub(super) fn is_believed(&self) -> bool {
        !matches!(self, Self::Disbelieved)
    }

    /// Returns `true` if requests have gone out again since the peer said that it stops.
    pub(super) fn was_asked_again(&self) -> bool {
        match self {
            Self::Holding(announced) => announced.hold > FIRST_HOLD,
            Self::Asked(_) => true,
            Self::No | Self::Disbelieved | Self::Lost => false,
        }
    }

    /// Records a refusal, before which the message with the number `before` was queued last.
    pub(super) fn begin(&mut self, before: u64) {
        *self = match mem::take(self) {
            Self::No => {
                tracing::info!("the peer is stopping: requests wait for the next connection");
                let (since, hold) = (Instant::now(), FIRST_HOLD);
                let timer = Box::pin(sleep(hold));
                Self::Holding(Box::new(Announced { since, before, hold, timer }))
            }
            Self::Asked(mut announced) => {
                announced.hold *= 2;
                let end = Instant::now() + announced.hold;
                announced.timer.as_mut().reset(end.min(announced.since + STOP_TIMEOUT));
                Self::Holding(announced)
            }
            state => state,
        };
    }

    /// Returns `true` when requests are to go out again, since the peer has not closed in time.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        let Self::Holding(announced) = self else { return false };
        if announced.timer.as_mut().poll(cx).is_pending() {
            return false;
        }
        *self = match mem::take(self) {
            Self::Holding(announced) if announced.since.elapsed() < STOP_TIMEOUT => {
                Self::Asked(announced)
            }
            _ => {
                tracing::warn!("the peer said that it stops, and has not within {STOP_TIMEOUT:?}");
                Self::Disbelieved
            }
        };
        true
    }

    /// Records an answer that is no such refusal to the request with the number `seq`. Returns
    /// `true` if requests are to go out again, since the peer is not stopping.
    pub(super) fn disprove(&mut self, seq: u64) -> bool {
        let (Self::Holding(announced) | Self::Asked(announced)) = self else { return false };
        if seq <= announced.before {
            return false;
        }
        tracing::info!("the peer is not stopping: it answers requests");
        matches!(mem::replace(self, Self::Disbelieved), Self::Holding(_))
    }

    /// Records the loss of the connection.
    pub(super) fn note_lost(&mut self) {
        *self = match mem::take(self) {
            Self::Holding(_) | Self::Lost => Self::Lost,
            Self::No | Self::Asked(_) | Self::Disbelieved => Self::No,
        };
    }

    /// Records the next connection. Returns `true` if requests were held back for it.
    pub(super) fn end(&mut self) -> bool {
        matches!(mem::take(self), Self::Holding(_) | Self::Lost)
    }
}
