use rmcp::{
    RoleClient, RoleServer,
    model::{
        CallToolRequest, CallToolRequestParams, CallToolResult, ClientRequest, ContentBlock,
        CustomResult, PingRequest, ServerNotification, ServerResult, ToolListChangedNotification,
    },
};

use super::*;

struct Asked;

impl PendingMethods for Asked {
    fn method(&self, id: &RequestId) -> Option<Method> {
        (*id == RequestId::Number(7)).then_some(Method::CallTool)
    }
}

fn decode<R: McpRole>(
    framing: &mut ToolCall,
    message: impl ToString,
) -> Result<Option<RxJsonRpcMessage<R>>, DecodeError> {
    <ToolCall as Framing<R>>::decode(framing, Message::text(message.to_string()), &Asked)
}

fn received(framing: &mut ToolCall, message: impl ToString) -> Value {
    json!(decode::<RoleServer>(framing, message).unwrap().unwrap())
}

fn json(message: &Message) -> Value {
    let Message::Text(text) = message else { panic!("it is text") };
    serde_json::from_slice(text.as_bytes()).unwrap()
}

fn say<R: McpRole>(framing: &mut ToolCall, message: &TxJsonRpcMessage<R>) -> Option<Value> {
    Framing::<R>::encode(framing, message).unwrap().map(|message| json(&message))
}

fn next_reply(framing: &mut ToolCall) -> Option<Value> {
    Framing::<RoleServer>::next_reply(framing).map(|message| json(&message))
}

fn sent(framing: &mut ToolCall, message: &TxJsonRpcMessage<RoleServer>) -> Option<Value> {
    say::<RoleServer>(framing, message)
}

fn answer(result: CallToolResult, id: &str) -> TxJsonRpcMessage<RoleServer> {
    JsonRpcMessage::response(ServerResult::from(result), RequestId::String(id.into()))
}

fn error(id: &str) -> TxJsonRpcMessage<RoleServer> {
    let error = ErrorData::invalid_params("no", None);
    JsonRpcMessage::error(error, Some(RequestId::String(id.into())))
}

#[test]
fn a_tool_is_called_by_name_and_answered_under_its_id() {
    let mut server = ToolCall::default();
    let parameters = json!({"a": 5, "b": 3});
    let request = json!({"id": "req_1", "name": "add", "parameters": parameters});
    let received = received(&mut server, request);
    assert_eq!((&received["id"], &received["method"]), (&json!("req_1"), &json!("tools/call")));
    assert_eq!(received["params"], json!({"name": "add", "arguments": parameters}));
    let result = CallToolResult::structured(json!({"result": 8}));
    let expected = json!({"id": "req_1", "results": {"result": 8}});
    assert_eq!(sent(&mut server, &answer(result, "req_1")), Some(expected));
    let plain = sent(&mut server, &answer(CallToolResult::success(vec![]), "req_1")).unwrap();
    assert_eq!(plain["results"]["content"], json!([]));
    let failed = CallToolResult::error(vec![ContentBlock::text("division by zero")]);
    let expected = json!({"id": "req_2", "error": {"message": "division by zero"}});
    assert_eq!(sent(&mut server, &answer(failed, "req_2")), Some(expected));
    let expected = json!({"id": "req_3", "error": {"message": "no"}});
    assert_eq!(sent(&mut server, &error("req_3")), Some(expected));
}

#[test]
fn the_first_message_authenticates() {
    let mut server = ToolCall::default();
    let verdict = || {
        let result = ServerResult::CustomResult(CustomResult::new(json!({"authenticated": true})));
        JsonRpcMessage::response(result, RequestId::String("auth".into()))
    };
    let request = || json!({"id": "auth", "token": "s3cr3t"});
    let asked = received(&mut server, request());
    assert_eq!((&asked["id"], &asked["method"]), (&json!("auth"), &json!("authenticate")));
    assert_eq!(asked["params"], json!({"token": "s3cr3t"}));
    let refused = sent(&mut server, &error("auth")).unwrap();
    assert_eq!(refused, json!({"id": "auth", "success": false, "error": {"message": "no"}}));
    received(&mut server, request());
    let accepted = sent(&mut server, &verdict()).unwrap();
    assert_eq!(accepted, json!({"id": "auth", "success": true}));

    assert!(decode::<RoleServer>(&mut server, request()).unwrap().is_none());
    let twice = next_reply(&mut server).unwrap();
    assert_eq!((&twice["id"], &twice["success"]), (&json!("auth"), &json!(false)));
    // A call may have any id.
    let call = received(&mut server, json!({"id": "auth", "name": "add", "parameters": {}}));
    assert_eq!(call["method"], "tools/call");
    let result = CallToolResult::structured(json!({"result": 8}));
    let expected = json!({"id": "auth", "results": {"result": 8}});
    assert_eq!(sent(&mut server, &answer(result, "auth")), Some(expected));
}

#[test]
fn who_shows_no_token_is_refused() {
    let deep = format!(r#"{{"id":"auth","token":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
    for message in [
        r#"{"id":"auth"}"#,
        r#"{"id":"auth","token":7}"#,
        r#"{"id":"auth","token":1e999}"#,
        r#"{"id":"auth","token":"\ud800"}"#,
        &deep,
    ] {
        let mut server = ToolCall::default();
        assert!(decode::<RoleServer>(&mut server, message).unwrap().is_none());
        let refused = next_reply(&mut server).unwrap();
        assert_eq!((&refused["id"], &refused["success"]), (&json!("auth"), &json!(false)));
        assert!(refused["error"]["message"].is_string(), "{message}");
    }
}

#[test]
fn a_ping_is_owed_a_pong() {
    let mut server = ToolCall::default();
    let ping = json!({"messageType": "ping", "timestamp": 1});
    assert!(decode::<RoleServer>(&mut server, ping).unwrap().is_none());
    let pong = next_reply(&mut server).unwrap();
    assert_eq!(pong["messageType"], "pong");
    assert!(pong["timestamp"].as_i64().unwrap() > 1_600_000_000_000);
    let pong = json!({"messageType": "pong", "timestamp": 1});
    assert!(decode::<RoleServer>(&mut server, pong).unwrap().is_none());
    assert_eq!(next_reply(&mut server), None);
}

#[test]
fn what_cannot_be_read_is_answered_with_an_error() {
    for (message, id) in [
        ("rubbish", Value::Null),
        ("[]", Value::Null),
        ("{}", Value::Null),
        (r#"{"id":"x","id":"y","name":"add"}"#, Value::Null),
        (r#"{"name":"add"}"#, Value::Null),
        (r#"{"id":{},"name":"add"}"#, Value::Null),
        (r#"{"messageType":"pang"}"#, Value::Null),
        (r#"{"id":"x"}"#, json!("x")),
        (r#"[null,"x",null,"add",null,null,null]"#, Value::Null),
        (r#"{"id":7,"name":7}"#, json!(7)),
        (r#"{"id":"x","name":"add","parameters":7}"#, json!("x")),
    ] {
        let mut server = ToolCall::default();
        let Err(DecodeError::Request { id: refused, error }) =
            decode::<RoleServer>(&mut server, message)
        else {
            panic!("{message} is refused");
        };
        let answer = sent(&mut server, &JsonRpcMessage::error(error, refused)).unwrap();
        assert_eq!(answer["id"], id, "{message}");
        assert!(answer["error"]["message"].is_string(), "{message}");
    }
}

#[test]
fn an_answer_that_cannot_be_read_ends_its_call() {
    for (text, id) in [
        (r#"{"id":"7","results":{"a":NaN}}"#, Some(RequestId::Number(7))),
        (r#"{"results":{"a":NaN},"id":"7"}"#, Some(RequestId::Number(7))),
        (r#"{"id":"7","results":{"a"#, Some(RequestId::Number(7))),
        (r#"{"results":{"a":1}}"#, None),
        (r#"{"id":"7","results":NaN,"id":"8"}"#, None),
    ] {
        let unreadable = decode::<RoleClient>(&mut ToolCall::default(), text);
        let Err(DecodeError::Response { id: ended, error }) = unreadable else {
            panic!("{unreadable:?}");
        };
        assert_eq!(ended, id, "{text}");
        assert_eq!(error.data.unwrap()["reason"], "unreadable", "{text}");
    }
}

#[test]
fn a_result_may_be_as_deep_as_it_likes() {
    let mut server = ToolCall::default();
    let deep = (0..500).fold(json!({"a": 1}), |inner, _| json!({"a": inner}));
    let answer = answer(CallToolResult::structured(deep), "x");
    let Some(Message::Text(text)) = Framing::<RoleServer>::encode(&mut server, &answer).unwrap()
    else {
        panic!("it is text");
    };
    assert!(text.as_str().starts_with(r#"{"id":"x","results":{"a":{"a":"#));
}

#[test]
fn notifications_have_no_form() {
    let mut server = ToolCall::default();
    let changed = ServerNotification::from(ToolListChangedNotification::default());
    assert_eq!(sent(&mut server, &JsonRpcMessage::notification(changed)), None);
}

#[test]
fn a_client_calls_tools_and_nothing_else() {
    let mut client = ToolCall::default();
    let call = CallToolRequest::new(CallToolRequestParams::new("add"));
    let call = ClientRequest::CallToolRequest(call);
    let call = JsonRpcMessage::request(call, RequestId::Number(7));
    let asked = say::<RoleClient>(&mut client, &call).unwrap();
    assert_eq!(asked, json!({"id": "7", "name": "add", "parameters": {}}));
    for (response, expected) in [
        (json!({"id": "7", "results": {"result": 8}}), json!({"result": 8})),
        (json!({"id": 7, "results": [1]}), Value::Null),
    ] {
        let answer = json!(decode::<RoleClient>(&mut client, &response).unwrap().unwrap());
        assert_eq!((&answer["id"], &answer["result"]["structuredContent"]), (&json!(7), &expected));
        assert_eq!(answer["result"]["content"][0]["text"], response["results"].to_string());
    }
    for (response, message) in [
        (json!({"id": "7", "error": {"message": "no"}}), "no"),
        (json!({"id": "7", "error": "no"}), "no"),
        (json!({"id": "7"}), "neither `results` nor `error`"),
    ] {
        let answer = json!(decode::<RoleClient>(&mut client, response).unwrap().unwrap());
        assert_eq!((&answer["id"], &answer["error"]["message"]), (&json!(7), &json!(message)));
    }
    let ping = ClientRequest::PingRequest(PingRequest::default());
    let ping = JsonRpcMessage::request(ping, RequestId::Number(8));
    assert!(matches!(
        Framing::<RoleClient>::encode(&mut client, &ping),
        Err(MessageError::Unsupported(_))
    ));
}
