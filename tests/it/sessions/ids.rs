//! Session ids, as a server keeps them for raw clients that do not speak the
//! extension.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::StreamExt;
use mcp_ws_transport::{
    CloseReason,
    server::{
        BearerTokens, Config, Identity, Limits, RegistryEvent, RegistryEvents, Server,
        SessionConfig, SessionIdPolicy,
    },
};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ServerCapabilities,
        ServerConfig, ToolListChangedNotification,
    },
    service::RequestContext,
};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    sync::{Notify, watch},
    time::Instant,
};

use crate::common::{
    Tools, call, limit,
    raw::{Frame, Head, Raw, initialize, upgrade_request},
    serve_tools, text_of, within,
};

/// State that the services of a server share.
#[derive(Debug, Clone)]
struct Shared {
    services: Arc<AtomicUsize>,
    gate: Arc<Notify>,
    /// Number of calls of `wait` and `uncancellable` that have begun, and of those that have ended,
    /// whichever way.
    begun: watch::Sender<usize>,
    ended: watch::Sender<usize>,
}

impl Default for Shared {
    fn default() -> Self {
        let (begun, ended) = (watch::Sender::new(0), watch::Sender::new(0));
        Self { services: Arc::default(), gate: Arc::default(), begun, ended }
    }
}

impl Shared {
    async fn serve(&self, config: Config) -> (Server, SocketAddr) {
        let shared = self.clone();
        let new = move || {
            shared.services.fetch_add(1, SeqCst);
            Notes { shared: shared.clone(), entries: Arc::default() }
        };
        let server = mcp_ws_transport::serve("127.0.0.1:0", new).config(config).await.unwrap();
        let address = server.local_addr();
        (server, address)
    }

    fn services(&self) -> usize {
        self.services.load(SeqCst)
    }

    async fn begun(&self, calls: usize) {
        self.begun.subscribe().wait_for(|begun| *begun >= calls).await.unwrap();
    }

    async fn ended(&self, calls: usize) {
        self.ended.subscribe().wait_for(|ended| *ended >= calls).await.unwrap();
    }
}

/// A service that remembers: `note` adds its `text` and returns all there is, `wait` waits for the
/// gate or its cancellation, `uncancellable` for the gate alone.
#[derive(Debug, Clone)]
struct Notes {
    shared: Shared,
    entries: Arc<Mutex<Vec<String>>>,
}

struct Ends<'a>(&'a watch::Sender<usize>);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|ended| *ended += 1);
    }
}

impl ServerHandler for Notes {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = Value::from(request.arguments.unwrap_or_default());
        let text = if request.name == "note" {
            let mut entries = self.entries.lock().unwrap();
            entries.push(arguments["text"].as_str().unwrap_or_default().to_owned());
            entries.join(" ")
        } else {
            let _ends = Ends(&self.shared.ended);
            self.shared.begun.send_modify(|begun| *begun += 1);
            let cancelled = async {
                match &*request.name {
                    "wait" => context.ct.cancelled().await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.shared.gate.notified() => {}
                () = cancelled => {}
            }
            "waited".to_owned()
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

/// Way in which a client sends its session id.
#[derive(Debug, Clone, Copy, PartialEq)]
enum By {
    Query,
    Offer,
    Header,
    Cookie,
}

use By::{Cookie, Header, Offer, Query};

/// Requests an upgrade with this session id and these header lines.
async fn request_upgrade(address: SocketAddr, name: Option<(By, &str)>, more: &str) -> (Raw, Head) {
    let mut raw = Raw::over(TcpStream::connect(address).await.unwrap(), true);
    let mut request = upgrade_request(address, more);
    match name {
        Some((Query, id)) => {
            request = request.replacen("/mcp", &format!("/mcp?mcp_session_id={id}"), 1)
        }
        Some((Offer, id)) => {
            let offer = format!("Sec-WebSocket-Protocol: mcp, mcp.session-id.{id}\r\n{more}");
            request = upgrade_request(address, &offer);
        }
        Some((Header, id)) => {
            request = upgrade_request(address, &format!("Mcp-Session-Id: {id}\r\n{more}"));
        }
        Some((Cookie, id)) => {
            let cookie = format!("Cookie: a=b; mcp_session_id={id}\r\n{more}");
            request = upgrade_request(address, &cookie);
        }
        None => {}
    }
    raw.write(request).await;
    let head = raw.head().await.unwrap();
    (raw, head)
}

async fn refused(address: SocketAddr, name: Option<(By, &str)>, more: &str) -> Head {
    let (_, head) = request_upgrade(address, name, more).await;
    assert_ne!(head.status(), 101);
    head
}

/// Upgrades with this session id, and sends nothing.
async fn upgraded(address: SocketAddr, by: By, id: &str) -> Raw {
    upgraded_with(address, (by, id), "").await
}

async fn upgraded_with(address: SocketAddr, name: (By, &str), more: &str) -> Raw {
    let (raw, head) = request_upgrade(address, Some(name), more).await;
    assert_eq!((head.status(), head.get("mcp-session-id")), (101, None), "{head:?}");
    assert_eq!(head.get("set-cookie"), None);
    raw
}

/// Connects, and initializes MCP.
async fn initialized(address: SocketAddr, by: By, id: &str) -> Raw {
    let mut raw = upgraded(address, by, id).await;
    raw.initialize().await;
    raw
}

/// Connects without a session id and initializes MCP; also returns the issued id.
async fn initialized_without_id(address: SocketAddr) -> (Raw, String) {
    let (mut raw, head) = request_upgrade(address, None, "").await;
    assert_eq!(head.status(), 101);
    raw.initialize().await;
    (raw, head.get("mcp-session-id").unwrap().to_owned())
}

/// Returns the notes after one more entry.
async fn note(raw: &mut Raw, id: i64, text: &str) -> String {
    let answer = raw.ask(&call(id, "note", json!({ "text": text }))).await;
    assert_eq!(answer["id"], id);
    text_of(&answer).to_owned()
}

async fn next(
    events: &mut RegistryEvents,
    expected: impl Fn(&RegistryEvent) -> bool,
) -> RegistryEvent {
    loop {
        let event = events.next().await.unwrap();
        if expected(&event) {
            return event;
        }
    }
}

fn is_detached(event: &RegistryEvent) -> bool {
    matches!(event, RegistryEvent::Detached(_))
}

fn is_disconnected(event: &RegistryEvent) -> bool {
    matches!(event, RegistryEvent::Disconnected { .. })
}

/// The client loses its connection, which the server has noticed.
async fn lose(server: &Server, raw: Raw) {
    let mut events = server.registry().events();
    raw.reset();
    next(&mut events, is_detached).await;
}

/// Returns for how many seconds the session of a client is kept that loses its connection.
async fn kept_for(server: &Server, raw: Raw) -> u64 {
    lose(server, raw).await;
    let (lost, mut events) = (Instant::now(), server.registry().events());
    tokio::time::pause();
    next(&mut events, is_disconnected).await;
    let kept = lost.elapsed();
    tokio::time::resume();
    kept.as_secs_f64().round() as u64
}

/// Lets so much time pass.
async fn pass(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

fn config(ids: SessionIdPolicy) -> Config {
    Config::default().sessions(SessionConfig::default().ids(ids))
}

#[tokio::test]
async fn where_a_name_is_required_nobody_is_let_in_without() {
    limit(async {
        let shared = Shared::default();
        let (server, address) = shared.serve(config(SessionIdPolicy::Required)).await;
        assert_eq!(refused(address, None, "").await.status(), 400);
        assert_eq!(server.registry().health().rejected_by["session_id"], 1);
        let mut raw = initialized(address, Query, "a").await;
        assert_eq!(note(&mut raw, 1, "one").await, "one");
        // Also one that only a browser has sent, and that names nothing here.
        let mut raw = initialized(address, Cookie, "b").await;
        assert_eq!(note(&mut raw, 1, "two").await, "two");
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn who_brings_no_name_is_issued_one() {
    limit(async {
        let (server, address) = Shared::default().serve(config(SessionIdPolicy::Issued)).await;
        let mut ids = Vec::new();
        // The last are kept for longer than by the server, or are another server's.
        let kept = [(Cookie, "stale"), (Cookie, "no id"), (Header, "stale"), (Header, "no id")];
        for name in [None, None].into_iter().chain(kept.map(Some)) {
            let (_, head) = request_upgrade(address, name, "").await;
            assert_eq!(head.status(), 101);
            let id = head.get("mcp-session-id").unwrap().to_owned();
            // 256 bits in base64url.
            assert_eq!(id.len(), 43);
            let cookie = format!("mcp_session_id={id}; Path=/mcp; HttpOnly; SameSite=Strict");
            assert_eq!(head.all("set-cookie"), [cookie]);
            assert!(!ids.contains(&id));
            ids.push(id);
        }
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn where_there_are_no_names_the_connection_is_the_session() {
    limit(async {
        let shared = Shared::default();
        let (server, address) = shared.serve(config(SessionIdPolicy::None)).await;
        for name in [
            None,
            Some((Query, "a")),
            Some((Offer, "a")),
            Some((Cookie, "a")),
            Some((Header, "a")),
            Some((Query, "!")),
        ] {
            let (mut raw, head) = request_upgrade(address, name, "").await;
            assert_eq!((head.status(), head.get("mcp-session-id")), (101, None), "{name:?}");
            assert_eq!(head.get("set-cookie"), None);
            raw.initialize().await;
            assert_eq!(note(&mut raw, 1, "one").await, "one");
            let mut events = server.registry().events();
            raw.reset();
            assert!(is_disconnected(&events.next().await.unwrap()));
        }
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn a_service_outlives_its_connection_and_is_found_by_its_name() {
    limit(async {
        let shared = Shared::default();
        let (server, address) = shared.serve(Config::default()).await;
        let mut events = server.registry().events();
        for (number, by) in [Query, Offer, Header, Cookie].into_iter().enumerate() {
            let id = format!("a-Z_0.~{number}");
            let mut raw = initialized(address, Query, &id).await;
            assert_eq!(note(&mut raw, 1, "one").await, "one");
            let RegistryEvent::Connected(connection) = events.next().await.unwrap() else {
                panic!("let in")
            };
            raw.reset();
            let RegistryEvent::Detached(away) = events.next().await.unwrap() else {
                panic!("away")
            };
            assert_eq!(away.id(), connection.id());
            assert!(connection.is_detached());
            let health = server.registry().health();
            let total = number as u64 + 1;
            assert_eq!((health.active, health.detached, health.total), (1, 1, total));

            let mut raw = upgraded(address, by, &id).await;
            assert_eq!(note(&mut raw, 2, "two").await, "one two", "{by:?}");
            let RegistryEvent::Reattached(back) = events.next().await.unwrap() else {
                panic!("back")
            };
            assert_eq!((back.id(), back.is_detached()), (connection.id(), false));
            // It goes away for a moment.
            raw.send(Frame::close(1001)).await;
            assert!(is_detached(&events.next().await.unwrap()));
            let mut raw = upgraded(address, by, &id).await;
            assert_eq!(note(&mut raw, 3, "three").await, "one two three", "{by:?}");
            assert!(matches!(events.next().await.unwrap(), RegistryEvent::Reattached(_)));
            let ids: Vec<u64> = server.registry().list().iter().map(|one| one.id()).collect();
            assert_eq!(ids.last(), Some(&connection.id()));
            let stats = connection.stats().snapshot();
            assert_eq!((stats.messages_received, stats.messages_sent), (5, 4), "{by:?}");
            drop(raw);
            assert!(is_detached(&events.next().await.unwrap()));
            assert!(connection.disconnect(CloseReason::new(1000.into(), "")));
            assert!(is_disconnected(&events.next().await.unwrap()));
            let health = server.registry().health();
            assert_eq!((health.active, health.detached, health.total), (0, 0, total));
        }
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn a_client_that_closes_for_good_ends_its_session() {
    limit(async {
        let shared = Shared::default();
        let (server, address) = shared.serve(Config::default()).await;
        for code in [1000, 1002, 1008, 1011, 3000, 4409] {
            let mut raw = initialized(address, Query, "a").await;
            assert_eq!(note(&mut raw, 1, "one").await, "one", "{code}");
            let mut events = server.registry().events();
            raw.send(Frame::close(code)).await;
            assert!(is_disconnected(&events.next().await.unwrap()), "{code}");
            drop(raw);
        }
        // Whoever comes back at once does not find what is about to end.
        for _ in 0..20 {
            let mut raw = initialized(address, Query, "a").await;
            assert_eq!(note(&mut raw, 1, "one").await, "one");
            raw.send(Frame::close(1000)).await;
            assert_eq!(raw.closed().await.0, 1000);
        }
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn what_was_queued_is_sent_to_a_client_that_goes_on_and_not_before_it_speaks() {
    limit(async {
        let shared = Shared::default();
        let (server, address) = shared.serve(Config::default()).await;
        let mut raw = initialized(address, Query, "a").await;
        raw.json(&call(1, "wait", json!({}))).await;
        shared.begun(1).await;
        lose(&server, raw).await;
        shared.gate.notify_one();
        shared.ended(1).await;
        let changed = ToolListChangedNotification::default();
        assert_eq!(server.registry().notify_all(changed.into()).unwrap().sent, 1);

        for first in ["ping", "tools/list"] {
            let mut raw = upgraded(address, Query, "a").await;
            raw.assert_silent(Duration::from_millis(50)).await;
            if first == "ping" {
                // It leaves without a word, and nothing is lost by that.
                lose(&server, raw).await;
                continue;
            }
            raw.json(&json!({ "jsonrpc": "2.0", "id": 2, "method": first })).await;
            let answer = raw.receive().await;
            assert_eq!((&answer["id"], text_of(&answer)), (&json!(1), "waited"));
            assert_eq!(raw.receive().await["method"], "notifications/tools/list_changed");
            assert_eq!(raw.receive().await["id"], 2);
            raw.assert_silent(Duration::from_millis(50)).await;
        }
        assert_eq!(shared.services(), 1);
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn a_call_in_flight_goes_on_for_a_client_that_goes_on() {
    limit(async {
        let shared = Shared::default();
        let (server, address) = shared.serve(Config::default()).await;
        let mut old = initialized(address, Query, "a").await;
        old.json(&call(1, "wait", json!({}))).await;
        shared.begun(1).await;
        let mut new = upgraded(address, Query, "a").await;
        assert_eq!(note(&mut new, 2, "two").await, "two");
        let again = new.ask(&call(1, "note", json!({}))).await;
        assert_eq!(again["error"]["code"], -32600, "it is in flight: {again}");
        shared.gate.notify_one();
        let answer = new.receive().await;
        assert_eq!((&answer["id"], text_of(&answer)), (&json!(1), "waited"));
        assert_eq!(note(&mut new, 1, "three").await, "two three");
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn a_new_client_under_the_old_name_is_not_told_what_was_for_the_old_one() {
    limit(async {
        let shared = Shared::default();
        let (server, address) = shared.serve(Config::default()).await;
        let mut old = initialized(address, Query, "a").await;
        assert_eq!(note(&mut old, 9, "one").await, "one");
        // One that finishes meanwhile, one that heeds its cancellation, and one that does not.
        old.json(&call(1, "wait", json!({}))).await;
        shared.begun(1).await;
        lose(&server, old).await;
        shared.gate.notify_one();
        shared.ended(1).await;
        let mut between = upgraded(address, Query, "a").await;
        between.json(&call(2, "wait", json!({}))).await;
        assert_eq!(text_of(&between.receive().await), "waited");
        between.json(&call(3, "uncancellable", json!({}))).await;
        shared.begun(3).await;
        let changed = || ToolListChangedNotification::default().into();
        lose(&server, between).await;
        assert_eq!(server.registry().notify_all(changed()).unwrap().sent, 1);

        let mut new = upgraded(address, Query, "a").await;
        let answer = new.ask(&initialize("init")).await;
        assert_eq!(answer["id"], "init");
        shared.ended(2).await;
        new.json(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        // The ids may be used again, also that of a handler that runs on.
        assert_eq!(note(&mut new, 1, "two").await, "one two");
        assert_eq!(note(&mut new, 2, "three").await, "one two three");
        new.json(&call(3, "uncancellable", json!({}))).await;
        shared.begun(4).await;
        shared.gate.notify_waiters();
        shared.ended(4).await;
        let answer = new.receive().await;
        assert_eq!((&answer["id"], text_of(&answer)), (&json!(3), "waited"));
        new.assert_silent(Duration::from_millis(50)).await;
        assert_eq!(server.registry().notify_all(changed()).unwrap().sent, 1);
        assert_eq!(new.receive().await["method"], "notifications/tools/list_changed");
        assert_eq!(shared.services(), 1);
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn whoever_returns_to_what_was_never_initialized_begins_anew() {
    limit(async {
        let shared = Shared::default();
        let (server, address) = shared.serve(Config::default()).await;
        let mut old = upgraded(address, Query, "a").await;
        assert_eq!(old.ask(&initialize("init")).await["id"], "init");
        old.json(&call(1, "wait", json!({}))).await;
        shared.begun(1).await;
        lose(&server, old).await;
        let mut new = upgraded(address, Query, "a").await;
        assert_eq!(note(&mut new, 1, "one").await, "one");
        shared.ended(1).await;
        new.assert_silent(Duration::from_millis(50)).await;
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn a_session_is_kept_for_as_long_as_its_client_may_know_of_it() {
    within(Duration::from_secs(120), async {
        let shared = Shared::default();
        let sessions = SessionConfig::default().window(Duration::from_secs(12));
        let (server, address) = shared.serve(Config::default().sessions(sessions)).await;
        // Its handlers end with it.
        let mut raw = initialized(address, Query, "a").await;
        raw.json(&call(1, "uncancellable", json!({}))).await;
        shared.begun(1).await;
        assert_eq!(kept_for(&server, raw).await, 12);
        shared.ended(1).await;
        let mut raw = initialized(address, Query, "a").await;
        assert_eq!(note(&mut raw, 1, "one").await, "one");

        let (raw, _) = initialized_without_id(address).await;
        assert_eq!(kept_for(&server, raw).await, 5);
        for by in [Query, Cookie] {
            let (raw, id) = initialized_without_id(address).await;
            lose(&server, raw).await;
            pass(4).await;
            let mut raw = upgraded(address, by, &id).await;
            raw.ping().await;
            assert_eq!(kept_for(&server, raw).await, 12, "{by:?}");
        }
        server.shutdown().await;
        let sessions = SessionConfig::default().window(Duration::from_secs(2));
        let (server, address) = shared.serve(Config::default().sessions(sessions)).await;
        let (raw, _) = initialized_without_id(address).await;
        assert_eq!(kept_for(&server, raw).await, 2);
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn the_last_connection_wins() {
    limit(async {
        let shared = Shared::default();
        let (server, address) = shared.serve(Config::default()).await;
        let mut events = server.registry().events();
        let mut old = initialized(address, Query, "a").await;
        assert_eq!(note(&mut old, 1, "one").await, "one");
        for (by, code) in [(Query, 4409), (Offer, 1000)] {
            let mut new = upgraded(address, by, "a").await;
            assert_eq!(old.closed().await.0, code);
            assert_eq!(
                note(&mut new, 2, "x").await.split(' ').count(),
                if by == Query { 2 } else { 3 }
            );
            old = new;
        }
        // Nobody was away.
        assert!(matches!(events.next().await.unwrap(), RegistryEvent::Connected(_)));
        old.send(Frame::close(1000)).await;
        assert!(is_disconnected(&events.next().await.unwrap()));
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn whoever_comes_while_a_session_is_closed_is_told_to_come_again() {
    limit(async {
        let shared = Shared::default();
        let (server, address) = shared.serve(Config::default()).await;
        let mut old = initialized(address, Query, "a").await;
        note(&mut old, 1, "one").await;
        let connection = server.registry().list().remove(0);
        assert!(connection.disconnect(CloseReason::new(1000.into(), "")));
        assert_eq!(old.closed().await.0, 1000);
        let mut early = upgraded(address, Query, "a").await;
        early.assert_silent(Duration::from_millis(50)).await;
        old.send(Frame::close(1000)).await;
        assert_eq!(early.closed().await.0, 4410);
        let mut new = initialized(address, Query, "a").await;
        assert_eq!(note(&mut new, 1, "two").await, "two");
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn a_cookie_takes_nothing_over() {
    limit(async {
        for ids in [SessionIdPolicy::Issued, SessionIdPolicy::Required] {
            let shared = Shared::default();
            let (server, address) = shared.serve(config(ids)).await;
            let mut old = initialized(address, Query, "a").await;
            assert_eq!(note(&mut old, 1, "one").await, "one");
            let (mut new, head) = request_upgrade(address, Some((Cookie, "a")), "").await;
            assert_eq!(head.status(), 101);
            assert_ne!(head.get("mcp-session-id").unwrap(), "a");
            assert_eq!(head.all("set-cookie").len(), 1);
            new.initialize().await;
            assert_eq!(note(&mut new, 1, "else").await, "else");
            assert_eq!(note(&mut old, 2, "two").await, "one two");
            lose(&server, old).await;
            let mut back = upgraded(address, Cookie, "a").await;
            assert_eq!(note(&mut back, 3, "three").await, "one two three");
            // What else the client brings says more.
            let cookie = "Cookie: mcp_session_id=b\r\n";
            let mut other = upgraded_with(address, (Offer, "a"), cookie).await;
            assert_eq!(note(&mut other, 4, "four").await, "one two three four");
            assert_eq!(shared.services(), 2);
            server.shutdown().await;
        }
    })
    .await;
}

/// Both windows of a browser may be let in before either has said which session it wants.
#[tokio::test]
async fn a_cookie_takes_nothing_over_that_has_come_to_life_meanwhile() {
    limit(async {
        let shared = Shared::default();
        let (server, address) = shared.serve(Config::default()).await;
        let mut raw = initialized(address, Query, "a").await;
        note(&mut raw, 1, "one").await;
        lose(&server, raw).await;
        let speaks = "Sec-WebSocket-Protocol: mcp.resume.v1\r\n";
        let mut slow = upgraded_with(address, (Cookie, "a"), speaks).await;
        let mut quick = upgraded(address, Cookie, "a").await;
        assert_eq!(note(&mut quick, 2, "two").await, "one two");
        slow.text("@open {}").await;
        let told = session(&mut slow).await;
        assert_ne!(told["session"], "a");
        slow.initialize().await;
        assert_eq!(note(&mut slow, 1, "else").await, "else");
        assert_eq!(note(&mut quick, 3, "three").await, "one two three");
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn those_who_fight_over_a_session_are_parted() {
    within(Duration::from_secs(120), async {
        let (server, address) = Shared::default().serve(Config::default()).await;
        let mut raw = initialized(address, Query, "a").await;
        // Who comes back to what nobody uses fights with nobody.
        for _ in 0..7 {
            lose(&server, raw).await;
            raw = upgraded(address, Query, "a").await;
            raw.ping().await;
        }
        for _ in 0..5 {
            let mut new = upgraded(address, Query, "a").await;
            new.ping().await;
            assert_eq!(raw.closed().await.0, 4409);
            raw = new;
        }
        for by in [Query, Offer] {
            let head = refused(address, Some((by, "a")), "").await;
            assert_eq!((head.status(), head.get("retry-after")), (429, Some("10")));
        }
        raw.ping().await;
        // Others have nothing to do with it.
        initialized(address, Query, "b").await.ping().await;
        pass(11).await;
        let mut new = upgraded(address, Query, "a").await;
        new.ping().await;
        assert_eq!(raw.closed().await.0, 4409);
        server.shutdown().await;
    })
    .await;
}

fn alice_and_bob() -> Config {
    let tokens =
        BearerTokens::default().token("a", Identity::new("alice")).token("b", Identity::new("bob"));
    Config::default().authenticator(tokens)
}

const ALICE: &str = "Authorization: Bearer a\r\n";
const BOB: &str = "Authorization: Bearer b\r\n";

#[tokio::test]
async fn a_session_is_its_owners_alone() {
    limit(async {
        let (server, address) = Shared::default().serve(alice_and_bob()).await;
        let mut alice = upgraded_with(address, (Query, "a"), ALICE).await;
        alice.initialize().await;
        assert_eq!(note(&mut alice, 1, "one").await, "one");
        for connected in [true, false] {
            for by in [Query, Offer, Cookie] {
                let head = refused(address, Some((by, "a")), BOB).await;
                assert_eq!(head.status(), 403, "{by:?}");
                assert_eq!(refused(address, Some((by, "a")), "").await.status(), 401);
            }
            if connected {
                assert_eq!(note(&mut alice, 2, "two").await, "one two");
                lose(&server, alice).await;
                alice = upgraded_with(address, (Query, "a"), ALICE).await;
                alice.ping().await;
            }
        }
        assert_eq!(note(&mut alice, 3, "three").await, "one two three");
        assert_eq!(server.registry().health().rejected_by["session_id"], 6);
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_a_session_to_come_does_not_get_it() {
    limit(async {
        let (server, address) = Shared::default().serve(alice_and_bob()).await;
        // There is no session of this name yet: nobody is refused.
        let speaks = format!("Sec-WebSocket-Protocol: mcp.resume.v1\r\n{BOB}");
        let mut bob = upgraded_with(address, (Query, "a"), &speaks).await;
        let mut alice = upgraded_with(address, (Query, "a"), ALICE).await;
        alice.initialize().await;
        assert_eq!(note(&mut alice, 1, "one").await, "one");
        bob.text("@open {}").await;
        assert_eq!(bob.closed().await.0, 4403);
        assert_eq!(note(&mut alice, 2, "two").await, "one two");
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn what_is_no_name_is_refused_and_wrong_names_cost_nobody_anything() {
    limit(async {
        let shared = Shared::default();
        let config = Config::default().limits(Limits::default().connections(2));
        let (server, address) = shared.serve(config).await;
        let mut raw = initialized(address, Query, "a").await;
        assert_eq!(note(&mut raw, 1, "one").await, "one");
        let long = "x".repeat(129);
        let mut refusals = 0;
        for id in ["", "a%20b", "%ff", "a/b", "a+b", &long] {
            // A subprotocol with a slash is no token, but no name either.
            for by in [Query, Offer] {
                assert_eq!(refused(address, Some((by, id)), "").await.status(), 400, "{by:?} {id}");
                refusals += 1;
            }
        }
        // A cookie may be somebody else's, and is as good as none.
        let (other, head) = request_upgrade(address, Some((Cookie, "a/b")), "").await;
        assert_eq!(head.all("set-cookie").len(), 1);
        drop(other);
        let health = server.registry().health();
        assert_eq!(health.rejected_by["session_id"], refusals);
        // What is written otherwise may be the same.
        let mut new = upgraded(address, Query, "%61").await;
        assert_eq!(note(&mut new, 2, "two").await, "one two");
        // Names that nobody has are for whoever comes first.
        for id in ["A", "b", &"x".repeat(128)] {
            let mut other = initialized(address, Offer, id).await;
            assert_eq!(note(&mut other, 1, "else").await, "else");
            other.send(Frame::close(1000)).await;
            assert_eq!(other.closed().await.0, 1000);
            while server.registry().health().active > 1 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(note(&mut new, 3, "three").await, "one two three");
        server.shutdown().await;
    })
    .await;
}

/// The `@session` that comes next.
async fn session(raw: &mut Raw) -> Value {
    let frame = raw.next().await.expect("an answer");
    let text = String::from_utf8(frame.payload).unwrap();
    serde_json::from_str(text.strip_prefix("@session ").expect(&text)).unwrap()
}

async fn open(address: SocketAddr, id: &str, asks: &Value) -> (Raw, Value) {
    let (mut raw, head) =
        request_upgrade(address, Some((Query, id)), "Sec-WebSocket-Protocol: mcp.resume.v1\r\n")
            .await;
    assert_eq!(head.get("sec-websocket-protocol"), Some("mcp.resume.v1"));
    raw.text(format!("@open {asks}")).await;
    let session = session(&mut raw).await;
    (raw, session)
}

fn asks(session: &Value, received: u64) -> Value {
    json!({ "session": session["session"], "secret": session["secret"], "received": received })
}

/// Whoever learns the id of a session that has a secret has nothing.
#[tokio::test]
async fn a_session_with_a_secret_has_no_other_name() {
    limit(async {
        let shared = Shared::default();
        let (server, address) = shared.serve(Config::default()).await;
        let speaks = "Sec-WebSocket-Protocol: mcp, mcp.resume.v1\r\n";
        let (mut raw, head) = request_upgrade(address, None, speaks).await;
        assert_eq!((head.get("mcp-session-id"), head.get("set-cookie")), (None, None));
        // Nor where it brings one that is worth nothing any more.
        let (_, stale) = request_upgrade(address, Some((Cookie, "stale")), speaks).await;
        assert_eq!((stale.get("mcp-session-id"), stale.get("set-cookie")), (None, None));
        raw.text("@open {}").await;
        let first = session(&mut raw).await;
        raw.initialize().await;
        let id = first["session"].as_str().unwrap();
        for by in [Query, Offer, Cookie] {
            assert_eq!(refused(address, Some((by, id)), "").await.status(), 403, "{by:?}");
            assert_eq!(refused(address, Some((by, id)), speaks).await.status(), 403, "{by:?}");
        }
        assert_eq!(refused(address, Some((Header, id)), "").await.status(), 403);
        assert_eq!(note(&mut raw, 1, "mine").await, "mine");
        lose(&server, raw).await;
        assert_eq!(refused(address, Some((Query, id)), "").await.status(), 403);
        let (mut raw, _) = request_upgrade(address, None, speaks).await;
        raw.text(format!("@open {}", asks(&first, 2))).await;
        assert_eq!(session(&mut raw).await["resumed"], true);
        server.shutdown().await;
    })
    .await;
}

/// Messages for detached clients are bounded for those with a session id too.
#[tokio::test]
async fn what_waits_for_those_who_are_away_is_bounded() {
    limit(async {
        let tools = Tools::default();
        let sessions = SessionConfig::default().max_bytes(1 << 20);
        let (server, address) = serve_tools(&tools, Config::default().sessions(sessions)).await;
        for (id, begun) in [("a", 1), ("b", 2)] {
            let mut raw = initialized(address, Query, id).await;
            raw.json(&call(1, "late", json!({ "size": 700 << 10 }))).await;
            tools.begun(begun).await;
            lose(&server, raw).await;
        }
        assert_eq!(server.registry().health().detached, 2);
        let mut events = server.registry().events();
        tools.gate.notify_waiters();
        next(&mut events, is_disconnected).await;
        assert_eq!(server.registry().health().detached, 1);
        server.shutdown().await;
    })
    .await;
}

/// Requests of detached clients are bounded too, for as long as they are handled.
#[tokio::test]
async fn what_those_who_are_away_have_asked_is_bounded() {
    limit(async {
        let tools = Tools::default();
        let sessions = SessionConfig::default().max_bytes(1 << 20);
        let (server, address) = serve_tools(&tools, Config::default().sessions(sessions)).await;
        let mut events = server.registry().events();
        for (id, begun) in [("a", 1), ("b", 2)] {
            let mut raw = initialized(address, Query, id).await;
            let large = vec![json!({ "": 0 }); 700];
            raw.json(&call(1, "wait", json!({ "large": large }))).await;
            tools.begun(begun).await;
            lose(&server, raw).await;
        }
        next(&mut events, is_disconnected).await;
        assert_eq!(server.registry().health().detached, 1);
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn a_client_that_speaks_the_extension_returns_by_its_name_too() {
    limit(async {
        let shared = Shared::default();
        let (server, address) = shared.serve(Config::default()).await;
        let (mut raw, first) = open(address, "a", &json!({})).await;
        assert_eq!((&first["session"], &first["resumed"]), (&json!("a"), &json!(false)));
        raw.initialize().await;
        assert_eq!(note(&mut raw, 1, "one").await, "one");
        raw.json(&call(2, "wait", json!({}))).await;
        shared.begun(1).await;
        lose(&server, raw).await;
        shared.gate.notify_one();
        shared.ended(1).await;

        // It has lost its secret: what it may not have received is lost, and what was not sent is
        // not.
        let (mut raw, second) = open(address, "a", &json!({})).await;
        assert_eq!((&second["session"], &second["resumed"]), (&json!("a"), &json!(false)));
        assert_eq!(second["received"], 0);
        assert_ne!(second["secret"], first["secret"]);
        raw.assert_silent(Duration::from_millis(50)).await;
        raw.json(&json!({ "jsonrpc": "2.0", "id": 3, "method": "ping" })).await;
        assert_eq!(text_of(&raw.receive().await), "waited");
        assert_eq!(raw.receive().await["id"], 3);
        lose(&server, raw).await;

        // Both sides count from there.
        let (mut raw, third) = open(address, "a", &asks(&second, 1)).await;
        assert_eq!((&third["resumed"], &third["received"]), (&json!(true), &json!(1)));
        assert_eq!(raw.receive().await["id"], 3);
        assert_eq!(note(&mut raw, 4, "two").await, "one two");
        lose(&server, raw).await;

        // And as one that does not speak it, and again as one that does.
        let mut plain = upgraded(address, Query, "a").await;
        assert_eq!(note(&mut plain, 5, "three").await, "one two three");
        let (mut raw, last) = open(address, "a", &asks(&third, 2)).await;
        assert_eq!((&last["session"], &last["resumed"]), (&json!("a"), &json!(false)));
        assert_eq!(note(&mut raw, 6, "four").await, "one two three four");
        assert_eq!(shared.services(), 1);
        server.shutdown().await;
    })
    .await;
}
