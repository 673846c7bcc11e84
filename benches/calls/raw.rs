//! tokio-tungstenite alone: what is left when there is no rmcp.
//!
//! The bytes are those of the call and of its result. Both sides write what they have once there is
//! nothing more to read, with `TCP_NODELAY`.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::{FutureExt, SinkExt, StreamExt};
use rmcp::{RoleClient, model::ServerResult};
use rmcp::{
    model::{CallToolRequest, CallToolResult, ClientRequest, JsonRpcMessage, RequestId},
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    WebSocketStream, accept_async, client_async,
    tungstenite::{Message, Utf8Bytes},
};

use crate::{
    common::Result,
    load::{Case, Load, Sample},
    service::{self, Tool},
};

type Raw = WebSocketStream<TcpStream>;

pub(crate) async fn serve() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let result: RxJsonRpcMessage<RoleClient> = JsonRpcMessage::response(
        ServerResult::CallToolResult(CallToolResult::structured(json!({ "sum": 1000 }))),
        RequestId::Number(1000),
    );
    let result = Utf8Bytes::from(serde_json::to_string(&result)?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, result.clone()));
        }
    });
    Ok(addr)
}

async fn answer(stream: TcpStream, result: Utf8Bytes) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut websocket = accept_async(stream).await?;
    while let Some(call) = websocket.next().await {
        call?;
        websocket.feed(Message::Text(result.clone())).await?;
        while let Some(Some(call)) = websocket.next().now_or_never() {
            call?;
            websocket.feed(Message::Text(result.clone())).await?;
        }
        websocket.flush().await?;
    }
    Ok(())
}

pub(crate) async fn measure(addr: SocketAddr, load: Load) -> Result<Option<Sample>> {
    let in_flight = match load.case {
        Case::One => 1,
        Case::Many => load.in_flight,
        Case::Progress => return Ok(None),
    };
    let call: TxJsonRpcMessage<RoleClient> = JsonRpcMessage::request(
        ClientRequest::CallToolRequest(CallToolRequest::new(service::request(Tool::Add, 999))),
        RequestId::Number(1000),
    );
    let call = Utf8Bytes::from(serde_json::to_string(&call)?);
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    let (mut websocket, _) = client_async(format!("ws://{addr}/"), stream).await?;
    calls(&mut websocket, &call, in_flight, load.warm_up().duration).await?;
    let start = Instant::now();
    let times = calls(&mut websocket, &call, in_flight, load.duration).await?;
    let sample = Sample::new(times, start.elapsed());
    websocket.close(None).await?;
    Ok(Some(sample))
}

/// Keeps `in_flight` calls on their way for `duration`; how long each took.
async fn calls(
    websocket: &mut Raw,
    call: &Utf8Bytes,
    in_flight: usize,
    duration: Duration,
) -> Result<Vec<Duration>> {
    let end = Instant::now() + duration;
    let mut times = Vec::with_capacity(1 << 12);
    let mut sent = VecDeque::new();
    for _ in 0..in_flight {
        sent.push_back(Instant::now());
        websocket.feed(Message::Text(call.clone())).await?;
    }
    while !sent.is_empty() {
        websocket.flush().await?;
        let mut next = websocket.next().await;
        while let Some(answer) = next {
            answer?;
            let now = Instant::now();
            times.extend(sent.pop_front().map(|sent| now - sent));
            if now < end {
                sent.push_back(now);
                websocket.feed(Message::Text(call.clone())).await?;
            }
            next = websocket.next().now_or_never().flatten();
        }
    }
    Ok(times)
}
