//! Messages that wait while there is no link, or for a new peer.

use super::*;
use crate::link::MessageLimits;

use rmcp::model::ServerRequest;

/// Whoever waits for a write may come before the reader, who has not told anyone of the new peer.
#[tokio::test(start_paused = true)]
async fn nothing_is_written_to_a_peer_before_the_reader_knows_of_it() {
    let (mut stack, peer) = stack::<RoleServer>();
    asks(&peer, 1);
    let JsonRpcMessage::Request(old) = stack.next() else { panic!("a request") };
    peer.send(Message::Close(None));
    stack.idle();
    let peer = stack.links.next();
    let ping = rmcp::model::PingRequest::default();
    stack.send(JsonRpcMessage::request(ping.into(), RequestId::Number(7)));
    assert!(assert_ready!(spawn(stack.correlation.link.flushed()).poll()).is_ok());
    stack.send(answer(old.id));
    assert!(sent(&peer).is_empty());
    stack.idle();
    assert_eq!(sent(&peer), ["ping 7"], "and no answer to the old one");
}

#[tokio::test(start_paused = true)]
async fn a_call_taken_back_before_it_was_sent_is_never_sent() {
    let (mut stack, peer) = initialized();
    peer.send(Message::Close(None));
    stack.idle();
    stack.send(call(1));
    stack.send(call(2));
    let cancelled = cancellation(RequestId::Number(1), "enough".into());
    stack.send(JsonRpcMessage::notification(cancelled.into()));
    let peer = stack.links.next();
    stack.idle();
    say(&peer, repeated_result("1"));
    stack.idle();
    assert_eq!(sent(&peer), [INITIALIZE_AGAIN, "notifications/initialized", "tools/call 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_nothing_empties_turns_calls_away() {
    let (mut stack, peer) = initialized();
    peer.send(Message::Close(None));
    stack.idle();
    for id in 1..=20 {
        stack.send(call(id));
    }
    let (id, reason) = stack.error();
    assert_eq!(reason, "not_sent");
    let RequestId::Number(first) = id else { panic!("{id:?}") };
    assert!(first > 2 && first < 20, "{first}");
    let changed = rmcp::model::RootsListChangedNotification::default();
    let error = stack.correlation.start_send_unpin(JsonRpcMessage::notification(changed.into()));
    assert!(matches!(error, Err(Error::Message(MessageError::QueueFull))));
}

#[tokio::test(start_paused = true)]
async fn a_send_does_not_wait_for_a_link_that_is_not_there() {
    let (mut stack, peer) = initialized();
    stack.send(call(1));
    peer.block(true);
    let mut before = spawn(stack.correlation.link.flushed());
    assert_pending!(before.poll());
    peer.send(Message::Close(None));
    stack.idle();
    assert!(before.is_woken());
    assert!(assert_ready!(before.poll()).is_ok());
    stack.send(call(2));
    assert!(assert_ready!(spawn(stack.correlation.link.flushed()).poll()).is_ok());
}

/// A call that the queue has no room for is not refused: what became of the write is not known yet,
/// or a layer below sends it again.
#[tokio::test(start_paused = true)]
async fn a_send_does_not_wait_for_what_becomes_of_a_write_that_failed() {
    for up in [LinkUp::NewPeer, RESUMED] {
        after_a_write_that_failed(up).await;
    }
}

async fn after_a_write_that_failed(up: LinkUp) {
    let (mut stack, peer) = initialized();
    stack.send(call(1));
    peer.block(true);
    let mut before = [0; 2].map(|_| spawn(stack.correlation.link.flushed()));
    before.iter_mut().for_each(|flushed| assert_pending!(flushed.poll()));
    peer.break_writes();
    for flushed in &mut before {
        assert!(flushed.is_woken());
        assert!(assert_ready!(flushed.poll()).is_ok());
    }
    stack.idle();
    for id in 2..=20 {
        stack.send(call(id));
        assert!(assert_ready!(spawn(stack.correlation.link.flushed()).poll()).is_ok());
    }
    stack.idle();
    tokio::time::advance(Duration::from_millis(100)).await;
    stack.idle();
    let resumes = matches!(up, LinkUp::Resumed(_));
    let peer = stack.links.next_as(up);
    stack.idle();
    if !resumes {
        say(&peer, repeated_result("1"));
        stack.idle();
    }
    let calls = (1..=20).map(|id| format!("tools/call {id}"));
    let first = [INITIALIZE_AGAIN, "notifications/initialized"].map(str::to_owned);
    let first = first.into_iter().filter(|_| !resumes);
    assert_eq!(sent(&peer), first.chain(calls).collect::<Vec<_>>());
}

/// Requests that wait take memory for as long as the session may be resumed.
#[tokio::test(start_paused = true)]
async fn a_client_whose_session_may_be_resumed_turns_calls_away_when_much_waits() {
    let (mut stack, peer) = initialized();
    peer.break_writes();
    stack.send(call(0));
    let _ = spawn(stack.correlation.link.flushed()).poll();
    stack.idle();
    // 128 queues of 1000 bytes have room for less than 250 calls, each of 512 bytes and its own.
    (1..=400).for_each(|id| stack.send(call(id)));
    let (RequestId::Number(first), reason) = stack.error() else { panic!("a number") };
    assert_eq!(reason, "not_sent");
    assert!(first > 200 && first < 270, "{first}");
    (first + 1..=400).for_each(|id| assert_eq!(stack.error().0, RequestId::Number(id)));
    stack.idle();
    let large = json!({"text": "x".repeat(200_000)});
    let Value::Object(arguments) = large else { panic!("{large}") };
    let large = CallToolRequestParams::new("echo").with_arguments(arguments);

    let peer = stack.links.next_as(RESUMED);
    stack.idle();
    let calls: Vec<_> = (0..first).map(|id| format!("tools/call {id}")).collect();
    assert_eq!(sent(&peer), calls);

    // What waits no more takes no room.
    peer.break_writes();
    stack.send(call(500));
    let _ = spawn(stack.correlation.link.flushed()).poll();
    stack.idle();
    (501..=530).for_each(|id| stack.send(call(id)));
    stack.send(request(531, CallToolRequest::new(large)));
    stack.idle();
    stack.send(call(532));
    assert_eq!(stack.error(), (RequestId::Number(532), "not_sent".into()));
    let enough = cancellation(RequestId::Number(531), "enough".into());
    stack.send(JsonRpcMessage::notification(enough.into()));
    stack.send(call(533));
    stack.idle();
}

/// A server whose client's connection takes nothing more, and may be resumed. The client takes
/// `max_inbound` requests at once.
fn a_server_that_cannot_write(max_inbound: u64) -> Stack<RoleServer> {
    let (mut stack, peer) = stack::<RoleServer>();
    stack.correlation.link.expect_return();
    take_at_once(&stack, max_inbound);
    peer.break_writes();
    stack.send(custom(0));
    let _ = spawn(stack.correlation.link.flushed()).poll();
    stack.idle();
    stack
}

/// The peer takes so many requests at once.
fn take_at_once(stack: &Stack<RoleServer>, requests: u64) {
    stack.correlation.codec.peer().set(MessageLimits::from_peer(None, Some(requests)));
}

fn custom(id: i64) -> TxJsonRpcMessage<RoleServer> {
    let custom = rmcp::model::CustomRequest::new("custom", None);
    JsonRpcMessage::request(ServerRequest::CustomRequest(custom), RequestId::Number(id))
}

/// Requests that wait take memory for as long as the client is away.
#[tokio::test(start_paused = true)]
async fn a_server_whose_client_may_return_turns_requests_away_that_have_no_room() {
    for max_inbound in [1, 1000] {
        let mut stack = a_server_that_cannot_write(max_inbound);
        (1..=50).for_each(|id| stack.send(custom(id)));
        let (RequestId::Number(first), reason) = stack.error() else { panic!("a number") };
        assert_eq!(reason, "not_sent");
        assert!(first > 1 && first < 30, "{first}");
        (first + 1..=50).for_each(|id| assert_eq!(stack.error().0, RequestId::Number(id)));
        stack.idle();
    }
}

/// The queue is kept for a client that has yet to initialize when the turn of the request comes.
#[tokio::test(start_paused = true)]
async fn a_server_turns_a_request_away_whose_turn_comes_while_there_is_no_room() {
    let (mut stack, peer) = stack::<RoleServer>();
    stack.correlation.link.expect_return();
    say(&peer, json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    assert!(matches!(stack.next(), JsonRpcMessage::Notification(_)));
    peer.send(Message::Close(None));
    stack.idle();
    take_at_once(&stack, 1);
    (0..=1).for_each(|id| stack.send(custom(id)));
    for id in 2..50 {
        let ping = rmcp::model::PingRequest::default();
        stack.send(JsonRpcMessage::request(ping.into(), RequestId::Number(id)));
    }
    while spawn(stack.correlation.next()).poll().is_ready() {}
    let _peer = stack.links.next();
    stack.idle();
    take_at_once(&stack, 1000);
    assert_eq!(stack.error(), (RequestId::Number(1), "not_sent".into()));
    stack.idle();
}

/// The peer may come back and await its answers.
#[tokio::test(start_paused = true)]
async fn answers_have_room_while_it_is_not_known_what_becomes_of_a_write_that_failed() {
    let (mut stack, peer) = stack::<RoleServer>();
    asks(&peer, 1);
    let JsonRpcMessage::Request(request) = stack.next() else { panic!("a request") };
    peer.break_writes();
    for id in 0..50 {
        let ping = rmcp::model::PingRequest::default();
        stack.send(JsonRpcMessage::request(ping.into(), RequestId::Number(id)));
        let _ = spawn(stack.correlation.link.flushed()).poll();
    }
    let queued = stack.correlation.link.last_seq();
    stack.send(answer(request.id));
    assert_eq!(stack.correlation.link.last_seq(), queued + 1);
}

#[tokio::test(start_paused = true)]
async fn a_close_does_not_wait_for_a_link_that_is_not_there() {
    let (mut stack, peer) = initialized();
    peer.send(Message::Close(None));
    stack.idle();
    stack.send(call(1));
    assert!(assert_ready!(spawn(stack.correlation.close()).poll()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_close_does_not_wait_for_what_waits_for_the_new_peer() {
    let (mut stack, peer) = initialized();
    peer.send(Message::Close(None));
    stack.idle();
    stack.send(call(1));
    let peer = stack.links.next();
    stack.idle();
    assert_eq!(sent(&peer), [INITIALIZE_AGAIN]);
    let reason = CloseReason::new(CloseCode::GoingAway, "enough");
    stack.correlation.link.close_with(reason.clone());
    assert!(assert_ready!(spawn(stack.correlation.close()).poll()).is_ok());
    assert_eq!(peer.sent(), [Message::Close(Some(reason))]);
    assert!(peer.is_closed());
}

#[tokio::test(start_paused = true)]
async fn what_is_owed_to_a_lost_peer_keeps_nobody_from_the_next() {
    let (mut stack, peer) = stack::<RoleServer>();
    peer.block(true);
    for _ in 0..100_000 {
        peer.send(Message::text("rubbish"));
    }
    stack.idle();
    peer.send(Message::Close(None));
    peer.break_writes();
    stack.idle();
    let peer = stack.links.next();
    asks(&peer, 1);
    assert!(matches!(stack.next(), JsonRpcMessage::Request(_)));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_keeps_nobody_from_initializing() {
    let (mut stack, peer) = stack::<RoleServer>();
    say(&peer, json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    assert!(matches!(stack.next(), JsonRpcMessage::Notification(_)));
    peer.send(Message::Close(None));
    stack.idle();
    for id in 0..50 {
        let ping = rmcp::model::PingRequest::default();
        stack.send(JsonRpcMessage::request(ping.into(), RequestId::Number(id)));
    }
    while spawn(stack.correlation.next()).poll().is_ready() {}
    let peer = stack.links.next();
    asks(&peer, 1);
    let JsonRpcMessage::Request(request) = stack.next() else { panic!("a request") };
    stack.send(answer(request.id));
    stack.idle();
    assert_eq!(sent(&peer), ["answer 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_cannot_be_sent_leaves_nothing_behind() {
    let (mut stack, peer) = initialized();
    peer.block(true);
    let arguments = json!({"text": "x".repeat(17 << 20)});
    let Value::Object(arguments) = arguments else { panic!("{arguments}") };
    let large = CallToolRequestParams::new("echo").with_arguments(arguments);
    stack.send(request(1, CallToolRequest::new(large)));
    assert_eq!(stack.error(), (RequestId::Number(1), "not_sent".into()));
    for _ in 0..2 {
        asks(&peer, 7);
    }
    assert!(matches!(stack.next(), JsonRpcMessage::Request(_)));
    stack.idle();
    peer.send(Message::Close(None));
    let peer = stack.links.next();
    assert_eq!(stack.cancelled(), RequestId::Number(7));
    stack.idle();
    say(&peer, repeated_result("1"));
    stack.idle();
    assert_eq!(sent(&peer), [INITIALIZE_AGAIN, "notifications/initialized"], "and no refusal");
}
