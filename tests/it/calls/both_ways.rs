//! Much in both directions at once: neither end may wait for the other to read.

use bytes::Bytes;
use mcp_ws_transport::{
    McpRole, WebSocketTransport,
    layer::{
        correlation, heartbeat, shared_link,
        socket::{self, Side},
    },
    transport::Config,
};
use rmcp::{
    RoleClient, RoleServer, model::JsonRpcMessage, service::TxJsonRpcMessage, transport::Transport,
};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::common::limit;

const REQUESTS: usize = 64;
const SIZE: usize = 60_000;

/// Sends its requests, answers those of the other end at the same size, and returns when its own
/// are all answered or refused, and those of the other end too.
async fn converse<R: McpRole>(mut transport: WebSocketTransport<R>) -> WebSocketTransport<R>
where
    TxJsonRpcMessage<R>: DeserializeOwned,
{
    let text = "x".repeat(SIZE);
    let message = |value| serde_json::from_value::<TxJsonRpcMessage<R>>(value).unwrap();
    for id in 0..REQUESTS {
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": "acme/echo", "params": { "text": text } });
        tokio::spawn(transport.send(message(request)));
    }
    let (mut answered, mut served) = (0, 0_u64);
    while answered < REQUESTS || served + transport.stats().snapshot().refused < REQUESTS as u64 {
        match transport.receive().await.expect("the link lives") {
            JsonRpcMessage::Request(request) => {
                let id = request.id.into_json_value();
                let answer = json!({ "jsonrpc": "2.0", "id": id, "result": { "text": text } });
                tokio::spawn(transport.send(message(answer)));
                served += 1;
            }
            JsonRpcMessage::Response(_) => answered += 1,
            JsonRpcMessage::Error(error) => {
                assert_eq!(error.error.data.unwrap()["reason"], "too_many_requests");
                answered += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    transport
}

async fn both_converse(correlation: correlation::Config) {
    limit(async {
        let (near, far) = tokio::io::duplex(4096);
        let config = Config::default()
            .shared_link(shared_link::Config::default().queue_bytes(128 << 10))
            .correlation(correlation);
        let client = WebSocketTransport::<RoleClient>::builder().transport(config.clone());
        let client = client.over_stream(near, Bytes::new(), Side::Client);
        let server = WebSocketTransport::<RoleServer>::builder().transport(config);
        let server = server.over_stream(far, Bytes::new(), Side::Server);
        let ends = tokio::join!(converse(client), converse(server));
        drop(ends);
    })
    .await;
}

#[tokio::test]
async fn two_ends_that_ask_and_answer_much_do_not_wait_for_each_other() {
    both_converse(correlation::Config::default()).await;
}

/// A refusal that waits behind much else does not keep its sender from reading.
#[tokio::test]
async fn two_ends_that_refuse_much_do_not_wait_for_each_other() {
    let config = correlation::Config::default().retry_refused(false);
    both_converse(config.clone().max_inbound(8)).await;
    both_converse(config.max_held_bytes(5 * SIZE)).await;
}

/// No setting of a time can be too long.
#[tokio::test]
async fn every_duration_may_be_for_ever() {
    use mcp_ws_transport::{connect, serve, server};
    use rmcp::ServiceExt;
    use std::time::Duration;

    limit(async {
        let ever = Duration::MAX;
        let config = Config::default()
            .socket(
                socket::Config::default()
                    .write_timeout(ever)
                    .close_timeout(ever)
                    .send_window(ever)
                    .receive_window(ever),
            )
            .heartbeat(
                heartbeat::Config::default()
                    .ping_interval(ever)
                    .pong_timeout(ever)
                    .idle_timeout(ever),
            )
            .correlation(correlation::Config::default().deadline(ever));
        let settings = server::Config::default().handshake_timeout(ever).transport(config.clone());
        let server =
            serve("127.0.0.1:0", crate::common::Tools::default).config(settings).await.unwrap();
        let url = format!("ws://{}/mcp", server.local_addr());
        let connect = connect(url).handshake_timeout(ever).transport(config);
        let client = ().serve(connect.await.unwrap()).await.unwrap();
        client.list_all_tools().await.unwrap();
        client.cancel().await.unwrap();
        server.shutdown().await;
    })
    .await;
}

/// CPU time of this thread.
#[cfg(target_os = "linux")]
fn cpu_time() -> std::time::Duration {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let running = times.split(' ').next().unwrap().parse().unwrap();
    std::time::Duration::from_nanos(running)
}

/// Answers pings, and sends as many itself when it is initialized.
#[derive(Clone)]
struct Pings(usize, tokio::sync::mpsc::UnboundedSender<usize>);

impl rmcp::ServerHandler for Pings {
    async fn on_initialized(&self, context: rmcp::service::NotificationContext<RoleServer>) {
        let Self(count, ended) = self.clone();
        tokio::spawn(async move {
            let request = || rmcp::model::PingRequest::default().into();
            let calls = (0..count).map(|_| context.peer.send_request(request()));
            let _ = ended.send(futures::future::join_all(calls).await.len());
        });
    }
}

/// Makes these numbers of calls from each end at once, with everything at its defaults, and returns the CPU
/// time that it takes.
#[cfg(target_os = "linux")]
async fn cost([from_client, from_server]: [usize; 2]) -> std::time::Duration {
    use mcp_ws_transport::{connect, serve};
    use rmcp::ServiceExt;

    let (ended, mut has_ended) = tokio::sync::mpsc::unbounded_channel();
    let server = serve("127.0.0.1:0", move || Pings(from_server, ended.clone())).await.unwrap();
    let url = format!("ws://{}/mcp", server.local_addr());
    let before = cpu_time();
    let client = ().serve(connect(url).await.unwrap()).await.unwrap();
    let request = || rmcp::model::PingRequest::default().into();
    let calls = (0..from_client).map(|_| client.send_request(request()));
    assert_eq!(futures::future::join_all(calls).await.len(), from_client);
    assert_eq!(has_ended.recv().await, Some(from_server));
    let spent = cpu_time() - before;
    client.cancel().await.unwrap();
    server.shutdown().await;
    spent
}

/// Prints what a call costs, from one end and from both, in growing numbers.
#[cfg(target_os = "linux")]
#[tokio::test]
#[ignore = "takes a minute, and measures: run it with --release --ignored --nocapture"]
async fn a_call_costs_the_same_however_many_there_are_both_ways() {
    let mut first = None;
    for count in [2_000, 5_000, 10_000, 20_000, 40_000, 60_000] {
        let one_way = cost([count, 0]).await / count as u32;
        let back = cost([0, count]).await / count as u32;
        let both_ways = cost([count; 2]).await / (2 * count) as u32;
        println!(
            "{count:6} calls: {one_way:?} each from the client, {back:?} from the server, {both_ways:?} both ways"
        );
        let first = *first.get_or_insert(both_ways);
        assert!(both_ways < 3 * first, "{both_ways:?} a call for {count}, and {first:?} for few");
    }
}
