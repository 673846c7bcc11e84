//! [`Cluster`]: several instances of one server, joined by a message bus.

pub(in crate::server) mod asks;
pub(crate) mod audience;
mod check;
pub(crate) mod event;
pub(in crate::server) mod fan_out;
pub(crate) mod health;
mod members;
pub(in crate::server) mod node;
mod notify;
pub(in crate::server) mod relay;
pub(crate) mod report;
mod run;
pub(crate) mod state;
mod wire;

use std::{fmt, future::IntoFuture, io, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::watch;

use self::{check::check, event::ClusterEvents, node::Node, run::run, state::ClusterState};
use crate::cluster::bus::Bus;

/// Longest time that a leaving instance takes to tell the others.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Membership of this process in a cluster of instances of one server; a cheap handle.
///
/// Give it to [`Config::cluster`](crate::server::Config::cluster). The session ids that are issued
/// begin with the tag of the instance. When the last handle is dropped, the cluster is left.
///
/// ```
/// use mcp_ws_transport::{cluster::{Cluster, Local}, server::Config};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let bus = Local::default();
/// let cluster = Cluster::join(bus.connect(), "prod.math").instance("a").await?;
/// let config: Config = Config::default().cluster(cluster.clone());
/// # cluster.leave().await;
/// # drop(config);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Cluster(Arc<Handle>);

/// Shared part of a cluster's handles; the last of them leaves the cluster.
struct Handle {
    node: Arc<Node>,
}

impl Cluster {
    /// Joins the cluster whose messages are published on `bus` under `prefix`, when awaited.
    ///
    /// The instance checks that it may have its tag, and that it gets what it publishes. If the bus
    /// is away it joins [degraded](ClusterState::Degraded), so that a server can start; the checks
    /// are made when the bus comes, and then what they find is a
    /// [`ClusterEvent::Degraded`](event::ClusterEvent::Degraded) and an error in the log.
    ///
    /// # Errors
    /// | kind | |
    /// |---|---|
    /// | [`InvalidInput`](std::io::ErrorKind::InvalidInput) | the prefix is no [`Subject`](crate::cluster::Subject), or the tag has other characters than [allowed](Join::instance) |
    /// | [`AddrInUse`](std::io::ErrorKind::AddrInUse) | another process has joined with the tag |
    /// | [`PermissionDenied`](std::io::ErrorKind::PermissionDenied) | the bus does not let this instance publish and subscribe on `{prefix}.>` and its inbox |
    pub fn join(bus: impl Bus, prefix: impl Into<Arc<str>>) -> Join {
        Join {
            bus: Arc::new(bus),
            relay_bus: None,
            prefix: prefix.into(),
            instance: None,
            max_relays: 1024,
        }
    }

    /// Returns the tag of this instance.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.node().this.instance
    }

    /// Returns the tags of the other instances that are heard of, in alphabetical order.
    ///
    /// Each says every 2 s that it is there, and is thought to be gone after 7 s without a word.
    #[must_use]
    pub fn others(&self) -> Vec<String> {
        self.node().members().up()
    }

    /// Returns whether this instance takes part, as a value that can be watched.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<ClusterState> {
        self.node().state.subscribe()
    }

    /// Returns the events from now on, as a stream.
    pub fn events(&self) -> ClusterEvents {
        self.node().events.subscribe()
    }

    /// Leaves the cluster for good, and tells the other instances, which then notice it at once.
    ///
    /// Leave it when the servers have stopped. It takes at most a second, if the bus is slow.
    pub async fn leave(&self) {
        let node = self.node();
        if node.leave() {
            // When the bus answers that nobody is there, it has written what was published before.
            if let Ok(nobody) = node.subjects.own.join("left") {
                let _ = node.bus.ask(&nobody, Bytes::new(), LEAVE_TIMEOUT).await;
            }
        }
    }

    /// Returns what this instance knows of the cluster.
    pub(in crate::server) fn node(&self) -> &Arc<Node> {
        &self.0.node
    }
}

/// Cluster that is yet to be joined, with its options; awaited, it is a [`Cluster`].
#[must_use = "nothing is joined until this is awaited"]
pub struct Join {
    bus: Arc<dyn Bus>,
    relay_bus: Option<Arc<dyn Bus>>,
    prefix: Arc<str>,
    instance: Option<String>,
    max_relays: usize,
}

impl Join {
    /// Sets the tag of this instance: by default 16 random characters.
    ///
    /// It is what [`Config::instance`](crate::server::Config::instance) sets without a cluster, and
    /// as there has 1 to 64 of the characters `A-Z a-z 0-9 - _`. No two instances may have the
    /// same.
    pub fn instance(mut self, tag: impl Into<String>) -> Self {
        self.instance = Some(tag.into());
        self
    }

    /// Sets a second connection to the bus, for the messages of relayed sessions, so that they
    /// delay nothing else: by default they go by the first one.
    pub fn relay_bus(mut self, bus: impl Bus) -> Self {
        self.relay_bus = Some(Arc::new(bus));
        self
    }

    /// Sets how many sessions of a server may be relayed each way: 1,024. One more is closed with
    /// 1013.
    ///
    /// One way are its clients whose sessions are at other instances, the other its sessions whose
    /// clients are there. For each, up to 1 MiB may be under way in either direction.
    ///
    /// With 0 nothing is relayed: a client that comes to another instance than the one with its
    /// session begins a new one there.
    pub fn max_relays(mut self, sessions: usize) -> Self {
        self.max_relays = sessions;
        self
    }
}

impl IntoFuture for Join {
    type Output = io::Result<Cluster>;
    type IntoFuture = Pin<Box<dyn Future<Output = io::Result<Cluster>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let Self { bus, relay_bus, prefix, instance, max_relays } = self;
            let relay_bus = relay_bus.unwrap_or_else(|| bus.clone());
            let instance = instance.unwrap_or_else(|| format!("{:016x}", rand::random::<u64>()));
            let node = Node::new((bus, relay_bus), &prefix, instance, max_relays)?;
            let node = Arc::new(node);
            let subscriptions = match check(&node).await {
                Ok(subscriptions) => Some(subscriptions),
                Err(cause) if cause.is_outage() => {
                    node.degrade(cause);
                    None
                }
                Err(cause) => return Err(cause.into()),
            };
            tokio::spawn(run(node.clone(), subscriptions, node.state.subscribe()));
            Ok(Cluster(Arc::new(Handle { node })))
        })
    }
}

impl fmt::Debug for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Join")
            .field("prefix", &self.prefix)
            .field("instance", &self.instance)
            .field("max_relays", &self.max_relays)
            .finish_non_exhaustive()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.node.leave();
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cluster").field(self.node()).finish()
    }
}
