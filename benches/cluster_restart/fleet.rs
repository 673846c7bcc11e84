//! [`Fleet`]: the instances, and the balancer in front of them.

use std::{
    collections::BTreeMap,
    error::Error,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use mcp_ws_transport::{
    cluster::{Cluster, Faults, Local},
    layer::heartbeat,
    server::{Config, Limits, WebSocketService},
    transport,
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use rmcp::ServerHandler;
use tokio::{
    io::{DuplexStream, duplex},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::bus::{CountedBus, Counter, Counts};

pub(crate) type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Bytes that each connection holds, each way.
const PIPE_BYTES: usize = 2048;

/// Server whose sessions are idle.
#[derive(Debug, Clone)]
struct Idle;

impl ServerHandler for Idle {}

/// Instances of one server, behind a balancer.
pub(crate) struct Fleet {
    bus: Local,
    counter: Counter,
    /// `None` where an instance is away, or stops.
    instances: Mutex<Vec<Option<Instance>>>,
    /// Time of each dial.
    dials: Mutex<Vec<Instant>>,
    random: Mutex<SmallRng>,
}

/// One instance.
struct Instance {
    service: WebSocketService,
    stop: CancellationToken,
    cluster: Cluster,
}

impl Fleet {
    pub(crate) async fn start(instances: usize, seed: u64) -> Result<Self> {
        let latency = Duration::from_micros(200)..=Duration::from_millis(2);
        let fleet = Self {
            bus: Local::with_faults(Faults::new(seed).latency(latency)),
            counter: Counter::default(),
            instances: Mutex::default(),
            dials: Mutex::default(),
            random: Mutex::new(SmallRng::seed_from_u64(seed)),
        };
        for number in 0..instances {
            let instance = fleet.join(format!("{number}-0")).await?;
            lock(&fleet.instances).push(Some(instance));
        }
        Ok(fleet)
    }

    async fn join(&self, tag: String) -> Result<Instance> {
        let bus = CountedBus { bus: self.bus.connect(), counter: self.counter.clone() };
        let cluster = Cluster::join(bus, "simulation").instance(tag).await?;
        let stop = CancellationToken::new();
        let config = Config::default()
            .cluster(cluster.clone())
            .cancellation_token(stop.clone())
            .limits(Limits::default().connections(1_000_000).handshakes(1_000_000))
            .transport(without_pings());
        let service = WebSocketService::new(|| Ok(Idle), config)?;
        Ok(Instance { service, stop, cluster })
    }

    /// Has an instance drained, away for a while, and started anew.
    pub(crate) async fn restart(&self, number: usize, away: Duration) -> Result<()> {
        let instance = lock(&self.instances)[number].take();
        let Instance { service, stop, cluster } = instance.ok_or("the instance is away")?;
        stop.cancel();
        service.closed().await;
        cluster.leave().await;
        drop((service, cluster));
        sleep(away).await;
        let instance = self.join(format!("{number}-1")).await?;
        lock(&self.instances)[number] = Some(instance);
        Ok(())
    }

    /// Connects a client to an instance.
    pub(crate) async fn dial(&self) -> io::Result<DuplexStream> {
        lock(&self.dials).push(Instant::now());
        let round_trip = lock(&self.random).random_range(1..=20);
        sleep(Duration::from_millis(round_trip)).await;
        let (near, far) = duplex(PIPE_BYTES);
        let service = {
            let instances = lock(&self.instances);
            let open: Vec<_> = instances.iter().flatten().collect();
            let chosen = lock(&self.random).random_range(0..open.len().max(1));
            let instance = open.get(chosen).ok_or(io::ErrorKind::ConnectionRefused)?;
            instance.service.clone()
        };
        tokio::spawn(async move {
            let service = service_fn(move |request| service.clone().call(request));
            let serving = http1::Builder::new().serve_connection(TokioIo::new(far), service);
            let _ = serving.with_upgrades().await;
        });
        Ok(near)
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counter.counts()
    }

    pub(crate) fn forget_dials(&self) {
        lock(&self.dials).clear();
    }

    /// Returns the number of dials in each second between two times.
    pub(crate) fn dials_per_second(&self, start: Instant, end: Instant) -> Vec<u64> {
        let mut seconds = BTreeMap::new();
        for dial in &*lock(&self.dials) {
            *seconds.entry((*dial - start).as_secs()).or_default() += 1;
        }
        (0..=(end - start).as_secs()).map(|second| seconds.remove(&second).unwrap_or(0)).collect()
    }

    /// Returns the number of sessions with a client.
    pub(crate) fn sessions(&self) -> u64 {
        self.sum(|service| {
            let health = service.registry().health();
            health.active - health.detached
        })
    }

    /// Returns the number of relayed sessions, as both sides see it.
    pub(crate) fn relayed(&self) -> (u64, u64) {
        let relayed_in = self.sum(|service| service.registry().health().relayed_in);
        let relayed_out = self.sum(|service| service.registry().health().relayed_out);
        (relayed_in, relayed_out)
    }

    fn sum(&self, figure: impl Fn(&WebSocketService) -> u64) -> u64 {
        lock(&self.instances).iter().flatten().map(|instance| figure(&instance.service)).sum()
    }
}

/// Returns the settings of links that are not pinged: that would only take time to simulate.
pub(crate) fn without_pings() -> transport::Config {
    let heartbeat = heartbeat::Config::default().ping_interval(None).idle_timeout(None);
    transport::Config::default().heartbeat(heartbeat)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
