mod listening;
mod overload;
mod oversized;
mod replaying;
mod resumed;
mod returning;
mod same_id;
mod stopping;
mod waiting;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    task::Poll,
};

use futures::{SinkExt, StreamExt};
use rmcp::{
    RoleClient, RoleServer,
    model::{
        CallToolRequest, CallToolRequestParams, ClientJsonRpcMessage, ClientNotification,
        ClientRequest, InitializeRequest, InitializeRequestParams, InitializedNotification,
        JsonRpcMessage, ServerResult,
    },
    service::RxJsonRpcMessage,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_test::{assert_pending, assert_ready, task::spawn};

use super::*;
use crate::{
    event::{Broadcaster, State},
    framing::JsonRpc,
    layer::{
        Framed, Reconnect,
        correlation::{Config, Correlation, inbound::cancellation, tests::panics::drop_by_panic},
        fake::{self, Peer},
        framed,
        reconnect::LinkSource,
        shared_link,
    },
    link::{LinkUp, Resumed},
};

/// A session that goes on, with nothing sent again.
const RESUMED: LinkUp = LinkUp::Resumed(Resumed { received: 0, replayed: 0, freeze: 0 });

/// The links that the test makes.
#[derive(Clone, Default)]
struct Links(Arc<Mutex<VecDeque<(fake::Link, LinkUp)>>>, ReconnectHandle);

impl Links {
    fn next(&self) -> Peer {
        self.next_as(LinkUp::NewPeer)
    }

    fn next_as(&self, up: LinkUp) -> Peer {
        let (link, peer) = fake::link();
        self.0.lock().unwrap().push_back((link, up));
        self.1.reconnect();
        peer
    }
}

impl LinkSource for Links {
    type Link = fake::Link;

    fn on_lost(self: Pin<&mut Self>, _: &Error) -> bool {
        true
    }

    fn poll_next_link(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(fake::Link, LinkUp), Error>> {
        let _ = self.1.poll_requested(cx);
        match self.0.lock().unwrap().pop_front() {
            Some(next) => Poll::Ready(Ok(next)),
            None => Poll::Pending,
        }
    }

    fn reconnect_handle(&self) -> ReconnectHandle {
        self.1.clone()
    }
}

struct Stack<R: McpRole> {
    correlation: Correlation<R, JsonRpc>,
    links: Links,
    reconnect_handle: ReconnectHandle,
    news: crate::event::Events<Event>,
}

/// The error by which a peer refuses a request, for this reason.
fn refusal_for(reason: &str, id: i64) -> Value {
    let error = json!({"code": -32000, "message": "refused", "data": {"reason": reason}});
    json!({"jsonrpc": "2.0", "id": id, "error": error})
}

fn stack<R: McpRole>() -> (Stack<R>, Peer) {
    let (link, peer) = fake::link();
    let (links, reconnect_handle) = (Links::default(), ReconnectHandle::default());
    let reconnect = Reconnect::new(link, links.clone());
    let shared = SharedLink::new(reconnect, shared_link::Config::default().queue_bytes(1000));
    let framed = Framed::new(shared, JsonRpc::default(), framed::Config::default());
    let announcer = Broadcaster::default();
    let news = announcer.subscribe();
    let events = ConnectionEvents::new(watch::Sender::new(State::Connecting), announcer);
    let correlation =
        Correlation::new(framed, Config::default()).outliving(events, reconnect_handle.clone());
    (Stack { correlation, links, reconnect_handle, news }, peer)
}

impl<R: McpRole> Stack<R> {
    fn next(&mut self) -> RxJsonRpcMessage<R> {
        assert_ready!(spawn(self.correlation.next()).poll()).unwrap().unwrap()
    }

    fn idle(&mut self) {
        assert_pending!(spawn(self.correlation.next()).poll());
    }

    fn send(&mut self, message: TxJsonRpcMessage<R>) {
        self.correlation.start_send_unpin(message).unwrap();
    }

    /// The id and the reason of the error that comes next.
    fn error(&mut self) -> (RequestId, String) {
        match self.next() {
            JsonRpcMessage::Error(error) => {
                let data = error.error.data.unwrap();
                (error.id.unwrap(), data["reason"].as_str().unwrap().into())
            }
            other => panic!("{other:?}"),
        }
    }

    /// The id whose cancellation comes next.
    fn cancelled(&mut self) -> RequestId {
        match self.next() {
            JsonRpcMessage::Notification(told) => {
                R::cancelled_by_peer(&told.notification).unwrap().clone()
            }
            other => panic!("{other:?}"),
        }
    }

    fn news(&mut self) -> Event {
        assert_ready!(spawn(self.news.next()).poll()).unwrap()
    }
}

fn request(id: i64, request: impl Into<ClientRequest>) -> ClientJsonRpcMessage {
    JsonRpcMessage::request(request.into(), RequestId::Number(id))
}

fn call(id: i64) -> ClientJsonRpcMessage {
    request(id, CallToolRequest::new(CallToolRequestParams::new("add")))
}

fn say(peer: &Peer, message: Value) {
    peer.send(Message::text(message.to_string()));
}

/// Returns what was written, as methods with ids, or what was answered.
fn sent(peer: &Peer) -> Vec<String> {
    let line = |message| {
        let Message::Text(text) = message else { panic!("{message:?} is no text") };
        let json: Value = serde_json::from_slice(text.as_bytes()).unwrap();
        let id = json.get("id").map(|id| format!(" {id}")).unwrap_or_default();
        format!("{}{id}", json["method"].as_str().unwrap_or("answer"))
    };
    peer.sent().into_iter().map(line).collect()
}

fn initialize_result(version: &str) -> Value {
    result_of_initialize(0, version)
}

/// The id of a repeated `initialize`, and the line of it that is sent.
const REPEATED_ID: i64 = 9_007_199_254_740_991;
const INITIALIZE_AGAIN: &str = "initialize 9007199254740991";

fn repeated_result(version: &str) -> Value {
    result_of_initialize(REPEATED_ID, version)
}

fn result_of_initialize(id: i64, version: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "result": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "serverInfo": {"name": "peer", "version": version},
    }})
}

fn initialized() -> (Stack<RoleClient>, Peer) {
    let (mut stack, peer) = stack::<RoleClient>();
    stack.send(request(0, InitializeRequest::new(InitializeRequestParams::default())));
    stack.idle();
    say(&peer, initialize_result("1"));
    assert!(matches!(stack.next(), JsonRpcMessage::Response(_)));
    let initialized = ClientNotification::from(InitializedNotification::default());
    stack.send(JsonRpcMessage::notification(initialized));
    stack.idle();
    assert_eq!(sent(&peer), ["initialize 0", "notifications/initialized"]);
    (stack, peer)
}

fn asks(peer: &Peer, id: i64) {
    say(peer, json!({"jsonrpc": "2.0", "id": id, "method": "ping"}));
}

fn cancelled(id: i64) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})
}

fn answer(id: RequestId) -> TxJsonRpcMessage<RoleServer> {
    JsonRpcMessage::response(ServerResult::empty(()), id)
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_is_lost_and_what_was_not_goes_to_the_next_peer() {
    let (mut stack, peer) = initialized();
    stack.send(call(1));
    stack.idle();
    assert_eq!(sent(&peer), ["tools/call 1"]);
    peer.send(Message::Close(None));
    stack.send(call(2));
    assert_eq!(stack.error(), (RequestId::Number(1), "outcome_unknown".into()));
    stack.send(call(3));
    stack.idle();

    let peer = stack.links.next();
    stack.idle();
    assert_eq!(sent(&peer), [INITIALIZE_AGAIN], "calls wait for the answer");
    stack.send(call(4));
    stack.idle();
    assert!(sent(&peer).is_empty());
    say(&peer, repeated_result("1"));
    stack.idle();
    assert_eq!(
        sent(&peer),
        ["notifications/initialized", "tools/call 2", "tools/call 3", "tools/call 4"]
    );
    assert!(matches!(stack.news(), Event::Lost(_)));
    assert!(matches!(stack.news(), Event::Restarted { changed: None }));
    say(&peer, json!({"jsonrpc": "2.0", "id": 3, "result": {"content": []}}));
    assert!(
        matches!(stack.next(), JsonRpcMessage::Response(response) if response.id == RequestId::Number(3))
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_comes_back_as_another_is_reported() {
    let (mut stack, peer) = initialized();
    peer.send(Message::Close(None));
    let peer = stack.links.next();
    stack.idle();
    say(&peer, repeated_result("2"));
    stack.idle();
    assert!(matches!(stack.news(), Event::Lost(_)));
    let Event::Restarted { changed: Some(answer) } = stack.news() else { panic!("it has changed") };
    assert_eq!(answer.server_info.version, "2");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_another_takes_over_is_lost_like_any() {
    let (mut stack, _peer) = initialized();
    for _ in 0..2 {
        stack.links.next();
        stack.idle();
        let Event::Lost(cause) = stack.news() else { panic!("it is lost") };
        assert!(cause.to_string().contains("4409"), "{cause}");
        // Once, however often another is made until the peer answers.
        stack.links.next();
        stack.idle();
        let peer = stack.links.next();
        stack.idle();
        say(&peer, repeated_result("1"));
        stack.idle();
        assert!(matches!(stack.news(), Event::Restarted { changed: None }));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_refuses_initialize_is_the_end() {
    let (mut stack, peer) = initialized();
    peer.send(Message::Close(None));
    stack.send(call(1));
    let peer = stack.links.next();
    stack.idle();
    say(
        &peer,
        json!({"jsonrpc": "2.0", "id": REPEATED_ID, "error": {"code": -32600, "message": "no"}}),
    );
    assert_eq!(stack.error(), (RequestId::Number(1), "not_sent".into()));
    let end = assert_ready!(spawn(stack.correlation.next()).poll()).unwrap().unwrap_err();
    assert!(end.to_string().contains("4410"), "{end}");
}

#[tokio::test(start_paused = true)]
async fn nobody_above_is_told_of_a_repeated_initialize() {
    let (mut stack, peer) = initialized();
    peer.send(Message::Close(None));
    stack.send(call(1));
    let peer = stack.links.next();
    stack.idle();
    assert_eq!(sent(&peer), [INITIALIZE_AGAIN]);
    stack.correlation.link.cut();
    assert_eq!(stack.error(), (RequestId::Number(1), "not_sent".into()));
    assert!(assert_ready!(spawn(stack.correlation.next()).poll()).unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn another_connection_is_asked_for_until_initialize_is_answered() {
    let (mut stack, peer) = initialized();
    peer.send(Message::Close(None));
    stack.send(call(1));
    let mut peer = stack.links.next();
    let cx = &mut Context::from_waker(futures::task::noop_waker_ref());
    let mut reader = spawn(&mut stack.correlation);
    // A server may take its time on each connection.
    for (round, seconds) in [10, 20, 40, 80, 160, 320, 320].into_iter().enumerate() {
        if round > 0 {
            peer = stack.links.next();
            let _ = stack.reconnect_handle.poll_requested(cx);
        }
        assert_pending!(reader.poll_next());
        assert_eq!(sent(&peer), [INITIALIZE_AGAIN]);
        let almost = Duration::from_secs(seconds) - Duration::from_millis(1);
        tokio::time::advance(almost).await;
        assert_pending!(reader.poll_next());
        assert!(stack.reconnect_handle.poll_requested(cx).is_pending());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(reader.is_woken());
        assert_pending!(reader.poll_next());
        assert!(stack.reconnect_handle.poll_requested(cx).is_ready());
        // Nothing comes of that at first.
        tokio::time::advance(ANSWER_TIMEOUT).await;
        assert_pending!(reader.poll_next());
        assert!(stack.reconnect_handle.poll_requested(cx).is_ready());
        peer.send(Message::Close(None));
    }
    peer = stack.links.next();
    assert_pending!(reader.poll_next());
    assert_eq!(sent(&peer), [INITIALIZE_AGAIN]);
    // It does, after all.
    say(&peer, repeated_result("1"));
    assert_pending!(reader.poll_next());
    assert_eq!(sent(&peer), ["notifications/initialized", "tools/call 1"]);
}

#[tokio::test(start_paused = true)]
async fn initialize_is_not_repeated_where_it_was_not_sent() {
    let (mut stack, peer) = stack::<RoleClient>();
    peer.send(Message::Close(None));
    stack.idle();
    stack.send(request(0, InitializeRequest::new(InitializeRequestParams::default())));
    let peer = stack.links.next();
    let mut flushed = spawn(stack.correlation.link.flushed());
    assert!(assert_ready!(flushed.poll()).is_ok());
    stack.idle();
    assert_eq!(sent(&peer), ["initialize 0"]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_goes_on_after_its_cancellation_answers_no_other_peer() {
    let (mut stack, peer) = stack::<RoleServer>();
    asks(&peer, 3);
    let JsonRpcMessage::Request(old) = stack.next() else { panic!("a request") };
    say(&peer, cancelled(3));
    assert!(matches!(stack.next(), JsonRpcMessage::Notification(_)));
    peer.send(Message::Close(None));
    stack.idle();
    let peer = stack.links.next();
    asks(&peer, 3);
    let JsonRpcMessage::Request(new) = stack.next() else { panic!("a request") };
    assert_ne!(new.id, old.id);
    stack.send(answer(old.id));
    say(&peer, cancelled(3));
    let JsonRpcMessage::Notification(told) = stack.next() else { panic!("a cancellation") };
    assert_eq!(RoleServer::cancelled_by_peer(&told.notification), Some(&new.id));
    stack.send(answer(new.id));
    stack.idle();
    assert!(sent(&peer).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_answers_its_own_peer_by_the_id_that_it_has_there() {
    let (mut stack, peer) = stack::<RoleServer>();
    asks(&peer, 1);
    let old = stack.next();
    peer.send(Message::Close(None));
    stack.idle();
    let peer = stack.links.next();
    assert!(matches!(stack.next(), JsonRpcMessage::Notification(_)));
    asks(&peer, 1);
    let new = stack.next();
    drop_by_panic(old);
    drop_by_panic(new);
    stack.idle();
    tokio::time::advance(Duration::from_secs(1)).await;
    stack.idle();
    assert_eq!(sent(&peer), ["answer 1"]);
}

#[tokio::test(start_paused = true)]
async fn initialize_itself_is_repeated_until_it_is_answered() {
    let (mut stack, peer) = stack::<RoleClient>();
    stack.send(request(0, InitializeRequest::new(InitializeRequestParams::default())));
    stack.idle();
    assert_eq!(sent(&peer), ["initialize 0"]);
    peer.send(Message::Close(None));
    for _ in 0..2 {
        let peer = stack.links.next();
        stack.idle();
        assert_eq!(sent(&peer), ["initialize 0"]);
        assert!(matches!(stack.news(), Event::Lost(_)));
        assert!(matches!(stack.news(), Event::Restarted { changed: None }));
        peer.send(Message::Close(None));
        stack.idle();
    }
    let peer = stack.links.next();
    stack.idle();
    say(&peer, initialize_result("1"));
    assert!(matches!(stack.next(), JsonRpcMessage::Response(_)));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_on_initialize_is_not_tried_for_ever() {
    let (mut stack, mut peer) = stack::<RoleClient>();
    stack.send(request(0, InitializeRequest::new(InitializeRequestParams::default())));
    for _ in 1..MAX_ATTEMPTS {
        stack.idle();
        assert_eq!(sent(&peer), ["initialize 0"]);
        peer.send(Message::Close(None));
        stack.idle();
        peer = stack.links.next();
    }
    stack.idle();
    peer.send(Message::Close(None));
    assert_eq!(stack.error(), (RequestId::Number(0), "outcome_unknown".into()));
    assert!(assert_ready!(spawn(stack.correlation.next()).poll()).unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn handlers_of_a_former_peer_are_cancelled_and_answer_nobody() {
    let (mut stack, peer) = stack::<RoleServer>();
    asks(&peer, 1);
    let JsonRpcMessage::Request(old) = stack.next() else { panic!("a request") };
    peer.send(Message::Close(None));
    stack.idle();
    let peer = stack.links.next();
    let JsonRpcMessage::Notification(cancelled) = stack.next() else { panic!("a cancellation") };
    assert_eq!(RoleServer::cancelled_by_peer(&cancelled.notification), Some(&old.id));

    asks(&peer, 1);
    let JsonRpcMessage::Request(new) = stack.next() else { panic!("a request") };
    assert_ne!(new.id, old.id, "rmcp would take one for the other");
    stack.send(answer(old.id));
    stack.idle();
    assert!(sent(&peer).is_empty());
    asks(&peer, 1);
    stack.idle();
    assert_eq!(sent(&peer), ["answer 1"], "refused: it is in flight");
    stack.send(answer(new.id));
    stack.idle();
    assert_eq!(sent(&peer), ["answer 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_asks_a_new_client_nothing_before_it_is_initialized() {
    let (mut stack, peer) = stack::<RoleServer>();
    say(&peer, json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    assert!(matches!(stack.next(), JsonRpcMessage::Notification(_)));
    peer.send(Message::Close(None));
    stack.idle();
    let ping = rmcp::model::PingRequest::default();
    stack.send(JsonRpcMessage::request(ping.into(), RequestId::Number(7)));
    let peer = stack.links.next();
    stack.idle();
    assert!(sent(&peer).is_empty());
    asks(&peer, 1);
    let JsonRpcMessage::Request(request) = stack.next() else { panic!("a request") };
    stack.send(answer(request.id));
    stack.idle();
    assert_eq!(sent(&peer), ["answer 1"], "answers pass");
    say(&peer, json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    assert!(matches!(stack.next(), JsonRpcMessage::Notification(_)));
    stack.idle();
    assert_eq!(sent(&peer), ["ping 7"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_is_initialized_after_the_answer_and_not_before() {
    let (mut stack, peer) = stack::<RoleClient>();
    stack.send(request(0, InitializeRequest::new(InitializeRequestParams::default())));
    stack.idle();
    say(&peer, initialize_result("1"));
    assert!(matches!(stack.next(), JsonRpcMessage::Response(_)));
    peer.send(Message::Close(None));
    let peer = stack.links.next();
    stack.idle();
    let initialized = ClientNotification::from(InitializedNotification::default());
    stack.send(JsonRpcMessage::notification(initialized));
    stack.send(call(1));
    stack.idle();
    assert_eq!(sent(&peer), [INITIALIZE_AGAIN]);
    say(&peer, repeated_result("1"));
    stack.idle();
    assert_eq!(sent(&peer), ["notifications/initialized", "tools/call 1"]);
}
