//! The decoder and the encoder agree with rmcp's own serde, on typical messages, on their
//! mutations, and on known traps.
//!
//! `MCP_WS_CASES=1000000 cargo test --test decode_agreement` tries more of them.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod agree;
mod corpus;
mod messages;
mod mutate;

use agree::{AnyId, METHODS, agree};
use mcp_ws_transport::{McpRole, decode::decode, encode::encode};
use messages::{Messages, cases};
use rmcp::{
    RoleClient, RoleServer,
    model::{
        ClientJsonRpcMessage, ClientNotification, ClientRequest, GetExtensions, JsonRpcMessage,
        MetaObject, NotificationMetaObject, RequestId, RequestMetaObject, RequestParamsMeta,
        ServerJsonRpcMessage, ServerNotification, ServerRequest,
    },
    service::TxJsonRpcMessage,
};
use serde_json::{Value, json};

#[test]
fn a_server_decodes_what_rmcp_decodes() {
    agree_on_mutations::<RoleServer>(corpus::OF_CLIENT, 100_000);
}

#[test]
fn a_client_decodes_what_rmcp_decodes() {
    agree_on_mutations::<RoleClient>(corpus::OF_SERVER, 100_000);
}

#[test]
fn examples_and_traps_decode_for_either_role_and_any_call() {
    for text in corpus::TRAPS.iter().chain(corpus::OF_CLIENT).chain(corpus::OF_SERVER) {
        for method in METHODS {
            agree::<RoleServer>(text.as_bytes(), *method);
            agree::<RoleClient>(text.as_bytes(), *method);
        }
    }
}

#[test]
fn the_examples_are_what_they_claim() {
    for text in corpus::OF_CLIENT {
        let message: ClientJsonRpcMessage = serde_json::from_str(text).unwrap();
        let custom = format!("{message:?}").contains("Custom");
        assert_eq!(custom, text.contains("acme/"), "{text}");
    }
    for text in corpus::OF_SERVER {
        let message: ServerJsonRpcMessage = serde_json::from_str(text).unwrap();
        let custom = format!("{message:?}").contains("Custom");
        let odd = ["acme/", "anything", "\"result\":7"].iter().any(|odd| text.contains(odd));
        assert_eq!(custom, odd, "{text}");
    }
}

/// A name that serde_json keeps for itself stands in no message, in whatever spelling and depth.
#[test]
fn no_reserved_name_is_decoded() {
    let mut rng = mutate::Rng(3);
    for _ in 0..cases(2_000) {
        let mut name = String::new();
        for letter in "$serde_json::private::".chars() {
            match rng.below(8) {
                0 => name.push_str(&format!("\\u{:04x}", u32::from(letter))),
                1 => name.push_str(&format!("\\u{:04X}", u32::from(letter))),
                _ => name.push(letter),
            }
        }
        let inner = "[".repeat(rng.below(200)) + &"]".repeat(rng.below(200));
        let kind = ["RawValue", "Number", "Other"][rng.below(3)];
        let mut value = format!("{{\"{name}{kind}\" : {}}}", Value::from(inner));
        for _ in 0..rng.below(4) {
            value = match rng.below(3) {
                0 => format!("[{value}]"),
                1 => format!("[1,{value},\"\\\"\"]"),
                _ => format!("{{\"a\":{{}},\"b\":{value}}}"),
            };
        }
        let call = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"n","arguments":{{"a":{value}}}}}}}"#
        );
        let result =
            format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"structuredContent":{value}}}}}"#);
        for text in [call, result] {
            let error = decode::<RoleServer>(text.as_bytes(), &AnyId(None)).unwrap_err();
            assert!(error.to_string().contains("reserved"), "{text}: {error}");
            assert!(decode::<RoleClient>(text.as_bytes(), &AnyId(None)).is_err(), "{text}");
            assert_eq!(error.id, Some(RequestId::Number(1)), "{text}");
        }
    }
}

#[test]
fn params_that_are_absent_are_not_null() {
    let custom = rmcp::model::CustomRequest::new("acme/x", None);
    let request = JsonRpcMessage::request(ClientRequest::from(custom), RequestId::Number(1));
    let custom = rmcp::model::CustomNotification::new("acme/x", None);
    let notification = JsonRpcMessage::notification(ClientNotification::from(custom));
    for message in [request, notification] {
        let text = String::from_utf8(encode::<RoleClient>(&message).unwrap()).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["method"], value.get("params")), (&json!("acme/x"), None), "{text}");
    }
}

#[test]
fn a_nesting_at_the_limit_decodes_as_with_rmcp() {
    for depth in 115..135 {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for member in ["arguments", "unknown", "_meta"] {
            let deep = if member == "unknown" { deep.clone() } else { format!("{{\"a\":{deep}}}") };
            let call = format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"n","{member}":{deep}}}}}"#
            );
            agree::<RoleServer>(call.as_bytes(), None);
        }
        let tool = format!(r#"{{"name":"n","inputSchema":{{}},"unknown":{deep}}}"#);
        let tools = format!(r#"{{"result":{{"tools":[{tool}]}},"jsonrpc":"2.0","id":1}}"#);
        agree::<RoleClient>(tools.as_bytes(), None);
    }
}

#[test]
fn the_encoder_writes_what_rmcp_writes() {
    encode_mutations::<RoleClient>(corpus::OF_CLIENT, scatter_client, 50_000);
    encode_mutations::<RoleServer>(corpus::OF_SERVER, scatter_server, 50_000);
}

fn agree_on_mutations<R: McpRole>(examples: &[&str], default: usize) {
    let mut messages = Messages::of(examples, 1);
    let mut accepted = 0;
    let cases = cases(default);
    for _ in 0..cases {
        let bytes = messages.next();
        let method = METHODS[messages.rng.below(METHODS.len())];
        accepted += usize::from(agree::<R>(&bytes, method));
    }
    println!("figure: {cases} messages, {accepted} of them accepted by both");
    assert!(accepted > cases / 4 && accepted < cases, "{accepted} of {cases}");
}

fn encode_mutations<R: McpRole>(
    examples: &[&str],
    scatter: fn(&mut TxJsonRpcMessage<R>, usize),
    default: usize,
) {
    let mut messages = Messages::of(examples, 2);
    for _ in 0..cases(default) {
        let Ok(mut message) = serde_json::from_slice::<TxJsonRpcMessage<R>>(&messages.next())
        else {
            continue;
        };
        scatter(&mut message, messages.rng.below(8));
        let encoded = encode::<R>(&message).unwrap();
        let text = String::from_utf8(encoded).unwrap();
        let rmcp = serde_json::to_vec(&message).unwrap();
        let mut expected: Value = serde_json::from_slice(&rmcp).unwrap();
        if expected.get("params") == Some(&Value::Null) {
            expected.as_object_mut().unwrap().remove("params");
        }
        if let JsonRpcMessage::Error(error) = &message
            && error.id.is_none()
        {
            expected["id"] = Value::Null;
        }
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected, "{text}");
        assert!(text.starts_with(r#"{"jsonrpc":"2.0",""#), "{text}");
    }
}

/// Puts metadata into each combination of the three places for it.
macro_rules! scatter {
    ($name:ident: $message:ty, $request:path, $notification:path) => {
        fn $name(message: &mut $message, places: usize) {
            match message {
                JsonRpcMessage::Request(message) => {
                    if let $request(request) = &mut message.request
                        && places & 1 != 0
                    {
                        request.params.set_meta(RequestMetaObject(meta(1)));
                    }
                    let extensions = message.request.extensions_mut();
                    if places & 2 != 0 {
                        extensions.insert(RequestMetaObject(meta(2)));
                    }
                    if places & 4 != 0 {
                        extensions.insert(meta(4));
                    }
                }
                JsonRpcMessage::Notification(message) => {
                    if let $notification(notification) = &mut message.notification
                        && places & 1 != 0
                    {
                        notification.params.meta = Some(NotificationMetaObject(meta(1)));
                    }
                    let extensions = message.notification.extensions_mut();
                    if places & 2 != 0 {
                        extensions.insert(NotificationMetaObject(meta(2)));
                    }
                    if places & 4 != 0 {
                        extensions.insert(meta(4));
                    }
                }
                _ => {}
            }
        }
    };
}

scatter!(scatter_client: ClientJsonRpcMessage, ClientRequest::CallToolRequest, ClientNotification::ProgressNotification);
scatter!(scatter_server: ServerJsonRpcMessage, ServerRequest::ElicitRequest, ServerNotification::ProgressNotification);

fn meta(n: u64) -> MetaObject {
    let Value::Object(map) = json!({ "shared": n, n.to_string(): n }) else { unreachable!() };
    MetaObject(map)
}
