//! rmcp's streamable HTTP server under hyper, as it comes.

use std::{convert::Infallible, net::SocketAddr};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rmcp::{
    ServerHandler,
    transport::{
        StreamableHttpService, streamable_http_server::session::local::LocalSessionManager,
    },
};
use tokio::net::{TcpListener, TcpStream};

use super::Result;

type Service<S> = StreamableHttpService<S, LocalSessionManager>;

pub(crate) async fn serve<S: ServerHandler>(factory: fn() -> S) -> Result<SocketAddr> {
    let service = Service::new(move || Ok(factory()), Default::default(), Default::default());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(attend(stream, service.clone()));
        }
    });
    Ok(addr)
}

async fn attend<S: ServerHandler>(stream: TcpStream, service: Service<S>) -> Result<()> {
    stream.set_nodelay(true)?;
    let respond = service_fn(async |request| Ok::<_, Infallible>(service.handle(request).await));
    http1::Builder::new().serve_connection(TokioIo::new(stream), respond).await?;
    Ok(())
}
