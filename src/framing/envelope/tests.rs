use rmcp::{
    RoleClient, RoleServer,
    model::{
        CallToolRequest, CallToolRequestParams, CallToolResult, CancelledNotification,
        CancelledNotificationParam, ClientNotification, ClientRequest, ContentBlock,
        ListToolsRequest, ServerResult,
    },
};
use serde_json::json;

use super::*;
use crate::close::CloseCode;

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

/// What a server makes of `message`, as JSON-RPC.
fn received(framing: &mut Envelope, message: impl ToString) -> Value {
    json!(decode::<RoleServer>(framing, message, &()).unwrap().unwrap())
}

/// The error that a server answers `message` with.
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
fn answers_without_an_id_keep_the_order_of_their_requests() {
    let mut server = Envelope::default();
    let ask = |server: &mut Envelope, id: Option<&str>| {
        let request = json!({"method": "add"});
        received(server, json!({"type": "mcp_request", "request": request, "requestId": id}))
    };
    let ids: Vec<_> = (0..4).map(|_| id(&ask(&mut server, None))).collect();
    let named = id(&ask(&mut server, Some("n")));
    assert_eq!(sent(&mut server, &result(json!({"n": 1}), ids[1].clone())), None);
    assert_eq!(sent(&mut server, &result(json!({"n": 3}), ids[3].clone())), None);
    assert!(next_reply(&mut server).is_empty());
    let other = sent(&mut server, &result(json!({"n": "n"}), named)).unwrap();
    assert_eq!(other["requestId"], "n");
    let error = ErrorData::internal_error("no", None);
    let first = JsonRpcMessage::error(error, Some(ids[0].clone()));
    assert_eq!(sent(&mut server, &first).unwrap()["error"]["message"], "no");
    assert_eq!(next_reply(&mut server), [json!({"type": "mcp_response", "result": {"n": 1}})]);
    let third = sent(&mut server, &result(json!({"n": 2}), ids[2].clone())).unwrap();
    assert_eq!(third["result"]["n"], 2);
    assert_eq!(next_reply(&mut server).len(), 1);
}

#[test]
fn a_message_too_large_leaves_its_place_in_the_order_to_what_is_said_instead() {
    let mut server = Envelope::default();
    let ask = || json!({"type": "mcp_request", "request": {"method": "add"}});
    let (first, second) = (id(&received(&mut server, ask())), id(&received(&mut server, ask())));
    assert_eq!(sent(&mut server, &result(json!({"n": 2}), second)), None);
    let large = result(json!({"n": 1}), first.clone());
    assert!(Framing::<RoleServer>::encode(&mut server, &large).unwrap().is_some());
    let error = JsonRpcMessage::error(ErrorData::internal_error("too large", None), Some(first));
    assert!(sent(&mut server, &error).is_some());
    assert_eq!(next_reply(&mut server).len(), 1);
}

#[test]
fn more_requests_without_an_id_than_can_be_kept_in_order_are_refused_in_order() {
    let mut server = Envelope::default();
    let ask = || json!({"type": "mcp_request", "request": {"method": "add"}});
    let first = id(&received(&mut server, ask()));
    let mut rest = Vec::new();
    for _ in 1..1024 {
        rest.push(id(&received(&mut server, ask())));
    }
    let Err(DecodeError::Request { id: refused, error }) =
        decode::<RoleServer>(&mut server, ask(), &())
    else {
        panic!("it is refused");
    };
    assert_eq!(error.code.0, -32000);
    assert_eq!(sent(&mut server, &JsonRpcMessage::error(error, refused)), None);
    for id in rest {
        assert_eq!(sent(&mut server, &result(json!({}), id)), None);
    }
    assert!(sent(&mut server, &result(json!({}), first)).is_some());
    let owed = next_reply(&mut server);
    assert_eq!((owed.len(), &owed[1023]["type"]), (1024, &json!("error")));
}

#[test]
fn rubbish_without_an_id_does_not_wait_for_ever() {
    let mut server = Envelope::default();
    received(&mut server, json!({"type": "mcp_request", "request": {"method": "add"}}));
    for wrong in [json!({"type": "mcp_request"}), json!({"type": "mcp_request", "requestId": {}})] {
        let mut refused = 0;
        let end = loop {
            match decode::<RoleServer>(&mut server, &wrong, &()) {
                Err(DecodeError::Request { id, error }) => {
                    assert_eq!(sent(&mut server, &JsonRpcMessage::error(error, id)), None);
                    refused += 1;
                }
                end => break end,
            }
        };
        assert!(refused <= 4096, "{refused}");
        assert!(matches!(end, Err(DecodeError::Unacceptable(_))), "{end:?}");
    }
}

#[test]
fn more_answers_than_can_be_kept_in_order_end_the_connection() {
    let mut server = Envelope::default();
    let ask = || json!({"type": "mcp_request", "request": {"method": "add"}});
    received(&mut server, ask());
    let second = id(&received(&mut server, ask()));
    assert_eq!(sent(&mut server, &result(json!({"x": "x".repeat(4 << 20)}), second)), None);
    let refused = decode::<RoleServer>(&mut server, ask(), &());
    let Err(DecodeError::Unacceptable(reason)) = refused else { panic!("{refused:?}") };
    assert_eq!(reason.code, CloseCode::Policy);
}

#[test]
fn what_is_refused_and_not_answered_leaves_no_record() {
    let mut server = Envelope::default();
    for (number, wrong) in [
        json!({"type": "x"}),
        json!({"type": "mcp_request", "request": 5}),
        json!({"type": "mcp_request", "request": {"method": "add", "params": 5}}),
    ]
    .iter_mut()
    .enumerate()
    {
        wrong["requestId"] = number.into();
        let Err(DecodeError::Request { id: Some(id), .. }) =
            decode::<RoleServer>(&mut server, wrong, &())
        else {
            panic!("it is refused");
        };
        Framing::<RoleServer>::on_unanswered(&mut server, &id).unwrap();
        assert_eq!(server.inbound.len(), 0, "{number}");
    }
}

#[test]
fn an_id_in_flight_is_refused_and_the_first_undisturbed() {
    let mut server = Envelope::default();
    let request = || json!({"type": "mcp_request", "request": {"method": "add"}, "requestId": "x"});
    let first = received(&mut server, request());
    for _ in 0..2 {
        let refused = refused(&mut server, request());
        assert_eq!(refused["error"]["code"], -32600);
        assert_eq!((&refused["type"], &refused["requestId"]), (&json!("error"), &json!("x")));
    }
    let answer = sent(&mut server, &result(json!({"result": 8}), id(&first))).unwrap();
    assert_eq!(answer["result"], json!({"result": 8}));
    let old = received(&mut server, request());
    let cancel = json!({"method": "notifications/cancelled", "params": {"requestId": "x"}});
    let cancel = || json!({"type": "notification", "payload": cancel});
    assert_eq!(received(&mut server, cancel())["params"]["requestId"], old["id"]);
    let new = received(&mut server, request());
    // Nobody awaits the old answer, which may come all the same.
    let late = result(json!({"result": "old"}), id(&old));
    assert!(Framing::<RoleServer>::encode(&mut server, &late).unwrap().is_none());
    let answer = sent(&mut server, &result(json!({"result": "new"}), id(&new))).unwrap();
    assert_eq!((&answer["requestId"], &answer["result"]["result"]), (&json!("x"), &json!("new")));
    assert!(decode::<RoleServer>(&mut server, cancel(), &()).unwrap().is_none(), "it has ended");
}

#[test]
fn what_is_wrong_with_another_message_leaves_a_request_alone() {
    let mut server = Envelope::default();
    let request = json!({"type": "mcp_request", "request": {"method": "add"}, "requestId": "x"});
    let first = received(&mut server, request);
    for wrong in [
        json!({"type": "foo", "requestId": "x"}),
        json!({"type": 7, "requestId": "x"}),
        json!({"type": "mcp_request", "request": 7, "requestId": "x"}),
    ] {
        assert_eq!(refused(&mut server, wrong)["requestId"], "x");
    }
    let failed = CallToolResult::error(vec![ContentBlock::text("no")]);
    let failed = JsonRpcMessage::response(ServerResult::from(failed), id(&first));
    assert_eq!(sent(&mut server, &failed).unwrap()["type"], "error");
}

#[test]
fn a_malformed_request_without_an_id_has_its_place_in_the_order() {
    let mut server = Envelope::default();
    let ask = || json!({"type": "mcp_request", "request": {"method": "add"}});
    let first = id(&received(&mut server, ask()));
    for wrong in [
        json!({"type": "mcp_request", "request": 5}),
        json!({"type": "mcp_request", "request": {"method": "a"}, "requestId": {}}),
        json!({"type": "mcp_request", "request": ["add", {}]}),
    ] {
        let Err(DecodeError::Request { id, error }) = decode::<RoleServer>(&mut server, wrong, &())
        else {
            panic!("it is refused");
        };
        assert_eq!(sent(&mut server, &JsonRpcMessage::error(error, id)), None);
    }
    assert!(sent(&mut server, &result(json!({}), first)).is_some());
    assert_eq!(next_reply(&mut server).len(), 3);
}

#[test]
fn a_malformed_notification_is_not_answered() {
    let mut server = Envelope::default();
    for payload in [
        json!({"method": "notifications/progress", "params": 7}),
        json!({"method": "notifications/x", "params": {"_meta": 1}}),
    ] {
        let told = json!({"type": "notification", "payload": payload});
        let told = decode::<RoleServer>(&mut server, told, &());
        assert!(!matches!(told, Err(DecodeError::Request { .. })), "{told:?}");
    }
}

#[test]
fn what_cannot_be_read_is_answered_with_an_error() {
    let deep = format!(r#"{{"type":{}1{}}}"#, "[".repeat(300), "]".repeat(300));
    for (message, code, request_id) in [
        ("rubbish", -32700, None),
        ("{", -32700, None),
        (r#"{"type":"mcp_request","requestId":"x","request":{"a":NaN}}"#, -32700, Some("x")),
        (&deep, -32600, None),
        ("[]", -32600, None),
        (r#"["mcp_request",{"method":"add"},null,null,null,"x",null]"#, -32600, None),
        ("7", -32600, None),
        ("{}", -32600, None),
        (r#"{"type":7,"requestId":"x"}"#, -32600, Some("x")),
        (r#"{"type":"mcp","requestId":"x","payload":{}}"#, -32600, Some("x")),
        (r#"{"type":"ping","type":"ping"}"#, -32600, None),
        (r#"{"type":"mcp_request","requestId":"x","requestId":"y"}"#, -32600, None),
        (r#"{"type":"mcp_request"}"#, -32600, None),
        (r#"{"type":"mcp_request","requestId":"x"}"#, -32600, Some("x")),
        (r#"{"type":"mcp_request","requestId":{},"request":{"method":"add"}}"#, -32600, None),
        (r#"{"type":"mcp_request","requestId":"x","request":{"params":{}}}"#, -32600, Some("x")),
        (r#"{"type":"mcp_request","requestId":"x","request":[]}"#, -32600, Some("x")),
        (r#"{"type":"mcp_request","requestId":"x","request":{"method":7}}"#, -32600, Some("x")),
        (
            r#"{"type":"mcp_request","requestId":"x","request":{"method":"add","params":[5,3]}}"#,
            -32602,
            Some("x"),
        ),
        (
            r#"{"type":"mcp_request","requestId":"x","request":{"method":"tools/list","params":{"_meta":1}}}"#,
            -32600,
            Some("x"),
        ),
    ] {
        let mut server = Envelope::default();
        let refused = refused(&mut server, message);
        assert_eq!((&refused["type"], &refused["error"]["code"]), (&json!("error"), &json!(code)));
        assert_eq!(refused.get("requestId"), request_id.map(Value::from).as_ref(), "{message}");
        assert!(next_reply(&mut server).is_empty());
        // Whatever it was, it takes up nothing.
        received(&mut server, r#"{"type":"mcp_request","requestId":"x","request":{"method":"a"}}"#);
        let next = received(&mut server, r#"{"type":"mcp_request","request":{"method":"a"}}"#);
        assert!(sent(&mut server, &result(json!({}), id(&next))).is_some(), "{message}");
    }
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
fn a_client_asks_with_an_id_that_is_a_string() {
    let list = ListToolsRequest::default();
    let list = ClientRequest::ListToolsRequest(list);
    let mut client = Envelope::default();
    let list = JsonRpcMessage::request(list, RequestId::Number(7));
    let request = say::<RoleClient>(&mut client, &list).unwrap();
    assert_eq!(
        (&request["requestId"], &request["request"]["method"]),
        (&json!("7"), &json!("tools/list"))
    );
    let result = json!({"tools": []});
    let response = json!({"type": "mcp_response", "result": result, "requestId": "7"});
    let calls = Asked(&[(7, Method::ListTools)]);
    let answer = decode::<RoleClient>(&mut client, response, &calls).unwrap().unwrap();
    assert_eq!(json!(answer)["id"], 7);
    let cancelled = CancelledNotificationParam::new(Some(RequestId::Number(7)), None);
    let cancelled = ClientNotification::from(CancelledNotification::new(cancelled));
    let told = say::<RoleClient>(&mut client, &JsonRpcMessage::notification(cancelled)).unwrap();
    assert_eq!(told["payload"]["params"]["requestId"], "7");
}

#[test]
fn a_bare_tool_is_called_and_its_content_becomes_a_result() {
    let mut client = Envelope::default().bare_tools();
    let request = say::<RoleClient>(&mut client, &call(7)).unwrap();
    assert_eq!(request["request"], json!({"method": "add", "params": {"a": 5}}));
    let calls = Asked(&[(7, Method::CallTool)]);
    let response = json!({"type": "mcp_response", "result": {"result": 8}, "requestId": "7"});
    let answer = json!(decode::<RoleClient>(&mut client, response, &calls).unwrap().unwrap());
    assert_eq!(answer["result"]["structuredContent"], json!({"result": 8}));
    assert_eq!(answer["result"]["content"][0]["text"], r#"{"result":8}"#);
}

#[test]
fn a_server_that_returns_no_ids_answers_in_order() {
    let mut client = Envelope::default().bare_tools();
    for number in 1..=4 {
        say::<RoleClient>(&mut client, &call(number)).unwrap();
    }
    let all = Asked(&[(2, Method::CallTool), (3, Method::CallTool), (4, Method::CallTool)]);
    let response = || json!({"type": "mcp_response", "result": {"result": 8}});
    // The first is no longer in flight, and is answered all the same.
    let late = decode::<RoleClient>(&mut client, response(), &all);
    assert!(matches!(late, Err(DecodeError::Dropped { .. })));
    let answer = decode::<RoleClient>(&mut client, response(), &all).unwrap().unwrap();
    assert_eq!(json!(answer)["id"], 2);
    let error = json!({"type": "error", "error": {"code": -32602, "message": "no"}});
    let answer = json!(decode::<RoleClient>(&mut client, error, &all).unwrap().unwrap());
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(3), &json!(-32602)));
    let error = json!({"type": "error", "error": "no"});
    let answer = json!(decode::<RoleClient>(&mut client, error, &all).unwrap().unwrap());
    assert_eq!((&answer["id"], &answer["error"]["message"]), (&json!(4), &json!("no")));
    let nobody = decode::<RoleClient>(&mut client, response(), &all);
    assert!(matches!(nobody, Err(DecodeError::Response { id: None, .. })));
}

#[test]
fn an_answer_that_cannot_be_read_ends_its_call() {
    let asked = Asked(&[(1, Method::CallTool), (2, Method::CallTool)]);
    let unreadable = |client: &mut Envelope, text: &str| {
        let unreadable = decode::<RoleClient>(client, text, &asked);
        let Err(DecodeError::Response { id, error }) = unreadable else { panic!("{unreadable:?}") };
        assert_eq!(error.data.unwrap()["reason"], "unreadable", "{text}");
        id
    };
    let one = Some(RequestId::Number(1));
    for (text, id) in [
        (r#"{"type":"mcp_response","result":{"a":NaN},"requestId":"1"}"#, one.clone()),
        ("{\"requestId\":\"1\",\"type\":\"mcp_response\",\"result\":\"a\nb\"}", one.clone()),
        (r#"{"type":"mcp_response","requestId":"1","result":{"#, one.clone()),
        (r#"{"type":"error","requestId":"1","error":NaN}"#, one.clone()),
        (r#"{"type":"mcp_response","result":{"a":NaN},"requestId":"1","requestId":"2"}"#, None),
        (r#"{"type":"mcp_response","result":{"a":NaN"#, None),
        (
            r#"{"type":"mcp_response","result":{"$serde_json::private::Number":"1"},"requestId":"1"}"#,
            one.clone(),
        ),
    ] {
        assert_eq!(unreadable(&mut Envelope::default(), text), id, "{text}");
    }
    // Where answers have no id, their order counts.
    let mut client = Envelope::default();
    for number in 1..=2 {
        say::<RoleClient>(&mut client, &call(number)).unwrap();
    }
    assert_eq!(unreadable(&mut client, r#"{"type":"mcp_response","result":{"a":NaN}}"#), one);
    let response = json!({"type": "mcp_response", "result": {"content": []}});
    let answer = json!(decode::<RoleClient>(&mut client, response, &asked).unwrap().unwrap());
    assert_eq!(answer["id"], 2);
    let mut client = Envelope::default().sep_1288();
    let wrapped = r#"{"type":"mcp","payload":{"jsonrpc":"2.0","id":1,"result":{"a":NaN}}}"#;
    assert_eq!(unreadable(&mut client, wrapped), one);
}

#[test]
fn what_is_not_sent_is_not_answered() {
    let mut client = Envelope::default().bare_tools();
    // Too large, and so encoded alone.
    assert!(Framing::<RoleClient>::encode(&mut client, &call(1)).unwrap().is_some());
    for number in 2..=3 {
        say::<RoleClient>(&mut client, &call(number)).unwrap();
    }
    Framing::<RoleClient>::on_withdrawn(&mut client, &RequestId::Number(2));
    let all = Asked(&[(1, Method::CallTool), (2, Method::CallTool), (3, Method::CallTool)]);
    let response = json!({"type": "mcp_response", "result": {"result": 8}});
    let answer = decode::<RoleClient>(&mut client, response, &all).unwrap().unwrap();
    assert_eq!(json!(answer)["id"], 3);
}

#[test]
fn what_is_sent_again_is_answered_after_all_that_was_asked_before() {
    let mut client = Envelope::default().bare_tools();
    for number in 1..=5 {
        say::<RoleClient>(&mut client, &call(number)).unwrap();
    }
    // The peer was sent the first three, and found the first too large. The others wait.
    for number in 2..=3 {
        Framing::<RoleClient>::on_resent(&mut client, &RequestId::Number(number));
    }
    let sent = Asked(&[
        (2, Method::CallTool),
        (3, Method::CallTool),
        (4, Method::CallTool),
        (5, Method::CallTool),
    ]);
    Framing::<RoleClient>::on_new_peer(&mut client, &sent);
    // Nobody awaits one of those that the next was sent.
    let awaited = Asked(&[(2, Method::CallTool), (3, Method::CallTool), (4, Method::CallTool)]);
    let response = || json!({"type": "mcp_response", "result": {"result": 8}});
    for number in [Some(4), None, Some(2), Some(3)] {
        let answer = decode::<RoleClient>(&mut client, response(), &awaited);
        assert_eq!(
            answer.ok().flatten().map(|answer| json!(answer)["id"].as_i64().unwrap()),
            number
        );
    }
}

#[test]
fn where_ids_are_returned_what_has_none_answers_nothing() {
    let mut client = Envelope::default().bare_tools();
    say::<RoleClient>(&mut client, &call(1)).unwrap();
    let calls = Asked(&[(1, Method::CallTool), (2, Method::CallTool)]);
    let response = json!({"type": "mcp_response", "result": {"result": 8}, "requestId": "1"});
    decode::<RoleClient>(&mut client, response, &calls).unwrap().unwrap();
    say::<RoleClient>(&mut client, &call(2)).unwrap();
    let error = json!({"type": "error", "error": {"code": 1, "message": "something else"}});
    let nobody = decode::<RoleClient>(&mut client, error, &calls);
    assert!(matches!(nobody, Err(DecodeError::Response { id: None, .. })));
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
    Framing::<RoleServer>::session_id(&server).unwrap().set(Some("s".into()));
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
    Framing::<RoleClient>::session_id(&client).unwrap().set(Some("next".into()));
    let Message::Text(again) = Framing::<RoleClient>::reencode(&client, message.clone()) else {
        panic!("it is text");
    };
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

#[test]
fn who_begins_anew_is_owed_nothing() {
    let mut server = Envelope::default();
    let first = received(&mut server, r#"{"type":"mcp_request","request":{"method":"a"}}"#);
    Framing::<RoleServer>::on_new_peer(&mut server, &());
    let next = received(&mut server, r#"{"type":"mcp_request","request":{"method":"a"}}"#);
    assert_ne!(first["id"], next["id"]);
    assert!(sent(&mut server, &result(json!({}), id(&next))).is_some());
}
