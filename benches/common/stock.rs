//! rmcp's own adaptor for a `Sink` and `Stream`, over tokio-tungstenite.
//!
//! As in rmcp's websocket example: serde_json between rmcp's messages and text messages, nothing set
//! on the socket or on tungstenite.

use std::{future::ready, io, net::SocketAddr};

use futures::{Sink, SinkExt, Stream, StreamExt};
use rmcp::{
    RoleClient, RoleServer, ServerHandler, ServiceExt,
    service::{RxJsonRpcMessage, ServiceRole, TxJsonRpcMessage},
    transport::{IntoTransport, Transport},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    accept_async, connect_async,
    tungstenite::{Error as WsError, Message},
};

use super::Result;

pub(crate) async fn serve<S: ServerHandler>(factory: fn() -> S) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(attend(stream, factory()));
        }
    });
    Ok(addr)
}

async fn attend(stream: TcpStream, service: impl ServerHandler) -> Result<()> {
    let transport = adapt::<RoleServer, _>(accept_async(stream).await?);
    service.serve(transport).await?.waiting().await?;
    Ok(())
}

pub(crate) async fn connect(addr: SocketAddr) -> Result<impl Transport<RoleClient>> {
    let (websocket, _) = connect_async(format!("ws://{addr}/")).await?;
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
