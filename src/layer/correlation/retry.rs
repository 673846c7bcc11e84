//! Requests that the peer has not executed, and that are sent again. It refused them, since it has
//! too many or stops, or closed the connection for a message that was too large.

use rmcp::{
    ErrorData,
    model::{JsonRpcMessage, RequestId},
    service::RxJsonRpcMessage,
};
use serde_json::json;

use super::{
    Correlation,
    oversized::TooLarge,
    pending::{Call, MAX_ATTEMPTS, Outcome},
};
use crate::{
    close::CloseCode,
    decode::method::Method,
    error::{Error, LinkError},
    framing::Framing,
    role::McpRole,
    rpc_code::UNAVAILABLE,
};

/// Values of `data.reason` by which a peer refuses a request that it has not executed.
const TOO_MANY: &str = "too_many_requests";
const STOPPING: &str = "stopping";

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

/// Returns `true` if the peer closed the connection because a message was too large for it.
fn is_too_large(cause: &Error) -> bool {
    matches!(cause, Error::Link(LinkError::Closed(reason)) if reason.code == CloseCode::TooBig)
}

impl<R: McpRole, F: Framing<R>> Correlation<R, F> {
    /// Sends a request again, when it is time, if `error` refuses it as not executed. Returns
    /// `false` if the refusal is to be passed up.
    pub(super) fn retry_refused(&mut self, id: &RequestId, error: &ErrorData) -> bool {
        if !self.config.retry_refused {
            return false;
        }
        let Some(reason) = reason(error) else { return false };
        if self.pending.answers_own(id) {
            // Sent again on the next connection, which is requested in a while.
            if let Some(reinit) = &mut self.reinit {
                reinit.note_refused();
            }
            return true;
        }
        let Some(id) = self.pending.answered_by(id) else { return false };
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
        // Only the first refusal of a connection counts.
        let counts = !reinit.was_asked_again();
        let call = self.pending.get(id);
        let call = call.filter(|call| !counts || call.resends + 1 < MAX_ATTEMPTS);
        if call.is_none_or(|call| call.kept.is_none()) {
            return false;
        }
        let before = self.link.last_seq();
        self.link.hold();
        let Some(seq) = self.resend(id) else { return false };
        if counts {
            self.pending.note_resent(id, seq);
        } else {
            self.pending.renumber(id, seq);
        }
        if let Some(reinit) = &mut self.reinit {
            reinit.on_stopping(before);
        }
        true
    }

    /// Lets a request wait until the peer takes it. Returns `false` if the refusal is to be passed
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

    /// Ends the request that was too large for the peer, if `cause` says so. Returns the number of
    /// the last message that the peer may have read, of those `handed` to the connection; `None` if
    /// no message was too large.
    pub(super) fn end_too_large(&mut self, cause: &Error, handed: u64) -> Option<u64> {
        let mut progress = std::mem::take(&mut self.read_progress);
        if let Some((seq, size)) = self.link.take_largest_broadcast() {
            progress.note_sent(seq, size);
        }
        self.codec.peer().pass(progress.passed());
        if !is_too_large(cause) {
            return None;
        }
        let TooLarge { seq, size, request } = progress.find_too_large(&self.pending, handed)?;
        tracing::warn!(size, "a message was larger than the peer takes");
        self.codec.peer().learn(size - 1);
        let reinit = self.reinit.as_deref();
        // Any other request ends, even one that would be sent again.
        let is_kept = |(id, method): &(RequestId, Method)| {
            *method == Method::Initialize && reinit.is_some_and(|reinit| reinit.keeps(id))
        };
        if let Some((id, method)) = request.filter(|request| !is_kept(request)) {
            let outcome =
                self.abandon(&id).map_or(Outcome::NotSent, |call| call.outcome_unless_sent());
            self.synthesized.push_back(too_large::<R>(id, (method, outcome), size, cause));
        }
        Some(seq - 1)
    }

    /// Moves the requests after the one numbered `read` to the next connection: the peer has not
    /// read them. The last are those that were `handed` to this one.
    pub(super) fn put_off_unread(&mut self, read: u64, handed: u64) {
        let Some(reinit) = &self.reinit else { return };
        let unread = |call: &Call| call.seq > read && call.seq <= handed;
        let unread = self.pending.iter().filter(|(_, call)| unread(call));
        let unread = unread.filter(|(id, _)| !reinit.keeps(id));
        let mut unread: Vec<_> = unread.map(|(id, call)| (call.seq, id.clone())).collect();
        unread.sort_unstable_by_key(|(seq, _)| *seq);
        for (_, id) in unread {
            let call = self.pending.get(&id).filter(|call| call.resends + 1 < MAX_ATTEMPTS);
            let seq = call.is_some().then(|| self.resend(&id)).flatten();
            if let Some(seq) = seq {
                self.pending.note_resent(&id, seq);
            } else {
                let cause = "the peer has not read it";
                if let Some(call) = self.abandon(&id) {
                    let outcome = call.outcome_unless_sent();
                    self.synthesized.push_back(call.lost::<R>(id, outcome, Some(cause)));
                }
            }
        }
    }

    /// Sends the kept message of a request in flight again, and returns its new number. `None` if
    /// it is not kept, or the link has ended.
    fn resend(&mut self, id: &RequestId) -> Option<u64> {
        let message = self.pending.get(id)?.kept.clone()?;
        self.send_kept(id, &message).ok()
    }
}

/// Builds the error of a request that made the peer close the connection.
fn too_large<R: McpRole>(
    id: RequestId,
    (method, outcome): (Method, Outcome),
    size: usize,
    cause: &Error,
) -> RxJsonRpcMessage<R> {
    let data = json!({
        "reason": outcome.name(), "cause": cause.to_string(), "method": method.name(),
        "size": size,
    });
    let message = format!(
        "outbound message of {size} bytes is larger than the peer takes, which has closed the \
         connection for it (1009)"
    );
    JsonRpcMessage::error(ErrorData::new(UNAVAILABLE, message, Some(data)), Some(id))
}
