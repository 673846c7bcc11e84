//! Relays over connections that are lost: nothing is lost with them.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use mcp_ws_transport::{
    connect, relay,
    server::{Config, Server},
};
use proptest::{
    prelude::RngExt as _,
    test_runner::{RngAlgorithm, TestRng},
};
use serde_json::json;
use tokio::task::JoinHandle;

use super::{Program, Programs, program, serve_programs};
use crate::common::{
    limit, ms,
    proxy::{Faults, Proxy},
    raw::initialize,
    reconnect_policy, scale, within,
};

/// A relay between a host and a server, both of which have initialized MCP, over connections
/// that can be cut.
struct CuttableRelay {
    host: Program,
    server: Program,
    proxy: Proxy,
    relaying: JoinHandle<relay::Ended>,
    listening: Server<relay::Server>,
    programs: Programs,
}

async fn cuttable_relay() -> CuttableRelay {
    let (listening, address, mut programs) = serve_programs(Config::default()).await;
    let proxy = Proxy::new(address).await;
    let transport =
        connect::<relay::Client>(proxy.url()).reconnect(reconnect_policy(ms(5))).await.unwrap();
    let (end, mut host) = program();
    let relaying = tokio::spawn(async move { relay::run(transport, end).await });
    let (mut server, _) = programs.recv().await.unwrap();
    tokio::join!(host.initialize(), server.answer_initialize());
    CuttableRelay { host, server, proxy, relaying, listening, programs }
}

/// Has each connection be cut after some bytes, from now on.
fn cut_often(proxy: &Proxy, seed: u8) {
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    proxy.draw_faults(move || Faults {
        cut_after: Some(random.random_range(1..6000)),
        reset: random.random(),
        ..Faults::default()
    });
    proxy.cut();
}

fn assert_cuts(proxy: &Proxy, least: usize) {
    let cuts = proxy.dials.load(SeqCst);
    assert!(cuts > least, "only {cuts} connections");
}

/// Answers each request with how many it has had with that id.
async fn count(mut program: Program, requests: usize) -> Program {
    let mut times = std::collections::HashMap::new();
    for _ in 0..requests {
        let request = program.json().await;
        let id = request["id"].as_u64().unwrap();
        let count = times.entry(id).or_insert(0);
        *count += 1;
        let answer = json!({ "jsonrpc": "2.0", "id": id, "result": *count });
        program.write(answer.to_string()).await;
    }
    program
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_cuts_no_program_and_no_host_notices_anything() {
    let requests = scale(500, 2000);
    within(Duration::from_secs(120), async {
        let CuttableRelay {
            mut host,
            server,
            proxy,
            relaying,
            mut programs,
            listening: _listening,
        } = cuttable_relay().await;
        cut_often(&proxy, 7);
        let counting = tokio::spawn(count(server, requests));
        let mut sent = 0;
        for answered in 0..requests {
            while sent < requests && sent < answered + 10 {
                host.write(json!({ "jsonrpc": "2.0", "id": sent, "method": "m" }).to_string())
                    .await;
                sent += 1;
            }
            let answer = host.line().await;
            assert_eq!(answer, format!(r#"{{"id":{answered},"jsonrpc":"2.0","result":1}}"#));
        }
        assert_cuts(&proxy, requests / 50);
        assert!(programs.try_recv().is_err(), "a second program for one session");
        let _server = counting.await.unwrap();
        drop(host);
        assert_eq!(relaying.await.unwrap(), relay::Ended::EndFinished);
    })
    .await;
}

#[tokio::test]
async fn a_host_goes_on_with_the_next_server() {
    limit(async {
        let CuttableRelay { mut host, mut server, proxy, relaying, listening: first, .. } =
            cuttable_relay().await;
        host.write(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#).await;
        assert_eq!(server.json().await["id"], 1);

        let (_second, address, mut programs) = serve_programs(Config::default()).await;
        *proxy.target.lock().unwrap() = address;
        proxy.cut();
        drop(first);
        // `initialize` is repeated, and the host sees nothing of it.
        let (mut server, _) = programs.recv().await.unwrap();
        server.answer_initialize().await;
        let lost = host.json().await;
        assert_eq!(lost["error"]["data"]["reason"], "outcome_unknown", "{lost}");
        host.write(r#"{"jsonrpc":"2.0","id":2,"method":"m"}"#).await;
        assert_eq!(server.json().await["id"], 2);
        server.write(r#"{"jsonrpc":"2.0","id":2,"result":{}}"#).await;
        assert_eq!(host.json().await["id"], 2);
        drop(host);
        relaying.await.unwrap();
    })
    .await;
}

/// MCP forbids it, and scripts do it.
#[tokio::test]
async fn a_host_with_one_id_for_all_goes_on_with_the_next_server() {
    limit(async {
        let CuttableRelay { mut host, mut server, proxy, listening: first, .. } =
            cuttable_relay().await;
        let id = initialize("2025-06-18")["id"].clone();
        let call = json!({ "jsonrpc": "2.0", "id": id, "method": "m" }).to_string();
        host.write(&call).await;
        assert_eq!(server.json().await["id"], id);
        let error = json!({ "code": -32602, "message": "no" });
        server.write(json!({ "jsonrpc": "2.0", "id": id, "error": error }).to_string()).await;
        assert_eq!(host.json().await["error"]["code"], -32602);
        host.write(&call).await;
        assert_eq!(server.json().await["id"], id);

        let (_second, address, mut programs) = serve_programs(Config::default()).await;
        *proxy.target.lock().unwrap() = address;
        proxy.cut();
        drop(first);
        let (mut server, _) = programs.recv().await.unwrap();
        let lost = host.json().await;
        assert_eq!(
            (&lost["id"], &lost["error"]["data"]["reason"]),
            (&id, &"outcome_unknown".into())
        );
        host.write(&call).await;
        server.answer_initialize().await;
        assert_eq!(server.json().await["id"], id);
        server.write(json!({ "jsonrpc": "2.0", "id": id, "result": {} }).to_string()).await;
        assert!(host.json().await["result"].is_object());
    })
    .await;
}

#[tokio::test]
async fn a_program_that_dies_is_replaced_and_the_host_goes_on() {
    limit(async {
        let CuttableRelay { mut host, mut server, mut programs, listening: _listening, .. } =
            cuttable_relay().await;
        host.write(r#"{"jsonrpc":"2.0","id":1,"method":"m"}"#).await;
        server.json().await;
        drop(server);
        assert_eq!(host.json().await["error"]["data"]["reason"], "outcome_unknown");
        let (mut server, _) = programs.recv().await.unwrap();
        server.answer_initialize().await;
        host.write(r#"{"jsonrpc":"2.0","id":2,"method":"m"}"#).await;
        assert_eq!(server.json().await["id"], 2);
    })
    .await;
}

/// Asks `requests` times with up to ten at once, and answers what the other side asks, after a
/// notification of progress. Ids and progress tokens of both sides are the same.
async fn ask_and_answer(program: Program, requests: usize) -> Program {
    let Program { mut output, mut input } = program;
    let message = |mut message: serde_json::Value| {
        message["jsonrpc"] = "2.0".into();
        format!("{message}\n")
    };
    let (mut asked, mut told, mut answered, mut served) = (0, 0, 0, 0);
    while answered < requests || served < requests {
        let mut text = String::new();
        while asked < requests.min(answered + 10) {
            let params = json!({ "_meta": { "progressToken": asked } });
            text += &message(json!({ "id": asked, "method": "m", "params": params }));
            asked += 1;
        }
        tokio::io::AsyncWriteExt::write_all(&mut input, text.as_bytes()).await.unwrap();
        let mut line = String::new();
        tokio::io::AsyncBufReadExt::read_line(&mut output, &mut line).await.unwrap();
        let received: serde_json::Value = serde_json::from_str(&line).unwrap();
        if received["method"] == "notifications/progress" {
            assert_eq!((&received["params"]["progressToken"], told), (&json!(told), answered));
            told += 1;
        } else if received["method"] == "m" {
            assert_eq!(received["id"], served, "a request is lost, or comes twice");
            let params = json!({ "progressToken": received["id"], "progress": 1 });
            let text = message(json!({ "method": "notifications/progress", "params": params }))
                + &message(json!({ "id": received["id"], "result": {} }));
            tokio::io::AsyncWriteExt::write_all(&mut input, text.as_bytes()).await.unwrap();
            served += 1;
        } else {
            assert_eq!((&received["id"], told), (&json!(answered), answered + 1), "{received}");
            assert!(received["result"].is_object(), "{received}");
            answered += 1;
        }
    }
    Program { output, input }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_cuts_neither_side_notices_what_it_asks_and_is_asked() {
    let requests = scale(300, 2000);
    within(Duration::from_secs(120), async {
        let CuttableRelay { host, server, proxy, listening: _listening, .. } =
            cuttable_relay().await;
        cut_often(&proxy, 3);
        let sides = (ask_and_answer(host, requests), ask_and_answer(server, requests));
        let _programs = tokio::join!(sides.0, sides.1);
        assert_cuts(&proxy, requests / 50);
    })
    .await;
}
