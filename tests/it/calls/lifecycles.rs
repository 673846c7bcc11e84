//! Both eras of MCP, in both directions, between our own ends over a TCP connection.
#![expect(deprecated, reason = "sampling and roots belong to the era with `initialize`")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use mcp_ws_transport::{
    CloseCode, WebSocketTransport, client::ToolClient, connect, event::State, layer::socket::Side,
};
use rmcp::{
    ClientHandler, ClientLifecycleMode, ClientServiceExt, ErrorData, Peer, RoleClient, RoleServer,
    ServerHandler, ServiceError, ServiceExt,
    handler::server::wrapper::Parameters,
    model::{
        CallToolRequestParams, CallToolResult, ClientRequest, CreateMessageRequestParams,
        CreateMessageResult, DiscoverRequestMethod, DiscoverResult, ErrorCode, ListRootsResult,
        PingRequest, ProgressNotificationParam, ProtocolVersion, RequestMetaObject, Root,
        SamplingMessage, ServerCapabilities, ServerRequest,
    },
    schemars::{self, JsonSchema},
    service::{NotificationContext, RequestContext},
    tool, tool_handler, tool_router,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{io::duplex, sync::watch, time::sleep};

use super::{Dials, connect_ends};
use crate::common::{limit, raw::Raw, tool_call};

#[derive(Debug, Deserialize, JsonSchema)]
struct To {
    number: u32,
}

#[derive(Clone)]
struct Server;

#[tool_router]
impl Server {
    /// Counts and reports it.
    #[tool]
    async fn count(
        meta: RequestMetaObject,
        client: Peer<RoleServer>,
        Parameters(to): Parameters<To>,
    ) -> Result<String, ErrorData> {
        let token = meta.get_progress_token().unwrap();
        for number in 1..=to.number {
            let report = ProgressNotificationParam::new(token.clone(), number.into());
            client.notify_progress(report).await.unwrap();
        }
        Ok(to.number.to_string())
    }

    /// Pings the client, asks it for its roots and lets its model speak.
    #[tool]
    async fn ask(client: Peer<RoleServer>) -> Result<String, ErrorData> {
        let failed = |error: ServiceError| ErrorData::internal_error(error.to_string(), None);
        let ping = ServerRequest::PingRequest(PingRequest::default());
        client.send_request(ping).await.map_err(failed)?;
        let roots = client.list_roots().await.map_err(failed)?.roots;
        let question = vec![SamplingMessage::user_text(format!("what is in {}?", roots[0].uri))];
        let params = CreateMessageRequestParams::new(question, 10);
        Ok(client.create_message(params).await.map_err(failed)?.model)
    }
}

#[tool_handler(name = "lifecycles")]
impl ServerHandler for Server {}

/// The server as it was before `server/discover`.
struct Legacy(Server);

impl ServerHandler for Legacy {
    async fn discover(
        &self,
        _context: RequestContext<RoleServer>,
    ) -> Result<DiscoverResult, ErrorData> {
        Err(ErrorData::method_not_found::<DiscoverRequestMethod>())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<rmcp::model::CallToolResponse, ErrorData> {
        self.0.call_tool(request, context).await
    }
}

/// A client that has one root, a model, and keeps the progress reports.
#[derive(Clone, Default)]
struct Client(Arc<Mutex<Vec<f64>>>);

impl ClientHandler for Client {
    async fn on_progress(
        &self,
        report: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.0.lock().unwrap().push(report.progress);
    }

    async fn list_roots(
        &self,
        _context: RequestContext<RoleClient>,
    ) -> Result<ListRootsResult, ErrorData> {
        Ok(ListRootsResult::new(vec![Root::new("file:///root")]))
    }

    async fn create_message(
        &self,
        params: CreateMessageRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        assert_eq!(params.messages, [SamplingMessage::user_text("what is in file:///root?")]);
        let answer = SamplingMessage::assistant_text("nothing");
        Ok(CreateMessageResult::new(answer, "oracle".into()))
    }
}

async fn call(
    client: &Peer<RoleClient>,
    tool: &'static str,
    arguments: Value,
) -> Result<CallToolResult, ServiceError> {
    limit(client.call_tool(tool_call(tool, arguments))).await
}

fn text(result: &CallToolResult) -> &str {
    &result.content[0].as_text().unwrap().text
}

async fn closed(state: &mut watch::Receiver<State>) -> CloseCode {
    let state = limit(state.wait_for(|state| matches!(state, State::Closed(_)))).await.unwrap();
    match &*state {
        State::Closed(reason) => reason.code,
        other => panic!("{other:?}"),
    }
}

fn preferred_versions() -> Vec<ProtocolVersion> {
    vec![ProtocolVersion::V_2026_07_28]
}

fn auto() -> ClientLifecycleMode {
    ClientLifecycleMode::Auto { preferred_versions: preferred_versions(), legacy_version: None }
}

/// A whole life of a connection, from the handshake of MCP to the close code on both sides.
async fn live(
    dials: Dials,
    server: impl ServerHandler,
    lifecycle: ClientLifecycleMode,
    legacy: bool,
) {
    let (near, far) = limit(connect_ends(dials)).await;
    assert_eq!((near.subprotocol(), far.subprotocol()), (Some("mcp"), Some("mcp")));
    let (mut near_state, mut far_state) = (near.state(), far.state());
    let server = tokio::spawn(async move { server.serve(far).await.unwrap().waiting().await });
    let handler = Client::default();
    let client = limit(handler.clone().serve_with_lifecycle(near, lifecycle)).await.unwrap();
    let version =
        if legacy { ProtocolVersion::V_2025_11_25 } else { ProtocolVersion::V_2026_07_28 };
    assert_eq!(client.peer_info().unwrap().protocol_version, version);

    let answer = call(&client, "count", json!({"number": 3})).await.unwrap();
    assert_eq!(text(&answer), "3");
    let mut reports = handler.0.lock().unwrap().clone();
    reports.sort_by(f64::total_cmp);
    assert_eq!(reports, [1.0, 2.0, 3.0]);

    match call(&client, "unknown", json!({})).await {
        Err(ServiceError::McpError(error)) => assert_eq!(error.code, ErrorCode::INVALID_PARAMS),
        other => panic!("{other:?}"),
    }

    let asked = call(&client, "ask", json!({})).await;
    if legacy {
        assert_eq!(text(&asked.unwrap()), "oracle");
        let ping = ClientRequest::PingRequest(PingRequest::default());
        limit(client.send_request(ping)).await.unwrap();
    } else {
        asked.unwrap_err();
    }

    limit(client.cancel()).await.unwrap();
    assert_eq!(closed(&mut near_state).await, CloseCode::Normal);
    assert_eq!(closed(&mut far_state).await, CloseCode::Normal);
    limit(server).await.unwrap().unwrap();
}

#[tokio::test]
async fn initialize() {
    for dials in [Dials::Client, Dials::Server] {
        live(dials, Server, ClientLifecycleMode::Initialize, true).await;
    }
}

#[tokio::test]
async fn discover() {
    for dials in [Dials::Client, Dials::Server] {
        let preferred_versions = preferred_versions();
        live(dials, Server, ClientLifecycleMode::Discover { preferred_versions }, false).await;
    }
}

#[tokio::test]
async fn auto_discovers() {
    for dials in [Dials::Client, Dials::Server] {
        live(dials, Server, auto(), false).await;
    }
}

#[tokio::test]
async fn auto_initializes_where_nothing_is_discovered() {
    for dials in [Dials::Client, Dials::Server] {
        live(dials, Legacy(Server), auto(), true).await;
    }
}

/// rmcp gives `server/discover` up after 10 s, and takes the next answer for that to `initialize`.
#[tokio::test(start_paused = true)]
async fn auto_initializes_a_server_that_is_slow_to_start() {
    let versions = vec![ProtocolVersion::V_2026_07_28, ProtocolVersion::V_2025_11_25];
    let discovered = DiscoverResult::new(versions, ServerCapabilities::default());
    for answer in [
        json!({ "error": { "code": -32601, "message": "unknown" } }),
        json!({ "result": discovered }),
    ] {
        let (near, far) = duplex(1 << 16);
        let builder = WebSocketTransport::<RoleClient>::builder();
        let transport = builder.over_stream(near, Bytes::new(), Side::Client);
        let stats = transport.stats();
        let mut server = Raw::over(far, false);
        let serving = async {
            sleep(Duration::from_secs(12)).await;
            let discover = server.receive().await;
            assert_eq!(discover["method"], "server/discover");
            let mut late = json!({ "jsonrpc": "2.0", "id": discover["id"] });
            late.as_object_mut().unwrap().extend(answer.as_object().unwrap().clone());
            server.json(&late).await;
            server.answer_initialize().await;
            let list = server.receive().await;
            let tools = json!({ "tools": [] });
            server.json(&json!({ "jsonrpc": "2.0", "id": list["id"], "result": tools })).await;
        };
        let calling = async {
            let client = ToolClient::over((), transport).await.unwrap();
            client.tools().await.unwrap()
        };
        let (tools, ()) = limit(async { tokio::join!(calling, serving) }).await;
        assert!(tools.is_empty());
        assert_eq!(stats.snapshot().orphans, 0);
    }
}

#[tokio::test]
async fn the_server_may_be_the_one_to_leave() {
    for dials in [Dials::Client, Dials::Server] {
        let (near, far) = limit(connect_ends(dials)).await;
        let (mut near_state, mut far_state) = (near.state(), far.state());
        let (server, client) =
            limit(async { tokio::join!(Server.serve(far), Client::default().serve(near)) }).await;
        let client = client.unwrap();
        limit(server.unwrap().cancel()).await.unwrap();
        assert_eq!(closed(&mut near_state).await, CloseCode::Normal);
        assert_eq!(closed(&mut far_state).await, CloseCode::Normal);
        limit(client.waiting()).await.unwrap();
    }
}

#[tokio::test]
async fn a_listening_client_serves_every_server_that_dials() {
    let listening = limit(mcp_ws_transport::serve("127.0.0.1:0", Client::default).into_future());
    let clients = listening.await.unwrap();
    let url = format!("ws://{}/mcp", clients.local_addr());
    let mut servers = Vec::new();
    for _ in 0..3 {
        let transport = limit(connect(&url).no_reconnect().into_future()).await.unwrap();
        let state = transport.state();
        servers.push((limit(Server.serve(transport)).await.unwrap(), state));
    }
    for (server, _) in &servers {
        let roots = limit(server.peer().list_roots()).await.unwrap().roots;
        assert_eq!(roots[0].uri, "file:///root");
    }
    limit(clients.shutdown()).await;
    for (server, mut state) in servers {
        assert_eq!(closed(&mut state).await, CloseCode::Restart);
        limit(server.waiting()).await.unwrap();
    }
}
