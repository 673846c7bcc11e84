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
