//! Parts that the tests share: raw peers with hand-made frames, and a small MCP server to talk to.

pub mod counting;
pub mod flood;
#[cfg(feature = "proxy")]
pub mod forward;
pub mod handshake;
pub mod logs;
pub mod pipes;
#[allow(dead_code, reason = "`chaos` uses the rest")]
pub mod proxy;
pub mod raw;
pub mod scripted;

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use mcp_ws_transport::{
    State, accept,
    client::{Connect, ReconnectPolicy},
    layer::socket::Side,
    server,
    stats::{Snapshot, Stats},
    transport::Config,
};
use rmcp::{
    ErrorData, RoleClient, RoleServer, ServerHandler, ServiceExt,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ServerCapabilities,
        ServerConfig,
    },
    service::{RequestContext, RunningService},
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc, watch},
};

use self::raw::Raw;

/// Longer than any test takes, unless it hangs.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The result of `test`, which must not take longer than [`LIMIT`].
pub async fn limit<T>(test: impl Future<Output = T>) -> T {
    within(LIMIT, test).await
}

/// The result of `future`, which must not take longer than `time`.
pub async fn within<T>(time: Duration, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(time, future).await {
        Ok(value) => value,
        Err(_) => panic!("not finished within {time:?}"),
    }
}

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A server with these tools: `echo` (returns `text`), `big` (returns `size` bytes), `late` (the
/// same, but counts itself in `started` and waits for the `gate` first), `wait` (counts itself in
/// `started`, then waits for the `gate`), `uncancellable` (the same, but heeds no cancellation), `sleep`
/// (counts itself, then takes `ms` milliseconds), `panic` (does).
#[derive(Debug, Clone)]
pub struct Tools {
    pub gate: Arc<Notify>,
    pub started: watch::Sender<usize>,
}

impl Default for Tools {
    fn default() -> Self {
        Self { gate: Arc::default(), started: watch::Sender::new(0) }
    }
}

impl Tools {
    /// Waits until this number of `calls` of `wait` have begun.
    pub async fn begun(&self, calls: usize) {
        self.started.subscribe().wait_for(|started| *started >= calls).await.unwrap();
    }
}

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = Value::from(request.arguments.unwrap_or_default());
        let text = match &*request.name {
            "echo" => arguments["text"].as_str().unwrap_or_default().to_owned(),
            "big" => "x".repeat(arguments["size"].as_u64().unwrap_or_default() as usize),
            "wait" => {
                self.started.send_modify(|started| *started += 1);
                tokio::select! {
                    () = self.gate.notified() => {}
                    () = context.ct.cancelled() => {}
                }
                "waited".to_owned()
            }
            "uncancellable" => {
                self.started.send_modify(|started| *started += 1);
                self.gate.notified().await;
                "waited".to_owned()
            }
            "late" => {
                self.started.send_modify(|started| *started += 1);
                self.gate.notified().await;
                "x".repeat(arguments["size"].as_u64().unwrap_or_default() as usize)
            }
            "sleep" => {
                self.started.send_modify(|started| *started += 1);
                let ms = arguments["ms"].as_u64().unwrap_or_default();
                tokio::time::sleep(Duration::from_millis(ms)).await;
                "slept".to_owned()
            }
            "panic" => panic!("as it was told"),
            other => return Err(ErrorData::invalid_params(format!("no tool {other}"), None)),
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

/// A server of `tools` on a port of its own.
pub async fn serve_tools(tools: &Tools, config: server::Config) -> (server::Server, SocketAddr) {
    let tools = tools.clone();
    let serve = mcp_ws_transport::serve("127.0.0.1:0", move || tools.clone());
    let server = serve.config(config).await.unwrap();
    let address = server.local_addr();
    (server, address)
}

/// Returns `default`, or `full` if the environment variable `MCP_WS_FULL` is set, which takes
/// minutes.
pub fn scale(default: usize, full: usize) -> usize {
    if std::env::var_os("MCP_WS_FULL").is_some() { full } else { default }
}

/// Asserts that soon only this number of tasks of this runtime is left: those that have just ended may
/// still be counted.
pub async fn assert_tasks_left(tasks: usize) {
    let metrics = tokio::runtime::Handle::current().metrics();
    let falling = async {
        while metrics.num_alive_tasks() > tasks {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(5), falling).await.is_err() {
        panic!("{} tasks are left, not {tasks}", metrics.num_alive_tasks());
    }
}

/// Statistics and state of a transport that a service has taken.
#[derive(Debug)]
pub struct Observer {
    pub stats: Stats,
    pub state: watch::Receiver<State>,
}

impl Observer {
    pub fn stats(&self) -> Snapshot {
        self.stats.snapshot()
    }

    /// The state in which the connection ends.
    pub async fn ended(&mut self) -> State {
        self.state.wait_for(|state| matches!(state, State::Closed(_))).await.unwrap().clone()
    }
}

/// Serves `tools` by [`accept`] on every connection, each of which is reported.
pub async fn host(tools: Tools, config: Config) -> (SocketAddr, mpsc::UnboundedReceiver<Observer>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (report, connections) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tools, config, report) = (tools.clone(), config.clone(), report.clone());
            tokio::spawn(async move {
                let config = server::Config::default().transport(config);
                let Ok(transport) = accept::<RoleServer, _>(stream).config(config).await else {
                    return;
                };
                let observer = Observer { stats: transport.stats(), state: transport.state() };
                let _ = report.send(observer);
                if let Ok(running) = tools.serve(transport).await {
                    let _ = running.waiting().await;
                }
            });
        }
    });
    (address, connections)
}

/// Serves `tools` on every connection, and tells no client the limits of what it takes.
pub async fn host_without_limits(tools: Tools) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tools = tools.clone();
            tokio::spawn(async move {
                let Raw { stream, .. } = Raw::upgraded(stream).await;
                let builder = mcp_ws_transport::WebSocketTransport::<RoleServer>::builder();
                let (leftover, side) = (Default::default(), Side::Server);
                let transport = builder.over_stream(stream, leftover, side);
                if let Ok(running) = tools.serve(transport).await {
                    let _ = running.waiting().await;
                }
            });
        }
    });
    address
}

/// A listener, and what a client says to it to be served by hand.
pub async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/mcp", listener.local_addr().unwrap());
    (listener, url)
}

/// An rmcp client and the raw server at its other end, initialized.
pub async fn client_and_raw(
    connect: impl FnOnce(String) -> mcp_ws_transport::client::Connect<RoleClient>,
) -> (RunningService<RoleClient, ()>, Observer, Raw) {
    let (listener, url) = listen().await;
    let client = async {
        let transport = connect(url).no_reconnect().await.unwrap();
        let observer = Observer { stats: transport.stats(), state: transport.state() };
        (().serve(transport).await.unwrap(), observer)
    };
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut raw = Raw::upgraded(stream).await;
        raw.answer_initialize().await;
        raw
    };
    let ((client, observer), raw) = tokio::join!(client, server);
    (client, observer, raw)
}

/// Two ends of a TCP connection.
pub async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap());
    let (near, far) = tokio::join!(near, listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// Returns what an rmcp client calls a tool with.
pub fn tool_call(tool: &'static str, arguments: Value) -> CallToolRequestParams {
    let Value::Object(arguments) = arguments else { panic!("{arguments}") };
    CallToolRequestParams::new(tool).with_arguments(arguments)
}

/// Returns a `tools/call` request.
pub fn call(id: impl Into<Value>, tool: &str, arguments: Value) -> Value {
    json!({
        "jsonrpc": "2.0", "id": id.into(), "method": "tools/call",
        "params": { "name": tool, "arguments": arguments },
    })
}

/// The text of a tool's result.
pub fn text_of(response: &Value) -> &str {
    response["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{response}"))
}

/// Returns waits between attempts to connect of at most `bound`.
pub fn reconnect_policy(bound: Duration) -> ReconnectPolicy {
    ReconnectPolicy::default().first(bound).after_restart(bound).min(bound).max(bound)
}

/// Sets the waits between attempts to connect to at most `bound`.
pub fn reconnect_within(bound: Duration, connect: Connect<RoleClient>) -> Connect<RoleClient> {
    connect.reconnect(reconnect_policy(bound))
}
