use rmcp::model::ProgressToken;

use super::*;

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_call_and_tells_the_peer() {
    let second = Duration::from_secs(1);
    let (stack, peer, stats) = correlation::<RoleClient>(Config::default().deadline(5 * second));
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
    let data = json!({"reason": "timed_out", "outcome": "outcome_unknown", "method": "ping"});
    assert_eq!(error.data, Some(data));
    say(&peer, json!({"jsonrpc": "2.0", "id": 2, "result": {}}));
    assert_pending!(stack.poll_next());
    let [cancelled] = &sent(&peer)[..] else { panic!("one notification") };
    assert_eq!(cancelled["method"], "notifications/cancelled");
    assert_eq!(cancelled["params"]["requestId"], 2);
    assert_eq!(stats.snapshot().orphans, 1);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_says_of_a_call_that_was_not_sent_that_it_was_not() {
    let second = Duration::from_secs(1);
    let (mut stack, peer, _) = correlation::<RoleClient>(Config::default().deadline(second));
    peer.block(true);
    stack.start_send_unpin(ping::<RoleClient>(1)).unwrap();
    advance(second).await;
    let (_, error) = next_error(&mut stack);
    let data = error.data.unwrap();
    assert_eq!((&data["reason"], &data["outcome"]), (&json!("timed_out"), &json!("not_sent")));
    peer.block(false);
    assert_pending!(spawn(stack.next()).poll());
    assert!(peer.sent().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_passes_while_the_peer_goes_on_talking() {
    let second = Duration::from_secs(1);
    let (stack, peer, _) = correlation::<RoleClient>(Config::default().deadline(5 * second));
    let mut stack = spawn(stack);
    stack.start_send_unpin(ping::<RoleClient>(1)).unwrap();
    let chatter = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    for _ in 0..5 {
        say(&peer, chatter.clone());
        let item = assert_ready!(stack.poll_next());
        assert!(matches!(item, Some(Ok(JsonRpcMessage::Notification(_)))), "{item:?}");
        advance(second).await;
    }
    say(&peer, chatter);
    let (id, error) = next_error(&mut stack);
    assert_eq!((id, error.code), (Some(RequestId::Number(1)), TIMED_OUT));
}

/// A request whose progress is told by this token, as rmcp makes it.
fn told(id: i64) -> TxJsonRpcMessage<RoleClient> {
    let mut request = PingRequest::default();
    let mut meta = rmcp::model::RequestMetaObject::default();
    meta.set_progress_token(ProgressToken(RequestId::Number(100 + id)));
    request.extensions.insert(meta);
    JsonRpcMessage::request(request.into(), RequestId::Number(id))
}

fn progress(peer: &Peer, id: i64) {
    let params = json!({"progressToken": 100 + id, "progress": 1});
    say(peer, json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}));
}

fn notification(stack: &mut Spawn<Correlation<RoleClient, JsonRpc>>) {
    let item = assert_ready!(stack.poll_next());
    assert!(matches!(item, Some(Ok(JsonRpcMessage::Notification(_)))), "{item:?}");
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn progress_starts_the_deadline_of_its_own_call_anew() {
    let (stack, peer, _) = correlation::<RoleClient>(Config::default().deadline(5 * SECOND));
    let mut stack = spawn(stack);
    stack.start_send_unpin(told(1)).unwrap();
    stack.start_send_unpin(told(2)).unwrap();
    assert_pending!(stack.poll_next());
    advance(4 * SECOND).await;
    progress(&peer, 2);
    notification(&mut stack);
    advance(SECOND).await;
    let (id, error) = next_error(&mut stack);
    assert_eq!((id, error.code), (Some(RequestId::Number(1)), TIMED_OUT));
    for _ in 0..10 {
        advance(3 * SECOND).await;
        progress(&peer, 2);
        notification(&mut stack);
        assert_pending!(stack.poll_next());
    }
    advance(5 * SECOND).await;
    assert!(stack.is_woken());
    assert_eq!(next_error(&mut stack).0, Some(RequestId::Number(2)));
}

#[tokio::test(start_paused = true)]
async fn the_whole_is_bounded_whatever_progress_is_told() {
    let config = Config::default().deadline(5 * SECOND).deadline_total(12 * SECOND);
    let (stack, peer, _) = correlation::<RoleClient>(config);
    let mut stack = spawn(stack);
    stack.start_send_unpin(told(1)).unwrap();
    for _ in 0..3 {
        assert_pending!(stack.poll_next());
        advance(4 * SECOND).await;
        if !stack.is_woken() {
            progress(&peer, 1);
            notification(&mut stack);
        }
    }
    let (id, error) = next_error(&mut stack);
    assert_eq!(id, Some(RequestId::Number(1)));
    assert_eq!(error.message, "no response within 12s in all");
}

/// Deadlines are suspended while the server waits for an answer of its own.
#[tokio::test(start_paused = true)]
async fn deadlines_rest_while_the_server_waits_for_this_client() {
    let (stack, peer, _) = correlation::<RoleClient>(Config::default().deadline(5 * SECOND));
    let mut stack = spawn(stack);
    stack.start_send_unpin(told(1)).unwrap();
    advance(2 * SECOND).await;
    say(&peer, json!({"jsonrpc": "2.0", "id": 9, "method": "ping"}));
    assert!(matches!(assert_ready!(stack.poll_next()), Some(Ok(JsonRpcMessage::Request(_)))));
    for _ in 0..100 {
        assert_pending!(stack.poll_next());
        advance(10 * SECOND).await;
    }
    // One that is sent meanwhile has all its time when the answer is given.
    stack.start_send_unpin(told(2)).unwrap();
    let answer =
        JsonRpcMessage::response(rmcp::model::ClientResult::empty(()), RequestId::Number(9));
    stack.start_send_unpin(answer).unwrap();
    assert_pending!(stack.poll_next());
    advance(2 * SECOND).await;
    assert_pending!(stack.poll_next());
    advance(SECOND).await;
    assert!(stack.is_woken());
    assert_eq!(next_error(&mut stack).0, Some(RequestId::Number(1)));
    advance(2 * SECOND).await;
    assert_eq!(next_error(&mut stack).0, Some(RequestId::Number(2)));
}

#[tokio::test(start_paused = true)]
async fn a_server_does_not_wait_longer_for_its_client_than_it_may() {
    let (stack, peer, _) = correlation::<RoleServer>(Config::default().deadline(5 * SECOND));
    let mut stack = spawn(stack);
    say(&peer, json!({"jsonrpc": "2.0", "id": 9, "method": "ping"}));
    assert!(matches!(assert_ready!(stack.poll_next()), Some(Ok(JsonRpcMessage::Request(_)))));
    stack.start_send_unpin(ping::<RoleServer>(1)).unwrap();
    assert_pending!(stack.poll_next());
    advance(5 * SECOND).await;
    let item = assert_ready!(stack.poll_next());
    assert!(matches!(item, Some(Ok(JsonRpcMessage::Error(_)))), "{item:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_may_have_a_deadline_of_its_own() {
    let (stack, _peer, _) = correlation::<RoleClient>(Config::default());
    let mut stack = spawn(stack);
    let mut request = PingRequest::default();
    request.extensions.insert(Deadline(2 * SECOND));
    stack.start_send_unpin(ping::<RoleClient>(1)).unwrap();
    let own = JsonRpcMessage::request(request.into(), RequestId::Number(2));
    stack.start_send_unpin(own).unwrap();
    assert_pending!(stack.poll_next());
    advance(2 * SECOND).await;
    let (id, error) = next_error(&mut stack);
    assert_eq!((id, &*error.message), (Some(RequestId::Number(2)), "no response within 2s"));
    advance(1000 * SECOND).await;
    assert_pending!(stack.poll_next());
}

/// Answered requests leave no entries behind.
#[tokio::test(start_paused = true)]
async fn deadlines_of_answered_calls_are_forgotten() {
    let config = Config::default().deadline(5 * SECOND).deadline_total(9 * SECOND);
    let (stack, peer, _) = correlation::<RoleClient>(config);
    let mut stack = spawn(stack);
    for id in 0..1000 {
        stack.start_send_unpin(told(id)).unwrap();
        say(&peer, json!({"jsonrpc": "2.0", "id": id, "result": {}}));
        assert!(matches!(assert_ready!(stack.poll_next()), Some(Ok(JsonRpcMessage::Response(_)))));
    }
    assert!(stack.deadlines.len() < 200, "{}", stack.deadlines.len());
    advance(9 * SECOND).await;
    assert_pending!(stack.poll_next());
    assert_eq!(stack.deadlines.len(), 0);
}

fn nameless(peer: &Peer) {
    say(peer, json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "what?"}}));
}

#[tokio::test(start_paused = true)]
async fn an_error_without_an_id_is_that_of_the_only_call() {
    let (stack, peer, stats) = correlation::<RoleClient>(Config::default());
    let mut stack = spawn(stack);
    stack.start_send_unpin(ping::<RoleClient>(1)).unwrap();
    assert_pending!(stack.poll_next());
    // One that was not sent has no answer.
    peer.block(true);
    stack.start_send_unpin(ping::<RoleClient>(2)).unwrap();
    nameless(&peer);
    let (id, error) = next_error(&mut stack);
    assert_eq!((id, &*error.message), (Some(RequestId::Number(1)), "what?"));
    assert_eq!(stats.snapshot().orphans, 0);
    say(&peer, json!({"jsonrpc": "2.0", "error": {"code": -32700, "message": "what?"}}));
    assert_pending!(stack.poll_next());
    assert_eq!((stats.snapshot().orphans, stack.in_flight().0), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn of_several_calls_each_ends_unless_it_shows_a_sign_of_life() {
    let (stack, peer, stats) = correlation::<RoleClient>(Config::default());
    let mut stack = spawn(stack);
    for id in 1..=3 {
        stack.start_send_unpin(told(id)).unwrap();
    }
    assert_pending!(stack.poll_next());
    peer.sent();
    advance(SECOND).await;
    nameless(&peer);
    assert_pending!(stack.poll_next());
    assert_eq!(stats.snapshot().orphans, 1);
    // What is sent later cannot have been meant.
    stack.start_send_unpin(told(4)).unwrap();
    assert_pending!(stack.poll_next());
    advance(30 * SECOND).await;
    // Another changes nothing for those that are suspected already.
    nameless(&peer);
    progress(&peer, 2);
    notification(&mut stack);
    say(&peer, json!({"jsonrpc": "2.0", "id": 3, "result": {}}));
    assert!(matches!(assert_ready!(stack.poll_next()), Some(Ok(JsonRpcMessage::Response(_)))));
    assert_pending!(stack.poll_next());
    peer.sent();
    advance(30 * SECOND).await;
    let (id, error) = next_error(&mut stack);
    assert_eq!((id, error.code), (Some(RequestId::Number(1)), TIMED_OUT));
    let data = error.data.unwrap();
    assert_eq!(
        (&data["reason"], &data["outcome"]),
        (&json!("timed_out"), &json!("outcome_unknown"))
    );
    assert_eq!(data["cause"], "unreadable_answer");
    assert!(error.message.contains("no response or progress within 60s"), "{}", error.message);
    assert_pending!(stack.poll_next());
    assert_eq!(sent(&peer)[0]["method"], "notifications/cancelled");
    // The second error was suspicious for the fourth.
    advance(30 * SECOND).await;
    assert_eq!(next_error(&mut stack).0, Some(RequestId::Number(4)));
    advance(10_000 * SECOND).await;
    assert_pending!(stack.poll_next());
    assert_eq!(stack.in_flight().0, 1, "the second lives");
}

/// The reader is woken by its own timer.
#[tokio::test(start_paused = true)]
async fn a_suspicion_is_remembered_on_a_link_that_is_silent_from_then_on() {
    let (stack, peer, _) = correlation::<RoleClient>(Config::default());
    let mut stack = spawn(stack);
    (1..=2).for_each(|id| stack.start_send_unpin(told(id)).unwrap());
    assert_pending!(stack.poll_next());
    nameless(&peer);
    assert!(stack.is_woken());
    assert_pending!(stack.poll_next());
    stack.start_send_unpin(told(3)).unwrap();
    assert_pending!(stack.poll_next());
    // The second of two at once is for one of those that were sent between.
    nameless(&peer);
    assert_pending!(stack.poll_next());
    for (wait, ended) in [(1, 0), (59, 2), (1, 1)] {
        advance(wait * SECOND).await;
        assert!(stack.is_woken(), "{wait}");
        for _ in 0..ended {
            let item = assert_ready!(stack.poll_next());
            assert!(matches!(item, Some(Ok(JsonRpcMessage::Error(_)))), "{item:?}");
        }
        assert_pending!(stack.poll_next());
    }
    assert_eq!(stack.in_flight().0, 0);
}

#[tokio::test(start_paused = true)]
async fn the_cost_of_an_error_without_an_id_does_not_grow_with_the_calls_in_flight() {
    let (stack, peer, _) = correlation::<RoleClient>(Config::default());
    let mut stack = spawn(stack);
    (1..=5000).for_each(|id| stack.start_send_unpin(told(id)).unwrap());
    assert_pending!(stack.poll_next());
    (0..20_000).for_each(|_| nameless(&peer));
    let begun = std::time::Instant::now();
    assert_pending!(stack.poll_next());
    assert!(begun.elapsed() < 10 * SECOND, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn the_cost_of_a_call_given_up_does_not_grow_with_the_queue() {
    let (mut stack, peer, _) = correlation::<RoleClient>(Config::default());
    peer.block(true);
    (1..=40_000).for_each(|id| stack.start_send_unpin(told(id)).unwrap());
    let begun = std::time::Instant::now();
    for id in 1..=40_000 {
        let cancelled = cancellation(RequestId::Number(id), "enough".into());
        stack.start_send_unpin(JsonRpcMessage::notification(cancelled.into())).unwrap();
    }
    assert!(begun.elapsed() < 5 * SECOND, "{:?}", begun.elapsed());
    assert_eq!(stack.in_flight().0, 0);
    peer.block(false);
    assert_pending!(spawn(stack.next()).poll());
    assert!(peer.sent().is_empty(), "none was sent");
}
