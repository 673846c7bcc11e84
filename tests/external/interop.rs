//! The crate against other implementations of MCP over WebSockets, live. What they need is
//! installed in `tests/interop` by
//!
//! ```sh
//! npm ci
//! python3 -m venv .venv && .venv/bin/pip install --requirement requirements.txt
//! ```
//!
//! How a connection ends is asserted on both sides: the peers print the close code that they saw,
//! and the `math` server logs it.

use std::{
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use mcp_ws_transport::{CloseCode, WebSocketTransport, event::State, layer::heartbeat, transport};
use rmcp::{
    ClientHandler, ClientLifecycleMode, ClientServiceExt, ErrorData, RoleClient, ServiceError,
    ServiceExt,
    model::{
        CallToolResult, ClientRequest, CustomRequest, ErrorCode, PingRequest,
        ProgressNotificationParam, ProtocolVersion,
    },
    service::{NotificationContext, Peer, RequestContext},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{process::Command, sync::watch};

use crate::{
    common::{limit, tool_call},
    process::{Process, math},
};

/// Returns the path of a file in `tests/interop`.
pub fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name);
    assert!(path.exists(), "{} is not there: see tests/external/interop.rs", path.display());
    path.into_os_string().into_string().unwrap()
}

async fn math_server() -> (Process, String) {
    Process::server(math().await, &["serve", "--listen", "127.0.0.1:0"]).await
}

async fn python_server() -> (Process, String) {
    Process::server(file(".venv/bin/python"), &[&file("server.py")]).await
}

fn typescript_client(arguments: &[&str]) -> Process {
    file("node_modules/ws");
    Process::spawn("node", &[&[&*file("client.mjs")], arguments].concat())
}

fn python_client(arguments: &[&str]) -> Process {
    Process::spawn(file(".venv/bin/python"), &[&[&*file("client.py")], arguments].concat())
}

/// Results that a foreign client got from the `math` server.
#[derive(Debug, PartialEq, Deserialize)]
struct Report {
    server: String,
    subprotocol: String,
    tools: Vec<String>,
    add: Value,
    sum: f64,
    progress: Vec<(f64, f64)>,
    many: Vec<f64>,
    tool_error: (bool, String),
    invalid_params: i32,
    unknown_tool: i32,
    unknown_method: i32,
    ping: Value,
}

impl Report {
    fn expected() -> Self {
        let tools = ["add", "divide", "multiply", "power", "sqrt", "subtract", "sum"];
        Self {
            server: "math".into(),
            subprotocol: "mcp".into(),
            tools: tools.map(str::to_owned).into(),
            add: json!({"result": 8, "operation": "add", "a": 5, "b": 3}),
            sum: 6.0,
            progress: vec![(1.0, 3.0), (2.0, 3.0), (3.0, 3.0)],
            many: (1..=100).map(f64::from).collect(),
            tool_error: (true, "division by zero".into()),
            invalid_params: -32602,
            unknown_tool: -32602,
            unknown_method: -32601,
            ping: json!({}),
        }
    }
}

/// End of the connection, as a foreign client saw it.
#[derive(Debug, PartialEq, Deserialize)]
struct Ending {
    code: u16,
    reason: String,
}

impl Ending {
    fn of(code: u16) -> Self {
        Self { code, reason: String::new() }
    }

    fn of_a_stopping_server() -> Self {
        Self { code: 1012, reason: "the server is stopping".to_owned() }
    }
}

/// Serves a foreign client, which closes with this code.
async fn serve_until_it_leaves(client: fn(&[&str]) -> Process, code: u16, name: &str) {
    let (mut server, url) = math_server().await;
    let mut client = client(&[&url]);
    assert_eq!(client.json::<Report>().await, Report::expected());
    assert_eq!(client.json::<Ending>().await, Ending::of(code));
    client.success().await;
    assert_eq!(server.end_reason().await, format!("{code} ({name})"));
    server.terminate().await;
    server.success().await;
}

/// Serves a foreign client that stays until the server stops.
async fn serve_until_the_server_stops(client: fn(&[&str]) -> Process) {
    let (mut server, url) = math_server().await;
    let mut client = client(&[&url, "linger"]);
    assert_eq!(client.json::<Report>().await, Report::expected());
    server.terminate().await;
    assert_eq!(client.json::<Ending>().await, Ending::of_a_stopping_server());
    assert_eq!(
        server.end_reason().await,
        "1012 (service restart): by this side: the server is stopping"
    );
    client.success().await;
    server.success().await;
}

#[tokio::test]
#[ignore = "needs Node.js and the packages of tests/interop/package.json"]
async fn a_typescript_client_is_served_and_leaves() {
    // The SDK closes without a code, which is echoed; 1006 would be a connection cut off.
    serve_until_it_leaves(typescript_client, 1005, "no status received").await;
}

#[tokio::test]
#[ignore = "needs Python and the packages of tests/interop/requirements.txt"]
async fn a_python_client_is_served_and_leaves() {
    serve_until_it_leaves(python_client, 1000, "normal closure").await;
}

#[tokio::test]
#[ignore = "needs Node.js and the packages of tests/interop/package.json"]
async fn a_typescript_client_sees_the_server_shut_down() {
    serve_until_the_server_stops(typescript_client).await;
}

#[tokio::test]
#[ignore = "needs Python and the packages of tests/interop/requirements.txt"]
async fn a_python_client_sees_the_server_shut_down() {
    serve_until_the_server_stops(python_client).await;
}

/// A client that has one root and keeps the progress reports.
#[derive(Clone, Default)]
struct Client(Arc<Mutex<Vec<ProgressNotificationParam>>>);

#[expect(deprecated, reason = "roots belong to the era that the peer speaks")]
impl ClientHandler for Client {
    async fn on_progress(
        &self,
        report: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.0.lock().unwrap().push(report);
    }

    async fn list_roots(
        &self,
        _context: RequestContext<RoleClient>,
    ) -> Result<rmcp::model::ListRootsResult, ErrorData> {
        Ok(rmcp::model::ListRootsResult::new(vec![rmcp::model::Root::new("file:///root")]))
    }
}

async fn call(
    client: &Peer<RoleClient>,
    tool: &'static str,
    arguments: Value,
) -> Result<CallToolResult, ServiceError> {
    limit(client.call_tool(tool_call(tool, arguments))).await
}

/// The code of the error that answers a request made by hand.
async fn refused(client: &Peer<RoleClient>, method: &str, params: Value) -> ErrorCode {
    let request = ClientRequest::CustomRequest(CustomRequest::new(method, Some(params)));
    match limit(client.send_request(request)).await {
        Err(ServiceError::McpError(error)) => error.code,
        other => panic!("{other:?}"),
    }
}

async fn closed(state: &mut watch::Receiver<State>) -> CloseCode {
    let state = limit(state.wait_for(|state| matches!(state, State::Closed(_)))).await.unwrap();
    match &*state {
        State::Closed(reason) => reason.code,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
#[ignore = "needs Python and the packages of tests/interop/requirements.txt"]
async fn a_python_server_serves_our_client() {
    let (mut server, url) = python_server().await;
    let config = transport::Config::default()
        .heartbeat(heartbeat::Config::default().ping_interval(Duration::from_millis(100)));
    let transport: WebSocketTransport<_> =
        limit(mcp_ws_transport::connect(&url).transport(config).into_future()).await.unwrap();
    assert_eq!(transport.subprotocol(), Some("mcp"));
    let (mut state, stats) = (transport.state(), transport.stats());
    let handler = Client::default();
    let client = limit(handler.clone().serve(transport)).await.unwrap();

    let server_info = client.peer_info().unwrap();
    assert_eq!(server_info.protocol_version, ProtocolVersion::V_2025_11_25);
    assert_eq!(server_info.server_info.as_ref().unwrap().name, "python");
    let tools = limit(client.list_all_tools()).await.unwrap();
    let names: Vec<_> = tools.iter().map(|tool| &*tool.name).collect();
    assert_eq!(names, ["add", "sum", "fail", "wait", "ask"]);

    let answer = call(&client, "add", json!({"a": 5, "b": 3})).await.unwrap();
    assert_eq!(answer.structured_content, Some(json!({"result": 8})));
    let answer = call(&client, "sum", json!({"numbers": [1, 2, 3]})).await.unwrap();
    assert_eq!(answer.structured_content, Some(json!({"result": 6})));
    let calls = (0..100).map(|i| call(&client, "add", json!({"a": i, "b": 1})));
    for (i, answer) in futures::future::join_all(calls).await.into_iter().enumerate() {
        assert_eq!(answer.unwrap().structured_content, Some(json!({"result": i + 1})));
    }

    for (tool, message) in [
        ("fail", "Error executing tool fail: this tool always fails"),
        ("none", "Unknown tool: none"),
    ] {
        let answer = call(&client, tool, json!({})).await.unwrap();
        assert_eq!(answer.is_error, Some(true));
        assert_eq!(answer.content[0].as_text().unwrap().text, message);
    }
    let params = json!({"name": ["add"]});
    assert_eq!(refused(&client, "tools/call", params).await, ErrorCode::INVALID_PARAMS);
    // This SDK answers an unknown method so as well.
    assert_eq!(refused(&client, "no/such", json!({})).await, ErrorCode::INVALID_PARAMS);

    let ping = ClientRequest::PingRequest(PingRequest::default());
    limit(client.send_request(ping)).await.unwrap();
    let answer = call(&client, "ask", json!({})).await.unwrap();
    assert_eq!(answer.structured_content, Some(json!({"result": ["file:///root"]})));

    // While this takes its time, both sides ping, and the server drops whoever does not answer.
    let answer = call(&client, "wait", json!({"seconds": 3.5})).await.unwrap();
    assert_eq!(answer.structured_content, Some(json!({"result": "waited"})));
    assert!(stats.snapshot().round_trip.is_some());

    let mut reports: Vec<_> = handler.0.lock().unwrap().drain(..).collect();
    reports.sort_by(|a, b| a.progress.total_cmp(&b.progress));
    let reports: Vec<_> = reports
        .iter()
        .map(|report| (report.progress, report.total.unwrap(), report.message.as_deref().unwrap()))
        .collect();
    assert_eq!(reports, [(1.0, 3.0, "1 so far"), (2.0, 3.0, "3 so far"), (3.0, 3.0, "6 so far")]);

    limit(client.cancel()).await.unwrap();
    assert_eq!(closed(&mut state).await, CloseCode::Normal);
    assert_eq!(server.line().await.trim_end(), "closed 1000");
    let snapshot = stats.snapshot();
    assert_eq!((snapshot.malformed, snapshot.orphans, snapshot.refused), (0, 0, 0));
    server.terminate().await;
}

#[tokio::test]
#[ignore = "needs Python and the packages of tests/interop/requirements.txt"]
async fn our_client_finds_out_the_era_of_a_python_server() {
    let (mut server, url) = python_server().await;
    let transport = limit(mcp_ws_transport::connect(&url).into_future()).await.unwrap();
    let lifecycle = ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        legacy_version: None,
    };
    let client = limit(().serve_with_lifecycle(transport, lifecycle)).await.unwrap();
    assert_eq!(client.peer_info().unwrap().protocol_version, ProtocolVersion::V_2025_11_25);
    let answer = call(&client, "add", json!({"a": 5, "b": 3})).await.unwrap();
    assert_eq!(answer.structured_content, Some(json!({"result": 8})));
    limit(client.cancel()).await.unwrap();
    assert_eq!(server.line().await.trim_end(), "closed 1000");
}

#[tokio::test]
#[ignore = "needs Python and the packages of tests/interop/requirements.txt"]
async fn our_client_sees_a_python_server_restart() {
    let (server, url) = python_server().await;
    let transport =
        limit(mcp_ws_transport::connect(&url).no_reconnect().into_future()).await.unwrap();
    let mut state = transport.state();
    let client = limit(().serve(transport)).await.unwrap();

    let call = tokio::spawn({
        let client = client.peer().clone();
        async move { call(&client, "wait", json!({"seconds": 60})).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.terminate().await;
    assert_eq!(closed(&mut state).await, CloseCode::Restart);
    match limit(call).await.unwrap() {
        Err(ServiceError::McpError(error)) => {
            assert_eq!(error.data.unwrap()["reason"], "outcome_unknown");
        }
        other => panic!("{other:?}"),
    }
    limit(client.waiting()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs Python and the packages of tests/interop/requirements.txt"]
async fn a_python_server_serves_math_call() {
    let (mut server, url) = python_server().await;
    let math = math().await;
    for (arguments, expected) in [
        (&["add", "5", "3"][..], Ok(r#"{"result":8}"#)),
        (&["sum", "1", "2", "3", "4"], Ok(r#"{"result":10}"#)),
        (&["fail"], Err("Error executing tool fail: this tool always fails")),
        (&["none"], Err("no tool \"none\"; the server has add, sum, fail, wait, ask")),
    ] {
        let mut command = Command::new(math);
        command.args(["call", &url]).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let output = limit(command.output()).await.unwrap();
        let (stdout, stderr) =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).into();
        match expected {
            Ok(line) => {
                assert_eq!((stdout, stderr), (format!("{line}\n"), String::new()));
                assert_eq!(output.status.code(), Some(0));
            }
            Err(line) => {
                assert_eq!((stdout, stderr), (String::new(), format!("error: {line}\n")));
                assert_eq!(output.status.code(), Some(1));
            }
        }
        assert_eq!(server.line().await.trim_end(), "closed 1000");
    }
}
