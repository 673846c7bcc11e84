//! Outbound requests: sent at once, or queued while the peer has as many as it accepts.
//!
//! | | |
//! |---|---|
//! | a request, while the peer has as many of ours as it takes | waits in line, behind those that came before it |
//! | … `initialize` or `ping` | does not |
//! | … and all that it has are subscriptions, which need not end | does not either: the peer may refuse it |
//! | … and it is made by a client to answer a request of the server | does not: the server may wait for that |
//! | an answer, a notification | never waits for a request |
//! | the peer refuses one, since it has too many | waits as well, and is the first to be sent again: see [`Overload`](super::overload::Overload) |
//! | one of ours has ended | the first in line is sent, if the queue has room |
//! | one in line is cancelled, overdue, or there is no more link | it ends, `not_sent` |
//! | a request that cannot be sent as it is | ends, `not_sent` |

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures::Sink;
use rmcp::{
    model::{GetExtensions, GetMeta, JsonRpcMessage, JsonRpcRequest, RequestId},
    service::{OriginatingRequestId, TxJsonRpcMessage},
};

use super::{Call, Correlation, Fate, Replay, calls::Turn, waiting::Waiting};
use crate::{
    decode::{Method, Role},
    error::{Error, MessageError},
    framing::Framing,
    layer::shared_link::Flushed,
    link::Retention,
    message::Message,
};

/// A message that was sent.
#[derive(Debug)]
pub(super) struct Sent {
    /// Number of the message in the order of all that was queued.
    pub(super) seq: u64,
    /// Size of the message, in bytes.
    pub(super) size: usize,
    /// Copy of the message, which shares its bytes, if it is to be kept.
    pub(super) kept: Option<Message>,
    /// Resolves when the message is written.
    pub(super) flushed: Option<Flushed>,
}

impl<R: Role, F: Framing<R>> Correlation<R, F> {
    /// Sends a request, or queues it until the peer accepts more.
    pub(super) fn ask(
        &mut self,
        request: JsonRpcRequest<R::Req>,
    ) -> Result<Option<Flushed>, Error> {
        let method = R::method_of(&request.request);
        let is_first = matches!(method, Method::Initialize | Method::Ping)
            || self.is_within_answer(&request.request);
        let turn = self.waiting.next_turn(is_first);
        if is_first || (self.waiting.is_empty() && !self.is_sated()) {
            return self.send_request(request, method, turn);
        }
        if self.restart.is_some() && self.framed.get_ref().is_overrun(self.waiting.len()) {
            self.refuse_to_send(request.id, Call::unsent(method), &MessageError::QueueFull);
            return Ok(None);
        }
        self.waiting.push(request, method, turn);
        Ok(None)
    }

    /// Returns `true` if a client makes this request while it answers one of the server's: all
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
    fn is_sated(&self) -> bool {
        if self.overload.holds_back() {
            return true;
        }
        let takes = self.framed.peer().max_inbound();
        self.outbound.len() >= takes && !self.outbound.are_subscriptions()
    }

    /// Sends the waiting requests that the peer accepts by now. Returns `true` if there were any.
    pub(super) fn advance(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while !self.waiting.is_empty() && !self.is_sated() {
            // Where the link has ended, so has each of them, and the stream tells.
            if !matches!(Pin::new(&mut self.framed).poll_ready(cx), Poll::Ready(Ok(()))) {
                break;
            }
            let Some(waiting) = self.waiting.pop() else { break };
            let (id, method, sent) = match waiting {
                Waiting::New(request, method, turn) => {
                    (request.id.clone(), method, self.send_request(request, method, turn))
                }
                Waiting::Refused(id, call, message) => {
                    (id.clone(), call.method, self.send_refused(id, call, message))
                }
            };
            match sent {
                Ok(_) => any = true,
                Err(error) => {
                    let cause = error.to_string();
                    let lost = Call::unsent(method).lost::<R>(id, Fate::NotSent, Some(&cause));
                    self.told.push_back(lost);
                }
            }
        }
        any
    }

    fn send_request(
        &mut self,
        request: JsonRpcRequest<R::Req>,
        method: Method,
        turn: Turn,
    ) -> Result<Option<Flushed>, Error> {
        let id = request.id.clone();
        let token = request.request.get_meta().get_progress_token();
        match self.hand_down(JsonRpcMessage::Request(request), true) {
            Ok(Some(Sent { seq, size, kept, flushed })) => {
                let call = Call { size, kept, token, turn, ..Call::new(method, seq) };
                self.outbound.insert(id, call);
                self.overload.note_sent();
                Ok(flushed)
            }
            Ok(None) => Ok(None),
            Err(error) => {
                self.give_up(&id);
                let Error::Message(error) = error else { return Err(error) };
                self.framed.withdraw(&id);
                self.refuse_to_send(id, Call::unsent(method), &error);
                Ok(None)
            }
        }
    }

    /// Sends a request again that the peer has refused.
    fn send_refused(
        &mut self,
        id: RequestId,
        mut call: Call,
        message: Message,
    ) -> Result<Option<Flushed>, Error> {
        let sendable = match self.framed.get_ref().reserve(Retention::AnyPeer) {
            Ok(_) => self.framed.check(message.len()),
            Err(_) => Err(MessageError::QueueFull),
        };
        if let Err(error) = sendable {
            self.refuse_to_send(id, call, &error);
            return Ok(None);
        }
        call.ticket = self.send_kept(&id, &message)?;
        call.kept = Some(message);
        self.outbound.insert(id, call);
        self.overload.note_sent();
        Ok(None)
    }

    /// Sends the kept `message` of the request with this id again, however full the queue is.
    /// Returns its number.
    pub(super) fn send_kept(&mut self, id: &RequestId, message: &Message) -> Result<u64, Error> {
        let message = self.framed.again(message);
        let (seq, _) = self.framed.get_ref().enqueue(message, Retention::AnyPeer)?;
        self.framed.asked_again(id);
        Ok(seq)
    }

    /// Ends a call that cannot be sent, with an error to its caller.
    pub(super) fn refuse_to_send(&mut self, id: RequestId, call: Call, error: &MessageError) {
        tracing::debug!(%id, %error, "request not sent");
        self.told.push_back(call.refused::<R>(id, error));
        self.framed.get_ref().wake_reader();
    }

    /// Hands `item` to the layer below. Returns `None` if it need not be sent, or cannot and its
    /// caller is told.
    pub(super) fn hand_down(
        &mut self,
        item: TxJsonRpcMessage<R>,
        asks: bool,
    ) -> Result<Option<Sent>, Error> {
        let link = self.framed.get_ref().clone();
        let slot = match item {
            JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => link.reserve_answer(),
            _ if asks => link.reserve(Retention::AnyPeer),
            _ => link.reserve(Retention::ThisPeer),
        };
        let Ok(slot) = slot else {
            self.turn_away(item)?;
            return Ok(None);
        };
        let keep = asks && self.config.retry_refused;
        if let Some(restart) = &mut self.restart {
            let replay = match (&self.replay, &item) {
                (Some(policy), JsonRpcMessage::Request(request)) => policy(&request.request),
                _ => Replay::Never,
            };
            if !restart.remember(&item, replay, &mut self.framed)? {
                return Ok(None);
            }
        }
        let sent = match Pin::new(&mut self.framed).outgoing(item)? {
            Some(message) => {
                let (size, kept) = (message.len(), keep.then(|| message.clone()));
                let (seq, flushed) = slot.send(message)?;
                Sent { seq, size, kept, flushed: Some(flushed) }
            }
            // Its framing has no such message, or sends it later.
            None => Sent { seq: link.last_seq(), size: 0, kept: None, flushed: None },
        };
        while let Some(message) = Pin::new(&mut self.framed).next_owed() {
            Pin::new(&mut *self.framed.get_mut()).start_send(message)?;
        }
        Ok(Some(sent))
    }
}
