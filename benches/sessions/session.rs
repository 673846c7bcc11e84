//! A session as a client of few bytes has it.

use std::net::SocketAddr;

use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Message, Utf8Bytes,
        client::IntoClientRequest,
        http::{HeaderValue, header::AUTHORIZATION},
        protocol::WebSocketConfig,
    },
};

use crate::{
    common::{Result, script::Script},
    contender::{Contender, TOKEN},
    http, raw,
};

/// Open until it is dropped.
#[derive(Debug)]
pub(crate) enum Session {
    WebSocket(Box<WebSocketStream<TcpStream>>),
    Http(http::Session),
}

impl Session {
    /// Ready for `initialize`.
    pub(crate) async fn connect(
        contender: Contender,
        addr: SocketAddr,
        config: WebSocketConfig,
    ) -> Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let path = match contender {
            Contender::Ours => "mcp",
            Contender::Http => return Ok(Self::Http(http::Session::new(stream).await?)),
            _ => "",
        };
        let mut request = format!("ws://{addr}/{path}").into_client_request()?;
        if contender == Contender::Ours {
            let bearer = HeaderValue::try_from(format!("Bearer {TOKEN}"))?;
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        let (websocket, _) = client_async_with_config(request, stream, Some(config)).await?;
        Ok(Self::WebSocket(Box::new(websocket)))
    }

    /// Says `initialize`, and waits for the response.
    pub(crate) async fn initialize(&mut self, script: &Script) -> Result<()> {
        let response = match self {
            Self::WebSocket(websocket) => call(websocket, &script.initialize).await?,
            Self::Http(session) => session.initialize(&script.initialize).await?,
        };
        if !response.contains("protocolVersion") {
            return Err(format!("initialize is answered with {response}").into());
        }
        Ok(())
    }

    /// Says `notifications/initialized`, and does what remains to be done by a client that idles.
    pub(crate) async fn settle(&mut self, script: &Script) -> Result<()> {
        match self {
            Self::WebSocket(websocket) => {
                Ok(websocket.send(Message::text(script.initialized.as_str())).await?)
            }
            Self::Http(session) => session.settle(&script.initialized).await,
        }
    }

    /// Waits for the next text message, which only a WebSocket may have.
    pub(crate) async fn next(&mut self) -> Result<Utf8Bytes> {
        match self {
            Self::WebSocket(websocket) => text(websocket).await,
            Self::Http(_) => Err("not a WebSocket".into()),
        }
    }

    /// Fails unless the session is alive.
    pub(crate) async fn check(&mut self, script: &Script) -> Result<()> {
        match self {
            Self::WebSocket(websocket) => call(websocket, &script.ping).await.map(drop),
            Self::Http(session) => session.check(),
        }
    }
}

async fn call(websocket: &mut WebSocketStream<TcpStream>, request: &str) -> Result<Utf8Bytes> {
    websocket.send(Message::text(request)).await?;
    text(websocket).await
}

async fn text(websocket: &mut WebSocketStream<TcpStream>) -> Result<Utf8Bytes> {
    loop {
        match websocket.next().await.ok_or("the server hung up")?? {
            Message::Text(text) => return Ok(text),
            Message::Ping(_) | Message::Pong(_) => {}
            other => return Err(format!("not text, but {other:?}").into()),
        }
    }
}

/// Returns settings for clients that are many: what they read is short.
pub(crate) fn lean() -> WebSocketConfig {
    raw::config().read_buffer_size(512).write_buffer_size(0)
}
