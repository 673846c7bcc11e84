//! The server of this crate, and a client that is not counted.

use std::net::SocketAddr;

use futures::{FutureExt, SinkExt, StreamExt};
use mcp_ws_transport::serve;
use rmcp::{
    Json, ServerHandler,
    handler::server::{router::tool::ToolRouter, wrapper::Parameters},
    tool, tool_handler, tool_router,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        ClientRequestBuilder, Message, Utf8Bytes,
        protocol::{Role, WebSocketConfig},
    },
};

use crate::{
    load::{Load, request},
    result::Result,
    uncounted::Uncounted,
};

#[derive(Debug, Clone)]
struct Tools {
    tool_router: ToolRouter<Self>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Summands {
    a: i64,
    b: i64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Sum {
    sum: i64,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Text {
    text: String,
}

#[tool_router]
impl Tools {
    fn new() -> Self {
        Self { tool_router: Self::tool_router() }
    }

    #[tool(description = "Adds two numbers")]
    async fn add(&self, Parameters(Summands { a, b }): Parameters<Summands>) -> Json<Sum> {
        Json(Sum { sum: a + b })
    }

    #[tool(description = "Says the same again")]
    async fn echo(&self, Parameters(Text { text }): Parameters<Text>) -> String {
        text
    }
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Tools {}

/// Answers the calls of `load`.
pub(crate) async fn calls(load: Load) -> Result<()> {
    let server = serve("127.0.0.1:0", Tools::new).await?;
    Uncounted::new(call(server.local_addr(), load)).await
}

/// Serves `count` connections, one after the other.
pub(crate) async fn connections(count: usize) -> Result<()> {
    let server = serve("127.0.0.1:0", Tools::new).await?;
    Uncounted::new(async {
        for _ in 0..count {
            let mut client = Client::initialized(server.local_addr()).await?;
            client.websocket.close(None).await?;
            while client.websocket.next().await.is_some_and(|message| message.is_ok()) {}
        }
        Ok(())
    })
    .await
}

/// A client that is not counted.
struct Client {
    websocket: WebSocketStream<TcpStream>,
    received: u64,
}

impl Client {
    async fn new(addr: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let request = ClientRequestBuilder::new(format!("ws://{addr}/mcp").parse()?)
            .with_sub_protocol("mcp")
            .with_sub_protocol("mcp.resume.v1");
        let (websocket, _) = client_async(request, stream).await?;
        let config = WebSocketConfig::default().read_buffer_size(128 << 10);
        let stream = websocket.into_inner();
        let websocket = WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await;
        Ok(Self { websocket, received: 0 })
    }

    /// Opens a session and initializes it.
    async fn initialized(addr: SocketAddr) -> Result<Self> {
        let mut client = Self::new(addr).await?;
        client.send("@open {}").await?;
        let params = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": { "name": "raw", "version": "1" },
        });
        client.send(request(0, "initialize", &params)).await?;
        client.answer().await?;
        client.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await?;
        Ok(client)
    }

    async fn send(&mut self, text: impl Into<Utf8Bytes>) -> Result<()> {
        Ok(self.websocket.send(Message::Text(text.into())).await?)
    }

    /// Counts a message; `true` if it is an answer.
    fn take(&mut self, message: &Message) -> bool {
        let is_data = message.to_text().is_ok_and(|text| text.starts_with('{'));
        self.received += u64::from(is_data);
        is_data
    }

    async fn answer(&mut self) -> Result<()> {
        loop {
            let message = self.websocket.next().await.ok_or("the server has closed")??;
            if self.take(&message) {
                return Ok(());
            }
        }
    }

    /// Returns `false` where no answer has arrived yet.
    fn answer_now(&mut self) -> Result<bool> {
        while let Some(message) = self.websocket.next().now_or_never() {
            if self.take(&message.ok_or("the server has closed")??) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn acknowledge(&mut self) -> Result<()> {
        self.send(format!("@ack {}", self.received)).await
    }
}

/// Makes the calls of `load`.
async fn call(addr: SocketAddr, load: Load) -> Result<()> {
    let mut client = Client::initialized(addr).await?;
    let calls: Vec<_> = (1..=load.in_flight).map(|id| load.call(id)).collect();
    let (mut sent, mut answered) = (0, 0);
    while answered < load.calls {
        if sent < load.calls && sent - answered + load.burst <= load.in_flight {
            for at in sent..sent + load.burst {
                let call = calls[at % load.in_flight].clone();
                client.websocket.feed(Message::Text(call)).await?;
            }
            sent += load.burst;
            client.websocket.flush().await?;
            if !client.answer_now()? {
                continue;
            }
        } else {
            client.answer().await?;
        }
        answered += 1;
        if answered % load.burst.max(16).min(load.in_flight) == 0 {
            client.acknowledge().await?;
        }
    }
    Ok(())
}
