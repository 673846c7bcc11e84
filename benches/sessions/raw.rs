//! tokio-tungstenite alone: the floor.

use std::net::SocketAddr;

use futures::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    accept_async_with_config,
    tungstenite::{Message, Utf8Bytes, protocol::WebSocketConfig},
};

use crate::common::{Result, script};

/// The buffers of this crate's idle connections.
const BUFFER: usize = 8 << 10;

pub(crate) fn config() -> WebSocketConfig {
    WebSocketConfig::default().read_buffer_size(BUFFER).write_buffer_size(BUFFER)
}

/// Answers every message with the bytes of the response to `initialize`.
pub(crate) async fn serve() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let response = Utf8Bytes::from(serde_json::to_string(&script::initialized())?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, response.clone()));
        }
    });
    Ok(addr)
}

async fn answer(stream: TcpStream, response: Utf8Bytes) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut websocket = accept_async_with_config(stream, Some(config())).await?;
    while let Some(request) = websocket.next().await {
        request?;
        websocket.send(Message::Text(response.clone())).await?;
    }
    Ok(())
}
