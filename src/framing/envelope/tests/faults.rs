//! Messages that cannot be read.

use super::*;

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
