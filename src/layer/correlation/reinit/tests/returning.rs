//! A peer that claims to be the one that was here before.

use super::*;
use tokio::time::advance;

/// A server whose client has initialized its session.
fn served() -> (Stack<RoleServer>, Peer) {
    let (mut stack, peer) = stack::<RoleServer>();
    stack.correlation.link.expect_return();
    says_initialized(&mut stack, &peer);
    (stack, peer)
}

fn says_initialized(stack: &mut Stack<RoleServer>, peer: &Peer) {
    say(peer, json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    assert!(matches!(stack.next(), JsonRpcMessage::Notification(_)));
}

fn initializes(peer: &Peer, id: i64) {
    say(
        peer,
        json!({"jsonrpc": "2.0", "id": id, "method": "initialize", "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "peer", "version": "1"},
        }}),
    );
}

impl Stack<RoleServer> {
    fn request(&mut self) -> RequestId {
        let JsonRpcMessage::Request(request) = self.next() else { panic!("a request") };
        request.id
    }

    /// The peer is lost, and back.
    fn returns(&mut self, peer: &Peer) -> Peer {
        peer.send(Message::Close(None));
        self.idle();
        let peer = self.links.next_as(LinkUp::Unverified);
        self.idle();
        peer
    }

    fn notify(&mut self) -> Result<(), Error> {
        let changed = rmcp::model::ToolListChangedNotification::default();
        self.correlation.start_send_unpin(JsonRpcMessage::notification(changed.into()))
    }

    fn ping(&mut self, id: i64) {
        let ping = rmcp::model::PingRequest::default();
        self.send(JsonRpcMessage::request(ping.into(), RequestId::Number(id)));
    }
}

const CHANGED: &str = "notifications/tools/list_changed";

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_before_the_peer_speaks_and_then_all_in_order() {
    let (mut stack, peer) = served();
    for id in 1..=3 {
        asks(&peer, id);
        stack.request();
    }
    stack.ping(70);
    stack.idle();
    assert_eq!(sent(&peer), ["ping 70"]);
    peer.send(Message::Close(None));
    assert_eq!(stack.error(), (RequestId::Number(70), "outcome_unknown".into()));
    stack.idle();
    stack.send(answer(RequestId::Number(1)));
    stack.ping(71);
    let peer = stack.links.next_as(LinkUp::Unverified);
    stack.idle();
    stack.notify().unwrap();
    stack.send(answer(RequestId::Number(2)));
    let mut flushed = spawn(stack.correlation.link.flushed());
    stack.idle();
    assert!(sent(&peer).is_empty());
    assert!(assert_ready!(flushed.poll()).is_ok(), "nobody waits for what the peer says");

    asks(&peer, 4);
    assert_eq!(stack.request(), RequestId::Number(4), "it is known by its own id");
    stack.idle();
    assert_eq!(sent(&peer), ["answer 1", "ping 71", CHANGED, "answer 2"]);
    // The call that is in flight since before.
    stack.send(answer(RequestId::Number(3)));
    stack.idle();
    assert_eq!(sent(&peer), ["answer 3"]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_initializes_is_another() {
    let (mut stack, peer) = served();
    for id in 1..=3 {
        asks(&peer, id);
        stack.request();
    }
    peer.send(Message::Close(None));
    stack.idle();
    stack.send(answer(RequestId::Number(1)));
    stack.notify().unwrap();
    stack.ping(71);
    let peer = stack.links.next_as(LinkUp::Unverified);
    stack.idle();
    stack.send(answer(RequestId::Number(2)));
    stack.idle();
    initializes(&peer, 3);
    let id = stack.request();
    assert_ne!(id, RequestId::Number(3));
    assert_eq!(stack.cancelled(), RequestId::Number(3));
    stack.idle();
    assert!(sent(&peer).is_empty());
    stack.send(answer(RequestId::Number(3)));
    stack.send(answer(id));
    stack.idle();
    assert_eq!(sent(&peer), ["answer 3"], "the one to initialize");
    says_initialized(&mut stack, &peer);
    stack.idle();
    assert_eq!(sent(&peer), ["ping 71"], "it was for whoever is there");
}

#[tokio::test(start_paused = true)]
async fn a_peer_of_whom_nothing_can_be_read_is_closed_after_a_while() {
    let (mut stack, peer) = served();
    let peer = stack.returns(&peer);
    // A client may have nothing to ask.
    advance(ANSWER_TIMEOUT * 9).await;
    stack.idle();
    for _ in 0..2 {
        peer.send(Message::text("{}"));
        stack.idle();
        advance(ANSWER_TIMEOUT / 2).await;
    }
    let error = assert_ready!(spawn(stack.correlation.next()).poll()).unwrap().unwrap_err();
    assert!(error.to_string().contains("1008"), "{error}");
    let told = peer.sent();
    assert!(
        matches!(&told[..], [Message::Close(Some(reason))] if reason.code == CloseCode::Policy)
    );
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_peer_of_whom_nothing_can_be_read_ends_with_its_link() {
    let (mut stack, peer) = served();
    let peer = stack.returns(&peer);
    peer.send(Message::text("{}"));
    stack.idle();
    let peer = stack.returns(&peer);
    advance(ANSWER_TIMEOUT * 9).await;
    stack.idle();
    asks(&peer, 1);
    assert_eq!(stack.request(), RequestId::Number(1));
}

/// Every request says which version it speaks in the lifecycle without `initialize`.
#[tokio::test(start_paused = true)]
async fn a_peer_of_another_era_is_another() {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    for request in [
        json!({"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": meta}}),
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}),
    ] {
        let (mut stack, peer) = served();
        asks(&peer, 1);
        let old = stack.request();
        let peer = stack.returns(&peer);
        stack.send(answer(old));
        say(&peer, request);
        let new = stack.request();
        stack.idle();
        assert!(sent(&peer).is_empty(), "the answer was for another");
        stack.send(answer(new));
        stack.idle();
        assert_eq!(sent(&peer), ["answer 1"]);
    }
}

/// A refused request leaves nothing behind, whatever its id.
#[tokio::test(start_paused = true)]
async fn a_refused_request_is_forgotten_and_no_id_is_taken_for_another() {
    let (mut stack, peer) = served();
    say(&peer, json!({"jsonrpc": "2.0", "id": "5\u{2032}1", "method": "ping"}));
    let odd = stack.request();
    let peer = stack.returns(&peer);
    initializes(&peer, 5);
    let new = stack.request();
    assert_ne!(odd, new);
    assert_eq!(stack.cancelled(), odd);
    // The first of them is handled, and once only.
    initializes(&peer, 5);
    stack.idle();
    let aliases = |stack: &Stack<RoleServer>| stack.correlation.inbound.aliases();
    assert_eq!(aliases(&stack), 1);
    stack.correlation.config.max_inbound = 1;
    for id in 6..20 {
        asks(&peer, id);
        stack.idle();
    }
    assert_eq!(aliases(&stack), 1);
    stack.send(answer(odd));
    stack.send(answer(new));
    stack.idle();
    assert_eq!(sent(&peer).last().unwrap(), "answer 5");
    assert_eq!(aliases(&stack), 0);
}

#[tokio::test(start_paused = true)]
async fn where_nobody_has_initialized_whoever_comes_begins_anew() {
    let (mut stack, peer) = stack::<RoleServer>();
    stack.correlation.link.expect_return();
    asks(&peer, 1);
    stack.request();
    let peer = stack.returns(&peer);
    asks(&peer, 1);
    let id = stack.request();
    assert_ne!(id, RequestId::Number(1));
    assert_eq!(stack.cancelled(), RequestId::Number(1));
    stack.send(answer(RequestId::Number(1)));
    stack.send(answer(id));
    stack.idle();
    assert_eq!(sent(&peer), ["answer 1"]);

    // The one that was there last counts, not one before it.
    let (mut stack, peer) = served();
    let peer = stack.returns(&peer);
    initializes(&peer, 1);
    let id = stack.request();
    stack.send(answer(id));
    asks(&peer, 2);
    let before = stack.request();
    let peer = stack.returns(&peer);
    asks(&peer, 2);
    assert_ne!(stack.request(), before);
    assert_eq!(stack.cancelled(), before);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_leaves_without_a_word_was_not_there() {
    let (mut stack, peer) = served();
    asks(&peer, 1);
    stack.request();
    let first = stack.returns(&peer);
    stack.send(answer(RequestId::Number(1)));
    let second = stack.returns(&first);
    // As one that resumes what it has just opened.
    second.send(Message::Close(None));
    stack.idle();
    let resumed = Resumed { received: 0, replayed: 0, freeze: 0 };
    let third = stack.links.next_as(LinkUp::Resumed(resumed));
    stack.idle();
    for peer in [&first, &second, &third] {
        assert!(sent(peer).is_empty());
    }
    asks(&third, 2);
    stack.request();
    stack.idle();
    assert_eq!(sent(&third), ["answer 1"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_message_decides_nothing() {
    let (mut stack, peer) = served();
    asks(&peer, 1);
    stack.request();
    let peer = stack.returns(&peer);
    stack.send(answer(RequestId::Number(1)));
    peer.send(Message::text("rubbish"));
    stack.idle();
    assert!(sent(&peer).is_empty());
    // A notification does.
    say(&peer, json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}));
    assert!(matches!(stack.next(), JsonRpcMessage::Notification(_)));
    stack.idle();
    assert_eq!(sent(&peer), ["answer 1", "answer null"]);
}

#[tokio::test(start_paused = true)]
async fn answers_find_room_as_long_as_their_peer_may_return() {
    let (mut stack, peer) = served();
    for id in 1..=50 {
        asks(&peer, id);
        stack.request();
    }
    peer.send(Message::Close(None));
    stack.idle();
    let mut peer = peer;
    for id in 1..=50 {
        if id == 25 {
            peer = stack.links.next_as(LinkUp::Unverified);
            stack.idle();
        }
        stack.send(answer(RequestId::Number(id)));
    }
    assert!(stack.notify().is_err(), "the queue is full");
    stack.ping(70);
    assert_eq!(stack.error(), (RequestId::Number(70), "not_sent".into()));
    asks(&peer, 51);
    // It is handled once there is room.
    let id = stack.request();
    assert_eq!(id, RequestId::Number(51));
    assert_eq!(sent(&peer).len(), 50);
    stack.notify().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_close_of_ours_waits_for_no_word() {
    let (mut stack, peer) = served();
    asks(&peer, 1);
    stack.request();
    let peer = stack.returns(&peer);
    stack.send(answer(RequestId::Number(1)));
    stack.correlation.link.close_with(CloseCode::Restart.into());
    let cx = &mut Context::from_waker(futures::task::noop_waker_ref());
    let _ = stack.correlation.poll_close_unpin(cx);
    assert!(matches!(&peer.sent()[..], [Message::Close(_)]));
}

#[tokio::test(start_paused = true)]
async fn an_mcp_server_that_returns_is_initialized_again() {
    let (mut stack, peer) = initialized();
    stack.send(call(1));
    stack.idle();
    peer.send(Message::Close(None));
    assert_eq!(stack.error(), (RequestId::Number(1), "outcome_unknown".into()));
    stack.send(call(2));
    let peer = stack.links.next_as(LinkUp::Unverified);
    stack.idle();
    assert_eq!(sent(&peer), [INITIALIZE_AGAIN]);
    say(&peer, repeated_result("1"));
    stack.idle();
    assert_eq!(sent(&peer), ["notifications/initialized", "tools/call 2"]);
}
