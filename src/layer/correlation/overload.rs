//! [`Overload`]: the state of a peer that refuses requests because it has too many.

use std::{pin::Pin, task::Context, time::Duration};

use tokio::time::{Instant, Sleep, sleep};

/// Time from a refusal to the first probe. It doubles with each probe that is not answered.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// Longest time between two probes.
const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// Time without an answer after which refusals are passed up.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(60);

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
    /// Time from the last probe to the next.
    interval: Duration,
    /// Reaction of the peer since the last probe.
    trend: Trend,
    timer: Pin<Box<Sleep>>,
}

/// Reaction of a peer to the requests that it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trend {
    Silent,
    Answers,
    Refuses,
}

impl Overload {
    fn limited() -> Self {
        Self::Limited(Box::new(Limited {
            room: 0,
            answered: Instant::now(),
            interval: PROBE_INTERVAL,
            trend: Trend::Silent,
            timer: Box::pin(sleep(PROBE_INTERVAL)),
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
    pub(super) fn note_refused(&mut self) -> bool {
        match self {
            Self::Disbelieved => return false,
            Self::Limited(limited) => {
                // The room that earlier answers have made was taken by others.
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
            let end = limited.answered + REFUSAL_TIMEOUT;
            if !waits {
                *self = Self::No;
            } else if now >= end {
                tracing::warn!(
                    "the peer refuses all requests for {REFUSAL_TIMEOUT:?}: it has too many"
                );
                *self = Self::Disbelieved;
            } else {
                limited.interval = match limited.trend {
                    Trend::Answers => PROBE_INTERVAL,
                    Trend::Silent | Trend::Refuses => MAX_PROBE_INTERVAL.min(limited.interval * 2),
                };
                limited.trend = Trend::Silent;
                limited.room = limited.room.max(1);
                limited.timer.as_mut().reset(end.min(now + limited.interval));
            }
        }
    }

    /// Records the loss of the link.
    pub(super) fn note_lost(&mut self) {
        *self = match self {
            Self::Limited(_) | Self::Lost => Self::Lost,
            Self::No | Self::Disbelieved => Self::No,
        };
    }

    /// Records that the peer is back, on another link.
    pub(super) fn note_resumed(&mut self) {
        if let Self::Lost = self {
            *self = Self::limited();
        }
    }
}
