//! Handlers of one client: as many as it may have, each request answered once, panics contained in
//! their calls. Nothing is left when the connection is gone.
//!
//! The floods take as many requests as `MCP_WS_REQUESTS` says, 2,000 by default; the full count is
//! 10,000.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use mcp_ws_transport::{
    CloseCode, CloseReason,
    layer::correlation,
    serve,
    server::{Config, Server},
    transport,
};
use rmcp::{
    ErrorData, RoleServer, Service,
    model::{ClientNotification, ClientRequest, CustomResult, ServerConfig, ServerResult},
    service::{NotificationContext, RequestContext},
};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::common::{
    call, limit,
    raw::{Frame, Raw},
    within,
};

const CAP: usize = 8;

fn requests() -> usize {
    std::env::var("MCP_WS_REQUESTS").map_or(2000, |count| count.parse().unwrap())
}

/// Counts the handlers that run, and how many ran at once at most. By the name of the tool they
/// wait, heeding no cancellation, or panic in one way or another.
#[derive(Debug, Clone, Default)]
struct Counting(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    running: AtomicUsize,
    most: AtomicUsize,
    begun: AtomicUsize,
    notified: AtomicUsize,
    gate: Notify,
    changed: Notify,
}

struct Running(Arc<Counts>);

impl Running {
    fn new(counts: &Arc<Counts>) -> Self {
        counts.begun.fetch_add(1, SeqCst);
        counts.most.fetch_max(counts.running.fetch_add(1, SeqCst) + 1, SeqCst);
        counts.changed.notify_waiters();
        Self(counts.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
        self.0.changed.notify_waiters();
    }
}

impl Counting {
    /// Waits until this number of `handlers` runs.
    async fn run(&self, handlers: usize) {
        loop {
            let changed = self.0.changed.notified();
            if self.0.running.load(SeqCst) == handlers {
                return;
            }
            changed.await;
        }
    }

    async fn serve(&self) -> (Server, SocketAddr) {
        let layers = transport::Config::default()
            .correlation(correlation::Config::default().max_inbound(CAP));
        let service = self.clone();
        let server = serve("127.0.0.1:0", move || service.clone())
            .config(Config::default().transport(layers))
            .await
            .unwrap();
        let address = server.local_addr();
        (server, address)
    }
}

impl Service<RoleServer> for Counting {
    async fn handle_request(
        &self,
        request: ClientRequest,
        _: RequestContext<RoleServer>,
    ) -> Result<ServerResult, ErrorData> {
        let done = || Ok(ServerResult::CustomResult(CustomResult(json!({}))));
        let ClientRequest::CallToolRequest(call) = request else {
            return Ok(match request {
                ClientRequest::InitializeRequest(_) => {
                    ServerResult::InitializeResult(self.get_info())
                }
                _ => return done(),
            });
        };
        let _running = Running::new(&self.0);
        match &*call.params.name {
            "wait" => self.0.gate.notified().await,
            "brief" => tokio::task::yield_now().await,
            "panic" => panic!("at once"),
            "panic-later" => {
                tokio::task::yield_now().await;
                panic!("later")
            }
            "panic-nested" => {
                let nested = async {
                    tokio::task::yield_now().await;
                    std::panic::panic_any(7)
                };
                Box::pin(nested).await
            }
            _ => {}
        }
        done()
    }

    async fn handle_notification(
        &self,
        notification: ClientNotification,
        _: NotificationContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.0.notified.fetch_add(1, SeqCst);
        match notification {
            ClientNotification::CustomNotification(custom) if custom.method == "wait" => {
                let _running = Running::new(&self.0);
                self.0.gate.notified().await;
            }
            ClientNotification::CustomNotification(custom) if custom.method == "panic" => {
                panic!("in a notification")
            }
            _ => {}
        }
        Ok(())
    }

    fn get_info(&self) -> ServerConfig {
        ServerConfig::default()
    }
}

fn frames(messages: impl IntoIterator<Item = Value>) -> Vec<u8> {
    messages.into_iter().flat_map(|message| Frame::text(message.to_string()).bytes(true)).collect()
}

fn cancelled(id: usize) -> Value {
    json!({
        "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id },
    })
}

/// Writes `bytes`, then reads this number of `answers`.
async fn exchange(raw: &mut Raw, bytes: Vec<u8>, answers: usize) -> HashMap<u64, Value> {
    let mut found = HashMap::new();
    raw.write(bytes).await;
    while found.len() < answers {
        let answer = raw.receive().await;
        let id = answer["id"].as_u64().unwrap();
        assert!(found.insert(id, answer).is_none(), "{id} is answered twice");
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_flood_no_more_run_than_may_and_each_is_answered_once() {
    limit(async {
        let (service, count) = (Counting::default(), requests());
        let (_server, address) = service.serve().await;
        let mut raw = Raw::initialized(address).await;
        let bytes = frames((0..count).map(|id| call(id, "brief", json!({}))));
        let answers = exchange(&mut raw, bytes, count).await;
        let refused = answers.values().filter(|answer| answer["error"]["code"] == -32000).count();
        let done = answers.values().filter(|answer| answer["result"] == json!({})).count();
        assert_eq!((done, done + refused), (service.0.begun.load(SeqCst), count));
        let most = service.0.most.load(SeqCst);
        assert!(most <= CAP);
        println!(
            "figure: {count} requests, {done} done, {refused} refused, {most} at once at most"
        );
        raw.ping().await;
    })
    .await;
}

/// A request that is cancelled no longer counts for its sender, but its handler does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_makes_no_room_for_handlers_that_go_on() {
    limit(async {
        let (service, count) = (Counting::default(), requests());
        let (_server, address) = service.serve().await;
        let mut raw = Raw::initialized(address).await;
        let pairs = (0..count).flat_map(|id| [call(id, "wait", json!({})), cancelled(id)]);
        raw.write(frames(pairs)).await;
        // Behind all that: it is refused, as anything is as long as they run.
        raw.json(&call(8_888_888, "brief", json!({}))).await;
        let answer = loop {
            let answer = raw.receive().await;
            if answer["id"] == 8_888_888 {
                break answer;
            }
        };
        assert_eq!(answer["error"]["data"]["reason"], "too_many_requests", "{answer}");
        service.run(CAP).await;
        assert_eq!(service.0.most.load(SeqCst), CAP);

        // And when they end, there is room again.
        service.0.gate.notify_waiters();
        service.run(0).await;
        let answers = exchange(&mut raw, frames([call(9_999_999, "brief", json!({}))]), 1).await;
        assert_eq!(answers[&9_999_999]["result"], json!({}));
    })
    .await;
}

#[tokio::test]
async fn a_panic_ends_its_call_alone() {
    limit(async {
        let service = Counting::default();
        let (_server, address) = service.serve().await;
        let mut raw = Raw::initialized(address).await;
        // More often than there is room for, and with one id: both are free again each time.
        for _ in 0..CAP {
            for tool in ["panic", "panic-later", "panic-nested"] {
                let answer = raw.ask(&call(1, tool, json!({}))).await;
                assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(1), &json!(-32603)));
                assert_eq!(answer["error"]["message"], "the handler panicked");
            }
        }
        raw.json(&json!({ "jsonrpc": "2.0", "method": "panic" })).await;
        raw.ping().await;
        assert_eq!(service.0.running.load(SeqCst), 0);
    })
    .await;
}

/// Nor does a neighbour's call suffer.
#[tokio::test]
async fn a_panic_does_not_disturb_what_runs_beside_it() {
    limit(async {
        let service = Counting::default();
        let (_server, address) = service.serve().await;
        let mut raw = Raw::initialized(address).await;
        raw.json(&call(1, "wait", json!({}))).await;
        service.run(1).await;
        assert_eq!(raw.ask(&call(2, "panic", json!({}))).await["id"], 2);
        service.0.gate.notify_one();
        assert_eq!(raw.receive().await["result"], json!({}));
    })
    .await;
}

#[tokio::test]
async fn nothing_runs_on_for_a_connection_that_is_gone() {
    limit(async {
        let service = Counting::default();
        let (server, address) = service.serve().await;
        for graceful in [true, false] {
            let mut raw = Raw::initialized(address).await;
            raw.write(frames((0..CAP).map(|id| call(id, "wait", json!({}))))).await;
            raw.write(frames((0..CAP).map(|_| json!({ "jsonrpc": "2.0", "method": "wait" }))))
                .await;
            service.run(2 * CAP).await;
            if graceful {
                raw.send(Frame::close(1000)).await;
                drop(raw);
            } else {
                raw.reset();
            }
            within(Duration::from_secs(7), service.run(0)).await;
        }
        let raw = Raw::initialized(address).await;
        let connection = server.registry().list().pop().unwrap();
        connection.disconnect(CloseReason::new(CloseCode::Policy, "enough"));
        drop(raw);
        within(Duration::from_secs(7), service.run(0)).await;
    })
    .await;
}

/// A notification has no id and is not answered, but what it starts is bounded all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_flood_of_notifications_no_more_run_than_may_and_none_is_lost() {
    limit(async {
        // Of more than the memory for them holds, some are dropped: `alone/notifications`.
        let (service, count) = (Counting::default(), requests().min(5000));
        let (_server, address) = service.serve().await;
        let mut raw = Raw::initialized(address).await;
        raw.write(frames((0..count).map(|_| json!({ "jsonrpc": "2.0", "method": "wait" })))).await;
        raw.ping().await;
        raw.ping().await;
        let most = service.0.most.load(SeqCst);
        assert!((1..=64).contains(&most), "{most} run");
        // Requests have places of their own.
        let answer = raw.ask(&call(1, "brief", json!({}))).await;
        assert_eq!(answer["result"], json!({}));
        // As they end, those that had to wait have their turn.
        while service.0.begun.load(SeqCst) < count + 1 {
            service.0.gate.notify_waiters();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let most = service.0.most.load(SeqCst);
        // And one request beside them.
        assert!((1..=65).contains(&most), "{most} run");
        service.0.gate.notify_waiters();
        service.run(0).await;
    })
    .await;
}
