//! The rmcp service that every rmcp server runs, and what is said to open a session with it.

use rmcp::{
    Json, RoleClient, RoleServer, ServerHandler,
    handler::server::wrapper::Parameters,
    model::{
        ClientCapabilities, ClientNotification, ClientRequest, Implementation, InitializeRequest,
        InitializeRequestParams, InitializedNotification, JsonRpcMessage, PingRequest,
        ProtocolVersion, RequestId, ServerResult,
    },
    service::TxJsonRpcMessage,
    tool, tool_handler, tool_router,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::Result;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Adder;

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Summands {
    a: i64,
    b: i64,
}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Sum {
    sum: i64,
}

#[tool_router]
impl Adder {
    #[tool(description = "Adds two numbers")]
    async fn add(&self, Parameters(Summands { a, b }): Parameters<Summands>) -> Json<Sum> {
        Json(Sum { sum: a + b })
    }
}

#[tool_handler]
impl ServerHandler for Adder {}

pub(crate) const VERSION: ProtocolVersion = ProtocolVersion::LATEST_WITH_INITIALIZE;

/// `initialize`.
pub(crate) fn initialize() -> TxJsonRpcMessage<RoleClient> {
    let client = Implementation::new("sessions", "1.0.0");
    let params = InitializeRequestParams::new(ClientCapabilities::default(), client)
        .with_protocol_version(VERSION);
    JsonRpcMessage::request(
        ClientRequest::InitializeRequest(InitializeRequest::new(params)),
        RequestId::Number(0),
    )
}

/// The response to `initialize`.
pub(crate) fn initialized() -> TxJsonRpcMessage<RoleServer> {
    let result = Adder.get_info().with_protocol_version(VERSION);
    JsonRpcMessage::response(ServerResult::InitializeResult(result), RequestId::Number(0))
}

/// The messages of a client, as JSON.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) initialize: String,
    pub(crate) initialized: String,
    pub(crate) ping: String,
}

impl Script {
    pub(crate) fn new() -> Result<Self> {
        let initialized =
            ClientNotification::InitializedNotification(InitializedNotification::default());
        let initialized: TxJsonRpcMessage<RoleClient> = JsonRpcMessage::notification(initialized);
        let ping = ClientRequest::PingRequest(PingRequest::default());
        let ping: TxJsonRpcMessage<RoleClient> =
            JsonRpcMessage::request(ping, RequestId::Number(1));
        Ok(Self {
            initialize: serde_json::to_string(&initialize())?,
            initialized: serde_json::to_string(&initialized)?,
            ping: serde_json::to_string(&ping)?,
        })
    }
}
