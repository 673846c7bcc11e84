//! `server/discover` in flight when `initialize` is sent.

use rmcp::model::{
    ClientRequest, DiscoverRequest, DiscoverRequestParams, InitializeRequest,
    InitializeRequestParams,
};

use super::*;

fn request(id: i64, request: impl Into<ClientRequest>) -> TxJsonRpcMessage<RoleClient> {
    JsonRpcMessage::request(request.into(), RequestId::Number(id))
}

fn discover() -> DiscoverRequest {
    DiscoverRequest::new(DiscoverRequestParams {})
}

fn initialize() -> InitializeRequest {
    InitializeRequest::new(InitializeRequestParams::default())
}

/// A client that has sent `server/discover` as number 0, and `initialize` as number 1.
fn superseded(config: Config) -> (Correlation<RoleClient, JsonRpc>, Peer) {
    let (mut stack, peer, _) = correlation::<RoleClient>(config);
    stack.start_send_unpin(request(0, discover())).unwrap();
    stack.start_send_unpin(request(1, initialize())).unwrap();
    assert_pending!(spawn(stack.next()).poll());
    peer.sent();
    (stack, peer)
}

fn answer(peer: &Peer, id: i64) {
    say(peer, json!({"jsonrpc": "2.0", "id": id, "result": {}}));
}

/// The id of the response or error that comes next.
fn ended(stack: &mut Correlation<RoleClient, JsonRpc>) -> RequestId {
    match assert_ready!(spawn(stack.next()).poll()).unwrap().unwrap() {
        JsonRpcMessage::Response(response) => response.id,
        JsonRpcMessage::Error(error) => error.id.unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_late_answer_comes_behind_that_to_initialize() {
    let (mut stack, peer) = superseded(Config::default());
    answer(&peer, 0);
    let told = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
    say(&peer, told);
    let told = assert_ready!(spawn(stack.next()).poll());
    assert!(matches!(told, Some(Ok(JsonRpcMessage::Notification(_)))), "{told:?}");
    assert_pending!(spawn(stack.next()).poll());
    answer(&peer, 1);
    assert_eq!([ended(&mut stack), ended(&mut stack)], [1, 0].map(RequestId::Number));
    assert_pending!(spawn(stack.next()).poll());
    stack.start_send_unpin(request(0, discover())).unwrap();
    answer(&peer, 0);
    assert_eq!(ended(&mut stack), RequestId::Number(0));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_is_told_behind_it_too() {
    let second = Duration::from_secs(1);
    let (mut stack, peer) = superseded(Config::default().deadline(15 * second));
    advance(10 * second).await;
    say(&peer, json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "no"}}));
    assert_eq!(ended(&mut stack), RequestId::Number(1));
    assert_pending!(spawn(stack.next()).poll());
    advance(5 * second).await;
    assert_eq!(ended(&mut stack), RequestId::Number(0));

    let (mut stack, _) = superseded(Config::default().deadline(15 * second));
    advance(15 * second).await;
    assert_eq!([ended(&mut stack), ended(&mut stack)], [1, 0].map(RequestId::Number));
}

#[test]
fn each_ends_where_the_connection_does() {
    let (mut stack, peer) = superseded(Config::default());
    answer(&peer, 0);
    peer.send(Message::Close(None));
    assert_eq!([ended(&mut stack), ended(&mut stack)], [1, 0].map(RequestId::Number));
    assert!(matches!(assert_ready!(spawn(stack.next()).poll()), Some(Err(_))));
    assert!(assert_ready!(spawn(stack.next()).poll()).is_none());
}

#[test]
fn it_ends_where_initialize_is_cancelled() {
    let (mut stack, peer) = superseded(Config::default());
    answer(&peer, 0);
    assert_pending!(spawn(stack.next()).poll());
    let cancelled = cancellation(RequestId::Number(1), "given up".into());
    stack.start_send_unpin(JsonRpcMessage::notification(cancelled.into())).unwrap();
    assert_eq!(ended(&mut stack), RequestId::Number(0));
}

/// Then nothing is said to the peer, whose answer might wake the reader.
#[test]
fn it_ends_where_initialize_is_cancelled_before_it_was_sent() {
    let (mut stack, peer, _) = correlation::<RoleClient>(Config::default());
    stack.start_send_unpin(request(0, discover())).unwrap();
    let mut stack = spawn(stack);
    assert_pending!(stack.poll_next());
    peer.block(true);
    stack.start_send_unpin(request(1, initialize())).unwrap();
    answer(&peer, 0);
    assert_pending!(stack.poll_next());
    let cancelled = cancellation(RequestId::Number(1), "given up".into());
    stack.start_send_unpin(JsonRpcMessage::notification(cancelled.into())).unwrap();
    assert!(stack.is_woken());
    assert_eq!(ended(&mut stack), RequestId::Number(0));
}

#[test]
fn initialize_with_the_same_id_waits_for_nothing() {
    let (mut stack, peer, _) = correlation::<RoleClient>(Config::default());
    stack.start_send_unpin(request(0, discover())).unwrap();
    stack.start_send_unpin(request(0, initialize())).unwrap();
    answer(&peer, 0);
    assert_eq!(ended(&mut stack), RequestId::Number(0));
}

#[test]
fn nothing_is_lost_where_initialize_is_sent_again() {
    let (mut stack, peer) = superseded(Config::default());
    answer(&peer, 0);
    stack.start_send_unpin(request(2, discover())).unwrap();
    let mut stack = spawn(stack);
    assert_pending!(stack.poll_next());
    stack.start_send_unpin(request(3, initialize())).unwrap();
    assert!(stack.is_woken());
    assert_eq!(ended(&mut stack), RequestId::Number(0));
    answer(&peer, 2);
    answer(&peer, 3);
    assert_eq!([ended(&mut stack), ended(&mut stack)], [3, 2].map(RequestId::Number));
}
