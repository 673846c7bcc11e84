//! Order of responses without an id.

use super::*;

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
        assert_eq!(server.peer_requests.len(), 0, "{number}");
    }
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
fn who_begins_anew_is_owed_nothing() {
    let mut server = Envelope::default();
    let first = received(&mut server, r#"{"type":"mcp_request","request":{"method":"a"}}"#);
    Framing::<RoleServer>::on_new_peer(&mut server, &());
    let next = received(&mut server, r#"{"type":"mcp_request","request":{"method":"a"}}"#);
    assert_ne!(first["id"], next["id"]);
    assert!(sent(&mut server, &result(json!({}), id(&next))).is_some());
}
