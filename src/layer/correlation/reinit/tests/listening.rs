//! The lifecycle without `initialize`: what is asked again of the next peer.

use rmcp::model::{
    DiscoverRequest, DiscoverRequestParams, NotificationMetaObject, ProgressNotification,
    ProgressNotificationParam, ProgressToken, ServerNotification, SubscriptionFilter,
    SubscriptionsListenRequest, SubscriptionsListenRequestParams, SubscriptionsListenResult,
    ToolListChangedNotification,
};

use super::*;

fn listen(id: i64) -> ClientJsonRpcMessage {
    let filter = SubscriptionFilter::default();
    let listen = SubscriptionsListenRequest::new(SubscriptionsListenRequestParams::new(filter));
    request(id, listen)
}

fn discover(id: i64) -> ClientJsonRpcMessage {
    request(id, DiscoverRequest::new(DiscoverRequestParams {}))
}

#[tokio::test(start_paused = true)]
async fn a_loss_is_no_answer_to_the_question_what_the_peer_speaks() {
    let (mut stack, peer) = stack::<RoleClient>();
    stack.send(discover(0));
    stack.idle();
    assert_eq!(sent(&peer), ["server/discover 0"]);
    peer.send(Message::Close(None));
    stack.idle();
    stack.send(call(1));
    let peer = stack.links.next();
    stack.idle();
    assert_eq!(sent(&peer), ["server/discover 0", "tools/call 1"]);
    say(&peer, json!({"jsonrpc": "2.0", "id": 0, "result": {}}));
    assert!(matches!(stack.next(), JsonRpcMessage::Response(_)));
    peer.send(Message::Close(None));
    assert_eq!(stack.error(), (RequestId::Number(1), "outcome_unknown".into()));
    let peer = stack.links.next();
    stack.idle();
    assert!(sent(&peer).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_closes_whenever_it_is_asked_what_it_speaks_is_an_answer() {
    let (mut stack, mut peer) = stack::<RoleClient>();
    stack.send(discover(0));
    for _ in 1..MAX_ATTEMPTS {
        stack.idle();
        assert_eq!(sent(&peer), ["server/discover 0"]);
        peer.send(Message::Close(None));
        stack.idle();
        peer = stack.links.next();
    }
    stack.idle();
    peer.send(Message::Close(None));
    assert_eq!(stack.error(), (RequestId::Number(0), "outcome_unknown".into()));
    stack.send(request(1, InitializeRequest::new(InitializeRequestParams::default())));
    let peer = stack.links.next();
    stack.idle();
    assert_eq!(sent(&peer), ["initialize 1"]);
}

#[tokio::test(start_paused = true)]
async fn who_initializes_asks_no_more_what_the_peer_speaks() {
    let (mut stack, peer) = stack::<RoleClient>();
    stack.send(discover(0));
    stack.send(request(1, InitializeRequest::new(InitializeRequestParams::default())));
    stack.idle();
    assert_eq!(sent(&peer), ["server/discover 0", "initialize 1"]);
    peer.send(Message::Close(None));
    let peer = stack.links.next();
    stack.idle();
    assert_eq!(sent(&peer), ["initialize 1"]);
    say(&peer, json!({"jsonrpc": "2.0", "id": 1, "result": {}}));
    assert!(matches!(stack.next(), JsonRpcMessage::Response(_)));
    assert_eq!(stack.error(), (RequestId::Number(0), "outcome_unknown".into()));
}

#[tokio::test(start_paused = true)]
async fn what_is_listened_to_is_asked_for_again_and_once() {
    let (mut stack, peer) = stack::<RoleClient>();
    for id in 1..=2 {
        stack.send(listen(id));
    }
    stack.idle();
    assert_eq!(sent(&peer), ["subscriptions/listen 1", "subscriptions/listen 2"]);
    let enough = cancellation(RequestId::Number(2), "enough".into());
    stack.send(JsonRpcMessage::notification(enough.into()));
    peer.send(Message::Close(None));
    stack.idle();
    stack.send(listen(3));
    for _ in 0..2 {
        let peer = stack.links.next();
        stack.idle();
        let mut sent = sent(&peer);
        sent.sort();
        assert_eq!(sent, ["subscriptions/listen 1", "subscriptions/listen 3"]);
        peer.send(Message::Close(None));
        stack.idle();
    }
}

/// Either side counts its requests from the beginning.
#[tokio::test(start_paused = true)]
async fn what_is_listened_to_outlives_a_request_with_the_same_id() {
    let (mut stack, peer) = stack::<RoleClient>();
    stack.send(listen(1));
    for id in 1..=2 {
        asks(&peer, id);
        assert!(matches!(stack.next(), JsonRpcMessage::Request(_)));
    }
    peer.send(Message::Close(None));
    stack.idle();
    let peer = stack.links.next();
    assert_eq!(stack.cancelled(), RequestId::Number(2));
    stack.idle();
    assert_eq!(sent(&peer), ["subscriptions/listen 1"]);
    say(&peer, cancelled(1));
    assert_eq!(stack.cancelled(), RequestId::Number(1));
    peer.send(Message::Close(None));
    stack.idle();
    let peer = stack.links.next();
    stack.idle();
    assert!(sent(&peer).is_empty());
}

/// The subscription of the peer is ended by this side.
#[tokio::test(start_paused = true)]
async fn a_request_is_cancelled_by_the_id_that_its_peer_gave_it_or_not_at_all() {
    let (mut stack, peer) = stack::<RoleServer>();
    let enough = |id| JsonRpcMessage::notification(cancellation(id, "enough".into()).into());
    let listens = |peer: &Peer| {
        let params = json!({"notifications": {}});
        say(
            peer,
            json!({"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params}),
        );
    };
    listens(&peer);
    let JsonRpcMessage::Request(old) = stack.next() else { panic!("a request") };
    peer.send(Message::Close(None));
    stack.idle();
    let peer = stack.links.next();
    assert_eq!(stack.cancelled(), old.id);
    listens(&peer);
    let JsonRpcMessage::Request(new) = stack.next() else { panic!("a request") };
    stack.send(enough(old.id));
    stack.idle();
    assert_eq!(peer.sent(), [], "who asked is gone");
    stack.send(enough(new.id.clone()));
    stack.idle();
    let [Message::Text(told)] = &peer.sent()[..] else { panic!("a cancellation") };
    let told: Value = serde_json::from_slice(told.as_bytes()).unwrap();
    assert_eq!(told["params"], json!({"requestId": 1, "reason": "enough"}));
    assert_eq!(stack.correlation.inbound.aliases(), 0);
    assert_eq!(stack.correlation.in_flight(), (0, 0));
    stack.send(answer(new.id));
    stack.idle();
    assert_eq!(peer.sent(), []);
}

/// A handler that heeds no cancellation goes on, and clients count their tokens from the start.
#[tokio::test(start_paused = true)]
async fn progress_is_told_to_the_peer_that_asked_for_it_by_the_token_that_it_gave() {
    let (mut stack, mut peer) = stack::<RoleServer>();
    let progress = |token| {
        let progress = ProgressNotification::new(ProgressNotificationParam::new(token, 1.0));
        JsonRpcMessage::notification(ServerNotification::from(progress))
    };
    let mut former = Vec::new();
    // Both of them may look as if this side had made them.
    for given in [json!(1), json!("1"), json!("'1\u{2032}0"), json!("1\u{2032}2")] {
        let params = json!({"name": "add", "_meta": {"progressToken": given}});
        say(&peer, json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}));
        let JsonRpcMessage::Request(request) = stack.next() else { panic!("a request") };
        let token = request.request.get_meta().get_progress_token().unwrap();
        for former in &former {
            stack.send(progress(ProgressToken::clone(former)));
        }
        stack.send(progress(token.clone()));
        stack.idle();
        let told = peer.sent();
        let [Message::Text(told)] = &told[..] else { panic!("{given}: {told:?}") };
        let told: Value = serde_json::from_slice(told.as_bytes()).unwrap();
        assert_eq!(told["params"]["progressToken"], given);
        former.push(token);
        peer.send(Message::Close(None));
        stack.idle();
        peer = stack.links.next();
        stack.cancelled();
    }
}

/// Above, it is known by another id.
#[tokio::test(start_paused = true)]
async fn what_the_peer_listens_to_is_named_as_the_peer_has_it() {
    let (mut stack, peer) = stack::<RoleServer>();
    let changed = |id| {
        let mut meta = NotificationMetaObject::new();
        meta.set_subscription_id(id);
        let mut changed = ToolListChangedNotification::default();
        changed.extensions.insert(meta);
        JsonRpcMessage::notification(ServerNotification::from(changed))
    };
    asks(&peer, 1);
    let JsonRpcMessage::Request(old) = stack.next() else { panic!("a request") };
    peer.send(Message::Close(None));
    stack.idle();
    let peer = stack.links.next();
    assert_eq!(stack.cancelled(), old.id);
    asks(&peer, 1);
    let JsonRpcMessage::Request(new) = stack.next() else { panic!("a request") };
    assert_ne!(old.id, new.id);
    stack.send(changed(old.id));
    stack.send(changed(new.id.clone()));
    let ended = SubscriptionsListenResult::complete(new.id.clone());
    stack.send(JsonRpcMessage::response(ServerResult::SubscriptionsListenResult(ended), new.id));
    stack.idle();
    let told = peer.sent();
    let told = told.iter().map(|message| match message {
        Message::Text(text) => serde_json::from_slice::<Value>(text.as_bytes()).unwrap(),
        other => panic!("{other:?}"),
    });
    let [changed, ended] = &told.collect::<Vec<_>>()[..] else { panic!("two messages") };
    let subscription = "io.modelcontextprotocol/subscriptionId";
    assert_eq!(changed["params"]["_meta"][subscription], 1);
    assert_eq!((&ended["id"], &ended["result"]["_meta"][subscription]), (&json!(1), &json!(1)));
}
