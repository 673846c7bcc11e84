//! [`SessionLinks`]: the links of one session, one after the other.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::{FutureExt, future::BoxFuture};
use tokio::time::{Instant, sleep_until};
use tracing::Span;

use super::{
    entry::{Reattach, SessionEntry},
    new_link::NewLink,
    store::SessionStore,
};
use crate::{
    close::{CloseCode, CloseReason},
    error::{Error, LinkError},
    layer::reconnect::LinkSource,
    link::LinkUp,
    role::McpRole,
    time::{deadline_in, millis},
};

/// Source of the links of one session, which its client makes by coming back.
pub(in crate::server) struct SessionLinks<R: McpRole> {
    sessions: Arc<SessionStore<R>>,
    entry: Arc<SessionEntry<R>>,
    /// `Some` between the loss of a link and the next.
    detached: Option<Detached>,
    /// Reason that a superseded link is closed with.
    superseded_reason: CloseReason,
    /// Span of the session.
    span: Span,
}

/// Wait of a session for its client.
struct Detached {
    since: Instant,
    /// Resolves when the client is not waited for any longer, with the reason.
    over: BoxFuture<'static, CloseReason>,
    /// Sequence number in the store, and the bytes that were reported to it.
    reported: Option<(u64, usize)>,
}

impl<R: McpRole> SessionLinks<R> {
    /// Creates the source of the links of `entry`, which has its first.
    pub(in crate::server) fn new(
        sessions: Arc<SessionStore<R>>,
        entry: Arc<SessionEntry<R>>,
    ) -> Self {
        Self {
            sessions,
            entry,
            detached: None,
            superseded_reason: LinkError::taken_over().close_reason(),
            span: Span::current(),
        }
    }

    /// Attaches the link on which the client has come back. Returns what its layers are told.
    fn attach(&mut self, new: Reattach) -> (NewLink, LinkUp) {
        let Reattach { new_link, up, start, superseded_reason } = new;
        self.superseded_reason = superseded_reason;
        self.entry.receive_count.peer().set(new_link.limits());
        let session = if start.is_none() { "resumed" } else { "returned" };
        let outage_ms = self.detached.as_ref().map(|detached| millis(detached.since.elapsed()));
        tracing::info!(parent: &self.span, session, outage_ms, "reconnected");
        if self.leave_detached() {
            self.entry.set_detached(false);
        }
        if let Some(start) = start {
            self.entry.receive_count.begin(start);
        }
        (new_link, up)
    }

    /// Reports to the store how many bytes wait in the session, if that has changed.
    fn report_detached(&mut self) {
        let Some(Detached { reported, .. }) = &mut self.detached else { return };
        let (seq, before) = reported.unzip();
        let bytes = self.entry.bytes();
        if before != Some(bytes) {
            *reported = Some((self.sessions.set_detached(&self.entry, seq, bytes), bytes));
        }
        if seq.is_none() {
            self.entry.set_detached(true);
        }
    }

    /// Ends the wait for the client. Returns `true` if the store knew of it.
    fn leave_detached(&mut self) -> bool {
        let Some(Detached { reported: Some((seq, _)), .. }) = self.detached.take() else {
            return false;
        };
        self.sessions.set_attached(seq);
        true
    }
}

impl<R: McpRole> LinkSource for SessionLinks<R> {
    type Link = NewLink;

    fn on_lost(mut self: Pin<&mut Self>, cause: &Error) -> bool {
        let stop = self.sessions.stop.clone();
        let kept_for = self.entry.kept_for(cause, self.sessions.config.window);
        // A client that has come back meanwhile finds the session all the same.
        if (kept_for.is_none() || stop.is_cancelled()) && self.entry.close_if_empty() {
            return false;
        }
        tracing::info!(parent: &self.span, cause = cause.to_string(), "connection lost; the session is kept");
        let deadline = deadline_in(kept_for.unwrap_or_default());
        let over = async move {
            tokio::select! {
                () = sleep_until(deadline) => session_ended(),
                () = stop.cancelled() => CloseCode::Restart.into(),
            }
        };
        self.entry.detach();
        self.detached =
            Some(Detached { since: Instant::now(), over: over.fuse().boxed(), reported: None });
        true
    }

    fn poll_next_link(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(NewLink, LinkUp), Error>> {
        let this = &mut *self;
        while this.entry.notify.poll_requested(cx).is_ready() {
            if let Some(new) = this.entry.take_new_link() {
                return Poll::Ready(Ok(this.attach(new)));
            }
        }
        let reason = if this.detached.is_some() && this.entry.is_closed() {
            session_ended()
        } else {
            this.report_detached();
            match &mut this.detached {
                Some(detached) => ready!(detached.over.poll_unpin(cx)),
                None => return Poll::Pending,
            }
        };
        if !this.entry.close_if_empty() {
            return self.poll_next_link(cx);
        }
        tracing::debug!(parent: &this.span, "the client did not come back");
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

fn session_ended() -> CloseReason {
    CloseReason::new(CloseCode::SessionGone, "the client did not come back")
}
