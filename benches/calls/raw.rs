//! tokio-tungstenite alone, and a client of few bytes for servers of MCP.
//!
//! The bytes are those of the call and of its result. Both sides write what they have once there is
//! nothing more to read, with `TCP_NODELAY`.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::{FutureExt, SinkExt, StreamExt};
use rmcp::{
    RoleClient, RoleServer,
    model::{CallToolRequest, ClientRequest, JsonRpcMessage, RequestId, ServerResult},
    service::TxJsonRpcMessage,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_tungstenite::{
    WebSocketStream, accept_async, client_async,
    tungstenite::{Message, Utf8Bytes},
};

use crate::{
    common::{Result, script::Script},
    load::{Load, Sample},
    service::Tool,
};

/// The id of each call, until it gets one of its own.
const ID: i64 = 1_000_000_007;

/// The peer that is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// What [`serve`] serves.
    Echo,
    /// A server of MCP.
    Mcp,
}

/// Answers every message with the first one of its connection.
pub(crate) async fn serve() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    Ok(addr)
}

async fn answer(stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut websocket = accept_async(stream).await?;
    let result = websocket.next().await.ok_or("not a message")??;
    while let Some(call) = websocket.next().await {
        call?;
        websocket.feed(result.clone()).await?;
        while let Some(Some(call)) = websocket.next().now_or_never() {
            call?;
            websocket.feed(result.clone()).await?;
        }
        websocket.flush().await?;
    }
    Ok(())
}

pub(crate) async fn measure(url: &str, peer: Peer, server: u32, load: Load) -> Result<Sample> {
    let mut clients = Vec::with_capacity(load.connections);
    for _ in 0..load.connections {
        clients.push(Client::open(url, peer, load.case.tool()).await?);
    }
    load.sample(Some(server), async |duration| {
        let end = Instant::now() + duration;
        let calls: JoinSet<_> =
            clients.drain(..).map(|client| client.calls(load.in_flight, end)).collect();
        let mut all = Vec::new();
        for outcome in calls.join_all().await {
            let (client, times) = outcome?;
            clients.push(client);
            all.extend(times);
        }
        Ok(all)
    })
    .await
}

struct Client {
    websocket: WebSocketStream<TcpStream>,
    calls: Calls,
}

/// Messages that are sent, in turn.
enum Calls {
    Same(Utf8Bytes),
    Numbered { before: String, next: u64, after: String },
}

impl Calls {
    fn next(&mut self) -> Message {
        Message::Text(match self {
            Self::Same(call) => call.clone(),
            Self::Numbered { before, next, after } => {
                *next += 1;
                format!("{before}{next}{after}").into()
            }
        })
    }
}

impl Client {
    async fn open(url: &str, peer: Peer, tool: Tool) -> Result<Self> {
        let call: TxJsonRpcMessage<RoleClient> = JsonRpcMessage::request(
            ClientRequest::CallToolRequest(CallToolRequest::new(tool.request(999))),
            RequestId::Number(ID),
        );
        let call = serde_json::to_string(&call)?;
        let addr = url.split('/').nth(2).ok_or("not a URL")?;
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let (mut websocket, _) = client_async(url, stream).await?;
        let calls = match peer {
            Peer::Echo => {
                let result: TxJsonRpcMessage<RoleServer> = JsonRpcMessage::response(
                    ServerResult::CallToolResult(tool.result(999)),
                    RequestId::Number(ID),
                );
                websocket.send(Message::text(serde_json::to_string(&result)?)).await?;
                Calls::Same(call.into())
            }
            Peer::Mcp => {
                let script = Script::new()?;
                websocket.send(Message::text(script.initialize)).await?;
                let _ = websocket.next().await.ok_or("initialize is not answered")??;
                websocket.send(Message::text(script.initialized)).await?;
                let (before, after) = call.split_once(&ID.to_string()).ok_or("no id")?;
                Calls::Numbered { before: before.into(), next: 0, after: after.into() }
            }
        };
        Ok(Self { websocket, calls })
    }

    /// Keeps `in_flight` calls on their way until `end`; how long each took.
    async fn calls(mut self, in_flight: usize, end: Instant) -> Result<(Self, Vec<Duration>)> {
        let mut times = Vec::with_capacity(1 << 12);
        let mut sent = VecDeque::new();
        for _ in 0..in_flight {
            sent.push_back(Instant::now());
            self.websocket.feed(self.calls.next()).await?;
        }
        while !sent.is_empty() {
            self.websocket.flush().await?;
            let mut next = self.websocket.next().await;
            while let Some(answer) = next {
                if !check(&answer?)? {
                    next = self.websocket.next().now_or_never().flatten();
                    continue;
                }
                let now = Instant::now();
                times.extend(sent.pop_front().map(|sent| now - sent));
                if now < end {
                    sent.push_back(now);
                    self.websocket.feed(self.calls.next()).await?;
                }
                next = self.websocket.next().now_or_never().flatten();
            }
        }
        Ok((self, times))
    }
}

/// Returns `true` if it is a result. Nothing else may be but what WebSockets say by themselves.
fn check(answer: &Message) -> Result<bool> {
    match answer {
        Message::Text(text) if text.contains("\"result\"") => Ok(true),
        Message::Ping(_) | Message::Pong(_) => Ok(false),
        other => Err(format!("a call is answered with {other:?}").into()),
    }
}
