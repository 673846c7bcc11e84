//! [`serve`]: a listener that runs one service for each connection.

use std::{
    convert::Infallible,
    fmt,
    future::{Future, IntoFuture},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use http::{Request, StatusCode};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rmcp::ServiceExt;
use tokio::{
    net::{TcpListener, TcpStream, ToSocketAddrs},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::DropGuard;
use tracing::Instrument;

use super::{
    Config, WebSocketService,
    handshake::{MAX_HEAD, refuse},
};
use crate::{decode::Role, upgrade::set_nodelay};

/// Listens on `addr` and runs a service of its own, made by `factory`, for each connection. Await
/// the result, or set options first.
///
/// Each connection is upgraded on the path `/mcp`.
///
/// # Errors
/// Awaiting it fails with what binding the address fails with, and with
/// [`io::ErrorKind::InvalidInput`] when an allowed host or origin cannot be read.
///
/// ```no_run
/// # async fn example<S: rmcp::ServerHandler>(service: impl Fn() -> S + Send + Sync + 'static) -> std::io::Result<()> {
/// let server = mcp_ws_transport::serve("127.0.0.1:8080", service).await?;
/// println!("listening on ws://{}/mcp", server.local_addr());
/// tokio::signal::ctrl_c().await?;
/// server.shutdown().await;
/// # Ok(()) }
/// ```
pub fn serve<R, A, F, S>(addr: A, factory: F) -> Serve<R, A, F>
where
    R: Role,
    A: ToSocketAddrs,
    F: Fn() -> S + Send + Sync + 'static,
    S: ServiceExt<R>,
{
    Serve { addr, factory, path: "/mcp".into(), config: Config::default() }
}

/// A server to be started; see [`serve`]. Awaiting it binds the address.
#[must_use = "nothing listens until this is awaited"]
pub struct Serve<R: Role, A, F> {
    addr: A,
    factory: F,
    path: Arc<str>,
    config: Config<R>,
}

impl<R: Role, A, F> Serve<R, A, F> {
    /// The path that is upgraded: `/mcp`. Every other one is 404.
    pub fn path(mut self, path: impl Into<Arc<str>>) -> Self {
        self.path = path.into();
        self
    }

    /// Who may connect, how fast they must be, and what their connections are made of.
    pub fn config(mut self, config: Config<R>) -> Self {
        self.config = config;
        self
    }
}

impl<R, A, F, S> IntoFuture for Serve<R, A, F>
where
    R: Role,
    R::InitializeError: fmt::Display + Send,
    A: ToSocketAddrs<Future: Send> + Send + 'static,
    F: Fn() -> S + Send + Sync + 'static,
    S: ServiceExt<R>,
{
    type Output = io::Result<Server>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { addr, factory, path, config } = self;
            let stop = config.stop.clone();
            let service = WebSocketService::new(move || Ok(factory()), config)?;
            let listener = TcpListener::bind(addr).await?;
            let local_addr = listener.local_addr()?;
            let task = tokio::spawn(listen(listener, path, service));
            Ok(Server { local_addr, stop: stop.drop_guard(), task })
        })
    }
}

impl<R: Role, A: fmt::Debug, F> fmt::Debug for Serve<R, A, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("addr", &self.addr)
            .field("path", &self.path)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// A running server. Dropping it stops the server without waiting for that.
#[derive(Debug)]
pub struct Server {
    local_addr: SocketAddr,
    stop: DropGuard,
    task: JoinHandle<()>,
}

impl Server {
    /// The address it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops listening, closes every connection with the closing handshake, and waits until all are
    /// gone. Calls in flight have 2 s to be answered, which is rmcp's own limit; connections that are
    /// not yet initialized are cut.
    pub async fn shutdown(self) {
        drop(self.stop);
        let _ = self.task.await;
    }
}

/// Accepts until told to stop, then waits until all that was accepted has ended.
async fn listen<S, R>(listener: TcpListener, path: Arc<str>, service: WebSocketService<S, R>)
where
    S: ServiceExt<R>,
    R: Role<InitializeError: fmt::Display + Send>,
{
    let stop = service.config().stop.clone();
    let mut handshakes = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = handshakes.join_next() => continue,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let span = tracing::info_span!("websocket", %peer);
                handshakes.spawn(handshake(stream, path.clone(), service.clone()).instrument(span));
            }
            // Out of file descriptors, most likely: they come back as connections end.
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    handshakes.shutdown().await;
    service.closed().await;
}

/// Answers requests until one is upgraded, which the service then attends to.
async fn handshake<S, R>(stream: TcpStream, path: Arc<str>, service: WebSocketService<S, R>)
where
    S: ServiceExt<R>,
    R: Role<InitializeError: fmt::Display + Send>,
{
    set_nodelay(&stream);
    let timeout = service.config().timeout;
    let answer = service_fn(async |request: Request<_>| {
        Ok::<_, Infallible>(if request.uri().path() == &*path {
            service.answer(request)
        } else {
            *refuse(StatusCode::NOT_FOUND, "Not Found", &[])
        })
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeout.min(MAX_HEAD))
        .serve_connection(TokioIo::new(stream), answer)
        .with_upgrades();
    match tokio::time::timeout(timeout, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "no HTTP"),
        Err(_) => tracing::debug!("no upgrade in time"),
    }
}
