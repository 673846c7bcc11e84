//! Sessions that are resumed at another instance than the one that has them.

mod attacks;
mod chaos;
mod edges;
mod hostile;
mod losses;
mod resumed;
mod same_tag;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::StreamExt;
use mcp_ws_transport::{
    cluster::{Cluster, Join, Local, LocalBus},
    connect,
    event::{Event, Events},
    server::{Config, Health, Server},
};
use rmcp::{RoleClient, ServiceError, ServiceExt, model::CallToolResult, service::RunningService};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};

use super::test_bus::TestBus;
use crate::common::{
    Tools, handshake::upgrade, ms, proxy::Proxy, raw::Raw, reconnect_within, serve_tools,
    tool_call, within,
};

const RESUMES: &str = "Sec-WebSocket-Protocol: mcp, mcp.resume.v1\r\n";

/// One instance of a server.
struct Instance {
    tools: Tools,
    bus: Arc<LocalBus>,
    test_bus: TestBus,
    cluster: Cluster,
    server: Server,
    address: SocketAddr,
}

impl Instance {
    async fn new(local: &Local, tag: &str, config: Config) -> Self {
        Self::joined(local, tag, config, |join| join).await
    }

    /// Starts one that joins with these options.
    async fn joined(
        local: &Local,
        tag: &str,
        config: Config,
        options: impl FnOnce(Join) -> Join,
    ) -> Self {
        let bus = Arc::new(local.connect());
        let test_bus = TestBus::new(bus.clone());
        let join = Cluster::join(test_bus.clone(), "test").instance(tag);
        let cluster = options(join).await.unwrap();
        let tools = Tools::default();
        let (server, address) = serve_tools(&tools, config.cluster(cluster.clone())).await;
        Self { tools, bus, test_bus, cluster, server, address }
    }

    /// Waits until so many relays lead to this instance, and away from it.
    async fn relays(&self, relayed_in: u64, relayed_out: u64) {
        self.until(|health| (health.relayed_in, health.relayed_out) == (relayed_in, relayed_out))
            .await;
    }

    /// Waits until the figures of this instance are such.
    async fn until(&self, is_so: impl Fn(&Health) -> bool) {
        let health = || self.server.registry().health();
        let changed = async {
            while !is_so(&health()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(5), changed).await.is_err() {
            panic!("{:?}", health());
        }
    }
}

/// Starts instances with these tags.
async fn instances<const N: usize>(tags: [&str; N]) -> [Instance; N] {
    let local = Local::default();
    let mut all = Vec::new();
    for tag in tags {
        all.push(Instance::new(&local, tag, Config::default()).await);
    }
    all.try_into().ok().unwrap()
}

/// A client behind a balancer that leads each new connection where it is told to.
struct Client {
    client: RunningService<RoleClient, ()>,
    events: Events<Event>,
    balancer: Proxy,
}

impl Client {
    async fn new(first: &Instance) -> Self {
        let balancer = Proxy::new(first.address).await;
        let connect = reconnect_within(ms(5), connect(balancer.url()));
        let events = connect.events();
        let client = ().serve(connect.await.unwrap()).await.unwrap();
        Self { client, events, balancer }
    }

    /// Leads the next connections to `instance`.
    fn lead_to(&self, instance: &Instance) {
        *self.balancer.target.lock().unwrap() = instance.address;
    }

    /// Cuts the connection; the next one leads to `instance`.
    fn move_to(&self, instance: &Instance) {
        self.lead_to(instance);
        self.balancer.cut();
    }

    /// Calls a tool, in a task of its own.
    fn call(&self, tool: &'static str, arguments: Value) -> Calling {
        let peer = self.client.peer().clone();
        tokio::spawn(async move { peer.call_tool(tool_call(tool, arguments)).await })
    }

    async fn echo(&self, text: impl Into<String>) -> String {
        result(self.call("echo", json!({ "text": text.into() }))).await.unwrap()
    }

    /// Returns the next event but those of failed attempts.
    async fn event(&mut self) -> Event {
        within(Duration::from_secs(10), async {
            loop {
                match self.events.next().await.unwrap() {
                    Event::Failed { .. } => {}
                    event => return event,
                }
            }
        })
        .await
    }

    async fn resumed(&mut self) {
        let event = self.event().await;
        assert!(matches!(event, Event::Lost(_)), "{event:?}");
        let event = self.event().await;
        assert!(matches!(event, Event::Resumed { .. }), "{event:?}");
    }
}

type Calling = tokio::task::JoinHandle<Result<CallToolResult, ServiceError>>;

/// Returns the text that a call returns, or the `reason` of its error.
async fn result(calling: Calling) -> Result<String, String> {
    match within(Duration::from_secs(20), calling).await.unwrap() {
        Ok(result) => Ok(result.content[0].as_text().unwrap().text.clone()),
        Err(ServiceError::McpError(error)) => {
            let reason = error.data.as_ref().and_then(|data| data["reason"].as_str());
            Err(reason.unwrap_or(&error.message).to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Opens a link at an instance by hand. Returns what the server says of the session.
async fn open(instance: &Instance, open: &Value) -> (Raw, Value) {
    open_with(instance, "", open).await
}

async fn open_with(instance: &Instance, lines: &str, open: &Value) -> (Raw, Value) {
    let mut raw = upgrade(instance.address, &format!("{RESUMES}{lines}")).await;
    raw.text(format!("@open {open}")).await;
    let frame = within(Duration::from_secs(5), raw.next()).await.unwrap();
    let text = String::from_utf8_lossy(&frame.payload).into_owned();
    let session = text.strip_prefix("@session ").map(|text| serde_json::from_str(text).unwrap());
    (
        raw,
        session.unwrap_or(
            json!({ "closed": frame.payload.first_chunk().map(|code| u16::from_be_bytes(*code)) }),
        ),
    )
}

/// Returns the `@open` that resumes a session of which so many messages were received.
fn resume(session: &Value, received: u64) -> Value {
    json!({ "session": session["session"], "secret": session["secret"], "received": received })
}

/// Returns the next message that is not a control frame of the session.
async fn message<S: AsyncRead + AsyncWrite + Unpin>(raw: &mut Raw<S>) -> Value {
    loop {
        let frame = raw.next().await.expect("the stream ended");
        if frame.payload.starts_with(b"{") {
            return serde_json::from_slice(&frame.payload).unwrap();
        }
        assert!(frame.payload.starts_with(b"@ack "), "{frame:?}");
    }
}
