//! One notification for all of many clients.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures::{SinkExt, future::join_all};
use mcp_ws_transport::server::Registry;
use rmcp::{
    Peer, RoleServer, ServerHandler,
    model::{
        JsonRpcMessage, ResourceUpdatedNotification, ResourceUpdatedNotificationParam,
        ServerNotification,
    },
    service::{NotificationContext, TxJsonRpcMessage},
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::{Notify, broadcast},
    task::JoinSet,
};
use tokio_tungstenite::{
    accept_async_with_config,
    tungstenite::{Message, Utf8Bytes},
};

use crate::{
    common::{Form, Result, machine::cpu_time, script::Script, server::Server, stock},
    contender::{self, Contender},
    memory, raw,
};

fn news() -> ResourceUpdatedNotificationParam {
    ResourceUpdatedNotificationParam::new("bench://a/resource/with/a/name/of/some/length")
}

fn notification() -> ServerNotification {
    ResourceUpdatedNotification::new(news()).into()
}

impl Contender {
    /// Returns `true` if its server can tell all of its clients.
    pub(crate) fn broadcasts(self) -> bool {
        matches!(self, Self::Raw | Self::Ours | Self::StockBest)
    }
}

/// Serves, and returns how to tell all clients.
pub(crate) async fn serve(contender: Contender) -> Result<(SocketAddr, Box<dyn FnMut() + Send>)> {
    let runtime = Handle::current();
    match contender {
        Contender::Ours => {
            let registry = Registry::default();
            let addr = contender::serve(registry.clone()).await?;
            let tell = move || {
                let registry = registry.clone();
                runtime.spawn(async move { registry.notify_all(notification()).map(drop) });
            };
            Ok((addr, Box::new(tell)))
        }
        Contender::StockBest => {
            let addr = stock::serve(|| PeerList, Form::Best).await?;
            let tell = move || {
                runtime.spawn(async {
                    let peers = PEERS.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    join_all(peers.iter().map(|peer| peer.notify_resource_updated(news()))).await;
                });
            };
            Ok((addr, Box::new(tell)))
        }
        Contender::Raw => {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let addr = listener.local_addr()?;
            let message: TxJsonRpcMessage<RoleServer> =
                JsonRpcMessage::notification(notification());
            let message = Utf8Bytes::from(serde_json::to_string(&message)?);
            let (sender, _) = broadcast::channel(16);
            let listeners = sender.clone();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(pass_on(stream, listeners.subscribe()));
                }
            });
            Ok((addr, Box::new(move || drop(sender.send(message.clone())))))
        }
        other => Err(format!("{other} tells nobody").into()),
    }
}

async fn pass_on(stream: TcpStream, mut news: broadcast::Receiver<Utf8Bytes>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut websocket = accept_async_with_config(stream, Some(raw::config())).await?;
    loop {
        websocket.send(Message::Text(news.recv().await?)).await?;
    }
}

static PEERS: Mutex<Vec<Peer<RoleServer>>> = Mutex::new(Vec::new());

/// A service that knows its clients, as one without a registry has to.
#[derive(Debug, Clone, Copy)]
struct PeerList;

impl ServerHandler for PeerList {
    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        PEERS.lock().unwrap_or_else(PoisonError::into_inner).push(context.peer);
    }
}

/// A server with clients that listen.
pub(crate) struct Listeners {
    pub(crate) contender: Contender,
    server: Server,
    notified: Arc<Notified>,
    clients: JoinSet<()>,
}

#[derive(Default)]
struct Notified {
    count: AtomicUsize,
    all: Notify,
}

impl Listeners {
    pub(crate) async fn new(contender: Contender, clients: usize) -> Result<Self> {
        let server = Server::start(contender, &["--tells"])?;
        let (script, notified) = (Script::new()?, Arc::new(Notified::default()));
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            let mut session = memory::open(contender, &server, &script).await?;
            let notified = notified.clone();
            tasks.spawn(async move {
                while session.next().await.is_ok() {
                    if notified.count.fetch_add(1, Relaxed) + 1 == clients {
                        notified.all.notify_one();
                    }
                }
            });
        }
        Ok(Self { contender, server, notified, clients: tasks })
    }

    /// Measures the time in µs until all were notified, and the CPU time of the server for each.
    pub(crate) async fn measure(&mut self) -> Result<[Option<f64>; 2]> {
        self.notified.count.store(0, Relaxed);
        let (before, start) = (cpu_time(self.server.pid()), Instant::now());
        self.server.tell()?;
        tokio::time::timeout(Duration::from_secs(10), self.notified.all.notified()).await.map_err(
            |_| format!("{}: only {:?} are notified", self.contender, self.notified.count),
        )?;
        let (elapsed, after) = (start.elapsed(), cpu_time(self.server.pid()));
        let cpu = before.zip(after).map(|(before, after)| after.saturating_sub(before));
        let each = cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / self.clients.len() as f64);
        Ok([Some(elapsed.as_secs_f64() * 1e6), each])
    }
}
