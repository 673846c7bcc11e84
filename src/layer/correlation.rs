//! [`Correlation`]: knows every request in flight, in both directions, and ends each exactly once.
//!
//! | what happens | what follows |
//! |---|---|
//! | a response to a request of ours | passed up; the request is done |
//! | a response to none, or too late | dropped and counted |
//! | a request of ours passes its deadline | it ends with an error; the peer is sent `notifications/cancelled` |
//! | a request from the peer | passed up |
//! | … whose id is in flight already | refused with `-32600`; the first is undisturbed |
//! | … while the cap is reached | refused with `-32000`; nothing is executed |
//! | the link ends | each request of ours ends with an error that says whether it may have run |

use std::{
    collections::{HashMap, HashSet, VecDeque},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
    vec,
};

use futures::{Sink, Stream};
use rmcp::{
    ErrorData,
    model::{
        CancelledNotification, CancelledNotificationParam, ErrorCode, JsonRpcMessage, RequestId,
    },
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};
use rustc_hash::FxBuildHasher;
use serde_json::json;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Framed, Shared};
use crate::{
    decode::{Calls, Method, Role},
    error::Error,
    framing::Framing,
    stats::Stats,
};

/// The JSON-RPC code of an error made by this side for a request whose link was lost, and of the
/// refusal of one request too many. Its `data` says which.
pub const UNAVAILABLE: ErrorCode = ErrorCode(-32000);

/// The JSON-RPC code of an error made by this side for a request past its deadline.
pub const TIMED_OUT: ErrorCode = ErrorCode(-32001);

/// The bounds that a [`Correlation`] keeps.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// A request of ours is given up after this time. `None`, the default, leaves that to rmcp's
    /// own request timeouts.
    pub deadline: Option<Duration>,
    /// How many requests of the peer may be in flight: 1,024. Each is a task of rmcp's.
    pub max_inbound: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { deadline: None, max_inbound: 1024 }
    }
}

impl Config {
    /// Sets [`deadline`](Self::deadline).
    #[must_use]
    pub fn deadline(mut self, deadline: impl Into<Option<Duration>>) -> Self {
        self.deadline = deadline.into();
        self
    }

    /// Sets [`max_inbound`](Self::max_inbound).
    #[must_use]
    pub fn max_inbound(mut self, requests: usize) -> Self {
        self.max_inbound = requests;
        self
    }
}

/// The requests in flight, over a [`Framed`] to which it lends their methods.
#[derive(Debug)]
#[must_use = "a layer does nothing unless polled"]
pub struct Correlation<R: Role, F> {
    config: Config,
    stats: Stats,
    outbound: Outbound,
    inbound: HashSet<RequestId>,
    deadlines: VecDeque<(Instant, RequestId)>,
    timer: Option<Pin<Box<Sleep>>>,
    /// A request that waits until the outbound queue has room: who reads no answers is served no
    /// further.
    held: Option<RxJsonRpcMessage<R>>,
    ending: Option<Ending>,
    framed: Framed<R, Shared, F>,
}

/// Nothing in it is pinned.
impl<R: Role, F> Unpin for Correlation<R, F> {}

/// The link has ended: what is still to be told, and to whom.
#[derive(Debug)]
struct Ending {
    calls: vec::IntoIter<(RequestId, Call)>,
    handed: u64,
    error: Option<Error>,
}

/// The ids are our own, so the hasher need not withstand an attacker.
#[derive(Debug, Default)]
struct Outbound(HashMap<RequestId, Call, FxBuildHasher>);

#[derive(Debug, Clone, Copy)]
struct Call {
    method: Method,
    /// Its place in the order of all that was sent.
    ticket: u64,
}

impl Outbound {
    /// Takes out the request that `id` answers. Some servers return a number as a string, which rmcp
    /// allows too.
    fn remove(&mut self, id: &RequestId) -> Option<Call> {
        self.0.remove(id).or_else(|| match id {
            RequestId::String(text) => self.0.remove(&RequestId::Number(text.parse().ok()?)),
            RequestId::Number(_) => None,
        })
    }
}

impl Calls for Outbound {
    fn method(&self, id: &RequestId) -> Option<Method> {
        self.0.get(id).map(|call| call.method)
    }
}

impl<R: Role, F: Framing<R>> Correlation<R, F> {
    /// Keeps track of what goes through `framed`.
    pub fn new(framed: Framed<R, Shared, F>, config: Config) -> Self {
        Self::with_stats(framed, config, Stats::default())
    }

    /// The same, with the counters in which dropped and refused messages are noted.
    pub fn with_stats(framed: Framed<R, Shared, F>, config: Config, stats: Stats) -> Self {
        Self {
            config,
            stats,
            outbound: Outbound::default(),
            inbound: HashSet::new(),
            deadlines: VecDeque::new(),
            timer: None,
            held: None,
            ending: None,
            framed,
        }
    }

    /// How many requests are in flight: ours, and the peer's.
    #[must_use]
    pub fn in_flight(&self) -> (usize, usize) {
        (self.outbound.0.len(), self.inbound.len())
    }

    /// Whether `message` is for the service above.
    fn admit(&mut self, message: &RxJsonRpcMessage<R>) -> Result<bool, Error> {
        match message {
            JsonRpcMessage::Request(request) => {
                let room = self.inbound.len() < self.config.max_inbound;
                if room && self.inbound.insert(request.id.clone()) {
                    return Ok(true);
                }
                let error = if room || self.inbound.contains(&request.id) {
                    ErrorData::invalid_request("a request with this id is already in flight", None)
                } else {
                    let data =
                        json!({ "reason": "too_many_requests", "limit": self.config.max_inbound });
                    ErrorData::new(UNAVAILABLE, "too many requests in flight", Some(data))
                };
                self.stats.refused();
                tracing::debug!(id = %request.id, %error.message, "request refused");
                let refusal = JsonRpcMessage::error(error, Some(request.id.clone()));
                Pin::new(&mut self.framed).reply(refusal)?;
                Ok(false)
            }
            JsonRpcMessage::Response(response) => Ok(self.settle(Some(&response.id))),
            JsonRpcMessage::Error(error) => Ok(self.settle(error.id.as_ref())),
            JsonRpcMessage::Notification(notification) => {
                if let Some(id) = R::cancelled_by_peer(&notification.notification) {
                    // It cancels a request of its own or, in the era without `initialize`, a
                    // subscription of ours.
                    if !self.inbound.remove(id)
                        && self.outbound.method(id) == Some(Method::SubscriptionsListen)
                    {
                        self.outbound.remove(id);
                    }
                }
                Ok(true)
            }
        }
    }

    /// Whether the request with this id was in flight; it no longer is.
    fn settle(&mut self, id: Option<&RequestId>) -> bool {
        let known = id.is_some_and(|id| self.outbound.remove(id).is_some());
        if !known {
            self.stats.orphan();
            tracing::debug!(?id, "response to no request in flight");
        }
        known
    }

    /// The next request of ours past its deadline, with the error that ends it.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<RxJsonRpcMessage<R>> {
        loop {
            while self.deadlines.front().is_some_and(|(_, id)| !self.outbound.0.contains_key(id)) {
                self.deadlines.pop_front();
            }
            let (Some((due, _)), Some(deadline)) = (self.deadlines.front(), self.config.deadline)
            else {
                self.timer = None;
                return Poll::Pending;
            };
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(*due)));
            if timer.deadline() != *due {
                timer.as_mut().reset(*due);
            }
            ready!(timer.as_mut().poll(cx));
            let Some((_, id)) = self.deadlines.pop_front() else { continue };
            self.outbound.remove(&id);
            let reason = format!("no response within {deadline:?}");
            let param = CancelledNotificationParam::new(Some(id.clone()), Some(reason.clone()));
            let cancelled = CancelledNotification::new(param);
            let _ =
                Pin::new(&mut self.framed).reply(JsonRpcMessage::notification(cancelled.into()));
            let data = json!({ "reason": "timed_out" });
            return Poll::Ready(JsonRpcMessage::error(
                ErrorData::new(TIMED_OUT, reason, Some(data)),
                Some(id),
            ));
        }
    }

    fn end(&mut self, error: Option<Error>) -> &mut Ending {
        let handed = self.framed.get_ref().handed();
        let mut calls: Vec<_> = self.outbound.0.drain().collect();
        calls.sort_unstable_by_key(|(_, call)| call.ticket);
        self.held = None;
        self.ending.insert(Ending { calls: calls.into_iter(), handed, error })
    }
}

impl Ending {
    /// One call's error after the other, then the cause, then nothing.
    fn next<R: Role>(&mut self) -> Option<Result<RxJsonRpcMessage<R>, Error>> {
        let Some((id, call)) = self.calls.next() else {
            return self.error.take().map(Err);
        };
        let (reason, message) = if call.ticket > self.handed {
            ("not_sent", "the connection was lost before the request was sent")
        } else {
            ("outcome_unknown", "the connection was lost before the response arrived")
        };
        let cause = self.error.as_ref().map(ToString::to_string);
        let data = json!({ "reason": reason, "cause": cause, "method": call.method.name() });
        Some(Ok(JsonRpcMessage::error(ErrorData::new(UNAVAILABLE, message, Some(data)), Some(id))))
    }
}

impl<R: Role, F: Framing<R>> Stream for Correlation<R, F> {
    type Item = Result<RxJsonRpcMessage<R>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(ending) = &mut this.ending {
            return Poll::Ready(ending.next::<R>());
        }
        let end = loop {
            if this.held.is_some() {
                match Pin::new(&mut this.framed).poll_ready(cx) {
                    Poll::Ready(Ok(())) => return Poll::Ready(this.held.take().map(Ok)),
                    Poll::Ready(Err(error)) => break Some(error),
                    Poll::Pending => return this.poll_overdue(cx).map(|message| Some(Ok(message))),
                }
            }
            match Pin::new(&mut this.framed).poll_decode(cx, &this.outbound) {
                Poll::Ready(Some(Ok(message))) => match this.admit(&message) {
                    Ok(true) => {
                        let at_once = !matches!(message, JsonRpcMessage::Request(_))
                            || matches!(
                                Pin::new(&mut this.framed).poll_ready(cx),
                                Poll::Ready(Ok(()))
                            );
                        if at_once {
                            return Poll::Ready(Some(Ok(message)));
                        }
                        this.held = Some(message);
                    }
                    Ok(false) => {}
                    Err(error) => break Some(error),
                },
                Poll::Ready(Some(Err(error))) => break Some(error),
                Poll::Ready(None) => break None,
                Poll::Pending => return this.poll_overdue(cx).map(|message| Some(Ok(message))),
            }
        };
        Poll::Ready(this.end(end).next::<R>())
    }
}

impl<R: Role, F: Framing<R>> Sink<TxJsonRpcMessage<R>> for Correlation<R, F> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.framed).poll_ready(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, item: TxJsonRpcMessage<R>) -> Result<(), Error> {
        let this = &mut *self;
        let call = match &item {
            JsonRpcMessage::Request(request) => {
                Some((request.id.clone(), R::method_of(&request.request)))
            }
            JsonRpcMessage::Response(response) => {
                this.inbound.remove(&response.id);
                None
            }
            JsonRpcMessage::Error(error) => {
                let _ = error.id.as_ref().map(|id| this.inbound.remove(id));
                None
            }
            JsonRpcMessage::Notification(notification) => {
                if let Some(id) = R::cancelled(&notification.notification)
                    && this.outbound.remove(id).is_none()
                {
                    this.inbound.remove(id);
                }
                None
            }
        };
        Pin::new(&mut this.framed).start_send(item)?;
        if let Some((id, method)) = call {
            if let Some(deadline) = this.config.deadline {
                // Those already answered are forgotten now and then, not only when they are due.
                if this.deadlines.len() > 2 * this.outbound.0.len() + 64 {
                    this.deadlines.retain(|(_, id)| this.outbound.0.contains_key(id));
                }
                this.deadlines.push_back((Instant::now() + deadline, id.clone()));
            }
            let ticket = this.framed.get_ref().ticket();
            this.outbound.0.insert(id, Call { method, ticket });
        }
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.framed).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.framed).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::{SinkExt, StreamExt};
    use rmcp::{RoleClient, RoleServer, model::PingRequest};
    use serde_json::Value;
    use tokio::time::advance;
    use tokio_test::{assert_pending, assert_ready, task::spawn};

    use super::*;
    use crate::{
        error::CloseCode,
        framing::JsonRpc,
        layer::{
            fake::{self, Peer},
            framed, shared,
        },
        message::Message,
    };

    fn correlation<R: Role>(config: Config) -> (Correlation<R, JsonRpc>, Peer, Stats) {
        let (link, peer) = fake::link();
        let (shared, stats) = (Shared::new(link, shared::Config::default()), Stats::default());
        let framed = Framed::new(shared, JsonRpc::default(), framed::Config::default());
        (Correlation::with_stats(framed, config, stats.clone()), peer, stats)
    }

    fn ping<R: Role<Req: From<PingRequest>>>(id: i64) -> TxJsonRpcMessage<R> {
        JsonRpcMessage::request(PingRequest::default().into(), RequestId::Number(id))
    }

    fn say(peer: &Peer, message: Value) {
        peer.send(Message::text(message.to_string()));
    }

    fn sent(peer: &Peer) -> Vec<Value> {
        let json = |message| match message {
            Message::Text(text) => serde_json::from_slice(text.as_bytes()).unwrap(),
            other => panic!("{other:?} is no text"),
        };
        peer.sent().into_iter().map(json).collect()
    }

    /// The next item, which must be an error for a call.
    fn next_error(stack: &mut Correlation<RoleClient, JsonRpc>) -> (Option<RequestId>, ErrorData) {
        match assert_ready!(spawn(stack.next()).poll()).unwrap().unwrap() {
            JsonRpcMessage::Error(error) => (error.id, error.error),
            other => panic!("{other:?} is no error"),
        }
    }

    #[test]
    fn a_response_ends_its_request_once() {
        let (mut stack, peer, stats) = correlation::<RoleClient>(Config::default());
        stack.start_send_unpin(ping::<RoleClient>(1)).unwrap();
        say(&peer, json!({"jsonrpc": "2.0", "id": 2, "result": {}}));
        say(&peer, json!({"jsonrpc": "2.0", "id": "1", "result": {}}));
        say(&peer, json!({"jsonrpc": "2.0", "id": 1, "result": {}}));
        let item = assert_ready!(spawn(stack.next()).poll()).unwrap().unwrap();
        assert!(matches!(item, JsonRpcMessage::Response(_)));
        assert_pending!(spawn(stack.next()).poll());
        assert_eq!(stats.snapshot().orphans, 2);
        assert_eq!(stack.in_flight(), (0, 0));
    }

    #[test]
    fn an_id_in_flight_is_refused_and_free_again_once_answered() {
        let (mut stack, peer, stats) = correlation::<RoleServer>(Config::default());
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
        say(&peer, request.clone());
        say(&peer, request.clone());
        assert!(assert_ready!(spawn(stack.next()).poll()).unwrap().is_ok());
        assert_pending!(spawn(stack.next()).poll());
        let [refusal] = &sent(&peer)[..] else { panic!("one refusal") };
        assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&json!(1), &json!(-32600)));
        assert_eq!(stats.snapshot().refused, 1);

        let answer =
            JsonRpcMessage::response(rmcp::model::ServerResult::empty(()), RequestId::Number(1));
        stack.start_send_unpin(answer).unwrap();
        say(&peer, request);
        assert!(assert_ready!(spawn(stack.next()).poll()).unwrap().is_ok());
    }

    #[test]
    fn at_the_cap_requests_are_refused_and_all_else_passes() {
        let (mut stack, peer, _) = correlation::<RoleServer>(Config::default().max_inbound(1));
        stack.start_send_unpin(ping::<RoleServer>(9)).unwrap();
        say(&peer, json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}));
        say(&peer, json!({"jsonrpc": "2.0", "id": 2, "method": "ping"}));
        say(&peer, json!({"jsonrpc": "2.0", "id": 9, "result": {}}));
        say(
            &peer,
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}),
        );
        say(&peer, json!({"jsonrpc": "2.0", "id": 3, "method": "ping"}));
        let mut kinds = Vec::new();
        for _ in 0..4 {
            kinds.push(match assert_ready!(spawn(stack.next()).poll()).unwrap().unwrap() {
                JsonRpcMessage::Request(request) => format!("request {}", request.id),
                JsonRpcMessage::Response(response) => format!("response {}", response.id),
                JsonRpcMessage::Notification(_) => "cancelled".into(),
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(kinds, ["request 1", "response 9", "cancelled", "request 3"]);
        assert_pending!(spawn(stack.next()).poll());
        let refusal = &sent(&peer)[1];
        assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&json!(2), &json!(-32000)));
        assert_eq!(refusal["error"]["data"]["reason"], "too_many_requests");
    }

    #[test]
    fn who_takes_no_answers_is_served_no_further() {
        let (link, peer) = fake::link();
        let shared = Shared::new(link, shared::Config::default().queue_bytes(1));
        let framed =
            Framed::<RoleServer, _, _>::new(shared, JsonRpc::default(), framed::Config::default());
        let mut stack = spawn(Correlation::new(framed, Config::default()));
        peer.block(true);
        stack.start_send_unpin(ping::<RoleServer>(9)).unwrap();
        say(&peer, json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}));
        assert_pending!(stack.poll_next());
        peer.block(false);
        assert!(stack.is_woken());
        assert!(assert_ready!(stack.poll_next()).unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_ends_the_call_and_tells_the_peer() {
        let second = Duration::from_secs(1);
        let (stack, peer, stats) =
            correlation::<RoleClient>(Config::default().deadline(5 * second));
        let mut stack = spawn(stack);
        stack.start_send_unpin(ping::<RoleClient>(1)).unwrap();
        advance(second).await;
        stack.start_send_unpin(ping::<RoleClient>(2)).unwrap();
        assert_pending!(stack.poll_next());
        say(&peer, json!({"jsonrpc": "2.0", "id": 1, "result": {}}));
        assert!(matches!(assert_ready!(stack.poll_next()), Some(Ok(JsonRpcMessage::Response(_)))));
        peer.sent();
        advance(4 * second).await;
        assert_pending!(stack.poll_next());
        advance(second).await;
        assert!(stack.is_woken());
        let (id, error) = next_error(&mut stack);
        assert_eq!((id, error.code), (Some(RequestId::Number(2)), TIMED_OUT));
        say(&peer, json!({"jsonrpc": "2.0", "id": 2, "result": {}}));
        assert_pending!(stack.poll_next());
        let [cancelled] = &sent(&peer)[..] else { panic!("one notification") };
        assert_eq!(cancelled["method"], "notifications/cancelled");
        assert_eq!(cancelled["params"]["requestId"], 2);
        assert_eq!(stats.snapshot().orphans, 1);
    }

    #[test]
    fn the_end_of_the_link_ends_every_call_and_says_what_is_known() {
        let (mut stack, peer, _) = correlation::<RoleClient>(Config::default());
        stack.start_send_unpin(ping::<RoleClient>(1)).unwrap();
        stack.start_send_unpin(ping::<RoleClient>(2)).unwrap();
        assert_pending!(spawn(stack.next()).poll());
        peer.block(true);
        stack.start_send_unpin(ping::<RoleClient>(3)).unwrap();
        peer.send(Message::Close(Some(CloseCode::Restart.into())));
        for (number, reason) in [(1, "outcome_unknown"), (2, "outcome_unknown"), (3, "not_sent")] {
            let (id, error) = next_error(&mut stack);
            assert_eq!((id, error.code), (Some(RequestId::Number(number)), UNAVAILABLE));
            let data = error.data.unwrap();
            assert_eq!((&data["reason"], &data["method"]), (&json!(reason), &json!("ping")));
            assert_eq!(data["cause"], "closed: 1012 (service restart)");
        }
        assert!(assert_ready!(spawn(stack.next()).poll()).unwrap().is_err());
        assert!(assert_ready!(spawn(stack.next()).poll()).is_none());
        assert!(stack.start_send_unpin(ping::<RoleClient>(4)).is_err());
    }

    #[test]
    fn a_request_that_was_cancelled_is_no_longer_in_flight() {
        let (mut stack, _peer, _) = correlation::<RoleClient>(Config::default());
        stack.start_send_unpin(ping::<RoleClient>(1)).unwrap();
        let param = CancelledNotificationParam::new(Some(RequestId::Number(1)), None);
        let cancelled = JsonRpcMessage::notification(CancelledNotification::new(param).into());
        stack.start_send_unpin(cancelled).unwrap();
        assert_eq!(stack.in_flight(), (0, 0));
    }
}
