//! Cost of notifications whose handlers do not end.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use mcp_ws_transport::{accept, connect};
use rmcp::{
    ClientHandler, ErrorData, RoleClient, RoleServer, ServerHandler, ServiceExt,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, CancelledNotificationParam,
        CustomNotification, ProgressNotificationParam,
    },
    service::{NotificationContext, RequestContext},
};
use serde_json::json;
use tokio::{net::TcpListener, sync::watch};

use crate::{
    HEAP,
    common::{
        Observer, call, listen,
        raw::{Frame, Raw},
        within,
    },
};

/// `max_inbound_memory`, by default, and for what is on its way: a message of the most that a
/// server takes, and as much in buffers.
const MOST: usize = (64 + 4 + 4) << 20;

/// Knows what notifications came, in order. Their handlers do not end before the gate is open.
#[derive(Clone)]
struct Slow {
    gate: watch::Sender<bool>,
    received: Arc<Mutex<Vec<u64>>>,
}

impl Slow {
    fn new(open: bool) -> Self {
        Self { gate: watch::Sender::new(open), received: Arc::default() }
    }

    async fn note(&self, number: u64) {
        self.received.lock().unwrap().push(number);
        self.gate.subscribe().wait_for(|open| *open).await.unwrap();
    }

    /// Asserts that all notifications up to `number` come, in order.
    async fn assert_received(&self, number: u64) {
        self.gate.send_replace(true);
        while (self.received.lock().unwrap().len() as u64) < number {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let received = std::mem::take(&mut *self.received.lock().unwrap());
        assert!((0..number).eq(received), "not in order");
    }
}

impl ServerHandler for Slow {
    /// Ends when it is cancelled.
    async fn call_tool(
        &self,
        _: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        context.ct.cancelled().await;
        Ok(CallToolResult::success(vec![]).into())
    }

    async fn on_cancelled(
        &self,
        _: CancelledNotificationParam,
        _: NotificationContext<RoleServer>,
    ) {
        self.note(0).await;
    }

    async fn on_progress(
        &self,
        progress: ProgressNotificationParam,
        _: NotificationContext<RoleServer>,
    ) {
        self.note(progress.progress as u64).await;
    }

    async fn on_custom_notification(
        &self,
        notification: CustomNotification,
        _: NotificationContext<RoleServer>,
    ) {
        let params = notification.params.unwrap();
        self.note(params["number"].as_u64().unwrap_or_default()).await;
    }
}

impl ClientHandler for Slow {
    async fn on_progress(
        &self,
        progress: ProgressNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.note(progress.progress as u64).await;
    }

    async fn on_custom_notification(
        &self,
        notification: CustomNotification,
        _: NotificationContext<RoleClient>,
    ) {
        let params = notification.params.unwrap();
        self.note(params["number"].as_u64().unwrap_or_default()).await;
    }
}

/// Serves `service` as the MCP server of one connection. Returns its peer too.
async fn serve(service: &Slow) -> (Observer, Raw) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let service = service.clone();
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        let transport = accept::<RoleServer, _>(stream).await.unwrap();
        let observer = Observer { stats: transport.stats(), state: transport.state() };
        tokio::spawn(async move { service.serve(transport).await.unwrap().waiting().await });
        observer
    };
    tokio::join!(serving, Raw::initialized(address))
}

/// Connects `service` as the MCP client.
async fn connect_client(service: &Slow) -> (Observer, Raw) {
    let (listener, url) = listen().await;
    let service = service.clone();
    let (report, observer) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        let transport = connect::<RoleClient>(url).no_reconnect().await.unwrap();
        let observer = Observer { stats: transport.stats(), state: transport.state() };
        report.send(observer).unwrap();
        service.serve(transport).await.unwrap().waiting().await
    });
    let (stream, _) = listener.accept().await.unwrap();
    let mut raw = Raw::upgraded(stream).await;
    raw.answer_initialize().await;
    (observer.await.unwrap(), raw)
}

/// `{"":0}`, `count` times, which takes a hundred times as much once it is decoded.
fn dense(count: usize) -> String {
    format!("[{}]", vec![r#"{"":0}"#; count].join(","))
}

fn notification(params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/acme","params":{params}}}"#)
}

fn progress(number: u64) -> String {
    json!({
        "jsonrpc": "2.0", "method": "notifications/progress",
        "params": { "progressToken": 1, "progress": number, "total": 100_000, "message": "so far" },
    })
    .to_string()
}

/// Sends this so often to a service whose handlers do not end, on a connection of its own.
async fn flood(role: Role, what: &str, times: usize, message: impl Fn(usize) -> String) {
    let service = Slow::new(false);
    let before = HEAP.allocated();
    let (observer, mut raw) = role.connect(&service).await;
    let mut bytes = 0;
    for number in 0..times {
        let message = message(number);
        bytes += message.len();
        raw.text(message).await;
    }
    raw.ping().await;
    let (now, peak) = (HEAP.allocated() - before, HEAP.max_allocated() - before);
    let refused = observer.stats().refused;
    println!("{what}: {} KiB sent, {} MiB held, {refused} refused", bytes >> 10, now >> 20);
    assert!(peak <= MOST, "{what}: {} MiB", peak >> 20);
    assert!(refused > 0, "{what}: nothing was too much");
    service.gate.send_replace(true);
    drop(raw);
    while HEAP.allocated() > before + (1 << 20) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[derive(Clone, Copy)]
enum Role {
    Server,
    Client,
}

impl Role {
    async fn connect(self, service: &Slow) -> (Observer, Raw) {
        match self {
            Self::Server => serve(service).await,
            Self::Client => connect_client(service).await,
        }
    }
}

#[tokio::test]
async fn notifications_take_no_more_memory_than_they_may_and_honest_ones_all_arrive() {
    alone!();
    within(Duration::from_secs(300), async {
        let large = notification(&format!(r#"{{"a":{}}}"#, dense(15_000)));
        let small = notification(&format!(r#"{{"a":{}}}"#, dense(140)));
        for role in [Role::Server, Role::Client] {
            flood(role, "30 large ones", 30, |_| large.clone()).await;
            flood(role, "3,000 small ones", 3000, |_| small.clone()).await;
        }
        assert_cancellations_arrive().await;

        for role in [Role::Server, Role::Client] {
            assert_honest_arrive(role).await;
        }
    })
    .await;
}

/// Asserts that cancellations, each of which ends a request, are received all the same.
async fn assert_cancellations_arrive() {
    let meta = dense(15_000);
    let of = |number: usize| match number % 2 {
        0 => call(number as i64 / 2, "wait", json!({})).to_string(),
        _ => format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{},"_meta":{{"a":{meta}}}}}}}"#,
            number / 2
        ),
    };
    let service = Slow::new(false);
    let before = HEAP.allocated();
    let (observer, mut raw) = serve(&service).await;
    for number in 0..60 {
        raw.text(of(number)).await;
    }
    raw.ping().await;
    let peak = HEAP.max_allocated() - before;
    assert!(peak <= MOST, "cancellations: {} MiB", peak >> 20);
    assert_eq!(observer.stats().refused, 0);
    service.gate.send_replace(true);
    while service.received.lock().unwrap().len() < 30 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Asserts that notifications that take little all arrive.
async fn assert_honest_arrive(role: Role) {
    // The handlers end at once.
    let service = Slow::new(true);
    let (observer, mut raw) = role.connect(&service).await;
    let hundreds = match role {
        Role::Server => 100,
        Role::Client => 1000,
    };
    for hundred in 0..hundreds {
        let frames = (100 * hundred..100 * (hundred + 1)).map(progress).map(Frame::text);
        raw.write(frames.flat_map(|frame| frame.bytes(raw.masked)).collect::<Vec<u8>>()).await;
    }
    service.assert_received(100 * hundreds).await;
    assert_eq!(observer.stats().refused, 0);

    // They do not: what waits is weighed by what it is.
    let service = Slow::new(false);
    let (observer, mut raw) = role.connect(&service).await;
    for number in 0..5000 {
        raw.text(progress(number)).await;
    }
    raw.ping().await;
    service.assert_received(5000).await;
    assert_eq!(observer.stats().refused, 0);

    // JSON in a string is text.
    let service = Slow::new(false);
    let (observer, mut raw) = role.connect(&service).await;
    for number in 0..300 {
        let text = r#"{"a":[1,2]},"#.repeat(800);
        raw.text(notification(&json!({ "number": number, "text": text }).to_string())).await;
    }
    raw.ping().await;
    service.assert_received(300).await;
    assert_eq!(observer.stats().refused, 0);
}
