use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::time::sleep_until;

use super::{
    Sessions,
    slot::{Arrival, Claim, Found, Return, Slot},
};
use crate::{
    decode::Role,
    error::{CloseCode, CloseReason, Error, LinkError},
    layer::reconnect::LinkSource,
    link::LinkUp,
    time::after,
};

/// How long a session is kept at most for a client of which it is not known whether it comes back.
const GRACE: Duration = Duration::from_secs(5);

/// The links of one session: its client comes back, or not.
pub(in crate::server) struct Returns<R: Role> {
    sessions: Arc<Sessions<R>>,
    slot: Arc<Slot<R>>,
    away: Option<Away>,
    /// What the link is told that has lost its place.
    parting: CloseReason,
}

/// There is no link.
struct Away {
    /// Resolves when none is waited for any longer, with the reason.
    over: BoxFuture<'static, CloseReason>,
    /// Which departure of all it is, and how many bytes the other sessions know of.
    noted: Option<(u64, usize)>,
}

impl<R: Role> Returns<R> {
    pub(super) fn new(sessions: Arc<Sessions<R>>, slot: Arc<Slot<R>>) -> Self {
        Self { sessions, slot, away: None, parting: LinkError::taken_over().close_reason() }
    }

    /// Tells the other sessions what waits in this one, where that has changed.
    fn note(&mut self) {
        let Some(Away { noted, .. }) = &mut self.away else { return };
        let (departure, before) = noted.unzip();
        let bytes = self.slot.bytes();
        if before != Some(bytes) {
            *noted = Some((self.sessions.note_away(&self.slot, departure, bytes), bytes));
        }
        if departure.is_none() {
            self.slot.is_away(true);
        }
    }

    /// It is no longer away. Whether the others knew that it was.
    fn return_or_end(&mut self) -> bool {
        let Some(Away { noted: Some((departure, _)), .. }) = self.away.take() else { return false };
        self.sessions.note_back(departure);
        true
    }
}

impl<R: Role> LinkSource for Returns<R> {
    type Link = Arrival;

    fn on_lost(mut self: Pin<&mut Self>, cause: &Error) -> bool {
        let stop = self.sessions.stop.clone();
        let claim = self.slot.claim();
        let is_kept = match claim {
            Claim::Secret => is_survived(cause),
            _ => self.slot.is_initialized() && is_accident(cause),
        };
        // Who has come meanwhile finds the session, or begins a new one.
        if (!is_kept || stop.is_cancelled()) && self.slot.close_if_empty() {
            return false;
        }
        tracing::debug!(%cause, "connection lost; the session is kept");
        let window = match claim {
            Claim::Hearsay => self.sessions.config.window.min(GRACE),
            _ => self.sessions.config.window,
        };
        let deadline = after(window);
        let over = async move {
            tokio::select! {
                () = sleep_until(deadline) => gone(),
                () = stop.cancelled() => CloseCode::Restart.into(),
            }
        };
        self.slot.is_lost();
        self.away = Some(Away { over: over.fuse().boxed(), noted: None });
        true
    }

    fn poll_next_link(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Arrival, LinkUp), Error>> {
        let this = &mut *self;
        let mut reason = None;
        while this.slot.knock.poll_requested(cx).is_ready() {
            match this.slot.look(this.away.is_some()) {
                Found::Link(Return { arrival, up, start, parting }) => {
                    this.parting = parting;
                    this.slot.receive_count.peer().set(arrival.limits());
                    if this.return_or_end() {
                        this.slot.is_away(false);
                    }
                    if let Some(start) = start {
                        this.slot.receive_count.begin(start);
                    }
                    tracing::debug!(resumed = start.is_none(), "the client is back");
                    return Poll::Ready(Ok((arrival, up)));
                }
                Found::Dismissed => reason = Some(gone()),
                Found::Nothing => {}
            }
        }
        if reason.is_none() {
            this.note();
        }
        let reason = match (reason, &mut this.away) {
            (_, None) => return Poll::Pending,
            (Some(reason), _) => reason,
            (None, Some(away)) => ready!(away.over.poll_unpin(cx)),
        };
        if !this.slot.close_if_empty() {
            return self.poll_next_link(cx);
        }
        tracing::debug!("the client did not come back");
        Poll::Ready(Err(LinkError::Closed(reason).into()))
    }

    fn superseded_reason(&self) -> CloseReason {
        self.parting.clone()
    }
}

impl<R: Role> Drop for Returns<R> {
    fn drop(&mut self) {
        self.slot.close();
        if self.return_or_end() {
            self.slot.is_gone();
        }
        self.sessions.forget(&self.slot);
    }
}

fn gone() -> CloseReason {
    CloseReason::new(CloseCode::SessionGone, "the client did not come back")
}

fn code(cause: &Error) -> CloseCode {
    match cause {
        Error::Link(error) => error.close_reason().code,
        _ => CloseCode::Internal,
    }
}

/// Whether a client that only knows the name of its session may want it back. It had no reason to close
/// a connection that it would make again, but for a page that is left or loaded again.
fn is_accident(cause: &Error) -> bool {
    matches!(code(cause), CloseCode::Abnormal | CloseCode::GoingAway)
}

/// Whether a session outlives a link that ended so (section 7 of the
/// [protocol](crate::layer::resume::protocol)).
fn is_survived(cause: &Error) -> bool {
    use CloseCode as C;
    !matches!(
        code(cause),
        C::Normal
            | C::Protocol
            | C::Unsupported
            | C::InvalidPayload
            | C::Policy
            | C::TooBig
            | C::MandatoryExtension
            | C::Unauthorized
            | C::Forbidden
            | C::SessionGone
    )
}
