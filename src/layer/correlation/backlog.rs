//! [`Backlog`]: messages of the peer that wait until they may be handled.

use std::collections::VecDeque;

use rmcp::{
    model::{JsonRpcMessage, RequestId},
    service::RxJsonRpcMessage,
};

use crate::role::McpRole;

/// Bytes counted for each message that is kept, besides its size on the wire.
const OVERHEAD: usize = 512;

/// Messages of one kind, in order, with what is counted for each.
type Queue<R> = VecDeque<(RxJsonRpcMessage<R>, usize)>;

/// Requests that wait until the outbound queue has room, and notifications that wait for a slot.
/// The requests do not wait for the notifications.
#[derive(Debug)]
pub(super) struct Backlog<R: McpRole> {
    requests: Queue<R>,
    notifications: Queue<R>,
    bytes: usize,
}

impl<R: McpRole> Default for Backlog<R> {
    fn default() -> Self {
        Self { requests: VecDeque::new(), notifications: VecDeque::new(), bytes: 0 }
    }
}

impl<R: McpRole> Backlog<R> {
    fn queue_of(&mut self, message: &RxJsonRpcMessage<R>) -> &mut Queue<R> {
        match message {
            JsonRpcMessage::Notification(_) => &mut self.notifications,
            _ => &mut self.requests,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Returns `true` if messages of the same kind wait already, before `message`.
    pub(super) fn precedes(&mut self, message: &RxJsonRpcMessage<R>) -> bool {
        !self.is_empty() && !self.queue_of(message).is_empty()
    }

    /// Keeps `message` of this size, if no more than `limit` bytes are kept then; else gives it
    /// back.
    pub(super) fn push(
        &mut self,
        message: RxJsonRpcMessage<R>,
        size: usize,
        limit: usize,
    ) -> Result<(), RxJsonRpcMessage<R>> {
        let size = size + OVERHEAD;
        if self.bytes + size > limit {
            return Err(message);
        }
        self.bytes += size;
        self.queue_of(&message).push_back((message, size));
        Ok(())
    }

    /// Returns the first message of a kind, if it `may_pass`.
    pub(super) fn pop(
        &mut self,
        mut may_pass: impl FnMut(&mut RxJsonRpcMessage<R>) -> bool,
    ) -> Option<RxJsonRpcMessage<R>> {
        for queue in [&mut self.requests, &mut self.notifications] {
            if queue.front_mut().is_some_and(|(message, _)| may_pass(message)) {
                let (message, size) = queue.pop_front()?;
                self.bytes -= size;
                if queue.is_empty() {
                    // Frees the buffer: entries are large, and backlogs are rare.
                    *queue = VecDeque::new();
                }
                return Some(message);
            }
        }
        None
    }

    /// Removes all requests, and returns their ids.
    pub(super) fn forget_requests(&mut self) -> Vec<RequestId> {
        let requests = std::mem::take(&mut self.requests);
        self.bytes -= requests.iter().map(|(_, size)| size).sum::<usize>();
        let id = |(message, _)| match message {
            JsonRpcMessage::Request(request) => Some(request.id),
            _ => None,
        };
        requests.into_iter().filter_map(id).collect()
    }

    /// Removes the request with this id.
    pub(super) fn forget(&mut self, id: &RequestId) {
        let is_it = |message: &RxJsonRpcMessage<R>| matches!(message, JsonRpcMessage::Request(request) if request.id == *id);
        if let Some(at) = self.requests.iter().position(|(message, _)| is_it(message))
            && let Some((_, size)) = self.requests.remove(at)
        {
            self.bytes -= size;
        }
    }
}
