//! A connection composed by hand, with a layer of one's own in it: it prints every message.
//!
//! `cargo run --example layers`
//!
//! To put such a layer into what `connect` or `serve` make, hand it to `transport::Config::layer`.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures::{Sink, Stream};
use mcp_ws_transport::{
    Message, WebSocketTransport,
    duplex::Duplex,
    layer::{
        Heartbeat, Socket, heartbeat,
        socket::{self, Side},
    },
};
use pin_project_lite::pin_project;
use rmcp::{
    RoleServer, ServerHandler, ServiceExt,
    model::{ServerCapabilities, ServerConfig},
};

pin_project! {
    /// Prints what passes.
    struct Tap<S> {
        #[pin]
        inner: S,
    }
}

impl<S: Duplex<Message, Message>> Stream for Tap<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let item = ready!(self.project().inner.poll_next(cx));
        if let Some(Ok(message)) = &item {
            println!("<- {message:?}");
        }
        Poll::Ready(item)
    }
}

impl<S: Duplex<Message, Message>> Sink<Message> for Tap<S> {
    type Error = S::Error;

    fn start_send(self: Pin<&mut Self>, message: Message) -> Result<(), S::Error> {
        println!("-> {message:?}");
        self.project().inner.start_send(message)
    }

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.project().inner.poll_ready(cx)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.project().inner.poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.project().inner.poll_close(cx)
    }
}

struct Toolless;

impl ServerHandler for Toolless {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // Any byte stream will do. This one needs no opening handshake, since both ends agree.
    let (near, far) = tokio::io::duplex(4096);

    let socket = Socket::new(far, Side::Server, socket::Config::default());
    let server: WebSocketTransport<RoleServer> = WebSocketTransport::builder().over(socket);
    let server = tokio::spawn(async {
        Toolless.serve(server).await?.waiting().await.map_err(Box::<dyn Error + Send + Sync>::from)
    });

    let socket = Socket::new(near, Side::Client, socket::Config::default());
    let link = Tap { inner: Heartbeat::new(socket, heartbeat::Config::default()) };
    let client = ().serve(WebSocketTransport::builder().over(link)).await?;
    let tools = client.list_all_tools().await?;
    println!("{} tools", tools.len());
    client.cancel().await?;
    println!("the server ended: {:?}", server.await?);
    Ok(())
}
