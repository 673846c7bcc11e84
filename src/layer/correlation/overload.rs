//! Requests that the peer refuses because it has too many: they were not executed, and wait.

use std::{pin::Pin, task::Context, time::Duration};

use rmcp::{
    ErrorData,
    model::{JsonRpcError, RequestId},
};
use tokio::time::{Instant, Sleep, sleep};

use super::{Correlation, UNAVAILABLE, reinit::ATTEMPTS};
use crate::{decode::Role, framing::Framing};

/// Values of `data.reason` by which a peer refuses a request that it has not executed.
const TOO_MANY: &str = "too_many_requests";
const STOPPING: &str = "stopping";

/// Time from a refusal to the first probe, and the most that doubling makes of it.
const PROBES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Time without an answer after which refusals are passed up.
const PATIENCE: Duration = Duration::from_secs(60);

/// State of a peer that may have too many requests. It may have more than are in flight: those
/// that were cancelled count until their handlers have ended.
///
/// | state | on a refusal | on an answer | when the timer fires |
/// |---|---|---|---|
/// | `No` | the request waits: `Limited` | – | – |
/// | `Limited` | the request waits, and all others with it | one more may be sent | one more is sent, and the timer set to twice the time; where none waits: `No` |
/// | … 60 s after the last answer | | | all are sent: `Disbelieved` |
/// | `Disbelieved` | it is passed up | `No` | – |
/// | `Lost` | – | – | – |
///
/// The loss of the link makes `Limited` `Lost`, and all else `No`. The same peer on the next link
/// makes that `Limited` again, another peer `No`.
#[derive(Debug, Default)]
pub(super) enum Overload {
    #[default]
    No,
    Limited(Box<Limited>),
    Disbelieved,
    Lost,
}

/// Record of what a peer at its limit lets pass.
#[derive(Debug)]
pub(super) struct Limited {
    /// Number of requests that may be sent now.
    room: usize,
    /// Moment of the last answer, or of the first refusal.
    answered: Instant,
    /// Time from the last probe to the next, and what the peer has done since that.
    interval: Duration,
    trend: Trend,
    timer: Pin<Box<Sleep>>,
}

/// Reaction of the peer since the last probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trend {
    Silent,
    Answers,
    Refuses,
}

impl Overload {
    fn limited() -> Self {
        let (interval, _) = PROBES;
        Self::Limited(Box::new(Limited {
            room: 0,
            answered: Instant::now(),
            interval,
            trend: Trend::Silent,
            timer: Box::pin(sleep(interval)),
        }))
    }

    /// Returns `true` if no request may be sent now.
    pub(super) fn holds_back(&self) -> bool {
        match self {
            Self::No | Self::Disbelieved => false,
            Self::Limited(limited) => limited.room == 0,
            Self::Lost => true,
        }
    }

    /// Records that a request was sent.
    pub(super) fn note_sent(&mut self) {
        if let Self::Limited(limited) = self {
            limited.room = limited.room.saturating_sub(1);
        }
    }

    /// Records an answer to a request of ours that is no such refusal.
    pub(super) fn note_answered(&mut self) {
        match self {
            Self::No | Self::Lost => {}
            Self::Disbelieved => *self = Self::No,
            Self::Limited(limited) => {
                limited.room += 1;
                limited.answered = Instant::now();
                if limited.trend == Trend::Silent {
                    limited.trend = Trend::Answers;
                }
            }
        }
    }

    /// Records a refusal. Returns `false` if it is to be passed up.
    fn note_refused(&mut self) -> bool {
        match self {
            Self::Disbelieved => return false,
            Self::Limited(limited) => {
                // Whatever room the answers before it have made, others have taken.
                limited.room = 0;
                limited.trend = Trend::Refuses;
            }
            Self::No | Self::Lost => {
                tracing::info!("the peer has too many requests: further ones wait");
                *self = Self::limited();
            }
        }
        true
    }

    /// Makes room for a probe when it is time. `waits` says that requests wait.
    pub(super) fn poll(&mut self, waits: bool, cx: &mut Context<'_>) {
        while let Self::Limited(limited) = self
            && limited.timer.as_mut().poll(cx).is_ready()
        {
            let now = Instant::now();
            let end = limited.answered + PATIENCE;
            if !waits {
                *self = Self::No;
            } else if now >= end {
                tracing::warn!("the peer refuses all requests for {PATIENCE:?}: it has too many");
                *self = Self::Disbelieved;
            } else {
                let (first, most) = PROBES;
                limited.interval = match limited.trend {
                    Trend::Answers => first,
                    Trend::Silent | Trend::Refuses => most.min(limited.interval * 2),
                };
                limited.trend = Trend::Silent;
                limited.room = limited.room.max(1);
                limited.timer.as_mut().reset(end.min(now + limited.interval));
            }
        }
    }

    /// Records the loss of the link.
    pub(super) fn lose(&mut self) {
        *self = match self {
            Self::Limited(_) | Self::Lost => Self::Lost,
            Self::No | Self::Disbelieved => Self::No,
        };
    }

    /// Records that the peer is back, on another link.
    pub(super) fn resume(&mut self) {
        if let Self::Lost = self {
            *self = Self::limited();
        }
    }
}

/// Returns the reason for which `error` refuses a request, which was not executed.
fn reason(error: &ErrorData) -> Option<&str> {
    let data = error.data.as_ref().filter(|_| error.code == UNAVAILABLE)?;
    data["reason"].as_str().filter(|reason| [STOPPING, TOO_MANY].contains(reason))
}

/// Returns `true` if `error` refuses a request, which was not executed.
pub(super) fn is_refusal(error: &ErrorData) -> bool {
    reason(error).is_some()
}

/// Returns `true` if `error` refuses a request since the peer has too many.
pub(super) fn is_too_many(error: &ErrorData) -> bool {
    reason(error) == Some(TOO_MANY)
}

impl<R: Role, F: Framing<R>> Correlation<R, F> {
    /// Sends a request again, at its time, that `error` refuses without its having been executed.
    /// Returns `false` if the refusal is to be passed up.
    pub(super) fn retry_refused(&mut self, error: &JsonRpcError) -> bool {
        if !self.config.retry_refused {
            return false;
        }
        let Some(reason) = reason(&error.error) else { return false };
        let id = error.id.as_ref().and_then(|id| self.pending.answered_by(id));
        let Some(id) = id else { return false };
        if self.reinit.as_ref().is_some_and(|reinit| reinit.is_repeating(&id)) {
            // It is repeated on the next connection as well, which is asked for in a while.
            return true;
        }
        match reason {
            STOPPING => self.put_off(&id),
            _ => self.put_back(&id),
        }
    }

    /// Keeps a request for the next connection, since the peer is stopping. Returns `false` if the
    /// refusal is to be passed up.
    fn put_off(&mut self, id: &RequestId) -> bool {
        let believed = self.reinit.as_ref().filter(|reinit| reinit.believes_stop());
        let Some(reinit) = believed else { return false };
        // Of the refusals of one connection the first counts.
        let counts = !reinit.was_asked_again();
        let call = self.pending.get(id).filter(|call| !counts || call.refusals + 1 < ATTEMPTS);
        let Some(message) = call.and_then(|call| call.kept.clone()) else { return false };
        let before = self.link.last_seq();
        self.link.hold();
        let Ok(seq) = self.send_kept(id, &message) else { return false };
        if counts {
            self.pending.send_again(id, seq);
        } else {
            self.pending.renumber(id, seq);
        }
        if let Some(reinit) = &mut self.reinit {
            reinit.on_stopping(before);
        }
        true
    }

    /// Has a request wait until the peer takes it. Returns `false` if the refusal is to be passed
    /// up.
    fn put_back(&mut self, id: &RequestId) -> bool {
        if !self.probe.note_refused() && !self.overload.note_refused() {
            return false;
        }
        let Some((id, call, message)) = self.pending.remove_kept(id) else { return false };
        self.read_progress.note_answered(&call);
        self.waiting.put_back(id, call, message);
        true
    }
}
