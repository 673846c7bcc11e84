//! Messages of unusual forms, in both directions.

use serde_json::json;

use super::{Program, Relayed, relayed};
use crate::common::limit;

/// Messages that are passed on byte for byte.
const VERBATIM: &[&str] = &[
    r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"\u0041\/","progress":1e-7}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1.0,"progress":1}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":-0,"progress":1}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":18446744073709551616,"progress":1}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":{"a":1},"progress":1}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"a","progressToken":"b"}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"_meta":{"progressToken":"x"},"progressToken":null}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/progress","params":[1]}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":null}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":[1]}}"#,
    r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"\u2028\u2029 \ud83d\ude00","_meta":null}}"#,
    "{\"jsonrpc\":\"2.0\",\"method\":\"n\",\"params\":\"\u{2028}\u{2029}\u{85}\u{7f}\"}",
    r#"{"jsonrpc":"2.0","method":"","params":null}"#,
    r#"{"jsonrpc":"2.0","method":"n","params":{"io.modelcontextprotocol/subscriptionId":"a"}}"#,
    r#"{"jsonrpc":"2.0","method":"n","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":"\u0041"}}}"#,
    r#"{"jsonrpc":"2.0","method":"n","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":7}}}"#,
    r#"{"jsonrpc":"2.0","method":"n","params":{"a":1e999999,"b":123456789012345678901234567890.10}}"#,
    r#"{"jsonrpc":"2.0","method":"n","id2":1,"Method":2,"":3,"params":{"":{"":""}}}"#,
];

/// Requests that are passed on byte for byte.
const REQUESTS: &[&str] = &[
    r#"{"jsonrpc":"2.0","id":"%","method":"m","params":{"_meta":{"progressToken":"\u0041\/"}}}"#,
    r#"{"jsonrpc":"2.0","id":"%","method":"m","params":{"_meta":{"progressToken":1.0}}}"#,
    r#"{"jsonrpc":"2.0","id":"%","method":"m","params":{"_meta":{"progressToken":-0}}}"#,
    r#"{"jsonrpc":"2.0","id":"%","method":"m","params":{"_meta":{"progressToken":12345678901234567890}}}"#,
    r#"{"jsonrpc":"2.0","id":"%","method":"m","params":{"_meta":{"progressToken":{}}}}"#,
    r#"{"jsonrpc":"2.0","id":"%","method":"m","params":{"_meta":{"progressToken":1,"progressToken":2},"_meta":3}}"#,
    r#"{"jsonrpc":"2.0","id":"%","method":"m","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"\u0032"}}}"#,
    r#"{"jsonrpc":"2.0","id":"%","method":"m","params":{"_meta":[]}}"#,
    r#"{"jsonrpc":"2.0","id":"%","method":"tools/call","params":{"name":7,"arguments":"none"}}"#,
    r#"{"jsonrpc":"2.0","id":"%","method":"sampling/createMessage","params":{"messages":1,"maxTokens":1.5}}"#,
    r#"{"jsonrpc":"2.0","id":"%","method":"roots/list","params":null}"#,
    r#"{"jsonrpc":"2.0","id":"%","method":"elicitation/create","params":{"requestedSchema":{"$ref":"\ud800"}}}"#,
    r#"{"jsonrpc":"2.0","id":"%","method":"ping","params":false}"#,
    r#"{"method":"m","jsonrpc":"2.0","error2":1,"id":"%"}"#,
];

/// Results and errors, in the form that they have.
const BODIES: &[&str] = &[
    r#""result":null"#,
    r#""result":[]"#,
    r#""result":"text""#,
    r#""result":{"_meta":null,"isError":"yes"}"#,
    r#""error":{}"#,
    r#""error":null"#,
    r#""error":"text""#,
    r#""error":{"code":"x","message":7}"#,
    r#""error":{"code":-32602,"message":"\ud800","data":1e999}"#,
    r#""error":{"code":-32601.0,"message":"m"}"#,
    r#""error":{"code":99999999999999,"message":"m"}"#,
];

async fn exchange(from: &mut Program, to: &mut Program, prefix: &str) {
    for text in VERBATIM {
        from.write(text).await;
        assert_eq!(to.line().await, *text);
    }
    for (n, request) in REQUESTS.iter().enumerate() {
        let id = format!("{prefix}{n}");
        let request = request.replace('%', &id);
        from.write(&request).await;
        assert_eq!(to.line().await, request);
        let answer = format!(r#"{{"id":"{id}",{},"jsonrpc":"2.0"}}"#, BODIES[n % BODIES.len()]);
        to.write(&answer).await;
        assert_eq!(from.line().await, answer);
    }
}

#[tokio::test]
async fn any_form_is_passed_on_both_ways() {
    limit(async {
        let Relayed { mut host, mut server, listening: _listening, .. } = relayed().await;
        exchange(&mut host, &mut server, "h").await;
        exchange(&mut server, &mut host, "s").await;
    })
    .await;
}

/// Ids and progress tokens of one side mean nothing to those of the other.
#[tokio::test]
async fn equal_ids_and_tokens_of_both_sides_are_kept_apart() {
    limit(async {
        let Relayed { mut host, mut server, listening: _listening, .. } = relayed().await;
        for value in ["1", r#""t""#, "1.0", r#""\u0041""#] {
            let request = format!(
                r#"{{"jsonrpc":"2.0","id":{value},"method":"m","params":{{"_meta":{{"progressToken":{value}}}}}}}"#
            );
            host.write(&request).await;
            let at_server = server.line().await;
            server.write(&request).await;
            let at_host = host.line().await;
            assert_eq!(at_server, at_host);
            let progress = format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{value},"progress":1}}}}"#
            );
            let id = serde_json::from_str::<serde_json::Value>(&at_host).unwrap()["id"].clone();
            let cancelled = json!({
                "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id }
            });
            host.write(&progress).await;
            assert_eq!(server.line().await, progress);
            server.write(&progress).await;
            assert_eq!(host.line().await, progress);
            let answer = json!({ "jsonrpc": "2.0", "id": id, "result": "host" }).to_string();
            host.write(&answer).await;
            assert_eq!(server.json().await["result"], "host");
            // The request of the host is still in flight, and is answered after its sender tried to
            // cancel what the other side has.
            server.write(cancelled.to_string()).await;
            server
                .write(json!({ "jsonrpc": "2.0", "id": id, "result": "server" }).to_string())
                .await;
            assert_eq!(host.json().await["result"], "server");
        }
    })
    .await;
}

/// A peer may write an id in another form when it cancels.
#[tokio::test]
async fn a_cancellation_finds_its_request_by_the_value_of_the_id() {
    limit(async {
        let Relayed { mut host, mut server, listening: _listening, .. } = relayed().await;
        for (id, again) in [
            (r#""\u0041\/""#, r#""A/""#),
            (r#""B""#, r#""\u0042""#),
            (r#""\u006ason:1""#, r#""json:1""#),
        ] {
            host.write(format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#)).await;
            let asked = server.json().await;
            let params = format!(r#"{{"requestId":{again}}}"#);
            let method = "notifications/cancelled";
            host.write(format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#))
                .await;
            let cancelled = server.json().await;
            assert_eq!(cancelled["params"]["requestId"], asked["id"], "{id}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_message_that_is_too_large_fails_alone() {
    limit(async {
        let Relayed { mut host, mut server, listening: _listening, .. } = relayed().await;
        let pad = "x".repeat((16 << 20) - 60);
        // The server takes 4 MiB.
        host.write(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":["{pad}"]}}"#)).await;
        let refused = host.json().await;
        assert_eq!(refused["id"], 1, "{}", &refused.to_string()[..200]);
        host.write(r#"{"jsonrpc":"2.0","id":2.0,"method":"m"}"#).await;
        let id = server.json().await["id"].clone();
        // 16 MiB in all, and the client takes no more.
        let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"{}"}}"#, &pad);
        server.write(&answer[..]).await;
        let answer = host.line().await;
        assert!(answer.contains(r#""id":2.0,"#), "{}", &answer[..100]);
        assert!(answer.len() > (16 << 20) - 60, "{}", answer.len());
        host.write(r#"{"jsonrpc":"2.0","id":3,"method":"m"}"#).await;
        server.json().await;
        server.write(format!(r#"{{"jsonrpc":"2.0","id":3,"result":"{pad}{pad}"}}"#)).await;
        let answer = host.json().await;
        assert_eq!(
            (&answer["id"], &answer["error"]["data"]["reason"]),
            (&json!(3), &json!("unreadable"))
        );
        host.write(r#"{"jsonrpc":"2.0","id":4,"method":"m"}"#).await;
        assert_eq!(server.json().await["id"], 4);
    })
    .await;
}
