//! The stop of a server with relays.

use std::time::Duration;

use mcp_ws_transport::server::{Config, Drain};
use serde_json::json;

use super::serve_programs;
use crate::common::{limit, raw::Raw};

#[tokio::test]
async fn what_is_in_flight_is_answered_and_nothing_more_begins() {
    limit(async {
        let (server, address, mut programs) = serve_programs(Config::default()).await;
        let mut client = Raw::dial(address).await;
        let (mut program, _) = programs.recv().await.unwrap();
        client.initialize_program(&mut program).await;
        client.json(&json!({ "jsonrpc": "2.0", "id": 1, "method": "m" })).await;
        assert_eq!(program.json().await["id"], 1);
        let stopping = tokio::spawn(server.shutdown());
        let refused = loop {
            // Those before the stop get through, and are answered.
            client.json(&json!({ "jsonrpc": "2.0", "id": 2, "method": "n" })).await;
            tokio::select! {
                answer = client.receive() => break answer,
                asked = program.json() => {
                    let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": {} });
                    program.write(answer.to_string()).await;
                    client.receive().await;
                }
            }
        };
        assert_eq!(refused["error"]["data"]["reason"], "stopping", "{refused}");
        program.write(r#"{"jsonrpc":"2.0","id":1,"result":7}"#).await;
        assert_eq!(client.receive().await["result"], 7);
        assert_eq!(client.closed().await.0, 1012);
        client.send(crate::common::raw::Frame::close(1012)).await;
        program.end().await;
        stopping.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_subscription_keeps_nobody_from_stopping() {
    limit(async {
        let (server, address, mut programs) = serve_programs(Config::default()).await;
        let mut client = Raw::dial(address).await;
        let (mut program, _) = programs.recv().await.unwrap();
        client.json(&json!({ "jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen" })).await;
        assert_eq!(program.json().await["id"], 1);
        let stopping = tokio::spawn(server.shutdown());
        assert_eq!(client.receive().await["error"]["data"]["reason"], "outcome_unknown");
        assert_eq!(client.closed().await.0, 1012);
        client.send(crate::common::raw::Frame::close(1012)).await;
        program.end().await;
        stopping.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_program_that_does_not_answer_is_cut_at_the_deadline() {
    limit(async {
        let drain = Drain::default().deadline(Duration::from_millis(200));
        let (server, address, mut programs) = serve_programs(Config::default().drain(drain)).await;
        let mut client = Raw::dial(address).await;
        let (mut program, _) = programs.recv().await.unwrap();
        client.json(&json!({ "jsonrpc": "2.0", "id": 1, "method": "m" })).await;
        assert_eq!(program.json().await["id"], 1);
        let stopping = tokio::spawn(server.shutdown());
        assert_eq!(client.receive().await["error"]["data"]["reason"], "outcome_unknown");
        assert_eq!(client.closed().await.0, 1012);
        stopping.await.unwrap();
    })
    .await;
}

/// A subscription that has ended does not stand for a call that has not.
#[tokio::test]
async fn a_call_is_waited_for_after_a_subscription_whose_answer_was_unreadable() {
    limit(async {
        let (server, address, mut programs) = serve_programs(Config::default()).await;
        let mut client = Raw::dial(address).await;
        let (mut program, _) = programs.recv().await.unwrap();
        client.json(&json!({ "jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen" })).await;
        assert_eq!(program.json().await["id"], 1);
        program.write(r#"{"jsonrpc":"2.0","id":1,"result":NaN}"#).await;
        assert_eq!(client.receive().await["error"]["data"]["reason"], "unreadable");
        client.json(&json!({ "jsonrpc": "2.0", "id": 2, "method": "m" })).await;
        assert_eq!(program.json().await["id"], 2);
        let stopping = tokio::spawn(server.shutdown());
        // The stop has begun when nothing more may.
        let mut id = 3;
        loop {
            client.json(&json!({ "jsonrpc": "2.0", "id": id, "method": "m" })).await;
            tokio::select! {
                refused = client.receive() => {
                    assert_eq!(refused["error"]["data"]["reason"], "stopping", "{refused}");
                    break;
                }
                asked = program.json() => {
                    let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": {} });
                    program.write(answer.to_string()).await;
                    client.receive().await;
                }
            }
            id += 1;
        }
        program.write(r#"{"jsonrpc":"2.0","id":2,"result":7}"#).await;
        assert_eq!(client.receive().await["result"], 7);
        assert_eq!(client.closed().await.0, 1012);
        client.send(crate::common::raw::Frame::close(1012)).await;
        program.end().await;
        stopping.await.unwrap();
    })
    .await;
}
