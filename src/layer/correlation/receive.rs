//! `Correlation::on_event`: handles messages of the peer, and the loss and return of the link.

use std::task::{Context, Poll};

use rmcp::{
    ErrorData,
    model::{InitializeResult, JsonRpcMessage, RequestId},
    service::RxJsonRpcMessage,
};

use super::{
    Correlation,
    inbound::{self, cancellation},
    overload::Overload,
    pending::{Call, Outcome, Shutdown},
    probe::Probe,
    retry::{is_refusal, is_too_many},
    superseded::{Superseded, ended_by},
};
use crate::{
    decode::method::Method,
    error::Error,
    framing::Framing,
    link::{Down, LinkEvent, LinkUp},
    role::McpRole,
};

impl<R: McpRole, F: Framing<R>> Correlation<R, F> {
    /// Handles an event of the link. Returns a message for the service above.
    pub(super) fn on_event(
        &mut self,
        event: LinkEvent<RxJsonRpcMessage<R>>,
        cx: &mut Context<'_>,
    ) -> Option<RxJsonRpcMessage<R>> {
        match event {
            LinkEvent::Item(mut message) => {
                let message = if self.accept_inbound(&mut message) {
                    let (config, codec, link) = (&self.config, &mut self.codec, &mut self.link);
                    self.inbound.deliver(message, config, codec, link, cx)
                } else {
                    None
                };
                self.send_replies();
                return message;
            }
            LinkEvent::Down(down) => self.on_lost(down),
            LinkEvent::Up(LinkUp::NewPeer) => self.begin_peer(),
            LinkEvent::Up(LinkUp::Unverified) => self.on_returned(),
            LinkEvent::Up(LinkUp::Resumed(resumed)) => {
                self.overload.note_resumed();
                if let Some(reinit) = &mut self.reinit {
                    reinit.resume(&resumed, &self.link);
                }
            }
        }
        None
    }

    /// Returns `true` if `message` is for the service above.
    fn accept_inbound(&mut self, message: &mut RxJsonRpcMessage<R>) -> bool {
        self.verify_peer(message);
        match message {
            JsonRpcMessage::Request(request) => {
                let accepted = self.inbound.accept(request, &self.config, &mut self.codec);
                if let Some(reinit) = &mut self.reinit {
                    reinit.on_request(R::method_of_peer(&request.request), &self.link);
                }
                accepted
            }
            JsonRpcMessage::Response(response) => {
                if let Some(error) = R::error_of_peer(&response.result) {
                    return self.accept_error(&mut response.id, &error);
                }
                let Some(call) = self.end_answered(&mut response.id) else { return false };
                self.note_room(&call);
                self.note_executed(&call);
                self.on_response(&response.id, Ok(R::initialize_result(&response.result)))
            }
            JsonRpcMessage::Error(error) => {
                let Some(id) = error.id.take().or_else(|| self.find_unnamed()) else {
                    self.on_unmatched(&error.error);
                    return false;
                };
                self.accept_error(error.id.insert(id), &error.error)
            }
            JsonRpcMessage::Notification(notification) => {
                if R::is_initialized_by_peer(&notification.notification)
                    && let Some(reinit) = &mut self.reinit
                {
                    reinit.on_peer_initialized(&self.link);
                }
                let Some(id) = R::cancelled_by_peer(&notification.notification).cloned() else {
                    self.note_progress(&notification.notification);
                    return true;
                };
                match self.inbound.cancel(id) {
                    Ok(above) => {
                        if R::cancelled_by_peer(&notification.notification) != Some(&above) {
                            let reason = inbound::CANCELLED.into();
                            notification.notification = cancellation(above, reason).into();
                        }
                        true
                    }
                    // In the lifecycle without `initialize`, the peer may cancel a subscription of ours.
                    Err(id) => self.is_subscription(&id) && self.abandon(&id).is_some(),
                }
            }
        }
    }

    /// Returns `true` if `error`, which answers the request with this id, is for the service above.
    fn accept_error(&mut self, id: &mut RequestId, error: &ErrorData) -> bool {
        if self.retry_refused(id, error) {
            return false;
        }
        let Some(call) = self.end_answered(id) else { return false };
        if !is_too_many(error) {
            self.note_room(&call);
        }
        if !is_refusal(error) {
            self.note_executed(&call);
        } else if call.may_have_run {
            // This peer has not executed it, and another may have.
            let cause = error.message.to_string();
            let unknown = call.lost::<R>(id.clone(), Outcome::Unknown, Some(&cause));
            if self.on_response(id, Err(error)) {
                self.synthesized.push_back(unknown);
            }
            return false;
        }
        self.on_response(id, Err(error))
    }

    /// Answers the requests of the peer whose handlers have panicked, where nobody has in time.
    pub(super) fn answer_panicked(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(id) = self.inbound.poll_panicked(cx) {
            tracing::error!(%id, "a handler has panicked: its request is answered with -32603");
            let error = ErrorData::internal_error("the handler panicked", None);
            if let Err(error) = self.send(JsonRpcMessage::error(error, Some(id))) {
                tracing::debug!(%error, "answer not sent");
            }
        }
    }

    fn is_subscription(&self, id: &RequestId) -> bool {
        self.pending.get(id).is_some_and(Call::is_subscription)
    }

    /// Ends the request in flight that `id` answers, and changes `id` to its own.
    fn end_answered(&mut self, id: &mut RequestId) -> Option<Call> {
        let known = self.pending.remove_answered(id);
        if known.is_none() {
            self.stats.record_orphan();
            tracing::debug!(%id, "response to no request in flight");
        }
        let (own, call) = known?;
        *id = own;
        self.read_progress.note_answered(&call);
        Some(call)
    }

    /// Records that the peer, in case it has too many requests, has one less. A ping says nothing
    /// of that: it is answered by a peer that refuses all else, and sent whatever waits.
    fn note_room(&mut self, call: &Call) {
        if call.method != Method::Ping {
            self.overload.note_answered();
            self.probe.note_answered();
        }
    }

    /// Records that the peer goes on serving requests. A ping says nothing of that either.
    fn note_executed(&mut self, call: &Call) {
        if call.method != Method::Ping
            && let Some(reinit) = &mut self.reinit
        {
            reinit.on_executed(call, &self.link);
        }
    }

    /// Returns a message for the layers above, unless it ends a `server/discover` that is
    /// [superseded](super::superseded).
    pub(super) fn withhold(&mut self, message: RxJsonRpcMessage<R>) -> Option<RxJsonRpcMessage<R>> {
        let Some(superseded) = &mut self.superseded else { return Some(message) };
        let message = superseded.withhold(message)?;
        if let Some(id) = ended_by(&message) {
            self.release_superseded(id);
        }
        Some(message)
    }

    /// Hands on what was withheld for an `initialize`, if that is the request that has `ended`.
    pub(super) fn release_superseded(&mut self, ended: &RequestId) {
        if let Some(superseded) = self.superseded.take_if(|superseded| superseded.awaits(ended)) {
            self.hand_on_withheld(*superseded);
        }
    }

    /// Hands on what was withheld, and has the reader come for it.
    pub(super) fn hand_on_withheld(&mut self, superseded: Superseded<R>) {
        self.synthesized.extend(superseded.into_ends());
        self.link.wake_reader();
    }

    /// Records the answer to a request of ours. Returns `true` if it is for the layers above.
    fn on_response(
        &mut self,
        id: &RequestId,
        result: Result<Option<&InitializeResult>, &ErrorData>,
    ) -> bool {
        let Some(reinit) = &mut self.reinit else { return true };
        reinit.on_response(id, result, &self.pending, &self.codec, &self.link)
    }

    /// Reports an error of the peer that names no request, while none or several are in flight.
    fn on_unmatched(&mut self, error: &ErrorData) {
        self.stats.record_orphan();
        if let Some(reinit) = &self.reinit {
            reinit.announce_unmatched(error);
        }
        let in_flight = self.pending.len();
        tracing::debug!(%error.message, "error without an id");
        if let Some(suppressed) = self.warnings.admit() {
            let code = error.code.0;
            tracing::warn!(
                code,
                in_flight,
                suppressed,
                "the peer sent an error that names no request"
            );
        }
    }

    /// Forgets a request of ours that nobody wants any more. Returns the call, if it was in flight.
    pub(super) fn abandon(&mut self, id: &RequestId) -> Option<Call> {
        if let Some(reinit) = &mut self.reinit {
            reinit.forget(id);
        }
        self.pending.remove(id).map(|(_, call)| call).or_else(|| self.waiting.remove(id))
    }

    /// Ends the requests that were handed to a link which is lost: the next may lead to another
    /// peer.
    fn on_lost(&mut self, mut down: Down) {
        self.overload.note_lost();
        let cause = down.cause.to_string();
        if let Some(read) = self.end_too_large(&down.cause, down.handed) {
            self.put_off_unread(read, down.handed);
            down.handed = read;
        }
        if let Some(reinit) = &mut self.reinit {
            reinit.note_requests_lost(&self.pending, down.handed);
        }
        let reinit = self.reinit.as_deref();
        let lost = self.pending.take(|id, call| {
            call.was_handed(down.handed) && !reinit.is_some_and(|reinit| reinit.keeps(id))
        });
        let tell = |(id, call): (_, Call)| call.lost::<R>(id, Outcome::Unknown, Some(&cause));
        self.synthesized.extend(lost.into_iter().map(tell));
        self.pending.note_lost(down.handed);
        if let Some(reinit) = &mut self.reinit {
            reinit.note_lost(&down);
        }
    }

    /// Begins with a peer that knows nothing of what was before: its predecessor's requests are
    /// cancelled.
    fn begin_peer(&mut self) {
        self.deadlines.clear_suspicions();
        self.overload = Overload::No;
        self.probe = Probe::default();
        let reason = "the connection on which it came is lost";
        for id in self.inbound.begin_peer() {
            // If a subscription of ours has this id, the layers above would take it for that one's.
            if !self.is_subscription(&id) {
                let cancelled = cancellation(id, reason.into());
                self.synthesized.push_back(JsonRpcMessage::notification(cancelled.into()));
            }
        }
        self.codec.on_new_peer(&self.pending);
        if let Some(reinit) = &mut self.reinit {
            reinit.begin_peer(&mut self.pending, &self.codec, &self.link);
        }
    }

    /// Awaits the first message of a peer that claims to be the former one.
    fn on_returned(&mut self) {
        match &mut self.reinit {
            Some(reinit) if !R::IS_CLIENT => {
                reinit.verify(self.codec.last_decoded().number);
                self.overload.note_resumed();
            }
            // An MCP server waits for `initialize`, whether it is a new one or the same.
            _ => {
                self.link.begin_anew();
                self.begin_peer();
            }
        }
    }

    /// Decides by the first message of a peer that has returned whether it is the former one.
    fn verify_peer(&mut self, message: &RxJsonRpcMessage<R>) {
        let Some(reinit) = self.reinit.as_mut().filter(|reinit| reinit.is_verifying()) else {
            return;
        };
        if reinit.recognizes::<R>(message) {
            self.link.release();
        } else {
            self.link.begin_anew();
            self.begin_peer();
        }
    }

    /// Ends all requests of ours: there is no more link. Returns what the layers above get first.
    pub(super) fn shut_down(
        &mut self,
        error: Option<Error>,
    ) -> Option<Result<RxJsonRpcMessage<R>, Error>> {
        self.inbound.clear_backlog();
        let handed = self.link.handed();
        let too_large = error.as_ref().and_then(|error| self.end_too_large(error, handed));
        self.pending.forget_own();
        let mut calls = self.pending.take(|_, _| true);
        // The link need not have ended yet: a Close of ours may wait until what is queued is
        // written.
        calls.extend(self.waiting.take());
        let seqs: Vec<_> = calls.iter().map(|(_, call)| call.seq).collect();
        let handed = self.link.withdraw_all(&seqs);
        let handed = too_large.map_or(handed, |read| handed.min(read));
        let shutdown = self.shutdown.insert(Shutdown::new(calls, handed, error));
        match self.synthesized.pop_front() {
            Some(message) => Some(Ok(message)),
            None => shutdown.next::<R>(),
        }
    }
}
