//! What arrives is what was sent, byte for byte.

use http::request::Parts;
use mcp_ws_transport::{
    connect, relay,
    server::{BearerTokens, Config, Connection, Identity},
};
use serde_json::json;

use super::{Relayed, program, relayed, serve_client, serve_programs};
use crate::common::{
    limit,
    raw::{Frame, Raw, TEXT},
};

/// Messages in a form that no decoder would keep.
const CALL: &str = r#"{"extra":[],"params":{"b":1.0,"a":1e400,"b":2,"é":"\u00e9\ud800"},"id":"x","method":"tools/call","jsonrpc":"2.0"}"#;
const ANSWER: &str =
    r#"{"result":{"z":12345678901234567890123,"a":-0.0,"z":null},"jsonrpc":"2.0","id":"x"}"#;
const ERROR: &str =
    r#"{"error":{"message":"no","code":-32001.0,"more":1},"id":"x","jsonrpc":"2.0"}"#;
const NOTE: &str = r#"{"params":{"progressToken":"t","progress":0.10},"method":"notifications/progress","jsonrpc":"2.0"}"#;

async fn text(raw: &mut Raw) -> String {
    let frame = raw.next().await.unwrap();
    assert_eq!(frame.opcode, TEXT);
    String::from_utf8(frame.payload).unwrap()
}

#[tokio::test]
async fn a_server_passes_on_each_message_as_it_is() {
    limit(async {
        let (_server, mut client, mut program) = serve_client(Config::default()).await;
        for (request, answer) in [(CALL, ANSWER), (CALL, ERROR)] {
            client.text(request).await;
            assert_eq!(program.line().await, request);
            program.write(NOTE).await;
            program.write(answer).await;
            assert_eq!(text(&mut client).await, NOTE);
            assert_eq!(text(&mut client).await, answer);
        }
        // From the server, and answered by the client.
        program.write(CALL).await;
        assert_eq!(text(&mut client).await, CALL);
        client.text(ERROR).await;
        assert_eq!(program.line().await, ERROR);
    })
    .await;
}

#[tokio::test]
async fn a_client_passes_on_each_message_as_it_is() {
    limit(async {
        let Relayed { mut host, mut server, relaying, listening: _listening, .. } = relayed().await;
        for (request, answer) in [(CALL, ANSWER), (CALL, ERROR)] {
            host.write(request).await;
            assert_eq!(server.line().await, request);
            server.write(NOTE).await;
            server.write(answer).await;
            assert_eq!(host.line().await, NOTE);
            assert_eq!(host.line().await, answer);
            server.write(request).await;
            assert_eq!(host.line().await, request);
            host.write(answer).await;
            assert_eq!(server.line().await, answer);
        }
        drop(host);
        assert_eq!(relaying.await.unwrap(), relay::Ended::EndFinished);
    })
    .await;
}

#[tokio::test]
async fn an_id_of_any_form_comes_back_as_it_was_a_string_by_its_value() {
    limit(async {
        let (_server, mut client, mut program) = serve_client(Config::default()).await;
        for (id, comes_back) in
            ["1.0", "9223372036854775808", "1e2", "-0", r#""json:1""#, "0", r#""""#, r#""\ud800""#]
                .map(|id| (id, id))
                .into_iter()
                .chain([(r#""\u0041\/""#, r#""A/""#)])
        {
            client.text(format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#)).await;
            // A program that reads ids and writes them anew, as any does.
            let request = program.json().await;
            program
                .write(json!({ "jsonrpc": "2.0", "id": request["id"], "result": {} }).to_string())
                .await;
            let answer = text(&mut client).await;
            assert!(answer.contains(&format!(r#""id":{comes_back}"#)), "{id}: {answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_order_of_what_a_program_says_is_kept() {
    limit(async {
        let (_server, mut client, mut program) = serve_client(Config::default()).await;
        let answering = tokio::spawn(async move {
            for id in 0..2000 {
                let request = program.json().await;
                assert_eq!(request["id"], id);
                for part in 0..3 {
                    let params = json!({ "progressToken": id, "progress": part });
                    let method = "notifications/progress";
                    let progress = json!({ "jsonrpc": "2.0", "method": method, "params": params });
                    program.write(progress.to_string()).await;
                }
                program
                    .write(json!({ "jsonrpc": "2.0", "id": id, "result": {} }).to_string())
                    .await;
            }
            program
        });
        let mut sent = 0;
        for id in 0..2000 {
            while sent < 2000 && sent < id + 64 {
                client.json(&json!({ "jsonrpc": "2.0", "id": sent, "method": "m" })).await;
                sent += 1;
            }
            for part in 0..3 {
                let progress = client.receive().await;
                assert_eq!(progress["params"]["progressToken"], id, "{progress}");
                assert_eq!(progress["params"]["progress"], part);
            }
            assert_eq!(client.receive().await["id"], id);
        }
        drop(answering.await.unwrap());
    })
    .await;
}

#[tokio::test]
async fn what_makes_an_end_knows_who_connects() {
    limit(async {
        let tokens = BearerTokens::default().token("s3cr3t", Identity::new("alice"));
        let config = Config::default().authenticator(tokens);
        let (_server, address, mut programs) = serve_programs(config).await;
        let url = format!("ws://{address}/mcp");
        assert!(connect::<relay::Client>(&url).await.is_err());
        let transport = connect::<relay::Client>(&url).bearer("s3cr3t").await.unwrap();
        let (end, _host) = program();
        let _relaying = tokio::spawn(async move { relay::run(transport, end).await });
        let (_program, extensions) = programs.recv().await.unwrap();
        assert_eq!(extensions.get::<Parts>().unwrap().uri.path(), "/mcp");
        assert_eq!(extensions.get::<Identity>().unwrap().subject(), "alice");
        assert!(extensions.get::<Connection>().is_some());
        assert!(programs.try_recv().is_err(), "a program for a client that is not let in");
    })
    .await;
}

#[tokio::test]
async fn a_message_that_is_none_is_answered_and_nothing_of_it_passed_on() {
    limit(async {
        let (_server, mut client, mut program) = serve_client(Config::default()).await;
        for (bad, code) in
            [("{", -32700), ("[]", -32600), (r#"{"jsonrpc":"2.0","id":{},"method":"m"}"#, -32600)]
        {
            client.send(Frame::text(bad)).await;
            let error = client.receive().await;
            assert_eq!(
                (&error["id"], &error["error"]["code"]),
                (&json!(null), &json!(code)),
                "{bad}"
            );
        }
        client.text(CALL).await;
        assert_eq!(program.line().await, CALL);
    })
    .await;
}
