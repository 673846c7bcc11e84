//! Instances of a server that stand behind a proxy, and what their clients do.

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::{Duration, Instant},
};

use futures::StreamExt;
use mcp_ws_transport::{
    Error, State,
    client::{Connect, ReconnectPolicy},
    event::{Event, Events},
    layer::heartbeat,
    server::{Config, Server, TrustedProxies},
    transport,
};
use rmcp::{
    ErrorData, RoleClient, RoleServer, ServerHandler, ServiceExt,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ServerCapabilities,
        ServerConfig,
    },
    service::{RequestContext, RunningService},
};
use serde_json::json;

use crate::common::tool_call;

/// The service of one session: which instance it is at, which session there, and which call in
/// that.
#[derive(Debug)]
pub struct Counter {
    instance: char,
    session: usize,
    calls: AtomicUsize,
}

impl ServerHandler for Counter {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    /// Takes `ms` milliseconds.
    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let call = self.calls.fetch_add(1, SeqCst) + 1;
        let ms = request.arguments.and_then(|arguments| arguments["ms"].as_u64());
        tokio::time::sleep(Duration::from_millis(ms.unwrap_or_default())).await;
        let text = format!("{}{}.{call}", self.instance, self.session);
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

/// Returns the guide's settings of a server that learns the address of its client from a proxy.
pub fn behind_proxy() -> Config {
    Config::default().trusted_proxies(TrustedProxies::x_forwarded_for(["127.0.0.1"]))
}

/// Starts the instance of this name, which is its tag too.
pub async fn instance(name: char, config: Config) -> Server {
    let sessions = AtomicUsize::new(0);
    let factory = move || Counter {
        instance: name,
        session: sessions.fetch_add(1, SeqCst) + 1,
        calls: AtomicUsize::new(0),
    };
    let config = config.instance(name.to_string());
    mcp_ws_transport::serve("127.0.0.1:0", factory).config(config).await.unwrap()
}

pub type Client = RunningService<RoleClient, ()>;

pub async fn initialized(connect: Connect<RoleClient>) -> Client {
    ().serve(connect.await.unwrap()).await.unwrap()
}

/// Asks which call of which session at which instance this one is, after `ms` milliseconds.
pub async fn ask(client: &Client, ms: u64) -> String {
    let result = client.call_tool(tool_call("count", json!({ "ms": ms }))).await.unwrap();
    result.content[0].as_text().unwrap().text.clone()
}

/// Leaves a client idle for 7 s, unless its connection ends before. Returns how long that was, and
/// the state in the end.
pub async fn leave_idle(connect: Connect<RoleClient>) -> (Duration, State) {
    let connect = connect.no_reconnect();
    let state = connect.state();
    let client = initialized(connect).await;
    let first = ask(&client, 0).await;
    let (since, mut changed) = (Instant::now(), state.clone());
    let closed = changed.wait_for(|state| matches!(state, State::Closed(_)));
    if tokio::time::timeout(Duration::from_secs(7), closed).await.is_err() {
        assert_eq!(ask(&client, 0).await, first.replace(".1", ".2"));
    }
    (since.elapsed(), state.borrow().clone())
}

/// Waits for the next `Resumed` or `Restarted`, and returns it with the cause of the loss before.
pub async fn back(events: &mut Events<Event>) -> (Error, Event) {
    let mut lost = None;
    loop {
        match events.next().await.unwrap() {
            Event::Lost(error) => lost = Some(error),
            event @ (Event::Resumed { .. } | Event::Restarted { .. }) => {
                return (lost.unwrap(), event);
            }
            Event::Closed(error) => panic!("{error}"),
            _ => {}
        }
    }
}

pub fn immediate_reconnect() -> ReconnectPolicy {
    ReconnectPolicy::default()
        .first(Duration::ZERO)
        .after_restart(Duration::from_millis(300))
        .min(Duration::from_millis(100))
}

pub fn heartbeat(ping: Option<Duration>) -> transport::Config {
    let heartbeat = heartbeat::Config::default().ping_interval(ping).idle_timeout(None);
    transport::Config::default().heartbeat(heartbeat)
}
