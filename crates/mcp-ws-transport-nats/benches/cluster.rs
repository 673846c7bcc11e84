//! Cost of a cluster: calls that are relayed next to calls that are not, in turn, in one run; the
//! time that resuming takes after a cut; notifications to all clients of three instances; and local
//! calls while NATS hangs.
//!
//! `cargo bench --package mcp-ws-transport-nats`, where `nats-server` is installed. `--quick` takes
//! a tenth of the calls.

use std::{
    env,
    error::Error,
    net::{SocketAddr, TcpListener as StdListener},
    process::Stdio,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::try_join_all, stream};
use mcp_ws_transport::{
    client::ReconnectPolicy,
    cluster::{Audience, Cluster, Subject},
    connect, serve,
    server::{Config, Limits, Registry, Server},
};
use mcp_ws_transport_nats::Nats;
use rmcp::{
    ClientHandler, ErrorData, RoleClient, RoleServer, ServerHandler, ServiceExt,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ServerCapabilities,
        ServerConfig, ToolListChangedNotification,
    },
    service::{NotificationContext, RequestContext, RunningService},
};
use serde_json::{Value, json};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::watch,
    time::{sleep, timeout},
};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const PREFIX: &str = "bench.cluster";

/// Time limit of each step, which none of them reaches.
const LIMIT: Duration = Duration::from_secs(120);

const ROUNDS: usize = 5;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let scale = if env::args().any(|argument| argument == "--quick") { 10 } else { 1 };
    let nats = start_nats().await?;
    let instances = [
        Instance::start("a", &nats.url).await?,
        Instance::start("b", &nats.url).await?,
        Instance::start("c", &nats.url).await?,
    ];
    calls(&instances, scale).await?;
    cuts(&instances, 100 / scale).await?;
    hang(&instances, &nats, scale).await?;
    notifications(&instances, 1_000 / scale).await?;
    for instance in instances {
        instance.server.shutdown().await;
        instance.cluster.leave().await;
    }
    Ok(())
}

// The parts.

struct NatsServer {
    process: Child,
    url: String,
}

async fn start_nats() -> Result<NatsServer> {
    let port = StdListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new("nats-server");
    command.args(["--addr", "127.0.0.1", "--port", &port.to_string()]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let process = command.spawn().map_err(|error| format!("nats-server: {error}"))?;
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        sleep(Duration::from_millis(10)).await;
    }
    Ok(NatsServer { process, url: format!("nats://127.0.0.1:{port}") })
}

impl NatsServer {
    async fn signal(&self, signal: &str) -> Result<()> {
        let id = self.process.id().ok_or("it has ended")?;
        let sent = Command::new("kill").args([signal, &id.to_string()]).status().await?;
        if sent.success() { Ok(()) } else { Err("no such process".into()) }
    }
}

struct Instance {
    server: Server,
    cluster: Cluster,
    registry: Registry,
}

impl Instance {
    async fn start(tag: &str, nats: &str) -> Result<Self> {
        let prefix = Subject::new(PREFIX)?;
        let bus = Nats::connect(nats).prefix(&prefix).await?;
        let relays = Nats::connect(nats).prefix(&prefix).await?;
        let cluster = Cluster::join(bus, PREFIX).instance(tag).relay_bus(relays).await?;
        let registry = Registry::default();
        let limits = Limits::default().connections(4096).connections_per_address(None);
        let config =
            Config::default().cluster(cluster.clone()).registry(registry.clone()).limits(limits);
        let server = serve("127.0.0.1:0", || Echo).config(config).await?;
        Ok(Self { server, cluster, registry })
    }
}

#[derive(Clone)]
struct Echo;

impl ServerHandler for Echo {
    fn get_info(&self) -> ServerConfig {
        let tools = ServerCapabilities::builder().enable_tools().enable_tool_list_changed();
        ServerConfig::new(tools.build())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = Value::from(request.arguments.unwrap_or_default());
        let text = arguments["text"].as_str().unwrap_or_default().to_owned();
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

/// Network between a client and whichever instance is the target; cut whenever that changes.
struct Network {
    address: SocketAddr,
    target: watch::Sender<SocketAddr>,
}

impl Network {
    async fn to(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (target, targets) = watch::channel(target);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut cut = targets.clone();
                let to = *cut.borrow_and_update();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(to).await?;
                    near.set_nodelay(true)?;
                    far.set_nodelay(true)?;
                    tokio::select! {
                        carried = copy_bidirectional(&mut near, &mut far) => carried.map(drop),
                        _ = cut.changed() => Ok(()),
                    }
                });
            }
        });
        Ok(Self { address, target })
    }
}

type Client = RunningService<RoleClient, ()>;

async fn dial(address: SocketAddr) -> Result<Client> {
    Ok(().serve(connect(format!("ws://{address}/mcp")).await?).await?)
}

async fn call(client: &Client, text: &str) -> Result<()> {
    let mut request = CallToolRequestParams::new("echo");
    request.arguments = json!({ "text": text }).as_object().cloned();
    let answer = timeout(LIMIT, client.call_tool(request)).await??;
    let echoed = answer.content.first().and_then(|content| content.as_text());
    if echoed.is_some_and(|echoed| echoed.text == text) { Ok(()) } else { Err("no echo".into()) }
}

// The measurements.

/// Times of calls, one after the other, sorted.
async fn one_by_one(client: &Client, text: &str, calls: usize) -> Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let began = Instant::now();
        call(client, text).await?;
        times.push(began.elapsed());
    }
    times.sort();
    Ok(times)
}

/// Calls per second with 64 in flight.
async fn in_flight(client: &Client, calls: usize) -> Result<f64> {
    let began = Instant::now();
    let mut all = stream::iter(0..calls).map(|_| call(client, "small")).buffer_unordered(64);
    while let Some(answered) = all.next().await {
        answered?;
    }
    Ok(calls as f64 / began.elapsed().as_secs_f64())
}

fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_by(|one, other| one.partial_cmp(other).unwrap_or(std::cmp::Ordering::Equal));
    values[values.len() / 2]
}

fn at(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

/// Measures calls to an instance directly, and to the same by way of another and the bus.
async fn calls([a, b, _]: &[Instance; 3], scale: usize) -> Result<()> {
    let (direct_network, relayed_network) =
        (Network::to(a.server.local_addr()).await?, Network::to(a.server.local_addr()).await?);
    let (direct, relayed) =
        (dial(direct_network.address).await?, dial(relayed_network.address).await?);
    relayed_network.target.send_replace(b.server.local_addr());
    call(&relayed, "back").await?;
    if b.registry.health().relayed_out != 1 {
        return Err("the client is not relayed".into());
    }
    let large = "x".repeat(4_000_000);
    let mut rows: Vec<[Vec<f64>; 4]> = vec![Default::default(), Default::default()];
    for _ in 0..ROUNDS {
        for (client, row) in [&direct, &relayed].into_iter().zip(&mut rows) {
            let times = one_by_one(client, "small", 5_000 / scale).await?;
            row[0].push(at(&times, 0.5).as_secs_f64() * 1e6);
            row[1].push(at(&times, 0.99).as_secs_f64() * 1e6);
            row[2].push(in_flight(client, 20_000 / scale).await?);
            let times = one_by_one(client, &large, 20 / scale.min(4)).await?;
            row[3].push(at(&times, 0.5).as_secs_f64() * 1e3);
        }
    }
    println!("| | direct | relayed | |");
    println!("|---|--:|--:|--:|");
    let names =
        ["a call, p50, µs", "a call, p99, µs", "calls/s, 64 in flight", "4 MB both ways, ms"];
    for (column, name) in names.into_iter().enumerate() {
        let [direct, relayed] = [0, 1].map(|row| median(rows[row][column].clone()));
        let pairs = rows[0][column].iter().zip(&rows[1][column]);
        let ratio = median(pairs.map(|(direct, relayed)| relayed / direct).collect::<Vec<_>>());
        println!("| {name} | {direct:.1} | {relayed:.1} | {ratio:.2} × |");
    }
    Ok(())
}

/// Measures the time from a cut until a call is answered by way of another instance.
async fn cuts([a, b, c]: &[Instance; 3], cuts: usize) -> Result<()> {
    let network = Network::to(a.server.local_addr()).await?;
    // The time that clients wait before they come back, up to a second by default, is not measured.
    let at_once = ReconnectPolicy::default().first(Duration::ZERO);
    let connect = connect(format!("ws://{}/mcp", network.address)).reconnect(at_once);
    let client = ().serve(connect.await?).await?;
    let mut times = Vec::new();
    for cut in 0..cuts {
        let began = Instant::now();
        network.target.send_replace([b, c][cut % 2].server.local_addr());
        call(&client, "back").await?;
        times.push(began.elapsed());
        // A client does not come back at once from a connection that has not carried a message each
        // way, and this one may have brought the answer only.
        call(&client, "carried").await?;
        sleep(Duration::from_millis(50)).await;
    }
    times.sort();
    println!(
        "\nFrom a cut to an answer by way of another, by a client that comes back at once: p50 {:.1?}, p99 \
         {:.1?}",
        at(&times, 0.5),
        at(&times, 0.99)
    );
    Ok(())
}

/// Measures calls to an instance whose bus hangs, next to those before.
async fn hang([a, ..]: &[Instance; 3], nats: &NatsServer, scale: usize) -> Result<()> {
    let client = dial(a.server.local_addr()).await?;
    let (mut before, mut during) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        before.push(at(&one_by_one(&client, "small", 5_000 / scale).await?, 0.99));
        nats.signal("-STOP").await?;
        let hanging = one_by_one(&client, "small", 5_000 / scale).await;
        nats.signal("-CONT").await?;
        during.push(at(&hanging?, 0.99));
    }
    println!(
        "\nLocal calls, p99: {:.1?}; while NATS hangs: {:.1?}",
        median(before),
        median(during)
    );
    Ok(())
}

struct Listener(watch::Sender<usize>);

impl ClientHandler for Listener {
    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.0.send_modify(|told| *told += 1);
    }
}

/// Measures the time until every client is notified, by the bus and by each instance itself.
async fn notifications(instances: &[Instance; 3], clients: usize) -> Result<()> {
    let (told, mut count) = watch::channel(0);
    let mut services = Vec::new();
    for instance in instances {
        let url = format!("ws://{}/mcp", instance.server.local_addr());
        for _ in 0..clients.div_ceil(50) {
            let dialling = (0..50).map(|_| async {
                let listener = Listener(told.clone());
                Ok::<_, Box<dyn Error + Send + Sync>>(listener.serve(connect(&*url).await?).await?)
            });
            services.extend(try_join_all(dialling).await?);
        }
    }
    let all = services.len();
    let notification = || ToolListChangedNotification::default().into();
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..60 {
        let by_bus = round % 2;
        told.send_replace(0);
        let began = Instant::now();
        if by_bus == 1 {
            let _ = instances[0].registry.notify_cluster(&Audience::All, notification())?;
        } else {
            for instance in instances {
                instance.registry.notify_all(notification())?;
            }
        }
        timeout(LIMIT, count.wait_for(|told| *told == all)).await??;
        times[by_bus].push(began.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
    let [local, by_bus] = times.map(|mut times| {
        times.sort();
        (at(&times, 0.5), at(&times, 0.99))
    });
    println!(
        "\n{all} clients are told, p50 and p99 of the last: {local:.1?}, by the bus {by_bus:.1?}"
    );
    for service in services {
        service.cancel().await?;
    }
    Ok(())
}
