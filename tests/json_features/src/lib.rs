//! A peer tries serde_json's private names on a program that enables the features `raw_value` and
//! `arbitrary_precision`: nothing overflows, and no message means anything else than without them.
#![cfg(test)]
#![allow(clippy::unwrap_used, clippy::panic)]

#[allow(dead_code)]
#[path = "../../common/raw.rs"]
mod raw;

use std::{future::Future, time::Duration};

use mcp_ws_transport::{
    McpRole,
    client::ToolClient,
    connect,
    decode::decode,
    framing::{Envelope, Framing, ToolCall},
    message::Message,
    serve,
};
use raw::Raw;
use rmcp::{
    ErrorData, RoleClient, RoleServer, ServerHandler, ServiceError, ServiceExt,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ServerCapabilities, ServerConfig,
    },
    service::RequestContext,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// Objects of one member with each name. The string in it is JSON too, with a string that is JSON,
/// and so on: whoever parses them anew overflows the stack.
fn hostile() -> [String; 3] {
    let mut deep = String::new();
    for _ in 0..14 {
        let json = Value::from(deep);
        deep = "[".repeat(120) + r#"{"$serde_json::private::RawValue":"# + &json.to_string() + "}";
        deep += &"]".repeat(120);
    }
    let deep = Value::from(deep).to_string();
    [
        format!(r#"{{"$serde_json::private::RawValue":{deep}}}"#),
        format!(r#"{{"\u0024serde_json::private::RawValue":{deep}}}"#),
        format!(r#"{{"$serde_json::private::Number":{deep}}}"#),
    ]
}

async fn limit<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), test).await.expect("it hangs")
}

/// Returns its arguments.
#[derive(Clone)]
struct Mirror;

impl ServerHandler for Mirror {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = Value::from(request.arguments.unwrap_or_default());
        Ok(CallToolResult::structured(arguments).into())
    }
}

#[test]
fn the_features_are_on() {
    let value: Value = serde_json::from_str(r#"{"$serde_json::private::RawValue":"[7]"}"#).unwrap();
    assert_eq!(value, json!([7]));
    assert!(serde_json::from_str::<Value>("1e999").is_ok());
}

#[tokio::test]
async fn a_server_refuses_the_names_wherever_they_stand() {
    limit(async {
        let server = serve("127.0.0.1:0", || Mirror).await.unwrap();
        let mut raw = Raw::initialized(server.local_addr()).await;
        for hostile in hostile() {
            for (id, message) in [
                (1, r#"{"id":1,"method":"tools/call","params":{"name":"n","arguments":{"a":BAD}}}"#),
                (1, r#"{"id":1,"method":"tools/call","params":{"name":"n","arguments":BAD}}"#),
                (1, r#"{"id":1,"method":"tools/call","params":{"_meta":{"a":BAD},"name":"n"}}"#),
                (1, r#"{"id":1,"method":"tools/call","params":BAD}"#),
                (1, r#"{"id":1,"method":"acme/x","params":{"a":[{"b":BAD}]}}"#),
                (1, r#"{"id":1,"method":"acme/x","params":BAD}"#),
                (1, r#"{"id":1,"method":BAD}"#),
                (1, r#"{"id":1,"method":"ping","extra":BAD}"#),
                (1, r#"{"id":1,"method":"ping","params":{"a":NaN,"b":BAD}}"#),
                (0, r#"{"id":BAD,"method":"ping"}"#),
                (0, r#"{"id":BAD,"method":"ping","params":NaN}"#),
                (0, "BAD"),
            ] {
                let message = message.replace("BAD", &hostile);
                raw.text(message.replacen('{', r#"{"jsonrpc":"2.0","#, 1)).await;
                let answer = raw.receive().await;
                let told = answer["error"]["message"].as_str().unwrap();
                assert_eq!(answer["error"]["code"], -32600, "{told}: {message:.60}");
                assert!(told.contains("is reserved"), "{told}: {message:.60}");
                let expected = if id == 0 { Value::Null } else { json!(id) };
                assert_eq!(answer["id"], expected, "{message:.60}");
            }
            // What is not answered does no harm.
            for message in [
                r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":BAD}}"#,
                r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":BAD}}"#,
                r#"{"jsonrpc":"2.0","method":"acme/x","params":{"a":BAD}}"#,
                r#"{"jsonrpc":"2.0","id":9,"result":BAD}"#,
                r#"{"jsonrpc":"2.0","id":9,"error":{"code":1,"message":"m","data":BAD}}"#,
                r#"{"jsonrpc":"2.0","id":9,"error":BAD}"#,
                r#"{"jsonrpc":"2.0","id":BAD,"result":{}}"#,
            ] {
                raw.text(message.replace("BAD", &hostile)).await;
                raw.ping().await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_refuses_the_names_wherever_they_stand() {
    limit(async {
        let (client, mut raw) = client_and_raw().await;
        for hostile in hostile() {
            for answer in [
                r#""id":ID,"result":{"content":[],"structuredContent":{"a":BAD}}"#,
                r#""id":ID,"result":{"content":[],"_meta":{"a":BAD}}"#,
                r#""id":ID,"result":{"content":[{"type":"text","text":"t","_meta":{"a":BAD}}]}"#,
                r#""id":ID,"result":BAD"#,
                r#""result":{"content":[],"extra":BAD},"id":ID"#,
                r#""id":ID,"error":{"code":1,"message":"m","data":BAD}"#,
                r#""id":ID,"error":{"code":1,"data":BAD}"#,
                r#""id":ID,"error":BAD"#,
            ] {
                let peer = client.peer().clone();
                let call = tokio::spawn(async move {
                    peer.call_tool(CallToolRequestParams::new("mirror")).await
                });
                let id = raw.receive().await["id"].to_string();
                let answer = answer.replace("BAD", &hostile).replace("ID", &id);
                raw.text(format!(r#"{{"jsonrpc":"2.0",{answer}}}"#)).await;
                let ServiceError::McpError(error) = call.await.unwrap().unwrap_err() else {
                    panic!("{answer:.60}")
                };
                assert_eq!(error.code.0, -32600, "{error:?}");
                assert!(error.message.contains("is reserved"), "{error:?}");
            }
            let notification = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":BAD}}"#;
            raw.text(notification.replace("BAD", &hostile)).await;
            let request = r#"{"jsonrpc":"2.0","id":5,"method":"sampling/createMessage","params":{"_meta":{"a":BAD}}}"#;
            raw.text(request.replace("BAD", &hostile)).await;
            let answer = raw.receive().await;
            assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(5), &json!(-32600)));
        }
    })
    .await;
}

async fn client_and_raw() -> (rmcp::service::RunningService<RoleClient, ()>, Raw) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/mcp", listener.local_addr().unwrap());
    let client = async { ().serve(connect(url).resume(false).await.unwrap()).await.unwrap() };
    let server = async {
        let mut raw = Raw::upgraded(listener.accept().await.unwrap().0).await;
        raw.answer_initialize().await;
        raw
    };
    tokio::join!(client, server)
}

/// Text is no message: it is read as JSON where it is some, and no name means anything in it
/// either.
#[tokio::test]
async fn a_toolbox_reads_no_name_in_a_text() {
    limit(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/mcp", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let mut raw = Raw::upgraded(listener.accept().await.unwrap().0).await;
            raw.answer_initialize().await;
            loop {
                let request = raw.receive().await;
                let result = match request["method"].as_str() {
                    Some("tools/list") => {
                        json!({ "tools": [{ "name": "t", "inputSchema": { "type": "object" } }] })
                    }
                    _ => {
                        let text = &request["params"]["arguments"]["text"];
                        json!({ "content": [{ "type": "text", "text": text }] })
                    }
                };
                raw.json(&json!({ "jsonrpc": "2.0", "id": request["id"], "result": result })).await;
            }
        });
        let tools = ToolClient::connect(connect(url).resume(false)).await.unwrap();
        let hostile = hostile().into_iter();
        let texts = hostile.chain([r#"{"$serde_json::private::RawValue":"[7]"}"#.to_owned()]);
        for text in texts {
            let read: Value = tools.call("t", json!({ "text": text })).await.unwrap();
            assert_eq!(read, text);
            let error = tools.call::<Vec<i32>>("t", json!({ "text": text })).await.unwrap_err();
            assert!(error.to_string().contains("reserved"), "{error:.300}");
        }
        let read: Value = tools.call("t", json!({ "text": r#"{"a":[1,2.5]}"# })).await.unwrap();
        assert_eq!(read, json!({ "a": [1, 2.5] }));
        serving.abort();
    })
    .await;
}

#[test]
fn the_older_forms_of_messages_refuse_the_names_too() {
    fn refused<R: McpRole>(mut framing: impl Framing<R>, text: &str) {
        let told = framing.decode(Message::text(text.to_owned()), &());
        assert!(format!("{told:?}").contains("is reserved"), "{told:.300?}");
    }
    for hostile in hostile() {
        for message in [
            r#"{"type":"mcp_request","request":{"method":"add","params":{"a":BAD}},"requestId":"7"}"#,
            r#"{"type":"mcp_request","request":{"method":"add"},"requestId":BAD}"#,
            r#"{"type":"notification","payload":{"method":"notifications/cancelled","params":{"requestId":BAD}}}"#,
            r#"{"type":"mcp_response","result":BAD,"requestId":"7"}"#,
            r#"{"type":"error","error":BAD,"requestId":"7"}"#,
            r#"{"jsonrpc":"2.0","id":BAD,"method":"ping"}"#,
        ] {
            let message = message.replace("BAD", &hostile);
            refused::<RoleServer>(Envelope::default(), &message);
            refused::<RoleClient>(Envelope::default(), &message);
        }
        for message in [
            r#"{"type":"tool_call","tool":"add","params":{"a":BAD}}"#,
            r#"{"tool":"add","args":{"a":BAD}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":BAD}"#,
        ] {
            let message = message.replace("BAD", &hostile);
            refused::<RoleServer>(ToolCall::default(), &message);
            refused::<RoleClient>(ToolCall::default(), &message);
        }
    }
}

#[tokio::test]
async fn numbers_are_what_they_are() {
    limit(async {
        let server = serve("127.0.0.1:0", || Mirror).await.unwrap();
        let mut raw = Raw::initialized(server.local_addr()).await;
        let text = r#"{"jsonrpc":"2.0","id":1.0,"method":"tools/call","params":{"name":"n","arguments":{"a":[1.0,-0.0,1e2,0.1,18446744073709551615,-9223372036854775808]}}}"#;
        raw.text(text).await;
        let answer = raw.receive().await;
        assert_eq!(answer["id"], 1);
        let numbers = answer["result"]["structuredContent"]["a"].as_array().unwrap();
        let floats: Vec<_> = numbers.iter().map(|number| number.as_f64().unwrap()).collect();
        assert_eq!(floats, [1.0, -0.0, 100.0, 0.1, u64::MAX as f64, i64::MIN as f64]);
        assert_eq!(numbers[4].as_u64(), Some(u64::MAX));
        assert_eq!(numbers[5].as_i64(), Some(i64::MIN));

        for (rest, what) in [
            (r#""id":1,"method":"x","params":{"a":1e400}"#, "64-bit float"),
            (r#""id":1,"method":"tools/call","params":{"name":"n","arguments":{"a":-1e400}}"#, "64-bit float"),
            (r#""id":9223372036854775808,"method":"ping""#, "64 bits"),
            (r#""id":1.5,"method":"ping""#, "neither a string nor an integer"),
        ] {
            raw.text(format!(r#"{{"jsonrpc":"2.0",{rest}}}"#)).await;
            let answer = raw.receive().await;
            assert_eq!(answer["error"]["code"], -32600, "{answer}");
            assert!(answer["error"]["message"].as_str().unwrap().contains(what), "{answer}");
        }
    })
    .await;
}

/// Fractions stand in typed members too, by whichever way a message is read.
#[test]
fn typed_fractions_are_read() {
    fn reads<R: McpRole>(text: &str) {
        let message = decode::<R>(text.as_bytes(), &());
        assert!(message.is_ok(), "{text}: {message:?}");
    }
    for text in [
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":7,"progress":0.5,"total":1.5}}"#,
        r#"{"method":"notifications/progress","params":{"progress":0.5,"progressToken":7},"jsonrpc":"2.0"}"#,
        r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"t","annotations":{"priority":0.5}}]}}"#,
        r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"annotations":{"priority":0.5},"text":"t","type":"text"}]}}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"sampling/createMessage","params":{"messages":[],"maxTokens":5,"temperature":0.5}}"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"elicitation/create","params":{"message":"m","requestedSchema":{"type":"object","properties":{"a":{"type":"number","minimum":0.5}}}}}"#,
    ] {
        reads::<RoleClient>(text);
    }
    reads::<RoleServer>(
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":7,"progress":0.5}}"#,
    );
}
