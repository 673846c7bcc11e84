//! rmcp's own adaptor for a `Sink` and `Stream`, over tokio-tungstenite.
//!
//! As in rmcp's websocket example: serde_json between rmcp's messages and text messages, nothing
//! set on the socket or on tungstenite. The best form sets `TCP_NODELAY`, and a read buffer of 4
//! KiB in place of 128, which tungstenite fills with zeros for each connection.

use std::{future::ready, io, net::SocketAddr};

use futures::{Sink, SinkExt, Stream, StreamExt};
use rmcp::{
    RoleClient, RoleServer, ServerHandler, ServiceExt,
    service::{RxJsonRpcMessage, ServiceRole, TxJsonRpcMessage},
    transport::{IntoTransport, Transport},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    accept_async_with_config, client_async_with_config,
    tungstenite::{Error as WsError, Message, protocol::WebSocketConfig},
};

use super::{Form, Result};

impl Form {
    fn set(self, stream: &TcpStream) -> Result<Option<WebSocketConfig>> {
        if self == Self::Stock {
            return Ok(None);
        }
        stream.set_nodelay(true)?;
        Ok(Some(WebSocketConfig::default().read_buffer_size(4 << 10)))
    }
}

pub(crate) async fn serve<S: ServerHandler>(factory: fn() -> S, form: Form) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_connection(stream, factory(), form));
        }
    });
    Ok(addr)
}

async fn serve_connection(
    stream: TcpStream,
    service: impl ServerHandler,
    form: Form,
) -> Result<()> {
    let config = form.set(&stream)?;
    let transport = adapt::<RoleServer, _>(accept_async_with_config(stream, config).await?);
    service.serve(transport).await?.waiting().await?;
    Ok(())
}

pub(crate) async fn connect(addr: SocketAddr, form: Form) -> Result<impl Transport<RoleClient>> {
    let stream = TcpStream::connect(addr).await?;
    let config = form.set(&stream)?;
    let url = format!("ws://{addr}/");
    let (websocket, _) = client_async_with_config(url, stream, config).await?;
    Ok(adapt::<RoleClient, _>(websocket).into_transport())
}

fn adapt<R, W>(
    websocket: W,
) -> impl Sink<TxJsonRpcMessage<R>, Error = WsError> + Stream<Item = RxJsonRpcMessage<R>> + Send
where
    R: ServiceRole,
    W: Sink<Message, Error = WsError> + Stream<Item = Result<Message, WsError>> + Send,
{
    websocket
        .with(|message: TxJsonRpcMessage<R>| {
            ready(match serde_json::to_string(&message) {
                Ok(json) => Ok(Message::text(json)),
                Err(error) => Err(WsError::Io(io::Error::from(error))),
            })
        })
        .filter_map(|message| {
            ready(match message {
                Ok(Message::Text(json)) => serde_json::from_str(&json).ok(),
                _ => None,
            })
        })
}
