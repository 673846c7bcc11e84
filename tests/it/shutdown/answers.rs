//! A server that stops has its answers read, not only written down, and what it refuses meanwhile
//! is answered by the next.

use std::time::Duration;

use futures::future::join_all;
use mcp_ws_transport::{
    connect,
    layer::{correlation, socket},
    server::{Config, serve_on},
    transport,
};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, net::TcpSocket, time::sleep};

use crate::common::{
    Tools, assert_tasks_left, call, handshake::try_upgrade, limit, ms, proxy::Proxy, raw::Raw,
    reconnect_within, serve_tools, tool_call,
};

/// A server that stops while one call is in flight; the next stands ready. What became of that
/// call, and of twenty that came meanwhile.
async fn relieved(resume: bool, retry: bool) -> (String, Vec<Result<String, String>>) {
    let (old, new) = (Tools::default(), Tools::default());
    let (first, address) = serve_tools(&old, Config::default()).await;
    let (second, next) = serve_tools(&new, Config::default()).await;
    let proxy = Proxy::new(address).await;
    let layers = transport::Config::default()
        .correlation(correlation::Config::default().retry_refused(retry));
    let client = reconnect_within(ms(20), connect(proxy.url())).resume(resume).transport(layers);
    let client = rmcp::ServiceExt::serve((), client.await.unwrap()).await.unwrap();
    let call = async |tool: &'static str, arguments: Value| match client
        .peer()
        .call_tool(tool_call(tool, arguments))
        .await
    {
        Ok(result) => Ok(result.content[0].as_text().unwrap().text.clone()),
        Err(rmcp::ServiceError::McpError(error)) => {
            Err(error.data.unwrap()["reason"].as_str().unwrap().to_owned())
        }
        Err(error) => panic!("{error}"),
    };
    let busy = call("wait", json!({}));
    let drain = async {
        old.begun(1).await;
        *proxy.target.lock().unwrap() = next;
        first.shutdown().await;
    };
    let meanwhile = async {
        old.begun(1).await;
        while try_upgrade(address, "").await.0.status() != 503 {
            sleep(Duration::from_millis(5)).await;
        }
        // Each connection begins to stop by itself. One that has the next server answer cannot
        // tell.
        while !retry && call("echo", json!({})).await.is_ok() {
            sleep(Duration::from_millis(1)).await;
        }
        let calls = join_all((0..20).map(|number| {
            let call = &call;
            async move { call("echo", json!({ "text": number.to_string() })).await }
        }));
        let relief = async {
            sleep(Duration::from_millis(100)).await;
            old.gate.notify_one();
        };
        tokio::join!(calls, relief).0
    };
    let (busy, (), calls) = tokio::join!(busy, drain, meanwhile);
    client.cancel().await.unwrap();
    second.shutdown().await;
    (busy.unwrap(), calls)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_stopping_server_refuses_the_next_one_answers() {
    for resume in [true, false] {
        let (busy, calls) = limit(relieved(resume, true)).await;
        assert_eq!(busy, "waited");
        let expected: Vec<_> = (0..20).map(|number: i32| Ok(number.to_string())).collect();
        assert_eq!(calls, expected, "resume {resume}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wants_to_be_told_is_told_that_the_server_stops() {
    let (busy, calls) = limit(relieved(true, false)).await;
    assert_eq!(busy, "waited");
    assert!(calls.iter().all(|call| *call == Err("stopping".to_owned())), "{calls:?}");
}

/// A large answer takes its time on a slow line, of which there is enough until the deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_on_a_slow_line_arrives_whole() {
    let size = 3 << 20;
    limit(async {
        let (near, far) = (TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap());
        far.set_send_buffer_size(16 << 10).unwrap();
        near.set_recv_buffer_size(32 << 10).unwrap();
        far.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let layers = transport::Config::default()
            .socket(socket::Config::default().close_timeout(Duration::from_millis(200)));
        let tools = Tools::default();
        let server = serve_on(far.listen(8).unwrap(), move || tools.clone());
        let server = server.config(Config::default().transport(layers)).await.unwrap();
        let address = server.local_addr();
        let mut raw = Raw::initialized_over(near.connect(address).await.unwrap(), address).await;
        raw.json(&call(1, "big", json!({ "size": size }))).await;
        raw.stream.readable().await.unwrap();
        let client = async {
            let (mut read, mut buffer) = (0, vec![0; 64 << 10]);
            while let Ok(count @ 1..) = raw.stream.read(&mut buffer).await {
                read += count;
                // Some four seconds for all.
                sleep(Duration::from_millis(40)).await;
            }
            read
        };
        let ((), read) = tokio::join!(server.shutdown(), client);
        assert!(read > size, "{read} bytes of {size}");
        assert_tasks_left(0).await;
    })
    .await;
}
