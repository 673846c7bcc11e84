//! Requests that are sent again to another peer.

use std::collections::HashMap;

use rmcp::{
    model::{JsonRpcMessage, RequestId},
    service::TxJsonRpcMessage,
};

use crate::{
    decode::method::Method,
    error::MessageError,
    framing::Framing,
    layer::{
        codec::Codec,
        correlation::{
            config::Replay,
            pending::{MAX_ATTEMPTS, PendingCalls},
        },
        shared_link::SharedLink,
    },
    message::Message,
    role::McpRole,
};

/// Requests that are sent again to another peer, as they were encoded.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// Request `server/discover`. The layers above would take an error for an answer.
    discover: Option<Discover>,
    /// Requests that stay open, and those that may run twice.
    others: HashMap<RequestId, Repeat>,
}

/// Request `server/discover` that is in flight.
#[derive(Debug)]
struct Discover {
    id: RequestId,
    message: Message,
    /// Number of connections lost since it was first sent.
    losses: u32,
}

/// Request that each further peer is sent again.
#[derive(Debug)]
struct Repeat {
    message: Message,
    /// Number of times that it may still be sent; `None` if it stays open.
    times_left: Option<u32>,
}

impl Repeats {
    pub(super) fn contains(&self, id: &RequestId) -> bool {
        self.discovers(id) || self.others.contains_key(id)
    }

    fn discovers(&self, id: &RequestId) -> bool {
        self.discover.as_ref().is_some_and(|discover| discover.id == *id)
    }

    /// Forgets a request that has ended.
    pub(super) fn forget(&mut self, id: &RequestId) {
        if self.discovers(id) {
            self.discover = None;
        }
        if !self.others.is_empty() {
            self.others.remove(id);
        }
    }

    /// Keeps `item` if it is to be sent again to another peer.
    pub(super) fn remember<R: McpRole, F: Framing<R>>(
        &mut self,
        item: &TxJsonRpcMessage<R>,
        replay: Replay,
        codec: &mut Codec<R, F>,
    ) -> Result<(), MessageError> {
        let JsonRpcMessage::Request(request) = item else { return Ok(()) };
        let times_left = match R::method_of(&request.request) {
            Method::Initialize => {
                // After `initialize` the peer is one without `server/discover`.
                self.discover = None;
                return Ok(());
            }
            Method::Discover => {
                let message = codec.encode(item)?;
                let discover = |message| Discover { id: request.id.clone(), message, losses: 0 };
                self.discover = message.map(discover);
                return Ok(());
            }
            Method::SubscriptionsListen => None,
            _ if replay == Replay::Resend => Some(MAX_ATTEMPTS - 1),
            _ => return Ok(()),
        };
        if let Some(message) = codec.encode(item)? {
            self.others.insert(request.id.clone(), Repeat { message, times_left });
        }
        Ok(())
    }

    /// Records the loss of a connection, and forgets the requests that were sent too often. The
    /// last message that the connection took was number `handed`.
    pub(super) fn note_lost(&mut self, pending: &PendingCalls, handed: u64) {
        let was_sent = |id: &RequestId| pending.get(id).is_some_and(|call| call.seq <= handed);
        if let Some(discover) = &mut self.discover
            && was_sent(&discover.id)
        {
            discover.losses += 1;
            if discover.losses >= MAX_ATTEMPTS {
                self.discover = None;
            }
        }
        self.others.retain(|id, repeat| match &mut repeat.times_left {
            Some(left) if was_sent(id) => {
                let again = *left > 0;
                *left = left.saturating_sub(1);
                again
            }
            _ => true,
        });
    }

    /// Sends what a former peer was sent, before all else. What was not sent waits in the queue.
    pub(super) fn send_again<R: McpRole, F: Framing<R>>(
        &self,
        pending: &PendingCalls,
        codec: &Codec<R, F>,
        link: &SharedLink,
    ) {
        let handed = link.began();
        let discover = self.discover.iter().map(|discover| (&discover.id, &discover.message));
        let others = self.others.iter().map(|(id, repeat)| (id, &repeat.message));
        let mut sent: Vec<_> = discover
            .chain(others)
            .filter_map(|(id, message)| Some((pending.get(id)?.seq, message)))
            .filter(|(seq, _)| *seq <= handed)
            .collect();
        sent.sort_unstable_by_key(|(seq, _)| *seq);
        for (_, message) in sent {
            link.send_first(codec.reencode(message));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.others.len()
    }
}
