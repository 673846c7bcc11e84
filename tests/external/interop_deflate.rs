//! permessage-deflate with other implementations of it, live: the Python package `websockets`, also
//! in the MCP SDK, and `ws` for Node.js. What they need is installed as `tests/external/interop.rs`
//! says.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use mcp_ws_transport::{
    Message,
    layer::{
        Socket,
        socket::{self, Side, deflate},
    },
    stats::Stats,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    common::{
        limit,
        raw::{Head, accepted},
    },
    interop::file,
    process::{Process, math},
};

/// Answer to the offer of the SDK and of browsers.
const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// Sends back every message of every client, compressed as `config` has it.
async fn echo(config: deflate::Config) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, config));
        }
    });
    address
}

async fn serve(mut stream: TcpStream, config: deflate::Config) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
    let request = Head(String::from_utf8(request).unwrap());
    let offers = request.all("sec-websocket-extensions");
    let agreed = config.answer(offers.iter().map(|offer| offer.as_bytes()));
    let more = agreed.as_ref().map(|(_, answer)| format!("Sec-WebSocket-Extensions: {answer}\r\n"));
    let answer = accepted(&request, &more.unwrap_or_default());
    stream.write_all(answer.as_bytes()).await.unwrap();
    let sockets = socket::Config::default();
    let mut socket = match agreed {
        Some((agreement, _)) => Socket::deflating(
            stream,
            Bytes::new(),
            Side::Server,
            sockets.max_message_size(64 << 20),
            Stats::default(),
            agreement,
        ),
        None => Socket::new(stream, Side::Server, sockets.max_message_size(64 << 20)),
    };
    while let Some(Ok(message)) = socket.next().await {
        if matches!(message, Message::Text(_) | Message::Binary(_))
            && socket.send(message).await.is_err()
        {
            break;
        }
    }
    let _ = socket.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Python and the packages of tests/interop/requirements.txt"]
async fn every_combination_of_parameters_is_echoed_to_python() {
    let on = deflate::Config::default().threshold(0);
    for config in [on, on.context_takeover(true).level(6)] {
        let url = format!("ws://{}/", echo(config).await);
        let mut client =
            Process::spawn(file(".venv/bin/python"), &[&file("deflate.py"), "echo", &url]);
        for _ in 0..12 {
            let line = timeout(Duration::from_secs(60), client.stdout.next_line()).await.unwrap();
            let Some(line) = line.unwrap() else { panic!("{}", client.errors().await) };
            let case: Value = serde_json::from_str(&line).unwrap();
            println!("{case}");
            assert_eq!(case["agreed"].as_array().unwrap().len(), 1);
            assert_eq!(case["code"], 1000);
        }
        client.success().await;
    }
}

async fn math_server() -> (Process, String) {
    Process::server(math().await, &["serve", "--listen", "127.0.0.1:0", "--deflate"]).await
}

#[tokio::test]
#[ignore = "needs Node.js and the packages of tests/interop/package.json"]
async fn a_node_client_agrees_with_math_serve() {
    let (server, url) = math_server().await;
    file("node_modules/ws");
    let mut client = Process::spawn("node", &[&file("deflate.mjs"), &url]);
    let report: Value = client.json().await;
    let expected = json!({ "extensions": "permessage-deflate", "tools": 7, "sum": 12_497_500 });
    assert_eq!(report, expected);
    client.success().await;
    server.terminate().await;
}

#[tokio::test]
#[ignore = "needs Python and the packages of tests/interop/requirements.txt"]
async fn the_python_sdk_agrees_with_math_serve() {
    let (server, url) = math_server().await;
    let mut client = Process::spawn(file(".venv/bin/python"), &[&file("deflate.py"), "sdk", &url]);
    let report: Value = client.json().await;
    assert_eq!(report, json!({ "response": ANSWER, "tools": 7, "sum": 12_497_500 }));
    limit(client.child.wait()).await.unwrap();
    server.terminate().await;
}
