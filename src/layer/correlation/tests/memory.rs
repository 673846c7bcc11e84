//! Bounds on the requests and notifications of the peer, in number and in memory.

use super::*;

/// The extensions of a notification, which its handler holds on to.
fn handled(item: Option<Result<RxJsonRpcMessage<RoleServer>, Error>>) -> Extensions {
    match item.unwrap().unwrap() {
        JsonRpcMessage::Notification(mut notification) => {
            std::mem::take(notification.notification.extensions_mut())
        }
        other => panic!("{other:?} is no notification"),
    }
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
fn a_notification_waits_while_many_are_handled_and_requests_do_not() {
    let config = Config::default().max_inbound(10).max_held_bytes(600);
    let (stack, peer, stats) = correlation::<RoleServer>(config);
    let notify = || say(&peer, json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    (0..MIN_NOTIFICATIONS + 1).for_each(|_| notify());
    let mut stack = spawn(stack);
    let mut running: Vec<_> =
        (0..MIN_NOTIFICATIONS).map(|_| handled(assert_ready!(stack.poll_next()))).collect();
    assert_pending!(stack.poll_next());
    say(&peer, json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}));
    let next = assert_ready!(stack.poll_next()).unwrap().unwrap();
    assert!(matches!(next, JsonRpcMessage::Request(_)));
    assert_pending!(stack.poll_next());
    // There is no room for another.
    notify();
    assert_pending!(stack.poll_next());
    assert_eq!(stats.snapshot().refused, 1);

    let copy = running[0].clone();
    running.remove(0);
    assert!(stack.is_woken());
    running.push(handled(assert_ready!(stack.poll_next())));
    drop(copy);
    notify();
    assert_pending!(stack.poll_next());
}

#[test]
fn a_request_counts_until_its_handler_has_ended() {
    let (stack, peer, _) = correlation::<RoleServer>(Config::default().max_inbound(1));
    let mut stack = spawn(stack);
    let cancelled = |id| json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
    say(&peer, json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}));
    let handled = assert_ready!(stack.poll_next()).unwrap().unwrap();
    say(&peer, cancelled(1));
    assert!(assert_ready!(stack.poll_next()).unwrap().is_ok());
    // Nobody wants it any more, and there is no other.
    say(&peer, cancelled(1));
    say(&peer, cancelled(2));
    say(&peer, json!({"jsonrpc": "2.0", "id": 3, "method": "ping"}));
    assert_pending!(stack.poll_next());
    assert_eq!(sent(&peer)[0]["error"]["code"], -32000);
    drop(handled);
    say(&peer, json!({"jsonrpc": "2.0", "id": 4, "method": "ping"}));
    assert!(assert_ready!(stack.poll_next()).unwrap().is_ok());
}

#[cfg(feature = "server")]
#[test]
fn extensions_count_once_for_the_connection_and_once_for_each_message() {
    let (mut stack, peer, _) = correlation::<RoleServer>(Config::default());
    // As the session has them.
    let slots = stack.handler_slots();
    assert_eq!(slots.bytes(1000), 1000);
    say(&peer, json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}));
    let handled = assert_ready!(spawn(stack.next()).poll()).unwrap().unwrap();
    let size = slots.requests().1;
    assert!(size > 0);
    assert_eq!(slots.bytes(1000), 2000 + size);
    drop(handled);
    assert_eq!(slots.bytes(1000), 1000);
}

#[test]
fn requests_together_take_no_more_memory_than_they_may() {
    let (stack, peer, _) =
        correlation::<RoleServer>(Config::default().max_inbound_memory(12 << 20));
    let mut stack = spawn(stack);
    let of = |values, id| json!({"jsonrpc": "2.0", "id": id, "method": "ping", "params": {"_meta": {"x": vec![json!({"a": 0}); values]}}});
    let large = |id| of(10_000, id);
    say(&peer, large(1));
    let first = assert_ready!(stack.poll_next()).unwrap().unwrap();
    say(&peer, large(2));
    assert_pending!(stack.poll_next());
    let refused = &sent(&peer)[0]["error"];
    assert_eq!(
        (&refused["code"], &refused["data"]["limit_bytes"]),
        (&json!(-32000), &json!(12 << 20))
    );
    // Small ones have room beside it.
    say(&peer, json!({"jsonrpc": "2.0", "id": 3, "method": "ping"}));
    assert!(assert_ready!(stack.poll_next()).unwrap().is_ok());
    drop(first);
    say(&peer, large(4));
    assert!(assert_ready!(stack.poll_next()).unwrap().is_ok());
}

/// A request too large to be accepted ever is refused without advice to try again.
#[test]
fn a_request_that_alone_takes_more_than_all_may_is_refused() {
    let (stack, peer, _) = correlation::<RoleServer>(Config::default().max_inbound_memory(1 << 20));
    let mut stack = spawn(stack);
    let dense = vec![json!({"a": 0}); 2000];
    say(
        &peer,
        json!({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"_meta": {"x": dense}}}),
    );
    assert_pending!(stack.poll_next());
    let answer = &sent(&peer)[0];
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(1), &json!(-32600)));
    let data = &answer["error"]["data"];
    assert_eq!((&data["reason"], &data["limit_bytes"]), (&json!("too_large"), &json!(1 << 20)));
    assert!(data["decoded_bytes"].as_u64() > Some(1 << 20), "{data}");
    say(&peer, json!({"jsonrpc": "2.0", "id": 2, "method": "ping"}));
    assert!(assert_ready!(stack.poll_next()).unwrap().is_ok());
}

/// A notification with `objects` small objects, each of which takes about a KiB.
fn dense_notification(objects: usize) -> Value {
    let list = vec![json!({"a": 0}); objects];
    json!({"jsonrpc": "2.0", "method": "acme/happened", "params": {"list": list}})
}

#[test]
fn notifications_together_take_no_more_memory_than_they_may() {
    let config = Config::default().max_inbound(1).max_inbound_memory(12 << 20);
    let (stack, peer, stats) = correlation::<RoleServer>(config);
    let mut stack = spawn(stack);
    let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    say(&peer, dense_notification(10_000));
    let first = handled(assert_ready!(stack.poll_next()));
    say(&peer, dense_notification(10_000));
    assert_pending!(stack.poll_next());
    assert_eq!(stats.snapshot().refused, 1);
    // Small ones have room beside it, and requests have room of their own.
    let mut running = vec![];
    for _ in 1..MIN_NOTIFICATIONS {
        say(&peer, initialized.clone());
        running.push(handled(assert_ready!(stack.poll_next())));
    }
    let list = vec![json!({"a": 0}); 10_000];
    say(
        &peer,
        json!({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": {"_meta": {"x": list}}}),
    );
    assert!(assert_ready!(stack.poll_next()).unwrap().is_ok());

    // What waits takes room as well.
    drop(first);
    say(&peer, initialized.clone());
    running.push(handled(assert_ready!(stack.poll_next())));
    for refused in [1, 2] {
        say(&peer, dense_notification(10_000));
        assert_pending!(stack.poll_next());
        assert_eq!(stats.snapshot().refused, refused);
    }
    running.remove(0);
    drop(handled(assert_ready!(stack.poll_next())));
    say(&peer, dense_notification(10_000));
    assert!(assert_ready!(stack.poll_next()).unwrap().is_ok());
}

#[test]
fn a_notification_that_alone_takes_more_than_all_may_is_dropped() {
    let config = Config::default().max_inbound_memory(1 << 20);
    let (stack, peer, stats) = correlation::<RoleServer>(config);
    let mut stack = spawn(stack);
    say(&peer, dense_notification(2000));
    assert_pending!(stack.poll_next());
    assert_eq!(stats.snapshot().refused, 1);
    say(&peer, dense_notification(1000));
    assert!(assert_ready!(stack.poll_next()).unwrap().is_ok());
}

#[test]
fn a_cancellation_arrives_however_much_it_takes() {
    let config = Config::default().max_inbound_memory(1 << 20);
    let (stack, peer, stats) = correlation::<RoleServer>(config);
    let mut stack = spawn(stack);
    let list = vec![json!({"a": 0}); 1000];
    let cancelled = |id| {
        json!({
            "jsonrpc": "2.0", "method": "notifications/cancelled",
            "params": {"requestId": id, "reason": "by me", "_meta": {"list": list}},
        })
    };
    let mut running = vec![];
    for (id, reason) in [(1, "by me"), (2, "cancelled by the peer")] {
        say(&peer, json!({"jsonrpc": "2.0", "id": id, "method": "ping"}));
        assert!(assert_ready!(stack.poll_next()).unwrap().is_ok());
        say(&peer, cancelled(id));
        let item = assert_ready!(stack.poll_next()).unwrap().unwrap();
        let told = serde_json::to_value(&item).unwrap();
        assert_eq!(told["params"]["requestId"], id);
        assert_eq!((&told["params"]["reason"], stack.in_flight().1), (&json!(reason), 0));
        running.push(item);
    }
    assert_eq!(stats.snapshot().refused, 0);
}
