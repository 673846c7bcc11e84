//! rmcp's streamable HTTP server under hyper, and its reqwest client.

use std::{convert::Infallible, net::SocketAddr};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rmcp::{
    RoleClient, ServerHandler,
    transport::{
        StreamableHttpClientTransport, StreamableHttpServerConfig, StreamableHttpService,
        Transport, streamable_http_client::StreamableHttpClientTransportConfig,
        streamable_http_server::session::local::LocalSessionManager,
    },
};
use tokio::net::{TcpListener, TcpStream};

use super::{Form, Result};

/// POSTs of a client in flight, in the best form.
const POSTS: usize = 1024;

type Service<S> = StreamableHttpService<S, LocalSessionManager>;

/// The best form has no sessions, and answers with JSON where one message is all there is.
pub(crate) async fn serve<S: ServerHandler>(factory: fn() -> S, form: Form) -> Result<SocketAddr> {
    let mut config = StreamableHttpServerConfig::default();
    if form == Form::Best {
        config.legacy_session_mode = false;
        config.json_response = true;
    }
    let service = Service::new(move || Ok(factory()), Default::default(), config);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_connection(stream, service.clone()));
        }
    });
    Ok(addr)
}

async fn serve_connection<S: ServerHandler>(stream: TcpStream, service: Service<S>) -> Result<()> {
    stream.set_nodelay(true)?;
    let respond = service_fn(async |request| Ok::<_, Infallible>(service.handle(request).await));
    http1::Builder::new().serve_connection(TokioIo::new(stream), respond).await?;
    Ok(())
}

pub(crate) fn connect(addr: SocketAddr, form: Form) -> impl Transport<RoleClient> {
    let mut config = StreamableHttpClientTransportConfig::with_uri(format!("http://{addr}/mcp"));
    if form == Form::Best {
        config = config.max_concurrent_requests(POSTS);
    }
    StreamableHttpClientTransport::from_config(config)
}
