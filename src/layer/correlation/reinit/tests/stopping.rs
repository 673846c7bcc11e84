//! Requests that the peer refuses because it stops.

use super::*;
use crate::layer::correlation::TIMED_OUT;

fn refusal(id: i64) -> Value {
    refusal_for("stopping", id)
}

/// A client whose call 1 was refused, and whose call 2 was not sent therefore.
fn refused() -> (Stack<RoleClient>, Peer) {
    let (mut stack, peer) = initialized();
    stack.send(call(1));
    stack.idle();
    assert_eq!(sent(&peer), ["tools/call 1"]);
    say(&peer, refusal(1));
    stack.idle();
    stack.send(call(2));
    stack.idle();
    assert!(sent(&peer).is_empty(), "the peer is stopping");
    assert_eq!(stack.correlation.in_flight().0, 2);
    (stack, peer)
}

#[tokio::test(start_paused = true)]
async fn they_are_sent_to_the_next_peer() {
    let (mut stack, peer) = refused();
    peer.send(Message::Close(None));
    let peer = stack.links.next();
    stack.idle();
    assert_eq!(sent(&peer), [INITIALIZE_AGAIN]);
    say(&peer, repeated_result("1"));
    stack.idle();
    assert_eq!(sent(&peer), ["notifications/initialized", "tools/call 1", "tools/call 2"]);
    for id in [1, 2] {
        say(&peer, json!({"jsonrpc": "2.0", "id": id, "result": {"content": []}}));
        assert!(matches!(stack.next(), JsonRpcMessage::Response(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn they_are_sent_when_the_session_is_resumed() {
    let (mut stack, peer) = refused();
    peer.send(Message::Close(None));
    let peer = stack.links.next_as(RESUMED);
    stack.idle();
    assert_eq!(sent(&peer), ["tools/call 1", "tools/call 2"]);
    stack.send(call(3));
    stack.idle();
    assert_eq!(sent(&peer), ["tools/call 3"]);
}

/// A stopping server still has its requests answered and its notifications delivered.
#[tokio::test(start_paused = true)]
async fn all_else_passes_meanwhile() {
    let (mut stack, peer) = refused();
    say(&peer, json!({"jsonrpc": "2.0", "id": 7, "method": "ping"}));
    assert!(matches!(stack.next(), JsonRpcMessage::Request(_)));
    stack
        .send(JsonRpcMessage::response(rmcp::model::ClientResult::empty(()), RequestId::Number(7)));
    stack.idle();
    assert_eq!(peer.sent().len(), 1);
}

/// An answer that was queued behind a request does not wait with it.
#[tokio::test(start_paused = true)]
async fn what_was_queued_for_this_peer_still_goes_to_it() {
    let (mut stack, peer) = initialized();
    stack.send(call(1));
    stack.idle();
    say(&peer, json!({"jsonrpc": "2.0", "id": 7, "method": "ping"}));
    assert!(matches!(stack.next(), JsonRpcMessage::Request(_)));
    sent(&peer);
    peer.block(true);
    stack.send(call(2));
    stack
        .send(JsonRpcMessage::response(rmcp::model::ClientResult::empty(()), RequestId::Number(7)));
    say(&peer, refusal(1));
    stack.idle();
    peer.block(false);
    stack.idle();
    let [answer] = &peer.sent()[..] else { panic!("the answer alone") };
    let Message::Text(text) = answer else { panic!("{answer:?} is no text") };
    let answer: Value = serde_json::from_slice(text.as_bytes()).unwrap();
    assert_eq!((&answer["id"], &answer["result"]), (&json!(7), &json!({})));
}

#[tokio::test(start_paused = true)]
async fn they_end_unsent_where_no_connection_comes() {
    let (mut stack, peer) = refused();
    peer.send(Message::Close(None));
    stack.idle();
    stack.correlation.link.cut();
    assert_eq!(stack.error(), (RequestId::Number(1), "not_sent".into()));
    assert_eq!(stack.error(), (RequestId::Number(2), "not_sent".into()));
}

#[tokio::test(start_paused = true)]
async fn one_past_its_deadline_or_cancelled_is_not_sent() {
    let (mut stack, peer) = initialized();
    stack.correlation.config.deadline = Some(Duration::from_secs(5));
    stack.send(call(1));
    stack.send(call(2));
    stack.idle();
    sent(&peer);
    for id in [1, 2] {
        say(&peer, refusal(id));
    }
    stack.idle();
    let param = rmcp::model::CancelledNotificationParam::new(Some(RequestId::Number(2)), None);
    let cancelled = rmcp::model::CancelledNotification::new(param);
    stack.send(JsonRpcMessage::notification(cancelled.into()));
    tokio::time::advance(Duration::from_secs(5)).await;
    let JsonRpcMessage::Error(error) = stack.next() else { panic!("no error") };
    assert_eq!(error.error.code, TIMED_OUT);
    assert_eq!(error.error.data.unwrap()["outcome"], "not_sent");
    peer.send(Message::Close(None));
    let peer = stack.links.next_as(RESUMED);
    stack.idle();
    assert!(sent(&peer).is_empty());
}

#[tokio::test(start_paused = true)]
async fn five_connections_are_enough() {
    let (mut stack, mut peer) = initialized();
    stack.send(call(1));
    for round in 1..=5 {
        stack.idle();
        assert_eq!(sent(&peer), ["tools/call 1"], "{round}");
        say(&peer, refusal(1));
        if round < 5 {
            // Each of them takes its time, which does not count.
            for seconds in [5, 10] {
                stack.idle();
                tokio::time::advance(Duration::from_secs(seconds)).await;
                stack.idle();
                stack.idle();
                assert_eq!(sent(&peer), ["tools/call 1"], "{round}");
                say(&peer, refusal(1));
            }
            stack.idle();
            peer.send(Message::Close(None));
            peer = stack.links.next_as(RESUMED);
        }
    }
    assert_eq!(stack.error(), (RequestId::Number(1), "stopping".into()));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_so_and_stays_is_asked_again() {
    let (mut stack, peer) = refused();
    for seconds in [5, 10, 20, 25] {
        tokio::time::advance(Duration::from_millis(1000 * seconds - 1)).await;
        stack.idle();
        assert!(sent(&peer).is_empty(), "{seconds}");
        tokio::time::advance(Duration::from_millis(1)).await;
        stack.idle();
        stack.idle();
        assert_eq!(sent(&peer), ["tools/call 1", "tools/call 2"], "{seconds}");
        for id in [1, 2] {
            say(&peer, refusal(id));
        }
        if seconds < 25 {
            stack.idle();
        }
    }
    for id in [1, 2] {
        assert_eq!(stack.error(), (RequestId::Number(id), "stopping".into()));
    }
}

/// A gateway whose own server stops says so, too.
#[tokio::test(start_paused = true)]
async fn a_tool_that_says_so_holds_up_the_others_for_a_moment() {
    let (mut stack, peer) = refused();
    stack.send(request(3, rmcp::model::PingRequest::default()));
    stack.idle();
    tokio::time::advance(Duration::from_secs(5)).await;
    stack.idle();
    stack.idle();
    assert_eq!(sent(&peer), ["tools/call 1", "tools/call 2", "ping 3"]);
    say(&peer, json!({"jsonrpc": "2.0", "id": 3, "result": {}}));
    assert!(matches!(stack.next(), JsonRpcMessage::Response(_)));
    say(&peer, refusal(1));
    stack.idle();
    stack.send(call(4));
    stack.idle();
    assert!(sent(&peer).is_empty(), "a pong says nothing");
    say(&peer, json!({"jsonrpc": "2.0", "id": 2, "result": {"content": []}}));
    assert!(matches!(stack.next(), JsonRpcMessage::Response(_)));
    stack.idle();
    assert_eq!(sent(&peer), ["tools/call 1", "tools/call 4"]);
    say(&peer, refusal(1));
    assert_eq!(stack.error(), (RequestId::Number(1), "stopping".into()));
    // From now on it is believed no more, on this connection.
    say(&peer, refusal(4));
    assert_eq!(stack.error(), (RequestId::Number(4), "stopping".into()));
}

#[tokio::test(start_paused = true)]
async fn a_stopping_peer_that_still_answers_what_it_has_is_stopping() {
    let (mut stack, peer) = initialized();
    for id in [1, 2] {
        stack.send(call(id));
    }
    stack.idle();
    sent(&peer);
    say(&peer, refusal(1));
    stack.idle();
    say(&peer, json!({"jsonrpc": "2.0", "id": 2, "result": {"content": []}}));
    assert!(matches!(stack.next(), JsonRpcMessage::Response(_)));
    stack.send(call(3));
    stack.idle();
    assert!(sent(&peer).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_repeated_initialize_that_is_refused_so_is_not_the_end() {
    let (mut stack, peer) = refused();
    peer.send(Message::Close(None));
    let peer = stack.links.next();
    stack.idle();
    assert_eq!(sent(&peer), [INITIALIZE_AGAIN]);
    say(&peer, refusal(REPEATED_ID));
    stack.idle();
    peer.send(Message::Close(None));
    let peer = stack.links.next();
    stack.idle();
    assert_eq!(sent(&peer), [INITIALIZE_AGAIN]);
    say(&peer, repeated_result("1"));
    stack.idle();
    assert_eq!(sent(&peer), ["notifications/initialized", "tools/call 1", "tools/call 2"]);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_want_that_is_told_of_the_refusal() {
    let (mut stack, peer) = initialized();
    stack.correlation.config.retry_refused = false;
    stack.send(call(1));
    stack.idle();
    say(&peer, refusal(1));
    assert_eq!(stack.error(), (RequestId::Number(1), "stopping".into()));
    stack.send(call(2));
    stack.idle();
    assert_eq!(sent(&peer), ["tools/call 1", "tools/call 2"]);
}
