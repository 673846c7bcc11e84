//! A client that uses the id of its `initialize` for other requests, which MCP forbids.

use std::sync::Arc;

use super::*;
use crate::framing::Envelope;

impl Stack<RoleClient> {
    /// Asserts that the next peer is initialized as the first was, and is sent nothing else.
    fn begins_again(&mut self) -> Peer {
        let peer = self.links.next();
        self.idle();
        assert_eq!(sent(&peer), [INITIALIZE_AGAIN]);
        say(&peer, repeated_result("1"));
        self.idle();
        assert_eq!(sent(&peer), ["notifications/initialized"]);
        assert!(matches!(self.news(), Event::Lost(_)));
        assert!(matches!(self.news(), Event::Restarted { changed: None }));
        peer
    }

    fn ended(&mut self) -> RequestId {
        match self.next() {
            JsonRpcMessage::Response(response) => response.id,
            JsonRpcMessage::Error(error) => error.id.unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

fn initialize(id: i64) -> ClientJsonRpcMessage {
    request(id, InitializeRequest::new(InitializeRequestParams::default()))
}

fn refuses(peer: &Peer, id: i64) {
    say(peer, json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32602, "message": "no"}}));
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_call_is_not_one_to_initialize() {
    for answer in [
        json!({"jsonrpc": "2.0", "id": 0, "error": {"code": -32602, "message": "no"}}),
        json!({"jsonrpc": "2.0", "id": 0, "result": {"content": []}}),
    ] {
        let (mut stack, peer) = initialized();
        stack.send(call(0));
        stack.idle();
        say(&peer, answer);
        assert_eq!(stack.ended(), RequestId::Number(0));
        peer.send(Message::Close(None));
        stack.idle();
        stack.begins_again();
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_in_flight_at_a_loss_ends() {
    let (mut stack, peer) = initialized();
    stack.send(call(0));
    stack.idle();
    peer.send(Message::Close(None));
    assert_eq!(stack.error(), (RequestId::Number(0), "outcome_unknown".into()));
    stack.idle();
    stack.begins_again();
}

#[tokio::test(start_paused = true)]
async fn a_call_while_initialize_is_repeated_waits_and_is_answered() {
    let (mut stack, peer) = initialized();
    peer.send(Message::Close(None));
    stack.idle();
    let peer = stack.links.next();
    stack.idle();
    assert_eq!(sent(&peer), [INITIALIZE_AGAIN]);
    assert!(!stack.correlation.is_pending(&RequestId::Number(0)), "it may be used");
    stack.send(call(0));
    stack.idle();
    say(&peer, repeated_result("1"));
    stack.idle();
    assert_eq!(sent(&peer), ["notifications/initialized", "tools/call 0"]);
    say(&peer, json!({"jsonrpc": "2.0", "id": 0, "result": {"content": []}}));
    assert_eq!(stack.ended(), RequestId::Number(0));
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_refused_initialize_is_no_answer_to_it() {
    let (mut stack, peer) = stack::<RoleClient>();
    stack.send(initialize(0));
    stack.idle();
    refuses(&peer, 0);
    assert_eq!(stack.ended(), RequestId::Number(0));
    stack.send(call(0));
    stack.idle();
    say(&peer, json!({"jsonrpc": "2.0", "id": 0, "result": {"content": []}}));
    assert_eq!(stack.ended(), RequestId::Number(0));
    peer.send(Message::Close(None));
    stack.idle();
    let peer = stack.links.next();
    stack.send(call(1));
    stack.idle();
    assert_eq!(sent(&peer), ["tools/call 1"], "nothing was agreed on");
}

#[tokio::test(start_paused = true)]
async fn a_session_outlives_a_second_initialize_that_is_refused_or_lost() {
    let (mut stack, peer) = initialized();
    stack.send(initialize(1));
    stack.idle();
    refuses(&peer, 1);
    assert_eq!(stack.ended(), RequestId::Number(1));
    peer.send(Message::Close(None));
    stack.idle();
    let peer = stack.begins_again();
    stack.send(initialize(2));
    stack.idle();
    peer.send(Message::Close(None));
    assert_eq!(stack.error(), (RequestId::Number(2), "outcome_unknown".into()));
    stack.idle();
    stack.begins_again();
}

/// A second `initialize` that waits was not sent to that peer yet.
#[tokio::test(start_paused = true)]
async fn an_answer_to_a_second_initialize_that_waits_is_not_one_to_the_repeated() {
    let (mut stack, peer) = initialized();
    peer.send(Message::Close(None));
    stack.idle();
    stack.send(initialize(1));
    stack.send(call(2));
    let peer = stack.links.next();
    stack.idle();
    assert_eq!(sent(&peer), [INITIALIZE_AGAIN]);
    say(&peer, result_of_initialize(1, "1"));
    assert_eq!(stack.ended(), RequestId::Number(1));
    say(&peer, repeated_result("1"));
    stack.idle();
    assert_eq!(sent(&peer), ["notifications/initialized", "initialize 1", "tools/call 2"]);
}

/// A framing whose answers have no ids relies on the order of what was sent.
#[tokio::test(start_paused = true)]
async fn what_is_kept_for_another_peer_is_not_recorded_as_sent() {
    let (link, peer) = fake::link();
    let reconnect = Reconnect::new(link, Links::default());
    let shared = SharedLink::new(reconnect, shared_link::Config::default());
    let framed = Framed::new(shared, Envelope::default(), framed::Config::default());
    let state = watch::Sender::new(State::Connecting);
    let events = ConnectionEvents::new(state, Broadcaster::default());
    let stack = Correlation::<RoleClient, _>::new(framed, Config::default());
    let mut stack = stack.outliving(events, ReconnectHandle::default());
    stack.start_send_unpin(initialize(7)).unwrap();
    stack.start_send_unpin(call(8)).unwrap();
    assert_pending!(spawn(stack.next()).poll());
    for id in [7, 8] {
        say(&peer, json!({"type": "error", "error": {"code": -32602, "message": "no"}}));
        let ended = assert_ready!(spawn(stack.next()).poll()).unwrap().unwrap();
        let JsonRpcMessage::Error(error) = ended else { panic!("{ended:?}") };
        assert_eq!(error.id, Some(RequestId::Number(id)));
    }
}

/// Returns a client whose new peer was sent a repeated `initialize`, and has not answered.
fn repeating() -> (Stack<RoleClient>, Peer) {
    let (mut stack, peer) = initialized();
    peer.send(Message::Close(None));
    stack.idle();
    let peer = stack.links.next();
    stack.idle();
    assert_eq!(sent(&peer), [INITIALIZE_AGAIN]);
    (stack, peer)
}

const REPEATED_CALL: &str = "tools/call 9007199254740991";

/// Returns a client whose new peer was sent a repeated `initialize` with the id of a call that the
/// former peer was sent, and that is to be sent again.
fn repeating_before_a_call(deadline: Option<Duration>) -> (Stack<RoleClient>, Peer) {
    let (mut stack, peer) = initialized();
    stack.correlation.replay = Some(Arc::new(|_: &ClientRequest| Replay::Resend));
    stack.correlation.config.deadline = deadline;
    stack.send(call(REPEATED_ID));
    stack.idle();
    assert_eq!(sent(&peer), [REPEATED_CALL]);
    peer.send(Message::Close(None));
    stack.idle();
    let peer = stack.links.next();
    stack.idle();
    assert_eq!(sent(&peer), [INITIALIZE_AGAIN]);
    (stack, peer)
}

fn answers_repeated_call(stack: &mut Stack<RoleClient>, peer: &Peer) {
    say(peer, json!({"jsonrpc": "2.0", "id": REPEATED_ID, "result": {"content": []}}));
    assert_eq!(stack.ended(), RequestId::Number(REPEATED_ID));
    stack.idle();
}

#[tokio::test(start_paused = true)]
async fn a_call_with_the_id_of_a_repeated_initialize_that_was_made_before_is_answered() {
    let (mut stack, peer) = initialized();
    peer.send(Message::Close(None));
    stack.idle();
    stack.send(call(REPEATED_ID));
    let peer = stack.links.next();
    stack.idle();
    assert_eq!(sent(&peer), [INITIALIZE_AGAIN]);
    say(&peer, repeated_result("1"));
    stack.idle();
    assert_eq!(sent(&peer), ["notifications/initialized", REPEATED_CALL]);
    answers_repeated_call(&mut stack, &peer);
}

#[tokio::test(start_paused = true)]
async fn a_call_with_the_id_of_a_repeated_initialize_that_is_made_meanwhile_is_answered() {
    let (mut stack, peer) = repeating();
    assert!(!stack.correlation.is_pending(&RequestId::Number(REPEATED_ID)), "it may be used");
    stack.send(call(REPEATED_ID));
    stack.idle();
    // Some servers make a string of it.
    let mut result = repeated_result("1");
    result["id"] = REPEATED_ID.to_string().into();
    say(&peer, result);
    stack.idle();
    assert_eq!(sent(&peer), ["notifications/initialized", REPEATED_CALL]);
    answers_repeated_call(&mut stack, &peer);
}

#[tokio::test(start_paused = true)]
async fn a_call_with_the_id_of_a_repeated_initialize_is_sent_again_if_it_may_be() {
    let (mut stack, peer) = repeating_before_a_call(None);
    say(&peer, repeated_result("1"));
    stack.idle();
    assert_eq!(sent(&peer), ["notifications/initialized", REPEATED_CALL]);
    answers_repeated_call(&mut stack, &peer);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_taken_back_takes_no_repeated_initialize_back() {
    let (mut stack, peer) = repeating();
    stack.send(call(REPEATED_ID));
    let enough = cancellation(RequestId::Number(REPEATED_ID), "enough".into());
    stack.send(JsonRpcMessage::notification(enough.into()));
    stack.idle();
    say(&peer, repeated_result("1"));
    stack.idle();
    assert_eq!(sent(&peer), ["notifications/initialized"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_with_the_id_of_a_repeated_initialize_keeps_its_deadline() {
    let (mut stack, peer) = repeating();
    stack.correlation.config.deadline = Some(ANSWER_TIMEOUT / 2);
    stack.send(call(REPEATED_ID));
    stack.idle();
    tokio::time::advance(ANSWER_TIMEOUT / 2).await;
    assert_eq!(stack.error(), (RequestId::Number(REPEATED_ID), "timed_out".into()));
    stack.idle();
    say(&peer, repeated_result("1"));
    stack.idle();
    assert_eq!(sent(&peer), ["notifications/initialized"]);
}

#[tokio::test(start_paused = true)]
async fn the_cancellation_of_a_call_cancels_no_repeated_initialize() {
    let (mut stack, peer) = repeating_before_a_call(None);
    let enough = cancellation(RequestId::Number(REPEATED_ID), "enough".into());
    stack.send(JsonRpcMessage::notification(enough.into()));
    stack.idle();
    say(&peer, repeated_result("1"));
    stack.idle();
    assert_eq!(sent(&peer), ["notifications/initialized"]);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_call_cancels_no_repeated_initialize() {
    let (mut stack, peer) = repeating_before_a_call(Some(ANSWER_TIMEOUT / 2));
    tokio::time::advance(ANSWER_TIMEOUT / 2).await;
    assert_eq!(stack.error(), (RequestId::Number(REPEATED_ID), "timed_out".into()));
    stack.idle();
    say(&peer, repeated_result("1"));
    stack.idle();
    assert_eq!(sent(&peer), ["notifications/initialized"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_with_the_id_of_a_repeated_initialize_ends_with_the_connection() {
    let (mut stack, _peer) = repeating();
    stack.send(call(REPEATED_ID));
    stack.correlation.link.cut();
    assert_eq!(stack.error(), (RequestId::Number(REPEATED_ID), "not_sent".into()));
    assert!(assert_ready!(spawn(stack.correlation.next()).poll()).unwrap().is_err());
    assert_eq!(stack.correlation.in_flight(), (0, 0));
}
