//! The messages that open a session, for clients without rmcp.

use rmcp::{
    RoleClient, RoleServer, ServerHandler,
    model::{
        ClientCapabilities, ClientNotification, ClientRequest, Implementation, InitializeRequest,
        InitializeRequestParams, InitializedNotification, JsonRpcMessage, PingRequest,
        ProtocolVersion, RequestId, ServerResult,
    },
    service::TxJsonRpcMessage,
};

use super::{Result, adder::Adder};

pub(crate) const VERSION: ProtocolVersion = ProtocolVersion::LATEST_WITH_INITIALIZE;

/// `initialize`.
pub(crate) fn initialize() -> TxJsonRpcMessage<RoleClient> {
    let client = Implementation::new("bench", "1.0.0");
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
