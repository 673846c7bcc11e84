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
    /// Request `server/discover`, and the connections lost since it was first sent. The layers
    /// above would take an error for an answer.
    discover: Option<(RequestId, Message, u32)>,
    /// Requests that stay open, and those that may run twice, with how often they may still be
    /// sent.
    others: HashMap<RequestId, (Message, Option<u32>)>,
}

impl Repeats {
    pub(super) fn contains(&self, id: &RequestId) -> bool {
        self.discovers(id) || self.others.contains_key(id)
    }

    fn discovers(&self, id: &RequestId) -> bool {
        self.discover.as_ref().is_some_and(|(discover, ..)| discover == id)
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

    /// Keeps `item` if it is such a request.
    pub(super) fn remember<R: McpRole, F: Framing<R>>(
        &mut self,
        item: &TxJsonRpcMessage<R>,
        replay: Replay,
        codec: &mut Codec<R, F>,
    ) -> Result<(), MessageError> {
        let JsonRpcMessage::Request(request) = item else { return Ok(()) };
        let times = match R::method_of(&request.request) {
            Method::Initialize => {
                // After `initialize` the peer is one without `server/discover`.
                self.discover = None;
                return Ok(());
            }
            Method::Discover => {
                self.discover = codec.encode(item)?.map(|item| (request.id.clone(), item, 0));
                return Ok(());
            }
            Method::SubscriptionsListen => None,
            _ if replay == Replay::Resend => Some(MAX_ATTEMPTS - 1),
            _ => return Ok(()),
        };
        let message = codec.encode(item)?;
        self.others.extend(message.map(|message| (request.id.clone(), (message, times))));
        Ok(())
    }

    /// Records the loss of a connection, and forgets the requests that it took too often. The
    /// last message that it took was number `handed`.
    pub(super) fn lose(&mut self, pending: &PendingCalls, handed: u64) {
        let was_sent = |id: &RequestId| pending.get(id).is_some_and(|call| call.seq <= handed);
        if let Some((id, _, attempts)) = &mut self.discover
            && was_sent(id)
        {
            *attempts += 1;
            if *attempts >= MAX_ATTEMPTS {
                self.discover = None;
            }
        }
        self.others.retain(|id, (_, times)| match times {
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
        let discover = self.discover.iter().map(|(id, discover, _)| (id, discover));
        let others = self.others.iter().map(|(id, (message, _))| (id, message));
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
