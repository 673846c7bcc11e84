//! A peer that closes the connection with 1009, and has not said what it takes.

use std::sync::Arc;

use super::*;

fn call_of(id: i64, size: usize) -> ClientJsonRpcMessage {
    let Value::Object(arguments) = json!({"text": "x".repeat(size)}) else { unreachable!() };
    request(id, CallToolRequest::new(CallToolRequestParams::new("add").with_arguments(arguments)))
}

fn too_big() -> Message {
    Message::Close(Some(CloseCode::TooBig.into()))
}

/// A client that has sent 1 to 4, of which the third is large and the first is answered.
fn sent_much() -> (Stack<RoleClient>, Peer) {
    let (mut stack, peer) = initialized();
    for (id, size) in [(1, 10), (2, 10), (3, 5000), (4, 20)] {
        stack.send(call_of(id, size));
    }
    stack.idle();
    say(&peer, json!({"jsonrpc": "2.0", "id": 1, "result": {"content": []}}));
    assert!(matches!(stack.next(), JsonRpcMessage::Response(_)));
    sent(&peer);
    (stack, peer)
}

/// The next peer, and what it is sent once it has answered `initialize`.
fn next(stack: &mut Stack<RoleClient>) -> (Peer, Vec<String>) {
    stack.idle();
    let peer = stack.links.next();
    stack.idle();
    assert_eq!(sent(&peer), [INITIALIZE_AGAIN]);
    say(&peer, repeated_result("1"));
    stack.idle();
    let sent = sent(&peer);
    (peer, sent)
}

#[tokio::test(start_paused = true)]
async fn the_largest_request_was_not_read_nor_any_after_it() {
    let (mut stack, peer) = sent_much();
    peer.send(too_big());
    let JsonRpcMessage::Error(error) = stack.next() else { panic!("no error") };
    assert_eq!(error.id, Some(RequestId::Number(3)));
    let data = error.error.data.unwrap();
    let size = data["size"].as_u64().unwrap();
    assert_eq!((&data["reason"], size > 5000 && size < 5200), (&json!("not_sent"), true));
    assert!(error.error.message.contains("1009"), "{}", error.error.message);
    assert_eq!(stack.error(), (RequestId::Number(2), "outcome_unknown".into()));
    let (peer, sent) = next(&mut stack);
    assert_eq!(sent, ["notifications/initialized", "tools/call 4"]);
    // And nothing of that size goes out any more.
    stack.send(call_of(5, 5000));
    assert_eq!(stack.error(), (RequestId::Number(5), "not_sent".into()));
    say(&peer, json!({"jsonrpc": "2.0", "id": 4, "result": {"content": []}}));
    assert!(matches!(stack.next(), JsonRpcMessage::Response(_)));
}

#[tokio::test(start_paused = true)]
async fn it_is_not_sent_again_where_all_else_is() {
    let (mut stack, peer) = initialized();
    stack.correlation.replay = Some(Arc::new(|_: &ClientRequest| Replay::Resend));
    for (id, size) in [(2, 10), (3, 5000), (4, 20)] {
        stack.send(call_of(id, size));
    }
    stack.idle();
    sent(&peer);
    peer.send(too_big());
    assert_eq!(stack.error(), (RequestId::Number(3), "not_sent".into()));
    let (_, sent) = next(&mut stack);
    assert_eq!(sent, ["notifications/initialized", "tools/call 2", "tools/call 4"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_was_read_is_not_to_blame() {
    let (mut stack, peer) = sent_much();
    // So the third was read as well.
    say(&peer, json!({"jsonrpc": "2.0", "id": 4, "result": {"content": []}}));
    assert!(matches!(stack.next(), JsonRpcMessage::Response(_)));
    stack.send(call_of(5, 30));
    stack.idle();
    peer.send(too_big());
    for id in [2, 3, 5] {
        assert_eq!(stack.error(), (RequestId::Number(id), "outcome_unknown".into()));
    }
}

/// A larger notification was too large, and of requests only those after it are known to be unread.
#[tokio::test(start_paused = true)]
async fn a_request_is_not_to_blame_for_what_is_none() {
    let (mut stack, peer) = initialized();
    stack.send(call_of(1, 2000));
    let padding = json!({"padding": "x".repeat(5000)});
    let large = rmcp::model::CustomNotification::new("acme/large", Some(padding));
    stack.send(JsonRpcMessage::notification(ClientNotification::CustomNotification(large)));
    stack.send(call_of(2, 2000));
    stack.idle();
    sent(&peer);
    peer.send(too_big());
    assert_eq!(stack.error(), (RequestId::Number(1), "outcome_unknown".into()));
    let (_, sent) = next(&mut stack);
    assert_eq!(sent, ["notifications/initialized", "tools/call 2"]);
}

/// A broadcast goes to the link past the layer that knows the requests.
#[tokio::test(start_paused = true)]
async fn a_request_is_not_to_blame_for_a_broadcast() {
    let (mut stack, peer) = initialized();
    stack.send(call_of(1, 2000));
    stack.idle();
    let large =
        json!({"jsonrpc": "2.0", "method": "acme/large", "params": {"a": "x".repeat(5000)}});
    stack.correlation.link.try_send(Message::text(large.to_string())).unwrap();
    stack.idle();
    stack.send(call_of(2, 2000));
    stack.idle();
    sent(&peer);
    peer.send(too_big());
    assert_eq!(stack.error(), (RequestId::Number(1), "outcome_unknown".into()));
    let (_, sent) = next(&mut stack);
    assert_eq!(sent, ["notifications/initialized", "tools/call 2"]);
}

/// A refusal echoes the id of the request, however long that is.
#[tokio::test(start_paused = true)]
async fn a_request_is_not_to_blame_for_a_refusal() {
    let (mut stack, peer) = initialized();
    stack.send(call_of(1, 2000));
    let id = "i".repeat(5000);
    for refused in [
        json!({"jsonrpc": "1.0", "id": id, "method": "ping"}),
        json!({"jsonrpc": "2.0", "id": id, "method": "ping", "params": []}),
    ] {
        say(&peer, refused);
        stack.idle();
    }
    stack.send(call_of(2, 10));
    stack.idle();
    assert_eq!(sent(&peer).len(), 4);
    peer.send(too_big());
    assert_eq!(stack.error(), (RequestId::Number(1), "outcome_unknown".into()));
    let (_, sent) = next(&mut stack);
    assert_eq!(sent, ["notifications/initialized", "tools/call 2"]);
}

/// Only that which opens the session is repeated until it is answered.
#[tokio::test(start_paused = true)]
async fn a_second_initialize_after_it_goes_to_the_next_peer() {
    let (mut stack, peer) = initialized();
    stack.send(call_of(1, 5000));
    stack.send(request(2, InitializeRequest::new(InitializeRequestParams::default())));
    stack.idle();
    assert_eq!(sent(&peer), ["tools/call 1", "initialize 2"]);
    peer.send(too_big());
    assert_eq!(stack.error(), (RequestId::Number(1), "not_sent".into()));
    let (peer, sent) = next(&mut stack);
    assert_eq!(sent, ["notifications/initialized", "initialize 2"]);
    say(&peer, result_of_initialize(2, "2"));
    assert!(matches!(stack.next(), JsonRpcMessage::Response(_)));
}

#[tokio::test(start_paused = true)]
async fn a_second_initialize_that_is_too_large_ends() {
    let (mut stack, peer) = initialized();
    let mut params = InitializeRequestParams::default();
    params.client_info.name = "x".repeat(5000);
    stack.send(request(1, InitializeRequest::new(params)));
    stack.send(call(2));
    stack.idle();
    assert_eq!(sent(&peer), ["initialize 1", "tools/call 2"]);
    peer.send(too_big());
    assert_eq!(stack.error(), (RequestId::Number(1), "not_sent".into()));
    let (_, sent) = next(&mut stack);
    assert_eq!(sent, ["notifications/initialized", "tools/call 2"]);
}

#[tokio::test(start_paused = true)]
async fn another_end_blames_nobody() {
    let (mut stack, peer) = sent_much();
    peer.send(Message::Close(Some(CloseCode::Abnormal.into())));
    for id in [2, 3, 4] {
        assert_eq!(stack.error(), (RequestId::Number(id), "outcome_unknown".into()));
    }
}

/// A request is on its way until the peer has read it, whether anybody waits for it or not.
#[tokio::test(start_paused = true)]
async fn a_large_request_that_was_given_up_is_still_the_one_to_blame() {
    let (mut stack, peer) = initialized();
    for (id, size) in [(1, 3000), (2, 10), (3, 5000)] {
        stack.send(call_of(id, size));
    }
    stack.idle();
    sent(&peer);
    let given_up = cancellation(RequestId::Number(3), "enough".into());
    stack.send(JsonRpcMessage::notification(given_up.into()));
    stack.idle();
    peer.send(too_big());
    // They were sent before, and may have run.
    for id in [1, 2] {
        assert_eq!(stack.error(), (RequestId::Number(id), "outcome_unknown".into()));
    }
    let (peer, sent_again) = next(&mut stack);
    assert_eq!(sent_again, ["notifications/initialized"]);
    // And as large a message as the first goes out.
    stack.send(call_of(4, 3000));
    stack.idle();
    assert_eq!(sent(&peer), ["tools/call 4"]);
}

/// A proxy may close both its connections for what the server has said.
#[tokio::test(start_paused = true)]
async fn a_request_that_every_peer_takes_is_not_to_blame() {
    let (mut stack, peer) = initialized();
    for (id, size) in [(1, 400), (2, 10)] {
        stack.send(call_of(id, size));
    }
    stack.idle();
    sent(&peer);
    peer.send(too_big());
    for id in [1, 2] {
        assert_eq!(stack.error(), (RequestId::Number(id), "outcome_unknown".into()));
    }
    let (peer, sent_again) = next(&mut stack);
    assert_eq!(sent_again, ["notifications/initialized"]);
    stack.send(call_of(3, 3000));
    stack.idle();
    assert_eq!(sent(&peer), ["tools/call 3"]);
}
