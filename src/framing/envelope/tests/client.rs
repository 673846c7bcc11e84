//! Requests of this side, and their responses.

use super::*;

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
