//! Requests that the peer refuses since it has too many, where its connection is lost.

use super::*;

fn refusal(id: i64) -> Value {
    refusal_for("too_many_requests", id)
}

/// A client whose calls 1 to 3 were refused.
fn refused() -> (Stack<RoleClient>, Peer) {
    let (mut stack, peer) = initialized();
    (1..=3).for_each(|id| stack.send(call(id)));
    stack.idle();
    sent(&peer);
    (1..=3).for_each(|id| say(&peer, refusal(id)));
    stack.idle();
    (stack, peer)
}

/// A peer on another link has as many requests as before, and is treated as carefully.
#[tokio::test(start_paused = true)]
async fn the_same_peer_on_another_link_is_sent_one_at_first() {
    let (mut stack, peer) = refused();
    peer.send(Message::Close(None));
    stack.idle();
    tokio::time::advance(Duration::from_secs(100)).await;
    stack.idle();
    let peer = stack.links.next_as(RESUMED);
    stack.idle();
    assert!(sent(&peer).is_empty());
    tokio::time::advance(Duration::from_millis(100)).await;
    stack.idle();
    assert_eq!(sent(&peer), ["tools/call 1"]);
    say(&peer, refusal(1));
    stack.idle();
    assert!(sent(&peer).is_empty());
}

#[tokio::test(start_paused = true)]
async fn another_peer_is_sent_all() {
    let (mut stack, peer) = refused();
    peer.send(Message::Close(None));
    let peer = stack.links.next();
    stack.idle();
    assert_eq!(sent(&peer), [INITIALIZE_AGAIN]);
    say(&peer, repeated_result("1"));
    stack.idle();
    let calls = ["tools/call 1", "tools/call 2", "tools/call 3"];
    assert_eq!(sent(&peer), [&["notifications/initialized"], &calls[..]].concat());
}

#[tokio::test(start_paused = true)]
async fn they_end_unsent_where_no_connection_comes() {
    let (mut stack, peer) = refused();
    peer.send(Message::Close(None));
    stack.idle();
    stack.correlation.link.cut();
    for id in 1..=3 {
        assert_eq!(stack.error(), (RequestId::Number(id), "not_sent".into()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeated_initialize_that_is_refused_so_is_not_the_end() {
    for up in [LinkUp::NewPeer, RESUMED] {
        let (mut stack, peer) = refused();
        peer.send(Message::Close(None));
        let peer = stack.links.next();
        stack.idle();
        say(&peer, refusal(REPEATED_ID));
        stack.idle();
        peer.send(Message::Close(None));
        let peer = stack.links.next_as(up);
        stack.idle();
        assert_eq!(sent(&peer), [INITIALIZE_AGAIN]);
        // One that is not refused is answered within the session, on whichever link.
        peer.send(Message::Close(None));
        let peer = stack.links.next_as(RESUMED);
        stack.idle();
        assert!(sent(&peer).is_empty());
        say(&peer, repeated_result("1"));
        stack.idle();
        assert_eq!(sent(&peer)[0], "notifications/initialized");
    }
}

/// A request that may run twice is repeated where it was sent: it was not.
#[tokio::test(start_paused = true)]
async fn none_is_sent_twice_to_another_peer() {
    let (mut stack, peer) = initialized();
    stack.correlation.replay = Some(Arc::new(|_| Replay::Resend));
    stack.send(call(1));
    stack.idle();
    say(&peer, refusal(1));
    stack.idle();
    sent(&peer);
    peer.send(Message::Close(None));
    let peer = stack.links.next();
    stack.idle();
    say(&peer, repeated_result("1"));
    stack.idle();
    assert_eq!(sent(&peer), [INITIALIZE_AGAIN, "notifications/initialized", "tools/call 1"]);
}
