mod backlog;
mod deadlines;
mod memory;
mod overload;
pub(super) mod panics;
mod restraint;
mod superseded;

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use rmcp::{
    ErrorData, RoleClient, RoleServer,
    model::{
        CancelledNotification, CancelledNotificationParam, GetExtensions, JsonRpcMessage,
        PingRequest, RequestId,
    },
};
use serde_json::{Value, json};
use tokio::time::advance;
use tokio_test::{
    assert_pending, assert_ready,
    task::{Spawn, spawn},
};

use super::{
    inbound::{MIN_NOTIFICATIONS, cancellation},
    pending::Call,
    *,
};
use crate::{
    close::CloseCode,
    framing::{BinaryPolicy, JsonRpc},
    layer::{
        Reconnect,
        fake::{self, Peer},
        framed, shared_link,
    },
    message::Message,
};

fn correlation<R: McpRole>(config: Config) -> (Correlation<R, JsonRpc>, Peer, Stats) {
    let (link, peer) = fake::link();
    let (shared, stats) = (
        SharedLink::new(Reconnect::single(link), shared_link::Config::default()),
        Stats::default(),
    );
    let framed = Framed::new(shared, JsonRpc::default(), framed::Config::default());
    (Correlation::with_stats(framed, config, stats.clone()), peer, stats)
}

fn ping<R: McpRole<Req: From<PingRequest>>>(id: i64) -> TxJsonRpcMessage<R> {
    JsonRpcMessage::request(PingRequest::default().into(), RequestId::Number(id))
}

fn list(id: i64) -> TxJsonRpcMessage<RoleClient> {
    let list = rmcp::model::ClientRequest::from(rmcp::model::ListToolsRequest::default());
    JsonRpcMessage::request(list, RequestId::Number(id))
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

/// The sides have ids of their own, and the same may name a request of both.
#[test]
fn a_late_cancellation_of_ours_is_not_told_and_ends_nothing_of_the_peer() {
    let (mut stack, peer, _) = correlation::<RoleClient>(Config::default());
    let request = json!({"jsonrpc": "2.0", "id": 7, "method": "roots/list"});
    say(&peer, request.clone());
    assert!(assert_ready!(spawn(stack.next()).poll()).unwrap().is_ok());
    let cancelled = cancellation(RequestId::Number(7), "too late".into());
    stack.start_send_unpin(JsonRpcMessage::notification(cancelled.into())).unwrap();
    assert_eq!(stack.in_flight(), (0, 1));
    say(&peer, request);
    assert_pending!(spawn(stack.next()).poll());
    let [refusal] = &sent(&peer)[..] else { panic!("nothing but a refusal") };
    assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&json!(7), &json!(-32600)));
}

#[test]
fn who_takes_no_answers_is_served_no_further() {
    let (link, peer) = fake::link();
    let shared =
        SharedLink::new(Reconnect::single(link), shared_link::Config::default().queue_bytes(1));
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

/// Messages that others offer to the link between the requests take no part in what is known of
/// them.
#[test]
fn broadcasts_between_requests_leave_what_is_known_of_them() {
    let (mut stack, peer, _) = correlation::<RoleServer>(Config::default());
    let shared = stack.link.clone();
    let broadcast = |count| (0..count).for_each(|_| shared.try_send(Message::text("{}")).unwrap());
    broadcast(3);
    stack.start_send_unpin(ping::<RoleServer>(1)).unwrap();
    broadcast(5);
    assert_pending!(spawn(stack.next()).poll());
    assert_eq!(peer.sent().len(), 9);
    peer.block(true);
    broadcast(7);
    stack.start_send_unpin(ping::<RoleServer>(2)).unwrap();
    broadcast(1);
    shared.cut();
    for (number, reason) in [(1, "outcome_unknown"), (2, "not_sent")] {
        match assert_ready!(spawn(stack.next()).poll()).unwrap().unwrap() {
            JsonRpcMessage::Error(error) => {
                assert_eq!(error.id, Some(RequestId::Number(number)));
                assert_eq!(error.error.data.unwrap()["reason"], reason);
            }
            other => panic!("{other:?} is no error"),
        }
    }
}

/// The link is ended by this side, whose Close waits behind what is queued.
#[test]
fn a_call_that_is_told_not_sent_is_not_sent_by_the_close_either() {
    let (link, peer) = fake::link();
    let shared = SharedLink::new(Reconnect::single(link), shared_link::Config::default());
    let framing = JsonRpc::default().binary(BinaryPolicy::Reject);
    let framed = Framed::new(shared, framing, framed::Config::default());
    let mut stack = Correlation::<RoleClient, _>::new(framed, Config::default());
    stack.start_send_unpin(ping::<RoleClient>(1)).unwrap();
    assert_pending!(spawn(stack.next()).poll());
    peer.block(true);
    stack.start_send_unpin(ping::<RoleClient>(2)).unwrap();
    say(&peer, json!({"jsonrpc": "2.0", "id": 7, "method": "ping"}));
    assert!(assert_ready!(spawn(stack.next()).poll()).unwrap().is_ok());
    let answer =
        JsonRpcMessage::response(rmcp::model::ClientResult::empty(()), RequestId::Number(7));
    stack.start_send_unpin(answer).unwrap();
    peer.send(Message::Binary("{}".into()));
    for reason in ["outcome_unknown", "not_sent"] {
        assert_eq!(next_error(&mut stack).1.data.unwrap()["reason"], reason);
    }
    assert!(stack.start_send_unpin(ping::<RoleClient>(3)).is_err(), "nobody would end it");
    peer.block(false);
    assert!(assert_ready!(spawn(stack.close()).poll()).is_ok());
    let [ping, answer, close] = &peer.sent()[..] else { panic!("a call, an answer and a Close") };
    for (message, id) in [(ping, 1), (answer, 7)] {
        let Message::Text(text) = message else { panic!("{message:?} is no text") };
        let json: Value = serde_json::from_slice(text.as_bytes()).unwrap();
        assert_eq!(json["id"], id);
    }
    assert!(matches!(close, Message::Close(Some(reason)) if reason.code == CloseCode::Unsupported));
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

/// The answer was read while the cause of a failed write was looked for.
#[tokio::test]
async fn what_arrived_before_the_end_is_told_even_while_requests_wait() {
    for refused in [false, true] {
        let (link, peer) = fake::link();
        let shared =
            SharedLink::new(Reconnect::single(link), shared_link::Config::default().queue_bytes(1));
        let framed =
            Framed::<RoleServer, _, _>::new(shared, JsonRpc::default(), framed::Config::default());
        let mut stack = spawn(Correlation::new(framed, Config::default()));
        peer.block(true);
        stack.start_send_unpin(ping::<RoleServer>(9)).unwrap();
        say(&peer, json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}));
        if refused {
            say(&peer, json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}));
        }
        assert_pending!(stack.poll_next());
        say(&peer, json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}));
        say(&peer, json!({"jsonrpc": "2.0", "id": 9, "result": {}}));
        peer.send(Message::Close(Some(CloseCode::Restart.into())));
        peer.break_writes();
        let item = assert_ready!(stack.poll_next()).unwrap();
        assert!(matches!(item, Ok(JsonRpcMessage::Response(_))), "{item:?}");
        let error = assert_ready!(stack.poll_next()).unwrap().unwrap_err();
        assert_eq!(error.to_string(), "closed: 1012 (service restart)");
    }
}

#[test]
fn a_refusal_that_cannot_be_sent_harms_nobody() {
    let (link, peer) = fake::link();
    let shared = SharedLink::new(Reconnect::single(link), shared_link::Config::default());
    let config = framed::Config::default().max_message_size(300);
    let framed = Framed::<RoleServer, _, _>::new(shared, JsonRpc::default(), config);
    let mut stack = spawn(Correlation::new(framed, Config::default()));
    let request = json!({"jsonrpc": "2.0", "id": "x".repeat(300), "method": "ping"});
    for message in [&request, &request, &json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})] {
        say(&peer, message.clone());
    }
    for _ in 0..2 {
        let item = assert_ready!(stack.poll_next()).unwrap();
        assert!(matches!(item, Ok(JsonRpcMessage::Request(_))), "{item:?}");
    }
}
