//! `Correlation::send`: encodes a message and queues it in the link. A request waits first while
//! the peer has as many as it accepts.
//!
//! | what | becomes |
//! |---|---|
//! | a request, while the peer has as many of ours as it takes | waits in line, behind those that came before it |
//! | … and it has answered none of those for 10 s | one that waits is sent: see [`Probe`](super::probe::Probe) |
//! | … `initialize` or `ping` | does not |
//! | … and all that it has are subscriptions, which need not end | does not either: the peer may refuse it |
//! | … and it is made by a client to answer a request of the server | does not: the server may wait for that |
//! | a request of a client, while the queue is full and the session may be resumed on the next link | waits in line as well |
//! | one that has to wait, while there is no link and too much waits already | ends, `not_sent` |
//! | an answer, a notification | never waits for a request |
//! | the peer refuses one, since it has too many | waits as well, and is the first to be sent again: see [`Overload`](super::overload::Overload) |
//! | one of ours has ended | the first in line is sent, if the queue has room |
//! | one in line is cancelled, overdue, or there is no more link | it ends, `not_sent` |
//! | a request that cannot be sent as it is | ends, `not_sent` |
//!
//! One that a connection took which is lost ends with `outcome_unknown` in place of `not_sent`.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures::Sink;
use rmcp::{
    model::{GetExtensions, GetMeta, JsonRpcMessage, JsonRpcRequest, RequestId},
    service::{OriginatingRequestId, TxJsonRpcMessage},
};

use super::{
    Correlation,
    config::Replay,
    pending::{Call, Turn},
    superseded::Superseded,
    waiting::Waiting,
};
use crate::{
    decode::method::Method,
    error::{Error, MessageError},
    framing::Framing,
    layer::shared_link::flushed::Flushed,
    link::Retention,
    message::Message,
    role::McpRole,
};

/// A message that is in the queue of the link, or that its framing sends later.
#[derive(Debug)]
struct Queued {
    /// Number of the message in the order of all that was queued.
    seq: u64,
    /// Size of the message, in bytes.
    size: usize,
    /// Copy of the message, which shares its bytes, if it is to be kept.
    kept: Option<Message>,
    /// Result for the sender.
    sent: Sent,
}

/// Result of sending a message.
#[derive(Debug)]
pub(crate) enum Sent {
    /// The message is in the queue of the link; the future resolves when it is written.
    Queued(Flushed),
    /// The message is not in the queue. A request waits in line or has ended with an error, an
    /// answer waits for its turn in the framing; any other has no form, or no receiver any more.
    NotNow,
}

impl<R: McpRole, F: Framing<R>> Correlation<R, F> {
    /// Sends `item`, unless no peer waits for it any more.
    pub(crate) fn send(&mut self, mut item: TxJsonRpcMessage<R>) -> Result<Sent, Error> {
        let is_wanted = match &mut item {
            JsonRpcMessage::Request(_) => true,
            JsonRpcMessage::Response(response) => {
                let is_wanted = self.inbound.end(&mut response.id);
                if is_wanted {
                    R::subscribed(&mut response.result, &response.id);
                }
                is_wanted
            }
            JsonRpcMessage::Error(error) => error.id.as_mut().is_none_or(|id| self.inbound.end(id)),
            JsonRpcMessage::Notification(notification) => {
                match R::cancelled(&mut notification.notification) {
                    Some(id) => self.cancel(id),
                    None => self.inbound.rename_for_peer(&mut notification.notification),
                }
            }
        };
        if !is_wanted {
            return Ok(Sent::NotNow);
        }
        match item {
            JsonRpcMessage::Request(request) => {
                self.set_deadlines(&request);
                self.send_or_wait(request)
            }
            item => {
                let Some(queued) = self.encode_and_queue(item, Retention::ThisPeer)? else {
                    return Ok(Sent::NotNow);
                };
                self.read_progress.note_sent(queued.seq, queued.size);
                Ok(queued.sent)
            }
        }
    }

    /// Ends the request that this side cancels. It is one of ours or, in the lifecycle without
    /// `initialize`, a subscription of the peer. Returns `true` if the peer has to know.
    fn cancel(&mut self, id: &mut RequestId) -> bool {
        self.release_superseded(id);
        let goes_out = match self.abandon(id) {
            // The peer would cancel its `initialize`, which is repeated with the same id.
            Some(call) => !self.withdraw(id, &call) && !self.pending.answers_own(id),
            None => self.inbound.end_subscription(id),
        };
        if !self.waiting.is_empty() {
            // One more request may be sent now.
            self.link.wake_reader();
        }
        goes_out
    }

    /// Takes a call of ours back that has not been sent. Returns `false` if it has.
    pub(super) fn withdraw(&mut self, id: &RequestId, call: &Call) -> bool {
        if call.is_unsent() {
            return true;
        }
        let withdrawn = self.link.withdraw(call.seq);
        if withdrawn {
            self.codec.on_withdrawn(id);
        } else {
            // The request may still be the message that is too large for the peer.
            self.read_progress.note_sent(call.seq, call.size);
        }
        withdrawn
    }

    /// Sends a request, or has it wait until the peer accepts more.
    fn send_or_wait(&mut self, request: JsonRpcRequest<R::Req>) -> Result<Sent, Error> {
        let method = R::method_of(&request.request);
        let is_first = matches!(method, Method::Initialize | Method::Ping)
            || self.is_within_answer(&request.request);
        let turn = self.waiting.next_turn(is_first);
        let may_go =
            self.waiting.is_empty() && !self.is_peer_full() && !self.is_full_until_resumed();
        if is_first || may_go || self.shutdown.is_some() {
            return self.send_request(request, method, turn);
        }
        if self.reinit.is_some() && self.link.is_overrun(self.waiting.bytes()) {
            self.refuse_to_send(request.id, Call::unsent(method), &MessageError::QueueFull);
            return Ok(Sent::NotNow);
        }
        self.waiting.push(request, method, turn);
        // The request may be the first for which the peer is probed.
        self.link.wake_reader();
        Ok(Sent::NotNow)
    }

    /// Returns `true` if a client has no room for a request until its session is resumed, or is
    /// known to be lost.
    fn is_full_until_resumed(&self) -> bool {
        self.reinit.is_some() && self.link.is_full_until_resumed()
    }

    /// Returns `true` if a client makes this request while it answers one of the server's. All
    /// requests that the server has may wait for that answer.
    fn is_within_answer(&self, request: &R::Req) -> bool {
        if !R::IS_CLIENT || self.inbound.is_empty() {
            return false;
        }
        let origin = request.extensions().get::<OriginatingRequestId>();
        origin.is_some_and(|origin| self.inbound.contains(&origin.0))
    }

    /// Returns `true` if the peer has as many requests as it accepts, and one of them will end. If
    /// all are subscriptions, no room would ever be made: the peer may refuse the next. Also
    /// `true` if it has refused one, and shown no sign of room since.
    fn is_peer_full(&self) -> bool {
        if self.overload.holds_back() {
            return true;
        }
        self.is_at_limit()
    }

    /// Returns `true` if the peer has as many requests as may be in flight, and one of them will
    /// end.
    fn is_at_limit(&self) -> bool {
        let takes = self.codec.peer().max_inbound().saturating_add(self.probe.extra());
        self.pending.len() >= takes && !self.pending.are_subscriptions()
    }

    /// Allows one more request to a peer that answers none of those it has, if a refusal does no
    /// harm.
    pub(super) fn poll_probe(&mut self, cx: &mut Context<'_>) {
        let waits = !self.waiting.is_empty()
            && self.config.retry_refused
            && self.is_at_limit()
            && !self.link.is_stuck();
        self.probe.poll(waits, cx);
    }

    /// Sends the waiting requests that the peer accepts by now.
    pub(super) fn send_waiting(&mut self, cx: &mut Context<'_>) {
        while !self.waiting.is_empty() && !self.is_peer_full() {
            // The link would refuse them now. A client keeps them until it has dialed again. A
            // server cannot tell for how long its client is away, and has them refused.
            if self.reinit.is_some() && self.link.is_full_until_dialed() {
                break;
            }
            // If the link has ended, the stream reports the end of each of them.
            if !matches!(Pin::new(&mut self.link).poll_ready(cx), Poll::Ready(Ok(()))) {
                break;
            }
            let Some(waiting) = self.waiting.pop() else { break };
            let (id, unsent, sent) = match waiting {
                Waiting::New { request, method, turn, .. } => {
                    let (id, unsent) = (request.id.clone(), Call::unsent(method));
                    (id, unsent, self.send_request(request, method, turn).map(drop))
                }
                Waiting::Refused { id, call, message } => {
                    (id.clone(), call.to_unsent(), self.send_refused(id, call, message))
                }
            };
            match sent {
                Ok(()) => self.waiting.note_sent(),
                Err(error) => {
                    let cause = error.to_string();
                    let outcome = unsent.outcome_unless_sent();
                    self.synthesized.push_back(unsent.lost::<R>(id, outcome, Some(&cause)));
                }
            }
        }
    }

    fn send_request(
        &mut self,
        request: JsonRpcRequest<R::Req>,
        method: Method,
        turn: Turn,
    ) -> Result<Sent, Error> {
        let id = request.id.clone();
        let token = request.request.get_meta().get_progress_token();
        match self.encode_and_queue(JsonRpcMessage::Request(request), Retention::AnyPeer) {
            Ok(Some(Queued { seq, size, kept, sent })) => {
                let call = Call { size, kept, token, turn, ..Call::new(method, seq) };
                if method == Method::Initialize {
                    self.supersede_discover(id.clone());
                }
                self.pending.insert(id, call);
                self.overload.note_sent();
                Ok(sent)
            }
            Ok(None) => Ok(Sent::NotNow),
            Err(error) => {
                self.abandon(&id);
                let Error::Message(error) = error else { return Err(error) };
                self.codec.on_withdrawn(&id);
                self.refuse_to_send(id, Call::unsent(method), &error);
                Ok(Sent::NotNow)
            }
        }
    }

    /// Makes whatever ends a `server/discover` in flight wait for the answer to the `initialize`
    /// with this id.
    fn supersede_discover(&mut self, initialize: RequestId) {
        let sent = self.pending.iter().filter(|(_, call)| call.method == Method::Discover);
        let sent = sent.map(|(id, _)| id);
        let ids = sent.chain(self.waiting.ids_of(Method::Discover));
        // One with the same id is in flight no longer: its answer is that to `initialize`.
        let discovers: Vec<_> = ids.filter(|id| **id != initialize).cloned().collect();
        if !discovers.is_empty() {
            let superseded = Box::new(Superseded::new(initialize, discovers));
            if let Some(former) = self.superseded.replace(superseded) {
                self.hand_on_withheld(*former);
            }
        }
    }

    /// Sends a request again that the peer has refused.
    fn send_refused(
        &mut self,
        id: RequestId,
        mut call: Call,
        message: Message,
    ) -> Result<(), Error> {
        let sendable = match self.link.reserve(Retention::AnyPeer) {
            Ok(_) => self.codec.check_size(message.len()),
            Err(_) => Err(MessageError::QueueFull),
        };
        if let Err(error) = sendable {
            self.refuse_to_send(id, call, &error);
            return Ok(());
        }
        call.seq = self.send_kept(&id, &message)?;
        call.kept = Some(message);
        self.pending.insert(id, call);
        self.overload.note_sent();
        Ok(())
    }

    /// Sends the kept `message` of the request with this id again, however full the queue is.
    /// Returns its number.
    pub(super) fn send_kept(&mut self, id: &RequestId, message: &Message) -> Result<u64, Error> {
        let message = self.codec.reencode(message);
        let (seq, _) = self.link.enqueue(message, Retention::AnyPeer)?;
        self.codec.on_resent(id);
        Ok(seq)
    }

    /// Ends a call that cannot be sent, with an error to its caller.
    fn refuse_to_send(&mut self, id: RequestId, call: Call, error: &MessageError) {
        tracing::debug!(%id, %error, "request not sent");
        self.synthesized.push_back(call.refused::<R>(id, error));
        self.link.wake_reader();
    }

    /// Ends `item` with an error to its caller: there is no room, and no connection to send it on.
    fn reject_outbound(&mut self, item: TxJsonRpcMessage<R>) -> Result<(), Error> {
        let full = MessageError::QueueFull;
        match item {
            JsonRpcMessage::Request(request) => {
                let call = Call::unsent(R::method_of(&request.request));
                self.refuse_to_send(request.id, call, &full);
                Ok(())
            }
            // The peer that sent the request is gone.
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => Ok(()),
            JsonRpcMessage::Notification(_) => Err(full.into()),
        }
    }

    /// Encodes `item` and queues it in the link. Returns `None` if it need not be sent, or cannot
    /// and its caller is told.
    fn encode_and_queue(
        &mut self,
        item: TxJsonRpcMessage<R>,
        retention: Retention,
    ) -> Result<Option<Queued>, Error> {
        let slot = match item {
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => self.link.reserve_answer(),
            _ => self.link.reserve(retention),
        };
        let Ok(slot) = slot else {
            self.reject_outbound(item)?;
            return Ok(None);
        };
        if let Some(reinit) = &mut self.reinit {
            let replay = match (&self.replay, &item) {
                (Some(policy), JsonRpcMessage::Request(request)) => policy(&request.request),
                _ => Replay::Fail,
            };
            if !reinit.remember(&item, replay, &mut self.codec)? {
                return Ok(None);
            }
        }
        let keep = retention == Retention::AnyPeer && self.config.retry_refused;
        let queued = match self.codec.encode_to_send(item)? {
            Some(message) => {
                let (size, kept) = (message.len(), keep.then(|| message.clone()));
                let (seq, flushed) = slot.send(message)?;
                Queued { seq, size, kept, sent: Sent::Queued(flushed) }
            }
            None => Queued { seq: self.link.last_seq(), size: 0, kept: None, sent: Sent::NotNow },
        };
        while let Some(message) = self.codec.next_reply() {
            Pin::new(&mut self.link).start_send(message)?;
        }
        self.note_replies();
        Ok(Some(queued))
    }
}
