//! [`SessionLinks`]: the links of one session, one after the other.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use tokio::time::sleep_until;

use super::{
    entry::{Next, Reattach, SessionEntry},
    id::ReturnsBy,
    new_link::NewLink,
    store::SessionStore,
};
use crate::{
    error::{CloseCode, CloseReason, Error, LinkError},
    layer::reconnect::LinkSource,
    link::LinkUp,
    role::McpRole,
    time::deadline_in,
};

/// Longest time that a session is kept for a client that may not have noticed its id.
const ISSUED_ID_GRACE: Duration = Duration::from_secs(5);

/// Links of one session: its client comes back, or not.
pub(in crate::server) struct SessionLinks<R: McpRole> {
    sessions: Arc<SessionStore<R>>,
    entry: Arc<SessionEntry<R>>,
    detached: Option<Detached>,
    /// Reason that a superseded link is closed with.
    superseded_reason: CloseReason,
}

/// State of a session without a link.
struct Detached {
    /// Resolves when none is waited for any longer, with the reason.
    over: BoxFuture<'static, CloseReason>,
    /// Departure number in the store, and the bytes that were reported to it.
    reported: Option<(u64, usize)>,
}

impl<R: McpRole> SessionLinks<R> {
    pub(in crate::server) fn new(
        sessions: Arc<SessionStore<R>>,
        entry: Arc<SessionEntry<R>>,
    ) -> Self {
        Self {
            sessions,
            entry,
            detached: None,
            superseded_reason: LinkError::taken_over().close_reason(),
        }
    }

    /// Reports to the store what waits in the session, if that has changed.
    fn report_detached(&mut self) {
        let Some(Detached { reported, .. }) = &mut self.detached else { return };
        let (departure, before) = reported.unzip();
        let bytes = self.entry.bytes();
        if before != Some(bytes) {
            *reported = Some((self.sessions.set_detached(&self.entry, departure, bytes), bytes));
        }
        if departure.is_none() {
            self.entry.set_detached(true);
        }
    }

    /// Leaves the detached state. Returns `true` if the store knew of it.
    fn leave_detached(&mut self) -> bool {
        let Some(Detached { reported: Some((departure, _)), .. }) = self.detached.take() else {
            return false;
        };
        self.sessions.set_attached(departure);
        true
    }
}

impl<R: McpRole> LinkSource for SessionLinks<R> {
    type Link = NewLink;

    fn on_lost(mut self: Pin<&mut Self>, cause: &Error) -> bool {
        let stop = self.sessions.stop.clone();
        let returns_by = self.entry.returns_by();
        let is_kept = match returns_by {
            ReturnsBy::Secret => is_survived(cause),
            _ => self.entry.is_initialized() && is_accident(cause),
        };
        // Who has come meanwhile finds the session, or begins a new one.
        if (!is_kept || stop.is_cancelled()) && self.entry.close_if_empty() {
            return false;
        }
        tracing::debug!(%cause, "connection lost; the session is kept");
        let window = match returns_by {
            ReturnsBy::IssuedId => self.sessions.config.window.min(ISSUED_ID_GRACE),
            _ => self.sessions.config.window,
        };
        let deadline = deadline_in(window);
        let over = async move {
            tokio::select! {
                () = sleep_until(deadline) => gone(),
                () = stop.cancelled() => CloseCode::Restart.into(),
            }
        };
        self.entry.detach();
        self.detached = Some(Detached { over: over.fuse().boxed(), reported: None });
        true
    }

    fn poll_next_link(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(NewLink, LinkUp), Error>> {
        let this = &mut *self;
        let mut reason = None;
        while this.entry.notify.poll_requested(cx).is_ready() {
            match this.entry.take_next(this.detached.is_some()) {
                Next::Link(Reattach { new_link, up, start, superseded_reason }) => {
                    this.superseded_reason = superseded_reason;
                    this.entry.receive_count.peer().set(new_link.limits());
                    if this.leave_detached() {
                        this.entry.set_detached(false);
                    }
                    if let Some(start) = start {
                        this.entry.receive_count.begin(start);
                    }
                    tracing::debug!(resumed = start.is_none(), "the client is back");
                    return Poll::Ready(Ok((new_link, up)));
                }
                Next::Dismissed => reason = Some(gone()),
                Next::Nothing => {}
            }
        }
        if reason.is_none() {
            this.report_detached();
        }
        let reason = match (reason, &mut this.detached) {
            (_, None) => return Poll::Pending,
            (Some(reason), _) => reason,
            (None, Some(detached)) => ready!(detached.over.poll_unpin(cx)),
        };
        if !this.entry.close_if_empty() {
            return self.poll_next_link(cx);
        }
        tracing::debug!("the client did not come back");
        Poll::Ready(Err(LinkError::Closed(reason).into()))
    }

    fn superseded_reason(&self) -> CloseReason {
        self.superseded_reason.clone()
    }
}

impl<R: McpRole> Drop for SessionLinks<R> {
    fn drop(&mut self) {
        self.entry.close();
        if self.leave_detached() {
            self.entry.end_detached();
        }
        self.sessions.forget(&self.entry);
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

/// Returns `true` if a client that only knows its session's id may want it back. It had no reason to close
/// a connection that it would make again, but for a page that is left or loaded again.
fn is_accident(cause: &Error) -> bool {
    matches!(code(cause), CloseCode::Abnormal | CloseCode::GoingAway)
}

/// Returns `true` if a session outlives a link that ended so (section 7 of the
/// [protocol](crate::guide::resume_v1)).
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
