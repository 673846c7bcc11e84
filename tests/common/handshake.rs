//! What happens before a connection is upgraded, and a service that tells what reached it.

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

/// A peer that has sent `request`, and the answer.
pub async fn ask(address: SocketAddr, request: impl AsRef<[u8]>) -> (Head, Raw) {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut raw = Raw::over(stream, true);
    raw.write(request).await;
    let head = raw.head().await.expect("no answer");
    (head, raw)
}

/// The same with an upgrade request of these further lines.
pub async fn knock(address: SocketAddr, more: &str) -> (Head, Raw) {
    ask(address, upgrade_request(address, more)).await
}

/// A peer that was let in with these lines.
pub async fn enter(address: SocketAddr, more: &str) -> Raw {
    let (head, raw) = knock(address, more).await;
    assert_eq!(head.status(), 101, "{more}: {head:?}");
    raw
}

/// What handlers find in the extensions of a request or notification.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub parts: Option<Parts>,
    pub identity: Option<Identity>,
    pub connection: Option<Connection>,
}

/// [`Tools`], with all that reaches them.
#[derive(Debug, Clone, Default)]
pub struct Spy {
    pub tools: Tools,
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

impl Spy {
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Serves clones of it.
    pub async fn host(&self, config: Config) -> (Server, SocketAddr) {
        let spy = self.clone();
        let server = serve("127.0.0.1:0", move || spy.clone()).config(config).await.unwrap();
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

impl Service<RoleServer> for Spy {
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

/// A server of [`Tools`].
pub async fn tools(config: Config) -> (Server, SocketAddr) {
    Spy::default().host(config).await
}
