//! Requests of this side wait while the peer has as many as it takes.

use rmcp::model::{
    ClientRequest, ListToolsRequest, SubscriptionFilter, SubscriptionsListenRequest,
    SubscriptionsListenRequestParams,
};

use rmcp::service::OriginatingRequestId;

use super::*;
use crate::{
    decode::Method,
    link::{MessageLimits, PeerLimits},
};

/// A stack whose peer takes two requests, and has them.
fn restrained(config: Config) -> (Spawn<Correlation<RoleClient, JsonRpc>>, Peer, PeerLimits) {
    let limits = PeerLimits::default();
    limits.set(MessageLimits::from_peer(None, Some(2)));
    let (link, peer) = fake::link();
    let shared = SharedLink::new(Reconnect::single(link), shared_link::Config::default());
    let framed = Framed::new(shared, JsonRpc::default(), framed::Config::default());
    let mut stack = spawn(Correlation::new(framed.within(limits.clone()), config));
    (1..=5).for_each(|id| stack.start_send_unpin(list(id)).unwrap());
    assert_pending!(stack.poll_next());
    assert_eq!(ids(&peer), [1, 2]);
    assert_eq!(stack.in_flight(), (5, 0));
    (stack, peer, limits)
}

fn cancel(stack: &mut Correlation<RoleClient, JsonRpc>, id: i64) {
    let cancelled = cancellation(RequestId::Number(id), "enough".into());
    stack.start_send_unpin(JsonRpcMessage::notification(cancelled.into())).unwrap();
}

/// The ids of what was sent.
fn ids(peer: &Peer) -> Vec<i64> {
    sent(peer).iter().map(|message| message["id"].as_i64().unwrap_or_default()).collect()
}

/// The peer answers, and that is passed up.
fn answer(stack: &mut Spawn<Correlation<RoleClient, JsonRpc>>, peer: &Peer, id: i64) {
    say(peer, json!({"jsonrpc": "2.0", "id": id, "result": {"tools": []}}));
    let item = assert_ready!(stack.poll_next()).unwrap().unwrap();
    assert!(matches!(item, JsonRpcMessage::Response(_)), "{item:?}");
}

#[tokio::test(start_paused = true)]
async fn each_answer_lets_the_next_request_go_in_order() {
    let (mut stack, peer, _) = restrained(Config::default());
    for (answered, next) in [(2, 3), (1, 4), (4, 5)] {
        answer(&mut stack, &peer, answered);
        // One that comes just now is behind those that wait.
        stack.start_send_unpin(list(10 + next)).unwrap();
        assert_pending!(stack.poll_next());
        assert_eq!(ids(&peer), [next]);
    }
}

#[tokio::test(start_paused = true)]
async fn answers_notifications_and_pings_do_not_wait_for_requests() {
    let (mut stack, peer, _) = restrained(Config::default());
    say(&peer, json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}));
    assert!(matches!(assert_ready!(stack.poll_next()), Some(Ok(JsonRpcMessage::Request(_)))));
    let result = rmcp::model::ClientResult::empty(());
    stack.start_send_unpin(JsonRpcMessage::response(result, RequestId::Number(1))).unwrap();
    let changed = rmcp::model::RootsListChangedNotification::default();
    stack.start_send_unpin(JsonRpcMessage::notification(changed.into())).unwrap();
    stack.start_send_unpin(ping::<RoleClient>(9)).unwrap();
    assert_pending!(stack.poll_next());
    assert_eq!(ids(&peer), [1, 0, 9]);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_cancelled_is_never_sent_and_makes_room() {
    let (mut stack, peer, _) = restrained(Config::default());
    cancel(&mut stack, 3);
    assert_pending!(stack.poll_next());
    assert!(peer.sent().is_empty(), "nobody there knows of it");
    cancel(&mut stack, 1);
    assert!(stack.is_woken());
    assert_pending!(stack.poll_next());
    let sent = sent(&peer);
    assert_eq!(sent[0]["method"], "notifications/cancelled");
    assert_eq!((sent.len(), &sent[1]["id"]), (2, &json!(4)));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_one_that_waits_passes() {
    let second = Duration::from_secs(1);
    let (mut stack, peer, _) = restrained(Config::default().deadline(second));
    advance(second).await;
    for (id, outcome) in [(1, "outcome_unknown"), (2, "outcome_unknown"), (3, "not_sent")] {
        let (ended, error) = next_error(&mut stack);
        assert_eq!(ended, Some(RequestId::Number(id)));
        assert_eq!(error.data.unwrap()["outcome"], outcome, "{id}");
    }
    next_error(&mut stack);
    next_error(&mut stack);
    assert_pending!(stack.poll_next());
    assert!(sent(&peer).iter().all(|sent| sent["method"] == "notifications/cancelled"));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_link_ends_those_that_wait_as_not_sent() {
    let (mut stack, peer, _) = restrained(Config::default());
    peer.send(Message::Close(Some(CloseCode::Restart.into())));
    for (id, reason) in (1..).zip(["outcome_unknown", "outcome_unknown", "not_sent", "not_sent"]) {
        let (ended, error) = next_error(&mut stack);
        assert_eq!(ended, Some(RequestId::Number(id)));
        assert_eq!(error.data.unwrap()["reason"], reason, "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_more_gets_more() {
    let (mut stack, peer, limits) = restrained(Config::default());
    limits.set(MessageLimits::from_peer(None, Some(4)));
    assert_pending!(stack.poll_next());
    assert_eq!(ids(&peer), [3, 4]);
    limits.set(MessageLimits::default());
    assert_pending!(stack.poll_next());
    assert_eq!(ids(&peer), [5]);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_too_large_when_its_turn_comes_ends_alone() {
    let (mut stack, peer, limits) = restrained(Config::default());
    let text = json!({"cursor": "x".repeat(2000)});
    let large = json!({"jsonrpc": "2.0", "id": 6, "method": "tools/list", "params": text});
    stack.start_send_unpin(serde_json::from_value(large).unwrap()).unwrap();
    stack.start_send_unpin(list(7)).unwrap();
    limits.set(MessageLimits::from_peer(Some(1024), None));
    let (id, error) = next_error(&mut stack);
    let data = error.data.unwrap();
    assert_eq!((id, &data["reason"]), (Some(RequestId::Number(6)), &json!("not_sent")));
    assert_eq!((&data["limit"], data["size"].as_u64() > Some(2000)), (&json!(1024), true));
    assert_pending!(stack.poll_next());
    assert_eq!(ids(&peer), [3, 4, 5, 7]);
}

/// A subscription stays open for as long as it is wanted.
#[tokio::test(start_paused = true)]
async fn nothing_waits_for_subscriptions_alone() {
    let (mut stack, peer, limits) = restrained(Config::default());
    [1, 2, 3, 4, 5].into_iter().for_each(|id| cancel(&mut stack, id));
    let listen = |id| {
        let listen = SubscriptionsListenRequest::new(SubscriptionsListenRequestParams::new(
            SubscriptionFilter::default(),
        ));
        JsonRpcMessage::request(ClientRequest::from(listen), RequestId::Number(id))
    };
    for id in [6, 7] {
        stack.start_send_unpin(listen(id)).unwrap();
    }
    assert_pending!(stack.poll_next());
    peer.sent();
    (8..=10).for_each(|id| stack.start_send_unpin(list(id)).unwrap());
    assert_pending!(stack.poll_next());
    assert_eq!(ids(&peer), [8]);
    // Beside one that ends there is nothing to be said for more than the peer takes.
    answer(&mut stack, &peer, 8);
    assert_pending!(stack.poll_next());
    assert_eq!(ids(&peer), [9]);
    limits.set(MessageLimits::from_peer(None, Some(1)));
    answer(&mut stack, &peer, 9);
    assert_pending!(stack.poll_next());
    assert_eq!(ids(&peer), [10]);
}

/// A repeated subscription of a former peer counts the same.
#[tokio::test(start_paused = true)]
async fn a_subscription_that_ends_is_no_longer_counted() {
    let mut outbound = PendingCalls::default();
    let id = RequestId::Number;
    outbound.insert(id(1), Call::new(Method::SubscriptionsListen, 1));
    outbound.insert(id(1), Call::new(Method::SubscriptionsListen, 2));
    assert!(outbound.are_subscriptions());
    outbound.insert(id(2), Call::new(Method::CallTool, 3));
    assert!(!outbound.are_subscriptions());
    assert!(outbound.remove(&id(2)).is_some() && outbound.are_subscriptions());
    assert_eq!(outbound.take(|_, _| true).len(), 1);
    outbound.insert(id(3), Call::new(Method::CallTool, 4));
    assert!(!outbound.are_subscriptions());
}

/// The requests that the peer has may wait for that answer.
#[tokio::test(start_paused = true)]
async fn what_a_client_asks_in_order_to_answer_does_not_wait() {
    let (mut stack, peer, _) = restrained(Config::default());
    say(&peer, json!({"jsonrpc": "2.0", "id": 7, "method": "ping"}));
    assert!(matches!(assert_ready!(stack.poll_next()), Some(Ok(JsonRpcMessage::Request(_)))));
    for (id, origin) in [(10, 8), (11, 7)] {
        let mut request = ListToolsRequest::default();
        request.extensions.insert(OriginatingRequestId(RequestId::Number(origin)));
        let request = JsonRpcMessage::request(request.into(), RequestId::Number(id));
        stack.start_send_unpin(request).unwrap();
    }
    assert_pending!(stack.poll_next());
    assert_eq!(ids(&peer), [11]);
    answer(&mut stack, &peer, 11);
    assert_pending!(stack.poll_next());
    assert!(peer.sent().is_empty());
}

fn refuse(peer: &Peer, id: i64) {
    let data = json!({"reason": "too_many_requests"});
    let error = json!({"code": -32000, "message": "too many", "data": data});
    say(peer, json!({"jsonrpc": "2.0", "id": id, "error": error}));
}

/// The answers to those that it has may be lost.
#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_none_of_those_that_it_has_is_sent_one_more() {
    let silence = Duration::from_secs(10);
    let (mut stack, peer, _) = restrained(Config::default());
    for _ in 0..3 {
        advance(silence - Duration::from_millis(1)).await;
        assert_pending!(stack.poll_next());
        assert!(peer.sent().is_empty());
        advance(Duration::from_millis(1)).await;
        assert!(stack.is_woken());
        assert_pending!(stack.poll_next());
        assert_eq!(ids(&peer), [3]);
        refuse(&peer, 3);
        assert_pending!(stack.poll_next());
        assert!(peer.sent().is_empty(), "it waits again");
    }
    advance(silence).await;
    assert_pending!(stack.poll_next());
    assert_eq!(ids(&peer), [3]);
    // So the peer takes one besides those.
    for (answered, next) in [(3, 4), (4, 5)] {
        answer(&mut stack, &peer, answered);
        assert_pending!(stack.poll_next());
        assert_eq!(ids(&peer), [next]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_or_may_refuse_for_good_is_sent_no_more_than_it_takes() {
    let (mut stack, peer, _) = restrained(Config::default());
    let (mut other, other_peer, _) = restrained(Config::default().retry_refused(false));
    stack.start_send_unpin(list(6)).unwrap();
    for (answered, next) in [(1, 3), (3, 4), (4, 5)] {
        advance(Duration::from_secs(9)).await;
        answer(&mut stack, &peer, answered);
        assert_pending!(stack.poll_next());
        assert_eq!(ids(&peer), [next]);
        assert_pending!(other.poll_next());
        assert!(other_peer.sent().is_empty());
    }
}
