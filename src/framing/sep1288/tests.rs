use rmcp::{
    RoleClient, RoleServer,
    model::{
        CallToolRequest, CallToolRequestParams, ClientNotification, ClientRequest, CustomRequest,
        InitializeRequest, InitializeRequestParams, InitializedNotification, ListToolsRequest,
        PingRequest, RequestId, ServerConfig,
    },
};
use serde_json::{Value, json};

use super::*;
use crate::{
    decode::PendingMethods,
    framing::{Framing, JsonRpc},
    message::Message,
};

struct Initializes;

impl PendingMethods for Initializes {
    fn method(&self, _: &RequestId) -> Option<Method> {
        Some(Method::Initialize)
    }
}

fn client() -> JsonRpc {
    client_of("a\"b")
}

/// A client whose server names the session so.
fn client_of(name: &str) -> JsonRpc {
    let mut client = JsonRpc::default().session_fields();
    let answer = json!({"jsonrpc": "2.0", "id": 0, "result": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "mcpSessionId": name,
        "serverInfo": {"name": "peer", "version": "1"},
    }});
    let decoded = decode::<RoleClient>(&mut client, &answer, &Initializes).unwrap();
    assert!(matches!(decoded, Some(JsonRpcMessage::Response(_))));
    client
}

fn server() -> JsonRpc {
    let server = JsonRpc::default().session_fields();
    field::<RoleServer>(&server).cell.set(Some("a".to_owned()));
    server
}

fn field<R: McpRole>(framing: &JsonRpc) -> SessionIdField {
    Framing::<R>::properties(framing).session_id.unwrap()
}

fn decode<R: McpRole>(
    framing: &mut JsonRpc,
    message: &Value,
    calls: &dyn PendingMethods,
) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
    <JsonRpc as Framing<R>>::decode(framing, Message::text(message.to_string()), calls)
}

fn encode<R: McpRole>(framing: &mut JsonRpc, message: &TxJsonRpcMessage<R>) -> Value {
    let Some(Message::Text(text)) = Framing::<R>::encode(framing, message).unwrap() else {
        panic!("it is text");
    };
    serde_json::from_slice(text.as_bytes()).unwrap()
}

fn request(request: impl Into<ClientRequest>) -> TxJsonRpcMessage<RoleClient> {
    JsonRpcMessage::request(request.into(), RequestId::Number(1))
}

fn initialize() -> TxJsonRpcMessage<RoleClient> {
    request(InitializeRequest::new(InitializeRequestParams::default()))
}

fn initialize_result() -> TxJsonRpcMessage<RoleServer> {
    let result = ServerResult::InitializeResult(ServerConfig::default());
    JsonRpcMessage::response(result, RequestId::Number(0))
}

#[test]
fn a_client_names_the_session_in_all_that_follows_initialize() {
    let mut client = client();
    let arguments = json!({"mcp": "{}"}).as_object().unwrap().clone();
    let add = CallToolRequest::new(CallToolRequestParams::new("add").with_arguments(arguments));
    let custom = |params| ClientRequest::CustomRequest(CustomRequest::new("x", params));
    let initialized = ClientNotification::from(InitializedNotification::default());
    let other = JsonRpc::default().session_fields();
    let other = field::<RoleClient>(&other);
    other.cell.set(Some("other".to_owned()));
    for (message, rest) in [
        (request(add), json!({"name": "add", "arguments": {"mcp": "{}"}})),
        (request(PingRequest::default()), json!({})),
        (request(ListToolsRequest::default()), json!({})),
        (request(custom(None)), json!({})),
        (request(custom(Some(json!({})))), json!({})),
        (request(custom(Some(json!({"a": "mcpSessionId"})))), json!({"a": "mcpSessionId"})),
        (JsonRpcMessage::notification(initialized), json!({})),
    ] {
        let plain = encode::<RoleClient>(&mut JsonRpc::default(), &message);
        let mut named = encode::<RoleClient>(&mut client, &message);
        let json = Framing::<RoleClient>::encode(&mut client, &message).unwrap().unwrap();
        let Message::Text(again) = other.replace_in(json) else { panic!() };
        let again: Value = serde_json::from_slice(again.as_bytes()).unwrap();
        assert_eq!(again["params"]["mcpSessionId"], "other", "{again}");
        let params = named["params"].as_object_mut().unwrap();
        assert_eq!(params.remove("mcpSessionId"), Some(json!("a\"b")), "{plain}");
        assert_eq!(Value::from(params.clone()), rest);
        assert_eq!((&named["method"], &named["id"]), (&plain["method"], &plain["id"]));
    }
    let own = json!({"mcpSessionId": "own"});
    let message = request(custom(Some(own.clone())));
    assert_eq!(encode::<RoleClient>(&mut client, &message)["params"], own);
    let plain = encode::<RoleClient>(&mut JsonRpc::default(), &initialize());
    assert_eq!(encode::<RoleClient>(&mut client, &initialize()), plain);
}

#[test]
fn a_client_repeats_no_name_that_is_too_long() {
    for (length, is_said) in [(1024, true), (1025, false), (1 << 20, false)] {
        let mut client = client_of(&"x".repeat(length));
        let sent = encode::<RoleClient>(&mut client, &request(PingRequest::default()));
        assert_eq!(sent.to_string().len() > length, is_said, "{length}");
    }
}

#[test]
fn a_server_that_names_none_is_told_none() {
    let mut client = client();
    let answer = json!({"jsonrpc": "2.0", "id": 0, "result": {
        "protocolVersion": "2025-06-18", "capabilities": {},
        "serverInfo": {"name": "peer", "version": "1"},
    }});
    decode::<RoleClient>(&mut client, &answer, &Initializes).unwrap();
    let ping = request(PingRequest::default());
    assert_eq!(encode::<RoleClient>(&mut client, &ping).get("params"), None);
}

#[test]
fn a_server_names_the_session_when_it_is_initialized() {
    let plain = encode::<RoleServer>(&mut JsonRpc::default(), &initialize_result());
    let mut named = encode::<RoleServer>(&mut server(), &initialize_result());
    let result = named["result"].as_object_mut().unwrap();
    assert_eq!(result.remove("mcpSessionId"), Some(json!("a")));
    assert_eq!(named, plain);
    let other = JsonRpcMessage::response(ServerResult::empty(()), RequestId::Number(0));
    assert_eq!(encode::<RoleServer>(&mut server(), &other)["result"], json!({}));
    // Where the connection has no session with a name, none is told.
    let mut nameless = JsonRpc::default().session_fields();
    assert_eq!(encode::<RoleServer>(&mut nameless, &initialize_result()), plain);
}

#[test]
fn a_server_refuses_what_is_for_another_session() {
    let ping =
        |params: Value| json!({"jsonrpc": "2.0", "id": 7, "method": "ping", "params": params});
    for params in [
        json!({}),
        json!({"mcpSessionId": "a"}),
        json!({"mcpSessionId": null}),
        json!({"_meta": {"mcpSessionId": "b"}}),
    ] {
        let decoded = decode::<RoleServer>(&mut server(), &ping(params.clone()), &());
        assert!(matches!(decoded, Ok(Some(JsonRpcMessage::Request(_)))), "{params}");
    }
    for params in [json!({"mcpSessionId": "b"}), json!({"mcpSessionId": 7})] {
        let refused = decode::<RoleServer>(&mut server(), &ping(params.clone()), &());
        let Err(DecodeError::Request { id, error }) = refused else { panic!("{params}") };
        assert_eq!((id, error.code.0), (Some(RequestId::Number(7)), -32602));
        assert_eq!(error.message, "Invalid mcpSessionId");
        // Nobody who has not asked for it is concerned.
        let mut plain = JsonRpc::default();
        assert!(matches!(decode::<RoleServer>(&mut plain, &ping(params), &()), Ok(Some(_))));
    }
    let initialized = |id| {
        let method = "notifications/initialized";
        json!({"jsonrpc": "2.0", "method": method, "params": {"mcpSessionId": id}})
    };
    let decoded = decode::<RoleServer>(&mut server(), &initialized("a"), &()).unwrap();
    let Some(JsonRpcMessage::Notification(told)) = decoded else { panic!("it is for us") };
    assert!(RoleServer::is_initialized_by_peer(&told.notification));
    assert!(decode::<RoleServer>(&mut server(), &initialized("b"), &()).unwrap().is_none());
}

#[test]
fn a_clone_is_for_another_session() {
    let mut other = client().clone();
    let ping = request(PingRequest::default());
    assert_eq!(encode::<RoleClient>(&mut other, &ping).get("params"), None);
}
