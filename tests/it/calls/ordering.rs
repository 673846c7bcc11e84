//! Messages arrive in the order in which they were sent, whoever waits for them.

use std::time::Duration;

use bytes::Bytes;
use mcp_ws_transport::{
    WebSocketTransport, connect,
    layer::{shared_link, socket::Side},
    transport::Config,
};
use rmcp::{
    RoleClient,
    model::{NumberOrString, ProgressNotificationParam, ProgressToken},
    transport::Transport,
};
use serde_json::json;

use crate::common::{client_and_raw, limit, pair, raw::Raw};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sends_that_are_awaited_by_many_tasks_keep_their_order() {
    limit(async {
        let (near, far) = pair().await;
        let config =
            Config::default().shared_link(shared_link::Config::default().queue_bytes(10_000));
        let mut transport = WebSocketTransport::<RoleClient>::builder()
            .transport(config)
            .over_stream(near, Bytes::new(), Side::Client);
        let peer = tokio::spawn(async move {
            let mut raw = Raw::over(far, false);
            for number in 0..3000 {
                assert_eq!(raw.receive().await["params"]["progress"], f64::from(number));
                if number % 500 == 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            raw
        });
        let sends: Vec<_> = (0..3000_usize)
            .map(|number| {
                let message = json!({
                    "jsonrpc": "2.0", "method": "notifications/progress",
                    "params": {
                        "progressToken": "t", "progress": number,
                        "message": "x".repeat(number % 17 * 100),
                    },
                });
                let send = transport.send(serde_json::from_value(message).unwrap());
                // Some are never polled, some dropped half-way, most awaited, in any order.
                match number % 7 {
                    0 => {
                        drop(send);
                        None
                    }
                    1 => {
                        let send = tokio::spawn(send);
                        send.abort();
                        None
                    }
                    _ => Some(tokio::spawn(send)),
                }
            })
            .collect();
        for send in sends.into_iter().flatten().rev() {
            send.await.unwrap().unwrap();
        }
        tokio::select! {
            raw = peer => drop(raw.unwrap()),
            received = transport.receive() => panic!("{received:?}"),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_calls_of_each_task_of_a_client_arrive_in_order() {
    limit(async {
        let (client, _, mut raw) = client_and_raw(connect).await;
        for task in 0..16 {
            let peer = client.peer().clone();
            tokio::spawn(async move {
                for number in 0..100 {
                    let token = ProgressToken(NumberOrString::Number(task));
                    let param = ProgressNotificationParam::new(token, f64::from(number));
                    peer.notify_progress(param).await.unwrap();
                }
            });
        }
        let mut next = [0.0; 16];
        for _ in 0..1600 {
            let message = raw.receive().await;
            let task = message["params"]["progressToken"].as_u64().unwrap() as usize;
            assert_eq!(message["params"]["progress"], next[task], "task {task}");
            next[task] += 1.0;
        }
    })
    .await;
}
