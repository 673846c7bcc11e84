//! Finds the message that was too large for a peer that closes with 1009 without having announced
//! its limit.
//!
//! A peer reads in order, up to the first message that is too large. Of the messages that it is not
//! known to have read, it read neither the largest nor any sent after that one: the first that was
//! too large is not a later one.

use std::cmp::Reverse;

use rmcp::{
    ErrorData,
    model::{JsonRpcMessage, RequestId},
};
use serde_json::json;

use super::{
    Correlation,
    pending::{Call, Outcome},
};
use crate::{
    decode::method::Method,
    error::{CloseCode, Error, LinkError},
    framing::Framing,
    link::MessageLimits,
    role::McpRole,
    rpc_code::UNAVAILABLE,
};

/// Number of times that a request which the peer has not read is sent again.
const MAX_RETRIES: u32 = 4;

/// Record of what the present peer is known to have read.
#[derive(Debug, Default)]
pub(super) struct ReadProgress {
    /// Number of the last message that was certainly read, as were all before it.
    read: u64,
    /// Size of the largest of them, in bytes, as far as known.
    passed: usize,
    /// Number and size of the largest later message that is not a request in flight.
    other: Option<(u64, usize)>,
}

impl ReadProgress {
    /// Records that the peer has answered `call`.
    pub(super) fn note_answered(&mut self, call: &Call) {
        self.read = self.read.max(call.seq);
        self.passed = self.passed.max(call.size);
        if let Some((seq, size)) = self.other
            && seq <= self.read
        {
            self.passed = self.passed.max(size);
            self.other = None;
        }
    }

    /// Records a message that was sent, and is not a request in flight.
    pub(super) fn note_sent(&mut self, seq: u64, size: usize) {
        if seq > self.read && size > self.passed && self.other.is_none_or(|(_, other)| size > other)
        {
            self.other = Some((seq, size));
        }
    }
}

/// Returns `true` if the peer closed the connection because a message was too large for it.
fn is_too_large(cause: &Error) -> bool {
    matches!(cause, Error::Link(LinkError::Closed(reason)) if reason.code == CloseCode::TooBig)
}

impl<R: McpRole, F: Framing<R>> Correlation<R, F> {
    /// Ends the request that was too large for the peer, if `cause` says so, and moves those after
    /// it to the next connection if `goes_on`. Returns the number of the last message that the peer
    /// may have read, of those `handed` to the connection; `None` if no message was too large.
    pub(super) fn find_too_large(
        &mut self,
        cause: &Error,
        handed: u64,
        goes_on: bool,
    ) -> Option<u64> {
        let ReadProgress { read, passed, other } = std::mem::take(&mut self.read_progress);
        self.codec.peer().pass(passed);
        if !is_too_large(cause) {
            return None;
        }
        let on_the_way = |call: &Call| call.seq <= handed && call.seq > read;
        let before = self.pending.iter().filter(|(_, call)| call.seq <= read);
        let passed = before.map(|(_, call)| call.size).fold(passed, usize::max);
        let passed = passed.max(MessageLimits::MIN_MESSAGE);
        let largest = self
            .pending
            .iter()
            .filter(|(_, call)| on_the_way(call) && call.size > passed)
            .max_by_key(|(_, call)| (call.size, Reverse(call.seq)))
            .map(|(id, call)| (id.clone(), call.method, call.seq, call.size));
        let other = other.filter(|(seq, size)| {
            *seq <= handed && largest.as_ref().is_none_or(|(.., largest)| size > largest)
        });
        let (seq, size) = match (&largest, other) {
            (_, Some(other)) if other.1 > passed => other,
            (Some((.., seq, size)), _) => (*seq, *size),
            _ => return None,
        };
        tracing::warn!(size, "a message was larger than the peer takes");
        self.codec.peer().learn(size - 1);
        if let Some((id, method, at, _)) = largest
            && at == seq
            && method != Method::Initialize
        {
            self.abandon(&id);
            self.synthesized.push_back(too_large::<R>(id, method, size, cause));
        }
        if goes_on {
            self.put_off_unread(seq, handed);
        }
        Some(seq - 1)
    }

    /// Moves the requests numbered `from` to `handed`, which the peer has not read, to the next
    /// connection.
    fn put_off_unread(&mut self, from: u64, handed: u64) {
        let Some(reinit) = &self.reinit else { return };
        let unread = |call: &Call| (from..=handed).contains(&call.seq);
        let unread = self.pending.iter().filter(|(_, call)| unread(call));
        let unread = unread.filter(|(id, _)| !reinit.keeps(id));
        let mut unread: Vec<_> = unread.map(|(id, call)| (call.seq, id.clone())).collect();
        unread.sort_unstable_by_key(|(seq, _)| *seq);
        for (_, id) in unread {
            if self.put_off_one(&id).is_none() {
                let cause = "the peer has not read it";
                if let Some(call) = self.abandon(&id) {
                    self.synthesized.push_back(call.lost::<R>(id, Outcome::NotSent, Some(cause)));
                }
            }
        }
    }

    fn put_off_one(&mut self, id: &RequestId) -> Option<()> {
        let call = self.pending.get(id).filter(|call| call.refusals < MAX_RETRIES)?;
        let message = call.kept.clone()?;
        let seq = self.send_kept(id, &message).ok()?;
        self.pending.send_again(id, seq);
        Some(())
    }
}

/// Builds the error of a request that made the peer close the connection.
fn too_large<R: McpRole>(
    id: RequestId,
    method: Method,
    size: usize,
    cause: &Error,
) -> rmcp::service::RxJsonRpcMessage<R> {
    let data = json!({
        "reason": Outcome::NotSent.name(), "cause": cause.to_string(), "method": method.name(),
        "size": size,
    });
    let message = format!(
        "outbound message of {size} bytes is larger than the peer takes, which has closed the \
         connection for it (1009)"
    );
    JsonRpcMessage::error(ErrorData::new(UNAVAILABLE, message, Some(data)), Some(id))
}
