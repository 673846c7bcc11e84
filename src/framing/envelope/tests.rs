mod client;
mod faults;
mod order;

use rmcp::{
    RoleClient, RoleServer,
    model::{
        CallToolRequest, CallToolRequestParams, CallToolResult, CancelledNotification,
        CancelledNotificationParam, ClientNotification, ClientRequest, ContentBlock,
        ListToolsRequest, ServerResult,
    },
};
use serde_json::{Value, json};

use super::*;
use crate::{close::CloseCode, decode::method::Method};

struct Asked(&'static [(i64, Method)]);

impl PendingMethods for Asked {
    fn method(&self, id: &RequestId) -> Option<Method> {
        self.0
            .iter()
            .find(|(number, _)| *id == RequestId::Number(*number))
            .map(|(_, method)| *method)
    }
}

fn decode<R: McpRole>(
    framing: &mut Envelope,
    message: impl ToString,
    calls: &dyn PendingMethods,
) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
    <Envelope as Framing<R>>::decode(framing, Message::text(message.to_string()), calls)
}

/// Decodes `message` as a server, and returns it as JSON-RPC.
fn received(framing: &mut Envelope, message: impl ToString) -> Value {
    json!(decode::<RoleServer>(framing, message, &()).unwrap().unwrap())
}

/// Returns the error with which a server answers `message`.
fn refused(framing: &mut Envelope, message: impl ToString) -> Value {
    let Err(DecodeError::Request { id, error }) = decode::<RoleServer>(framing, message, &())
    else {
        panic!("it is refused");
    };
    sent(framing, &JsonRpcMessage::error(error, id)).unwrap()
}

fn json(message: &Message) -> Value {
    let Message::Text(text) = message else { panic!("it is text") };
    let mut json: Value = serde_json::from_slice(text.as_bytes()).unwrap();
    let timestamp = json.as_object_mut().unwrap().remove("timestamp").unwrap();
    let timestamp = timestamp.as_str().unwrap();
    assert!(timestamp.len() == 24 && timestamp.ends_with('Z'), "{timestamp}");
    json
}

fn say<R: McpRole>(framing: &mut Envelope, message: &TxJsonRpcMessage<R>) -> Option<Value> {
    let message = Framing::<R>::encode(framing, message).unwrap().unwrap();
    Framing::<R>::enqueue_in_order(framing, message).map(|message| json(&message))
}

fn next_reply(framing: &mut Envelope) -> Vec<Value> {
    std::iter::from_fn(|| Framing::<RoleServer>::next_reply(framing))
        .map(|message| json(&message))
        .collect()
}

fn sent(framing: &mut Envelope, message: &TxJsonRpcMessage<RoleServer>) -> Option<Value> {
    say::<RoleServer>(framing, message)
}

fn id(message: &Value) -> RequestId {
    serde_json::from_value(message["id"].clone()).unwrap()
}

fn result(value: Value, id: RequestId) -> TxJsonRpcMessage<RoleServer> {
    let result = CallToolResult::structured(value);
    JsonRpcMessage::response(ServerResult::from(result), id)
}

fn call(number: i64) -> TxJsonRpcMessage<RoleClient> {
    let arguments = json!({"a": 5}).as_object().unwrap().clone();
    let call = CallToolRequest::new(CallToolRequestParams::new("add").with_arguments(arguments));
    JsonRpcMessage::request(ClientRequest::CallToolRequest(call), RequestId::Number(number))
}

#[test]
fn a_tool_is_called_by_its_bare_name() {
    let mut server = Envelope::default();
    for (content, request_id) in [("request", Some(json!("7f"))), ("payload", None)] {
        let params = json!({"a": 5, "b": 3});
        let mut request = json!({"type": "mcp_request", "timestamp": 7});
        request[content] = json!({"method": "add", "params": params});
        if let Some(id) = &request_id {
            request["requestId"] = id.clone();
        }
        let received = received(&mut server, request);
        assert_eq!(received["method"], "tools/call");
        assert_eq!(received["params"], json!({"name": "add", "arguments": params}));
        let answer = sent(&mut server, &result(json!({"result": 8}), id(&received))).unwrap();
        let mut expected = json!({"type": "mcp_response", "result": {"result": 8}});
        if let Some(id) = request_id {
            expected["requestId"] = id;
        }
        assert_eq!(answer, expected);
    }
}

#[test]
fn the_content_is_always_payload_in_the_general_form() {
    let mut server = Envelope::default().general();
    let request = json!({"type": "mcp_request", "payload": {"method": "add"}, "requestId": 7});
    let received = received(&mut server, request);
    let answer = sent(&mut server, &result(json!({"result": 8}), id(&received)));
    let expected = json!({"type": "mcp_response", "payload": {"result": 8}, "requestId": 7});
    assert_eq!(answer, Some(expected));
}

#[test]
fn mcps_own_methods_have_mcps_own_results() {
    let mut server = Envelope::default();
    for (method, expected) in
        [("tools/call", "tools/call"), ("acme/x", "acme/x"), ("authenticate", "authenticate")]
    {
        let params = json!({"name": "add"});
        let request = json!({"type": "mcp_request", "request": {"method": method, "params": params}, "requestId": "x"});
        let received = received(&mut server, request);
        assert_eq!((&received["method"], &received["params"]), (&json!(expected), &params));
        let failed = CallToolResult::error(vec![ContentBlock::text("no")]);
        let failed = JsonRpcMessage::response(ServerResult::from(failed), id(&received));
        let answer = sent(&mut server, &failed).unwrap();
        assert_eq!(answer["type"], "mcp_response");
        assert_eq!(answer["result"]["isError"], true);
    }
}

#[test]
fn the_failure_of_a_bare_tool_is_an_error() {
    let mut server = Envelope::default();
    let request = json!({"type": "mcp_request", "request": {"method": "divide"}, "requestId": "x"});
    let received = received(&mut server, request);
    let failed = CallToolResult::error(vec![ContentBlock::text("division by zero")]);
    let failed = JsonRpcMessage::response(ServerResult::from(failed), id(&received));
    let error = json!({"code": -32000, "message": "division by zero"});
    let expected = json!({"type": "error", "error": error, "requestId": "x"});
    assert_eq!(sent(&mut server, &failed), Some(expected));
}

#[test]
fn a_ping_is_owed_a_pong() {
    let mut server = Envelope::default();
    for (ping, pong) in [
        (json!({"type": "ping"}), json!({"type": "pong"})),
        (json!({"type": "ping", "requestId": "x"}), json!({"type": "pong", "requestId": "x"})),
    ] {
        assert!(decode::<RoleServer>(&mut server, ping, &()).unwrap().is_none());
        assert_eq!(next_reply(&mut server), [pong]);
    }
    assert!(decode::<RoleServer>(&mut server, json!({"type": "pong"}), &()).unwrap().is_none());
    assert!(next_reply(&mut server).is_empty());
}

#[test]
fn notifications_of_any_kind_are_told() {
    let mut client = Envelope::default();
    let progress = json!({"progressToken": 1, "progress": 0.5});
    let told = json!({"method": "notifications/progress", "params": progress});
    let told = json!({"type": "notification", "payload": told});
    let told = json!(decode::<RoleClient>(&mut client, told, &()).unwrap().unwrap());
    assert_eq!(told["params"], progress);
    let other = json!({"type": "notification", "payload": {"price": 7}});
    let other = json!(decode::<RoleClient>(&mut client, other, &()).unwrap().unwrap());
    assert_eq!(
        (&other["method"], &other["params"]),
        (&json!("notification"), &json!({"price": 7}))
    );
}

#[test]
fn the_envelope_of_sep_1288_holds_json_rpc_and_names_the_session() {
    let mut server = Envelope::default().sep_1288();
    let ping = json!({"jsonrpc": "2.0", "id": 7, "method": "ping"});
    let wrap = |name: &str, value: Value| json!({"type": "mcp", name: value, "payload": ping});
    for nameless in [json!({"type": "mcp", "payload": ping}), wrap("mcpSessionId", "s".into())] {
        assert_eq!(received(&mut server, nameless), ping);
    }
    server.session.set(Some("s".into()));
    for right in ["mcpSessionId", "session_id"] {
        assert_eq!(received(&mut server, wrap(right, "s".into())), ping);
    }
    let wrong = decode::<RoleServer>(&mut server, wrap("mcpSessionId", "t".into()), &());
    let Err(DecodeError::Request { id, error }) = wrong else { panic!("{wrong:?}") };
    assert_eq!((id.clone(), error.code.0), (Some(RequestId::Number(7)), -32602));
    let answer = JsonRpcMessage::<_, ServerResult, _>::error(error, id);
    let Some(Message::Text(answer)) = Framing::<RoleServer>::encode(&mut server, &answer).unwrap()
    else {
        panic!("it is text");
    };
    let answer: Value = serde_json::from_slice(answer.as_bytes()).unwrap();
    assert_eq!((&answer["type"], &answer["mcpSessionId"]), (&json!("mcp"), &json!("s")));
    assert_eq!(answer["payload"]["error"]["message"], "Invalid mcpSessionId");

    let mut client = Envelope::default().sep_1288();
    decode::<RoleClient>(&mut client, answer, &Asked(&[(7, Method::Ping)])).unwrap().unwrap();
    let Some(message) = Framing::<RoleClient>::encode(&mut client, &call(8)).unwrap() else {
        panic!("it is sent");
    };
    client.session.set(Some("next".into()));
    let field = Framing::<RoleClient>::properties(&client).session_id.unwrap();
    let Message::Text(again) = field.replace_in(message.clone()) else { panic!("it is text") };
    let Message::Text(message) = message else { panic!("it is text") };
    let (message, again) = (message.as_str().to_owned(), again.as_str().to_owned());
    assert!(message.contains(r#""mcpSessionId":"s""#), "{message}");
    assert_eq!(message.replace("\"s\"", "\"next\""), again);
}

#[test]
fn a_name_of_the_session_that_is_too_long_is_not_repeated() {
    let mut client = Envelope::default().sep_1288();
    let result = json!({"jsonrpc": "2.0", "id": 7, "result": {}});
    let answer = json!({"type": "mcp", "mcpSessionId": "x".repeat(1025), "payload": result});
    decode::<RoleClient>(&mut client, answer, &Asked(&[(7, Method::Ping)])).unwrap().unwrap();
    let Some(sent) = Framing::<RoleClient>::encode(&mut client, &call(8)).unwrap() else {
        panic!("it is sent");
    };
    assert!(sent.len() < 1025);
}
