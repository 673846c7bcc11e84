//! [`Clients`]: the clients of all instances.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::{StreamExt, TryStreamExt, stream};
use mcp_ws_transport::{
    Error,
    client::Target,
    connect,
    event::{Event, Events},
    layer::reconnect::ReconnectHandle,
};
use rmcp::ServiceExt;
use tokio::time::{Instant, sleep};

use crate::fleet::{Fleet, Result, lock, without_pings};

/// Clients that connect at the same time before the restart.
const CLIENTS_AT_ONCE: usize = 50;

/// Interval at which a wait checks its condition again.
const STEP: Duration = Duration::from_millis(10);

/// Clients, each with a session.
pub(crate) struct Clients {
    handles: Vec<ReconnectHandle>,
    log: Arc<Log>,
}

/// What the clients have seen.
#[derive(Debug, Default)]
struct Log {
    connected: AtomicUsize,
    outages: Mutex<Outages>,
}

/// Times without a connection.
#[derive(Debug, Default, Clone)]
pub(crate) struct Outages {
    /// How long each took.
    pub(crate) took: Vec<Duration>,
    /// How many ended with the session that there was.
    pub(crate) resumed: u64,
    /// How many ended with a new session.
    pub(crate) restarted: u64,
    /// How many began with each close code.
    pub(crate) codes: BTreeMap<u16, u64>,
    /// How many attempts failed.
    pub(crate) failed: u64,
}

impl Clients {
    /// Connects this number of clients, some at a time.
    pub(crate) async fn connect(fleet: &Arc<Fleet>, sessions: usize) -> Result<Self> {
        let log = Arc::new(Log::default());
        let handles = stream::iter(0..sessions)
            .map(|_| connect_one(fleet.clone(), log.clone()))
            .buffer_unordered(CLIENTS_AT_ONCE)
            .try_collect()
            .await?;
        let clients = Self { handles, log };
        clients.all_back().await;
        Ok(clients)
    }

    /// Has the first `count` clients come back to a random instance, one after the other.
    pub(crate) async fn move_some(&self, count: usize) {
        for handle in self.handles.iter().take(count) {
            handle.reconnect();
            sleep(STEP).await;
        }
        while (self.outages().resumed + self.outages().restarted) < count as u64 {
            sleep(STEP).await;
        }
    }

    /// Resolves when each client has a connection and a session.
    pub(crate) async fn all_back(&self) {
        while self.log.connected.load(Relaxed) < self.handles.len() {
            sleep(STEP).await;
        }
    }

    pub(crate) fn forget_outages(&self) {
        *lock(&self.log.outages) = Outages::default();
    }

    pub(crate) fn outages(&self) -> Outages {
        lock(&self.log.outages).clone()
    }
}

async fn connect_one(fleet: Arc<Fleet>, log: Arc<Log>) -> Result<ReconnectHandle> {
    let connect = connect("ws://localhost/mcp")
        .connector(move |_: Target| {
            let fleet = fleet.clone();
            async move { fleet.dial().await }
        })
        .transport(without_pings());
    let events = connect.events();
    let transport = connect.await?;
    let handle = transport.reconnect_handle().ok_or("the client does not reconnect")?;
    tokio::spawn(async move {
        match ().serve(transport).await {
            Ok(client) => {
                log.connected.fetch_add(1, Relaxed);
                log.follow(events).await;
                drop(client);
            }
            Err(error) => eprintln!("a client is not served: {error}"),
        }
    });
    Ok(handle)
}

impl Log {
    async fn follow(&self, mut events: Events<Event>) {
        let mut lost = None;
        while let Some(event) = events.next().await {
            let is_resumed = match event {
                Event::Lost(cause) => {
                    let code = match &cause {
                        Error::Link(error) => u16::from(error.close_reason().code),
                        _ => 0,
                    };
                    *lock(&self.outages).codes.entry(code).or_default() += 1;
                    if lost.is_none() {
                        self.connected.fetch_sub(1, Relaxed);
                        lost = Some(Instant::now());
                    }
                    continue;
                }
                Event::Failed { .. } => {
                    lock(&self.outages).failed += 1;
                    continue;
                }
                Event::Resumed { .. } => true,
                Event::Restarted { .. } => false,
                event => {
                    eprintln!("a client: {event:?}");
                    continue;
                }
            };
            let mut outages = lock(&self.outages);
            if let Some(lost) = lost.take() {
                outages.took.push(lost.elapsed());
                self.connected.fetch_add(1, Relaxed);
            }
            let count = if is_resumed { &mut outages.resumed } else { &mut outages.restarted };
            *count += 1;
        }
    }
}
