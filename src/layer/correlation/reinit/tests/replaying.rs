//! Requests that may run twice.

use std::sync::Arc;

use rmcp::model::ListToolsRequest;

use super::*;

fn list(id: i64) -> ClientJsonRpcMessage {
    request(id, ListToolsRequest::default())
}

/// A client of which lists may be asked for twice.
fn replaying() -> (Stack<RoleClient>, Peer) {
    let (mut stack, peer) = initialized();
    stack.correlation.replay = Some(Arc::new(|request: &ClientRequest| match request {
        ClientRequest::ListToolsRequest(_) => Replay::Resend,
        _ => Replay::Fail,
    }));
    (stack, peer)
}

impl Stack<RoleClient> {
    /// Brings up a new peer, which answers `initialize`. Returns what it is sent after that.
    fn begins_anew(&mut self) -> (Peer, Vec<String>) {
        let peer = self.links.next();
        self.idle();
        assert_eq!(sent(&peer), [INITIALIZE_AGAIN]);
        say(&peer, repeated_result("1"));
        self.idle();
        let sent = sent(&peer);
        (peer, sent)
    }
}

#[tokio::test(start_paused = true)]
async fn they_are_sent_again_in_order_until_they_are_answered() {
    let (mut stack, peer) = replaying();
    for message in [list(3), call(1), list(2)] {
        stack.send(message);
    }
    stack.idle();
    peer.send(Message::Close(None));
    assert_eq!(stack.error(), (RequestId::Number(1), "outcome_unknown".into()));
    stack.idle();
    stack.send(list(4));
    let (peer, sent) = stack.begins_anew();
    assert_eq!(sent, ["notifications/initialized", "tools/list 3", "tools/list 2", "tools/list 4"]);
    // Some servers make a string of it.
    say(&peer, json!({"jsonrpc": "2.0", "id": "3", "result": {"tools": []}}));
    assert!(matches!(stack.next(), JsonRpcMessage::Response(_)));
    assert_eq!(stack.correlation.reinit.as_ref().unwrap().repeats(), 2);
    peer.send(Message::Close(None));
    stack.idle();
    let (_, sent) = stack.begins_anew();
    assert_eq!(sent, ["notifications/initialized", "tools/list 2", "tools/list 4"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_the_peer_does_not_survive_ends() {
    let (mut stack, mut peer) = replaying();
    stack.send(list(1));
    stack.idle();
    for _ in 1..MAX_ATTEMPTS {
        peer.send(Message::Close(None));
        stack.idle();
        let (next, sent) = stack.begins_anew();
        assert_eq!(sent, ["notifications/initialized", "tools/list 1"]);
        peer = next;
    }
    peer.send(Message::Close(None));
    assert_eq!(stack.error(), (RequestId::Number(1), "outcome_unknown".into()));
    stack.idle();
    let (_, sent) = stack.begins_anew();
    assert_eq!(sent, ["notifications/initialized"]);
}

/// Only of the peer that refuses it is known that it has not run it.
#[tokio::test(start_paused = true)]
async fn one_that_another_peer_refuses_may_have_run() {
    for reason in ["too_many_requests", "stopping"] {
        let (mut stack, peer) = replaying();
        stack.send(list(1));
        stack.idle();
        peer.send(Message::Close(None));
        stack.idle();
        let (peer, sent) = stack.begins_anew();
        assert_eq!(sent, ["notifications/initialized", "tools/list 1"]);
        say(&peer, refusal_for(reason, 1));
        stack.idle();
        stack.correlation.link.cut();
        assert_eq!(stack.error(), (RequestId::Number(1), "outcome_unknown".into()), "{reason}");

        let (mut stack, peer) = replaying();
        stack.correlation.config.retry_refused = false;
        stack.send(list(1));
        stack.idle();
        peer.send(Message::Close(None));
        stack.idle();
        let (peer, _) = stack.begins_anew();
        say(&peer, refusal_for(reason, 1));
        assert_eq!(stack.error(), (RequestId::Number(1), "outcome_unknown".into()), "{reason}");
        assert_eq!(stack.correlation.reinit.as_ref().unwrap().repeats(), 0);
    }
}

/// The next peer has lost no answer.
#[tokio::test(start_paused = true)]
async fn an_answer_that_one_peer_has_lost_is_not_missed_from_the_next() {
    let (mut stack, peer) = initialized();
    stack.correlation.replay = Some(Arc::new(|_: &ClientRequest| Replay::Resend));
    for id in [1, 2] {
        stack.send(call(id));
    }
    stack.idle();
    say(&peer, json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32700, "message": "m"}}));
    stack.idle();
    tokio::time::advance(std::time::Duration::from_secs(50)).await;
    peer.send(Message::Close(Some(CloseCode::Abnormal.into())));
    stack.idle();
    let peer = stack.links.next();
    stack.idle();
    say(&peer, repeated_result("1"));
    stack.idle();
    sent(&peer);
    tokio::time::advance(std::time::Duration::from_secs(30)).await;
    stack.idle();
}
