//! The client of this crate, and a server that is not counted.

use std::mem;

use futures::{SinkExt, StreamExt, future::try_join_all};
use mcp_ws_transport::connect;
use rmcp::ServiceExt;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        http::HeaderValue,
    },
};

use crate::{load::Load, result::Result, uncounted::Uncounted};

/// Makes the calls of `load`.
pub(crate) async fn calls(load: Load) -> Result<()> {
    let client = ().serve(connect(start(&load).await?).await?).await?;
    let (peer, params) = (client.peer(), load.params());
    for _ in 0..load.calls / load.in_flight {
        let calls = (0..load.in_flight).map(|_| peer.call_tool(params.clone()));
        for result in try_join_all(calls).await? {
            if result.is_error == Some(true) {
                return Err(format!("{result:?}").into());
            }
        }
    }
    Ok(())
}

/// Makes as many connections as `load` has calls, one after the other.
pub(crate) async fn connections(load: Load) -> Result<()> {
    let url = start(&load).await?;
    for _ in 0..load.calls {
        let client = ().serve(connect(url.clone()).await?).await?;
        client.cancel().await?;
    }
    Ok(())
}

/// Starts the server, and returns its URL.
async fn start(load: &Load) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}/mcp", listener.local_addr()?);
    let load = load.clone();
    tokio::spawn(Uncounted::new(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Err(error) = answer(stream, &load).await {
                eprintln!("the server failed: {error}");
            }
        }
    }));
    Ok(url)
}

#[expect(clippy::result_large_err, reason = "it is tungstenite's")]
fn choose(_request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let chosen = HeaderValue::from_static("mcp.resume.v1");
    response.headers_mut().insert("sec-websocket-protocol", chosen);
    Ok(response)
}

/// Serves one connection.
async fn answer(stream: TcpStream, load: &Load) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut websocket = accept_hdr_async(stream, choose).await?;
    let answer = load.answer();
    let (mut received, mut ids) = (0_u64, Vec::new());
    while let Some(message) = websocket.next().await.transpose()? {
        let Message::Text(text) = message else { continue };
        if text.starts_with("@open") {
            let session = json!({
                "session": "s", "secret": "s", "received": 0, "resumed": false,
                "window_s": 120, "window_bytes": 1 << 20,
            });
            send(&mut websocket, format!("@session {session}")).await?;
        }
        if text.starts_with('@') {
            continue;
        }
        received += 1;
        let message: Value = serde_json::from_str(&text)?;
        let Some(id) = message["id"].as_u64() else { continue };
        if message["method"] == "initialize" {
            let result = json!({
                "protocolVersion": message["params"]["protocolVersion"],
                "capabilities": { "tools": {} },
                "serverInfo": { "name": "raw", "version": "1" },
            });
            let answer = json!({ "jsonrpc": "2.0", "id": id, "result": result });
            send(&mut websocket, answer.to_string()).await?;
            continue;
        }
        ids.push(id);
        if ids.len() == load.burst {
            for id in mem::take(&mut ids) {
                let text = format!(r#"{{"jsonrpc":"2.0","id":{id}{answer}"#);
                websocket.feed(Message::text(text)).await?;
            }
            if load.burst > 1 || received % 16 == 0 {
                websocket.feed(Message::text(format!("@ack {received}"))).await?;
            }
            websocket.flush().await?;
        }
    }
    Ok(())
}

async fn send(websocket: &mut WebSocketStream<TcpStream>, text: String) -> Result<()> {
    Ok(websocket.send(Message::text(text)).await?)
}
