//! The stop of a server with relays.

use std::time::Duration;

use mcp_ws_transport::server::{Config, Drain};
use serde_json::json;
use tokio::task::JoinHandle;

use super::{Program, serve_client};
use crate::common::{
    limit,
    raw::{Frame, Raw},
};

/// Sends a request, which the program gets.
async fn ask(client: &mut Raw, program: &mut Program, id: u64, method: &str) {
    client.json(&json!({ "jsonrpc": "2.0", "id": id, "method": method })).await;
    assert_eq!(program.json().await["id"], id);
}

/// Sends requests until one is refused: the stop has begun. Those before it are answered.
async fn until_refused(client: &mut Raw, program: &mut Program, first: u64) {
    for id in first.. {
        client.json(&json!({ "jsonrpc": "2.0", "id": id, "method": "n" })).await;
        tokio::select! {
            refused = client.receive() => {
                assert_eq!(refused["error"]["data"]["reason"], "stopping", "{refused}");
                return;
            }
            asked = program.json() => {
                let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": {} });
                program.write(answer.to_string()).await;
                client.receive().await;
            }
        }
    }
}

/// Closes as the client of a server that has stopped, whose program ends.
async fn stopped<T>(mut client: Raw, mut program: Program, stopping: JoinHandle<T>) {
    assert_eq!(client.closed().await.0, 1012);
    client.send(Frame::close(1012)).await;
    program.end().await;
    stopping.await.unwrap();
}

#[tokio::test]
async fn what_is_in_flight_is_answered_and_nothing_more_begins() {
    limit(async {
        let (server, mut client, mut program) = serve_client(Config::default()).await;
        client.initialize_program(&mut program).await;
        ask(&mut client, &mut program, 1, "m").await;
        let stopping = tokio::spawn(server.shutdown());
        until_refused(&mut client, &mut program, 2).await;
        program.write(r#"{"jsonrpc":"2.0","id":1,"result":7}"#).await;
        assert_eq!(client.receive().await["result"], 7);
        stopped(client, program, stopping).await;
    })
    .await;
}

#[tokio::test]
async fn a_subscription_keeps_nobody_from_stopping() {
    limit(async {
        let (server, mut client, mut program) = serve_client(Config::default()).await;
        ask(&mut client, &mut program, 1, "subscriptions/listen").await;
        let stopping = tokio::spawn(server.shutdown());
        assert_eq!(client.receive().await["error"]["data"]["reason"], "outcome_unknown");
        stopped(client, program, stopping).await;
    })
    .await;
}

#[tokio::test]
async fn a_program_that_does_not_answer_is_cut_at_the_deadline() {
    limit(async {
        let drain = Drain::default().deadline(Duration::from_millis(200));
        let (server, mut client, mut program) = serve_client(Config::default().drain(drain)).await;
        ask(&mut client, &mut program, 1, "m").await;
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
        let (server, mut client, mut program) = serve_client(Config::default()).await;
        ask(&mut client, &mut program, 1, "subscriptions/listen").await;
        program.write(r#"{"jsonrpc":"2.0","id":1,"result":NaN}"#).await;
        assert_eq!(client.receive().await["error"]["data"]["reason"], "unreadable");
        ask(&mut client, &mut program, 2, "m").await;
        let stopping = tokio::spawn(server.shutdown());
        until_refused(&mut client, &mut program, 3).await;
        program.write(r#"{"jsonrpc":"2.0","id":2,"result":7}"#).await;
        assert_eq!(client.receive().await["result"], 7);
        stopped(client, program, stopping).await;
    })
    .await;
}
