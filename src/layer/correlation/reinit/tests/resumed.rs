//! A session that goes on after it was given up: the peer has kept it for longer than it said.

use super::*;

const RESUMED: LinkUp = LinkUp::Resumed(Resumed { received: 0, replayed: 1, freeze: 0 });

/// A client that has repeated `initialize`, and lost the connection before it was answered. A call
/// waits for that.
fn without_an_answer() -> (Stack<RoleClient>, Peer) {
    let (mut stack, peer) = initialized();
    peer.send(Message::Close(None));
    let peer = stack.links.next();
    stack.send(call(1));
    stack.idle();
    assert_eq!(sent(&peer), [INITIALIZE_AGAIN]);
    assert!(matches!(stack.news(), Event::Lost(_)));
    peer.send(Message::Close(None));
    stack.idle();
    (stack, peer)
}

#[tokio::test(start_paused = true)]
async fn what_is_answered_late_is_the_answer_to_a_repeated_initialize() {
    let (mut stack, _) = without_an_answer();
    let peer = stack.links.next_as(RESUMED);
    stack.idle();
    assert!(sent(&peer).is_empty(), "a layer below sends it again");
    stack.send(call(2));
    say(&peer, repeated_result("1"));
    stack.idle();
    assert_eq!(sent(&peer), ["notifications/initialized", "tools/call 1", "tools/call 2"]);
    assert!(matches!(stack.news(), Event::Restarted { changed: None }));
    assert_pending!(spawn(stack.news.next()).poll());
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_waited_for_while_there_is_a_link_and_no_longer() {
    let (mut stack, _) = without_an_answer();
    let cx = &mut Context::from_waker(futures::task::noop_waker_ref());
    tokio::time::advance(ANSWER_TIMEOUT).await;
    stack.idle();
    assert!(
        stack.reconnect_handle.poll_requested(cx).is_pending(),
        "there is none, and another is under way"
    );
    let _peer = stack.links.next_as(RESUMED);
    stack.idle();
    tokio::time::advance(ANSWER_TIMEOUT - Duration::from_secs(1)).await;
    stack.idle();
    assert!(stack.reconnect_handle.poll_requested(cx).is_pending());
    tokio::time::advance(Duration::from_secs(1)).await;
    stack.idle();
    assert!(stack.reconnect_handle.poll_requested(cx).is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_another_after_all_is_asked_anew() {
    let (mut stack, _) = without_an_answer();
    let old = stack.links.next_as(RESUMED);
    stack.idle();
    old.send(Message::Close(None));
    stack.idle();
    let peer = stack.links.next();
    stack.idle();
    assert_eq!(sent(&peer), [INITIALIZE_AGAIN]);
    say(&peer, repeated_result("1"));
    stack.idle();
    assert_eq!(sent(&peer), ["notifications/initialized", "tools/call 1"]);
    // It was asked once.
    say(&peer, repeated_result("1"));
    stack.idle();
    assert!(sent(&peer).is_empty());
}

#[tokio::test(start_paused = true)]
async fn nobody_above_is_told_of_a_repeated_initialize_that_was_lost() {
    let (mut stack, _) = without_an_answer();
    stack.correlation.link.cut();
    assert_eq!(stack.error(), (RequestId::Number(1), "not_sent".into()));
    assert!(assert_ready!(spawn(stack.correlation.next()).poll()).unwrap().is_err());
}

/// The layers above are initialized, while this one is still about to be.
#[tokio::test(start_paused = true)]
async fn what_is_said_after_the_answer_waits_for_it_over_the_next_link_too() {
    let (mut stack, peer) = stack::<RoleClient>();
    stack.send(request(0, InitializeRequest::new(InitializeRequestParams::default())));
    stack.idle();
    say(&peer, initialize_result("1"));
    assert!(matches!(stack.next(), JsonRpcMessage::Response(_)));
    peer.send(Message::Close(None));
    let peer = stack.links.next();
    stack.idle();
    peer.send(Message::Close(None));
    stack.idle();
    let initialized = ClientNotification::from(InitializedNotification::default());
    stack.send(JsonRpcMessage::notification(initialized));
    let peer = stack.links.next_as(RESUMED);
    stack.idle();
    assert!(sent(&peer).is_empty());
    say(&peer, repeated_result("1"));
    stack.idle();
    assert_eq!(sent(&peer), ["notifications/initialized"]);
}
