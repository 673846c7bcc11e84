//! Ends that do not read, and ends that write before they read.

use std::time::Duration;

use mcp_ws_transport::{layer::correlation, server::Config, transport};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Relayed, relayed, serve_client, serve_programs};
use crate::common::{
    limit,
    raw::{Frame, PING, PONG, Raw},
    scale,
};

#[tokio::test]
async fn a_host_that_reads_no_answers_is_not_read_for_ever() {
    limit(async {
        let Relayed { mut host, mut server, listening: _listening, .. } = relayed().await;
        let mut asked = 0;
        loop {
            assert!(asked < 50, "all of its requests are read");
            host.write(json!({ "jsonrpc": "2.0", "id": asked, "method": "m" }).to_string()).await;
            asked += 1;
            let Ok(request) = timeout(Duration::from_secs(2), server.json()).await else { break };
            let result = "z".repeat(1 << 20);
            let answer = json!({ "jsonrpc": "2.0", "id": request["id"], "result": result });
            server.write(answer.to_string()).await;
        }
        assert!(asked > 10, "{asked}");
        // It reads at last.
        let host = tokio::spawn(async move {
            for id in 0..asked {
                assert_eq!(host.json().await["id"], id);
            }
        });
        let id = server.json().await["id"].clone();
        server.write(json!({ "jsonrpc": "2.0", "id": id, "result": {} }).to_string()).await;
        host.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn two_floods_pass_each_other() {
    const MESSAGES: u64 = 300;
    limit(async {
        let Relayed { mut host, mut server, listening: _listening, .. } = relayed().await;
        tokio::join!(host.initialize(), server.answer_initialize());
        let flood = |program: super::Program| async move {
            let super::Program { mut output, mut input } = program;
            let writing = tokio::spawn(async move {
                for n in 0..MESSAGES {
                    let pad = "x".repeat(100_000);
                    let note = json!({ "jsonrpc": "2.0", "method": "n", "params": [n, pad] });
                    let line = format!("{note}\n");
                    tokio::io::AsyncWriteExt::write_all(&mut input, line.as_bytes()).await.unwrap();
                }
                input
            });
            for n in 0..MESSAGES {
                let mut line = String::new();
                tokio::io::AsyncBufReadExt::read_line(&mut output, &mut line).await.unwrap();
                let note: Value = serde_json::from_str(&line).unwrap();
                assert_eq!(note["params"][0], n);
            }
            (writing.await.unwrap(), output)
        };
        let (_host, _server) = tokio::join!(flood(host), flood(server));
    })
    .await;
}

/// What waits for an end counts as what it takes, not as what came over the wire.
#[tokio::test]
async fn many_small_messages_take_no_more_memory_than_allowed() {
    const NOTES: usize = 30_000;
    limit(async {
        let bound = correlation::Config::default().max_inbound_memory(1 << 20);
        let config = Config::default().transport(transport::Config::default().correlation(bound));
        let (_server, mut client, mut program) = serve_client(config).await;
        for _ in 0..NOTES {
            client.text(r#"{"jsonrpc":"2.0","method":"n"}"#).await;
        }
        // What came before its answer has been dealt with.
        client.send(Frame::new(PING, "?")).await;
        assert_eq!(client.next().await.unwrap().opcode, PONG);
        client.text(r#"{"jsonrpc":"2.0","id":1,"method":"last"}"#).await;
        let mut kept = 0;
        while program.json().await["method"] == "n" {
            kept += 1;
        }
        assert!((2000..10_000).contains(&kept), "{kept}");
    })
    .await;
}

#[tokio::test]
async fn many_relays_at_once_mix_nothing_up() {
    limit(async {
        let (_server, address, mut programs) = serve_programs(Config::default()).await;
        let mut clients = tokio::task::JoinSet::new();
        for own in 0..scale(200, 1000) {
            let mut client = Raw::dial(address).await;
            let (mut program, _) = programs.recv().await.unwrap();
            tokio::spawn(async move {
                for _ in 0..10 {
                    let id = program.json().await["id"].clone();
                    let answer = json!({ "jsonrpc": "2.0", "id": id, "result": own });
                    program.write(answer.to_string()).await;
                }
                program
            });
            clients.spawn(async move {
                for id in 0..10 {
                    client.json(&json!({ "jsonrpc": "2.0", "id": id, "method": "m" })).await;
                    let answer = client.receive().await;
                    assert_eq!((&answer["id"], &answer["result"]), (&json!(id), &json!(own)));
                    tokio::task::yield_now().await;
                }
                client
            });
        }
        assert!(clients.join_all().await.len() >= 200);
    })
    .await;
}
