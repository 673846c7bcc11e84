//! Requests of the peer that wait for room in the outbound queue.

use super::*;

/// A server whose queue is full until the peer unblocks it, with requests that wait.
fn holding(config: Config, ids: &[i64]) -> (Spawn<Correlation<RoleServer, JsonRpc>>, Peer, Stats) {
    let (link, peer) = fake::link();
    let shared =
        SharedLink::new(Reconnect::single(link), shared_link::Config::default().queue_bytes(1));
    let framed = Framed::new(shared, JsonRpc::default(), framed::Config::default());
    let stats = Stats::default();
    let mut stack = spawn(Correlation::with_stats(framed, config, stats.clone()));
    peer.block(true);
    stack.start_send_unpin(ping::<RoleServer>(9)).unwrap();
    for id in ids {
        say(&peer, json!({"jsonrpc": "2.0", "id": id, "method": "ping"}));
    }
    assert_pending!(stack.poll_next());
    (stack, peer, stats)
}

/// The ids of the requests that come now.
fn requests(stack: &mut Spawn<Correlation<RoleServer, JsonRpc>>) -> Vec<RequestId> {
    let mut ids = Vec::new();
    while let Poll::Ready(item) = stack.poll_next() {
        match item.unwrap().unwrap() {
            JsonRpcMessage::Request(request) => ids.push(request.id),
            other => panic!("{other:?}"),
        }
    }
    ids
}

#[test]
fn requests_that_waited_come_in_order_and_those_cancelled_meanwhile_never() {
    let (mut stack, peer, stats) = holding(Config::default().max_inbound(3), &[1, 2, 3]);
    let cancelled =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}});
    say(&peer, cancelled);
    let item = assert_ready!(stack.poll_next()).unwrap();
    assert!(matches!(item, Ok(JsonRpcMessage::Notification(_))), "{item:?}");
    assert_eq!(stack.in_flight(), (1, 2));
    // Its id and its place are free again; the others' are not.
    for id in [2, 1, 4] {
        say(&peer, json!({"jsonrpc": "2.0", "id": id, "method": "ping"}));
    }
    assert_pending!(stack.poll_next());
    assert_eq!((stack.in_flight(), stats.snapshot().refused), ((1, 3), 2));
    peer.block(false);
    assert!(stack.is_woken());
    assert_eq!(requests(&mut stack), [1, 3, 2].map(RequestId::Number));
    assert!(stack.inbound.backlog_is_empty());
}

#[test]
fn no_more_bytes_are_held_than_may_be() {
    let size = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}).to_string().len();
    let config = Config::default().max_held_bytes(2 * (size + 512));
    let (mut stack, peer, stats) = holding(config, &[1, 2, 3]);
    assert_eq!((stack.in_flight(), stats.snapshot().refused), ((1, 2), 1));
    peer.block(false);
    assert_eq!(requests(&mut stack), [1, 2].map(RequestId::Number));
    let refusal = &sent(&peer)[1];
    assert_eq!((&refusal["id"], &refusal["error"]["code"]), (&json!(3), &json!(-32000)));
}
