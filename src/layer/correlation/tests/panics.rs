//! Handlers that panic where nobody catches it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::*;

/// Drops what a handler holds by a panic of it.
pub(in super::super) fn drop_by_panic(held: impl Sized) {
    let handler = || {
        let _held = held;
        resume_unwind(Box::new("as it was told"));
    };
    assert!(catch_unwind(AssertUnwindSafe(handler)).is_err());
}

fn ask(peer: &Peer, id: i64) {
    say(peer, json!({"jsonrpc": "2.0", "id": id, "method": "ping"}));
}

async fn is_answered_once<R>()
where
    R: McpRole<Req: From<PingRequest>>,
{
    let (stack, peer, _) = correlation::<R>(Config::default());
    let mut stack = spawn(stack);
    for id in [1, 2] {
        ask(&peer, id);
    }
    let [first, other] = [(); 2].map(|()| assert_ready!(stack.poll_next()).unwrap().unwrap());
    assert_pending!(stack.poll_next());
    drop_by_panic(first);
    assert!(stack.is_woken());
    for millis in [0, 999] {
        advance(Duration::from_millis(millis)).await;
        assert_pending!(stack.poll_next());
        assert!(peer.sent().is_empty());
    }
    advance(Duration::from_millis(1)).await;
    assert!(stack.is_woken());
    assert_pending!(stack.poll_next());
    let [answer] = &sent(&peer)[..] else { panic!("one answer") };
    let error = json!({"code": -32603, "message": "the handler panicked"});
    assert_eq!((&answer["id"], &answer["error"]), (&json!(1), &error));
    assert_eq!(stack.in_flight(), (0, 1));
    drop(other);
    advance(Duration::from_secs(10)).await;
    assert_pending!(stack.poll_next());
    assert!(peer.sent().is_empty());
}

#[tokio::test(start_paused = true)]
async fn its_request_is_answered_after_a_second() {
    is_answered_once::<RoleClient>().await;
    is_answered_once::<RoleServer>().await;
}

/// The service has caught the panic, or the request was cancelled before; its id is in use again.
#[tokio::test(start_paused = true)]
async fn a_request_that_has_ended_is_not_answered_nor_another_with_its_id() {
    for by_cancellation in [false, true] {
        let (stack, peer, _) = correlation::<RoleServer>(Config::default());
        let mut stack = spawn(stack);
        ask(&peer, 1);
        let first = assert_ready!(stack.poll_next()).unwrap().unwrap();
        assert_pending!(stack.poll_next());
        if by_cancellation {
            let params = json!({"requestId": 1});
            let method = "notifications/cancelled";
            say(&peer, json!({"jsonrpc": "2.0", "method": method, "params": params}));
            assert!(assert_ready!(stack.poll_next()).unwrap().is_ok());
            drop_by_panic(first);
        } else {
            drop_by_panic(first);
            assert_pending!(stack.poll_next());
            let result = rmcp::model::ServerResult::empty(());
            let answer = JsonRpcMessage::response(result, RequestId::Number(1));
            stack.start_send_unpin(answer).unwrap();
        }
        ask(&peer, 1);
        let second = assert_ready!(stack.poll_next()).unwrap().unwrap();
        assert_pending!(stack.poll_next());
        peer.sent();
        advance(Duration::from_secs(2)).await;
        assert_pending!(stack.poll_next());
        assert!(peer.sent().is_empty());
        assert_eq!(stack.in_flight(), (0, 1));
        drop(second);
    }
}

/// A copy of the extensions, such as a handler gives to a task of its own.
#[tokio::test(start_paused = true)]
async fn a_copy_that_a_panic_drops_is_not_the_handler() {
    let (stack, peer, _) = correlation::<RoleServer>(Config::default());
    let mut stack = spawn(stack);
    ask(&peer, 1);
    let JsonRpcMessage::Request(request) = assert_ready!(stack.poll_next()).unwrap().unwrap()
    else {
        panic!("no request")
    };
    drop_by_panic(request.request.extensions().clone());
    assert_pending!(stack.poll_next());
    advance(Duration::from_secs(2)).await;
    assert_pending!(stack.poll_next());
    assert!(peer.sent().is_empty());
}

#[tokio::test(start_paused = true)]
async fn deadlines_go_on_once_it_is_answered() {
    let second = Duration::from_secs(1);
    let (stack, peer, _) = correlation::<RoleClient>(Config::default().deadline(5 * second));
    let mut stack = spawn(stack);
    ask(&peer, 1);
    let asked = assert_ready!(stack.poll_next()).unwrap().unwrap();
    stack.start_send_unpin(ping::<RoleClient>(7)).unwrap();
    assert_pending!(stack.poll_next());
    advance(60 * second).await;
    drop_by_panic(asked);
    assert_pending!(stack.poll_next());
    advance(second).await;
    assert_pending!(stack.poll_next());
    advance(5 * second - Duration::from_millis(1)).await;
    assert_pending!(stack.poll_next());
    advance(Duration::from_millis(1)).await;
    assert!(stack.is_woken());
    let (id, error) = next_error(&mut stack);
    assert_eq!((id, error.code), (Some(RequestId::Number(7)), TIMED_OUT));
}
