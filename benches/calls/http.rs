//! rmcp's streamable HTTP: its server under hyper, its client over reqwest, both as they come.

use std::{convert::Infallible, net::SocketAddr};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rmcp::{
    RoleClient,
    transport::{
        StreamableHttpClientTransport, StreamableHttpService, Transport,
        streamable_http_server::session::local::LocalSessionManager,
    },
};
use tokio::net::{TcpListener, TcpStream};

use crate::{Result, service::Adder};

type Service = StreamableHttpService<Adder, LocalSessionManager>;

pub(crate) async fn serve() -> Result<SocketAddr> {
    let service = Service::new(|| Ok(Adder::new()), Default::default(), Default::default());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(attend(stream, service.clone()));
        }
    });
    Ok(addr)
}

async fn attend(stream: TcpStream, service: Service) -> Result<()> {
    stream.set_nodelay(true)?;
    let respond = service_fn(async |request| Ok::<_, Infallible>(service.handle(request).await));
    http1::Builder::new().serve_connection(TokioIo::new(stream), respond).await?;
    Ok(())
}

pub(crate) fn connect(addr: SocketAddr) -> impl Transport<RoleClient> {
    StreamableHttpClientTransport::from_uri(format!("http://{addr}/mcp"))
}
