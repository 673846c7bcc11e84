//! [`Superseded`]: `server/discover` in flight when `initialize` is sent.
//!
//! rmcp's automatic lifecycle sends `initialize` where `server/discover` has no answer within 10 s,
//! and takes whatever answer comes next for that to `initialize`. A server that is slow to start
//! answers both in turn; so what ends such a `server/discover` comes behind the answer to
//! `initialize`.

use rmcp::{
    model::{JsonRpcMessage, RequestId},
    service::RxJsonRpcMessage,
};

use crate::role::McpRole;

/// Requests `server/discover` in flight when `initialize` was sent, until that is answered.
#[derive(Debug)]
pub(super) struct Superseded<R: McpRole> {
    initialize: RequestId,
    discovers: Vec<RequestId>,
    /// Responses and errors that ended them, in the order in which they came.
    ends: Vec<RxJsonRpcMessage<R>>,
}

impl<R: McpRole> Superseded<R> {
    pub(super) fn new(initialize: RequestId, discovers: Vec<RequestId>) -> Self {
        Self { initialize, discovers, ends: Vec::new() }
    }

    /// Keeps `message` if it ends one of these `server/discover`; else returns it.
    pub(super) fn withhold(&mut self, message: RxJsonRpcMessage<R>) -> Option<RxJsonRpcMessage<R>> {
        if ended_by(&message).is_some_and(|id| self.discovers.contains(id)) {
            self.ends.push(message);
            return None;
        }
        Some(message)
    }

    /// Returns `true` if the request with this id is the `initialize`.
    pub(super) fn awaits(&self, id: &RequestId) -> bool {
        self.initialize == *id
    }

    /// Returns what was withheld.
    pub(super) fn into_ends(self) -> Vec<RxJsonRpcMessage<R>> {
        self.ends
    }
}

/// Returns the id of the request that `message` ends.
pub(super) fn ended_by<Req, Resp, Not>(
    message: &JsonRpcMessage<Req, Resp, Not>,
) -> Option<&RequestId> {
    match message {
        JsonRpcMessage::Response(response) => Some(&response.id),
        JsonRpcMessage::Error(error) => error.id.as_ref(),
        JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => None,
    }
}
