//! [`Pump`]: carries messages between a transport and an end.
//!
//! | state | the end is read | … written | ends by |
//! |---|---|---|---|
//! | `Open` | yes | yes | one of those below |
//! | `EndFinished`: the end has no more to say | no | yes | its requests are answered, or the time is over |
//! | `EndBroken`: the end cannot be written | yes | no | it has no more to say, or the time is over |
//! | `PeerGone`: the WebSocket has ended | no | yes | all is written, or the time is over |
//! | `Over` | no | no | – |
//!
//! The end is not read while the WebSocket's queue is full, unless that waits for another
//! connection: requests are refused then, rather than kept from their sender for long; those of a
//! client whose session may be resumed wait in line, as many as may be in flight. It is not read
//! either while too many answers to its own requests wait for it; for what others want of it, it
//! is: it may write before it reads on. The WebSocket is read always: its own limits bound what is
//! in flight, and its pings want answers.

use std::{
    collections::VecDeque,
    fmt,
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt, SinkExt, StreamExt};
use rmcp::{
    ErrorData,
    model::{JsonRpcMessage, JsonRpcRequest, RequestId},
};
use serde_json::json;
use tokio::time::{Sleep, sleep, timeout};

use super::{
    end::End,
    message::{RawMessage, RawRequest},
    role::RelayRole,
};
use crate::{
    close::{CloseCode, CloseReason},
    decode::malformed::{Malformed, MalformedKind},
    event::State,
    framing::decode_error::unreadable_answer,
    rpc_code::UNAVAILABLE,
    transport::{SinkStream, WebSocketTransport},
    warn_limit::WarnLimit,
};

/// Bytes of answers that may wait for the end to take them before it is not read any more.
const MAX_ANSWERS: usize = 16 << 20;

/// Requests of an end that may be in flight, or wait until the peer takes more.
const MAX_REQUESTS: usize = 4096;

/// Messages that are moved in one turn.
const TURN: usize = 64;

/// Time in which the rest of a broken end is read, or the rest is written to an end and it is
/// closed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Watcher of what goes through a relay, which may refuse requests of the peer.
pub(crate) trait Gate: Send {
    /// Decides on a request of the peer.
    ///
    /// # Errors
    /// The error to answer it with.
    fn admit(&mut self, request: &JsonRpcRequest<RawRequest>) -> Result<(), ErrorData>;

    /// Records a message of the peer that the end gets.
    fn note_inbound(&mut self, message: &RawMessage);

    /// Records a message of the end that the peer gets.
    fn note_outbound(&mut self, message: &RawMessage);
}

/// Gate that lets everything through.
impl Gate for () {
    fn admit(&mut self, _: &JsonRpcRequest<RawRequest>) -> Result<(), ErrorData> {
        Ok(())
    }

    fn note_inbound(&mut self, _: &RawMessage) {}

    fn note_outbound(&mut self, _: &RawMessage) {}
}

/// Cause of the end of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// The end had no more to say.
    EndFinished,
    /// The end could not be written, for this reason.
    EndBroken(String),
    /// The WebSocket ended, for this reason.
    PeerGone(CloseReason),
}

/// State of a relay; see the [module](self).
enum Phase {
    Open,
    EndFinished(Pin<Box<Sleep>>),
    EndBroken(Pin<Box<Sleep>>, String),
    PeerGone(Pin<Box<Sleep>>),
    Over(Ended),
}

pub(crate) struct Pump<R: RelayRole, E, G> {
    peer: SinkStream<R>,
    end: Pin<Box<E>>,
    gate: G,
    linger: Duration,
    phase: Phase,
    /// Messages that wait for the end, and the size of the answers among them.
    to_end: VecDeque<RawMessage>,
    answers: usize,
    is_end_unflushed: bool,
    is_peer_unflushed: bool,
    warnings: WarnLimit,
}

impl<R: RelayRole, E: End, G: Gate> Pump<R, E, G> {
    pub(crate) fn new(transport: WebSocketTransport<R>, end: E, gate: G, linger: Duration) -> Self {
        Self {
            peer: transport.into_sink_stream(),
            end: Box::pin(end),
            gate,
            linger,
            phase: Phase::Open,
            to_end: VecDeque::new(),
            answers: 0,
            is_end_unflushed: false,
            is_peer_unflushed: false,
            warnings: WarnLimit::default(),
        }
    }

    /// Carries messages until there are no more to carry. Cancel safe.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        for _ in 0..TURN {
            let to_end = self.poll_to_end(cx);
            let to_peer = self.poll_to_peer(cx);
            if let Poll::Ready(ended) = self.poll_phase(cx) {
                return Poll::Ready(ended);
            }
            if to_end.is_pending() && to_peer.is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Answers all that the peer still waits for with `error`.
    pub(crate) fn answer_all(&mut self, error: &ErrorData) {
        self.peer.transport().answer_all(error);
    }

    /// Closes both sides, within their time. What is queued is written first. A panic of the end is
    /// caught.
    pub(crate) async fn close(mut self, reason: Option<CloseReason>) {
        let transport = self.peer.transport();
        if let Some(reason) = reason {
            transport.set_close_reason(reason);
        }
        let closing_end = timeout(DRAIN_TIMEOUT, AssertUnwindSafe(self.end.close()).catch_unwind());
        let (closed, _) = futures::join!(closing_end, rmcp::transport::Transport::close(transport));
        if let Ok(Ok(Err(error))) = closed {
            tracing::debug!(%error, "the end of a relay is not closed");
        }
    }

    /// Takes one message of the peer, and writes one that waits to the end. Ready if it did either.
    fn poll_to_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let written = self.poll_write_end(cx);
        if matches!(self.phase, Phase::PeerGone(_) | Phase::Over(_)) {
            return written;
        }
        match self.peer.poll_next_unpin(cx) {
            Poll::Ready(Some(message)) => self.on_inbound(message),
            Poll::Ready(None) => self.phase = Phase::PeerGone(Box::pin(sleep(DRAIN_TIMEOUT))),
            Poll::Pending => return written,
        }
        Poll::Ready(())
    }

    /// Writes the next message that waits for the end, or flushes those before.
    fn poll_write_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if matches!(self.phase, Phase::EndBroken(..) | Phase::Over(_)) {
            return Poll::Pending;
        }
        let written = if self.to_end.is_empty() {
            if !self.is_end_unflushed {
                return Poll::Pending;
            }
            let flushed = ready!(self.end.poll_flush_unpin(cx));
            self.is_end_unflushed = false;
            flushed
        } else {
            let ready = ready!(self.end.poll_ready_unpin(cx));
            let Some(message) = self.to_end.pop_front() else { return Poll::Pending };
            self.answers -= size_of_answer(&message);
            self.is_end_unflushed = true;
            ready.and_then(|()| self.end.start_send_unpin(message))
        };
        if let Err(error) = written {
            self.on_end_broken(error.to_string());
        }
        Poll::Ready(())
    }

    fn on_inbound(&mut self, message: RawMessage) {
        if let JsonRpcMessage::Request(request) = &message {
            let admitted = match self.phase {
                Phase::Open => self.gate.admit(request),
                _ => Err(end_has_ended::<R>("not_sent")),
            };
            if let Err(error) = admitted {
                let id = request.id.clone();
                return self.send_to_peer(JsonRpcMessage::error(error, Some(id)));
            }
        }
        self.gate.note_inbound(&message);
        self.push_to_end(message);
    }

    fn push_to_end(&mut self, message: RawMessage) {
        if !matches!(self.phase, Phase::EndBroken(..) | Phase::Over(_)) {
            self.answers += size_of_answer(&message);
            self.to_end.push_back(message);
        }
    }

    /// Moves one message from the end to the peer. None is read while it could not be passed on.
    fn poll_to_peer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !matches!(self.phase, Phase::Open | Phase::EndBroken(..)) || self.answers > MAX_ANSWERS {
            return self.poll_flush_peer(cx);
        }
        let is_ready = self.peer.poll_ready_unpin(cx).is_ready();
        if !is_ready && !self.peer.transport().is_paused() {
            return Poll::Pending;
        }
        match self.end.poll_next_unpin(cx) {
            Poll::Ready(Some(Ok(message))) => self.send_to_peer(message),
            Poll::Ready(Some(Err(malformed))) => self.on_malformed(malformed),
            Poll::Ready(None) => self.finish(),
            Poll::Pending => return self.poll_flush_peer(cx),
        }
        Poll::Ready(())
    }

    /// Flushes what is queued for the peer, while there is no more to queue. Never ready.
    fn poll_flush_peer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_peer_unflushed && self.peer.poll_flush_unpin(cx).is_ready() {
            self.is_peer_unflushed = false;
        }
        Poll::Pending
    }

    /// Queues `message` for the peer. A request that cannot be is answered.
    fn send_to_peer(&mut self, message: RawMessage) {
        self.gate.note_outbound(&message);
        let id = match &message {
            JsonRpcMessage::Request(request) => Some(request.id.clone()),
            _ => None,
        };
        if let Some(id) = &id
            && let Err(error) = self.check_request(id)
        {
            return self.push_to_end(JsonRpcMessage::error(error, Some(id.clone())));
        }
        self.is_peer_unflushed = true;
        let Err(error) = self.peer.start_send_unpin(message) else { return };
        tracing::debug!(%error, "not passed on");
        if let Some(id) = id {
            self.push_to_end(JsonRpcMessage::error(not_sent(error.to_string()), Some(id)));
        }
    }

    /// Returns the error for a request of the end that is one too many.
    fn check_request(&mut self, id: &RequestId) -> Result<(), ErrorData> {
        let transport = self.peer.transport();
        if transport.is_pending(id) {
            let what = "a request with this id is already in flight";
            return Err(ErrorData::invalid_request(what, None));
        }
        if transport.pending() >= MAX_REQUESTS {
            return Err(not_sent(format!("{MAX_REQUESTS} requests are in flight already")));
        }
        Ok(())
    }

    /// Deals with what the end has said and is no message: whoever waits for it is told.
    fn on_malformed(&mut self, malformed: Malformed) {
        use MalformedKind as K;
        let Malformed { error, id, kind, answers, has_requests } = malformed;
        if let Some(suppressed) = self.warnings.admit() {
            let what = &error.message;
            tracing::warn!(%what, suppressed, "what the end of a relay says is no message: skipped");
        }
        let answers = answers.into_iter().chain(id.clone().filter(|_| kind == K::Response));
        let answers: Vec<RequestId> = answers.collect();
        if !answers.is_empty() {
            let unreadable = unreadable_answer(error.clone());
            for id in answers {
                self.send_to_peer(JsonRpcMessage::error(unreadable.clone(), Some(id)));
            }
            if has_requests && R::IS_CLIENT {
                self.push_to_end(JsonRpcMessage::error(error, None));
            }
        } else if kind == K::Request
            || R::IS_CLIENT && !matches!(kind, K::Response | K::Notification)
        {
            // A server is told only of requests that it has made itself.
            self.push_to_end(JsonRpcMessage::error(error, id));
        }
    }

    /// Reads no more of the end.
    pub(crate) fn finish(&mut self) {
        let timer = match std::mem::replace(&mut self.phase, Phase::Open) {
            Phase::Open => Box::pin(sleep(self.linger)),
            Phase::EndBroken(_, why) => {
                self.phase = Phase::Over(Ended::EndBroken(why));
                return self.answer_all(&end_has_ended::<R>("outcome_unknown"));
            }
            phase => return self.phase = phase,
        };
        self.phase = Phase::EndFinished(timer);
        self.answer_all(&end_has_ended::<R>("outcome_unknown"));
        self.is_peer_unflushed = true;
    }

    fn on_end_broken(&mut self, why: String) {
        tracing::debug!(%why, "the end of a relay cannot be written");
        self.phase = match std::mem::replace(&mut self.phase, Phase::Open) {
            Phase::Open => Phase::EndBroken(Box::pin(sleep(DRAIN_TIMEOUT)), why),
            Phase::EndFinished(_) => Phase::Over(Ended::EndBroken(why)),
            Phase::PeerGone(_) => Phase::Over(Ended::PeerGone(self.peer_reason())),
            phase => phase,
        };
        self.answers = 0;
        for message in std::mem::take(&mut self.to_end) {
            if let JsonRpcMessage::Request(request) = message {
                let error = JsonRpcMessage::error(end_has_ended::<R>("not_sent"), Some(request.id));
                self.send_to_peer(error);
            }
        }
    }

    /// Goes on to the next state when it is time. Ready when it is the last.
    fn poll_phase(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let is_written = self.to_end.is_empty() && !self.is_end_unflushed;
        let ended = match &mut self.phase {
            Phase::Open => return Poll::Pending,
            Phase::EndFinished(timer) => {
                let is_answered = is_written && self.peer.transport().pending() == 0;
                if !is_answered {
                    ready!(timer.as_mut().poll(cx));
                }
                Ended::EndFinished
            }
            Phase::EndBroken(timer, why) => {
                ready!(timer.as_mut().poll(cx));
                let ended = Ended::EndBroken(std::mem::take(why));
                self.answer_all(&end_has_ended::<R>("outcome_unknown"));
                ended
            }
            Phase::PeerGone(timer) => {
                if !is_written {
                    ready!(timer.as_mut().poll(cx));
                }
                Ended::PeerGone(self.peer_reason())
            }
            Phase::Over(ended) => ended.clone(),
        };
        self.phase = Phase::Over(ended.clone());
        Poll::Ready(ended)
    }

    fn peer_reason(&mut self) -> CloseReason {
        match &*self.peer.transport().state().borrow() {
            State::Closed(reason) => reason.clone(),
            _ => CloseCode::Abnormal.into(),
        }
    }
}

impl<R: RelayRole, E, G> fmt::Debug for Pump<R, E, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pump").field("waiting", &self.to_end.len()).finish_non_exhaustive()
    }
}

/// Returns the size of an answer that waits, in bytes; of any other message, 0.
fn size_of_answer(message: &RawMessage) -> usize {
    match message {
        JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => 0,
        JsonRpcMessage::Response(response) => {
            response.result.source.text.len() + size_of::<RawMessage>()
        }
        JsonRpcMessage::Error(error) => {
            let id = match &error.id {
                Some(RequestId::String(id)) => id.len(),
                _ => 0,
            };
            size_of::<RawMessage>() + id + error.error.message.len()
        }
    }
}

/// Builds the error for a request of the end that the peer does not get, for this reason.
fn not_sent(why: String) -> ErrorData {
    ErrorData::new(UNAVAILABLE, why, Some(json!({ "reason": "not_sent" })))
}

/// Builds the error for a request of the peer, which the end does not answer any more.
fn end_has_ended<R: RelayRole>(reason: &'static str) -> ErrorData {
    let end = name_of_end::<R>();
    let message = format!("the {end} behind this relay has ended");
    ErrorData::new(UNAVAILABLE, message, Some(json!({ "reason": reason })))
}

/// Returns what the end of a relay is.
pub(crate) fn name_of_end<R: RelayRole>() -> &'static str {
    if R::IS_CLIENT { "client" } else { "server" }
}
