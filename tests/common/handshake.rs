//! Raw upgrade requests, and a service that records what reaches it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use http::request::Parts;
use mcp_ws_transport::{
    serve,
    server::{Config, Connection, Identity, Server},
};
use rmcp::{
    ErrorData, RoleServer, Service,
    model::{ClientNotification, ClientRequest, Extensions, ServerConfig, ServerResult},
    service::{NotificationContext, RequestContext},
};
use tokio::net::TcpStream;

use super::{
    Tools,
    raw::{Head, Raw, upgrade_request},
};

/// Sends `request` on a new connection. Returns the head of the response, and the connection.
pub async fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> (Head, Raw) {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut raw = Raw::over(stream, true);
    raw.write(request).await;
    let head = raw.head().await.expect("no answer");
    (head, raw)
}

/// Sends an upgrade request with these further lines. Returns the head of the response.
pub async fn try_upgrade(address: SocketAddr, more: &str) -> (Head, Raw) {
    ask(address, upgrade_request(address, more)).await
}

/// Upgrades a new connection by a request with these further lines.
pub async fn upgrade(address: SocketAddr, more: &str) -> Raw {
    let (head, raw) = try_upgrade(address, more).await;
    assert_eq!(head.status(), 101, "{more}: {head:?}");
    raw
}

/// Extensions of a request or notification, as handlers find them.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub parts: Option<Parts>,
    pub identity: Option<Identity>,
    pub connection: Option<Connection>,
}

/// [`Tools`], with a record of all that reaches them.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    pub tools: Tools,
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

impl Recorder {
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Serves clones of the recorder.
    pub async fn start_server(&self, config: Config) -> (Server, SocketAddr) {
        let recorder = self.clone();
        let server = serve("127.0.0.1:0", move || recorder.clone()).config(config).await.unwrap();
        let address = server.local_addr();
        (server, address)
    }

    fn note(&self, method: String, extensions: &Extensions) {
        self.seen.lock().unwrap().push(Seen {
            method,
            parts: extensions.get().cloned(),
            identity: extensions.get().cloned(),
            connection: extensions.get().cloned(),
        });
    }
}

impl Service<RoleServer> for Recorder {
    async fn handle_request(
        &self,
        request: ClientRequest,
        context: RequestContext<RoleServer>,
    ) -> Result<ServerResult, ErrorData> {
        self.note(request.method().to_owned(), &context.extensions);
        Service::handle_request(&self.tools, request, context).await
    }

    async fn handle_notification(
        &self,
        notification: ClientNotification,
        context: NotificationContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.note("a notification".to_owned(), &context.extensions);
        Service::handle_notification(&self.tools, notification, context).await
    }

    fn get_info(&self) -> ServerConfig {
        Service::get_info(&self.tools)
    }
}

/// Starts a server of [`Tools`].
pub async fn tools(config: Config) -> (Server, SocketAddr) {
    Recorder::default().start_server(config).await
}
