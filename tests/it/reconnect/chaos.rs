//! Everything at once: connections are cut, in the handshake too, stalled and delayed, some of them
//! compressed, and the server, a process of its own, is drained or killed and started again. Every
//! call ends once, with its own answer or with an error that is true, and only a server that went
//! away costs any its answer.
//!
//! With `MCP_WS_FULL` set, 100,000 calls under ten seeds. `MCP_WS_SEED` is the first of them.

use std::{
    collections::HashMap,
    env,
    fs::{File, OpenOptions},
    io::{Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use futures::{StreamExt, future::join_all, stream};
use mcp_ws_transport::{
    client::ReconnectPolicy,
    connect, serve,
    server::{Config, Drain},
    transport,
};
use proptest::{
    prelude::RngExt as _,
    test_runner::{RngAlgorithm, TestRng},
};
use rmcp::{
    ErrorData, RoleClient, RoleServer, ServerHandler, ServiceError, ServiceExt,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ServerCapabilities,
        ServerConfig,
    },
    service::{Peer, RequestContext, RunningService},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::common::{
    proxy::{Faults, Proxy},
    scale, within,
};

/// The file in which a server process writes down what it executes.
const EXECUTED: &str = "MCP_WS_CHAOS_EXECUTED";

/// Longer than any call takes, unless it hangs: a server that stops may put a client off by five
/// seconds.
const HUNG: Duration = Duration::from_secs(60);

/// Calls that each client has in flight.
const IN_FLIGHT: usize = 10;

fn random(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

/// Returns the one answer to the call with this number: up to 4 KiB.
fn answer(number: u64) -> String {
    let size = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52) as usize;
    format!("{number}: {}", format!("{:x} ", number * 7).repeat(size / 8))
}

/// A service whose tool writes down the `number` of the call, waits for `ms` milliseconds, and
/// answers.
#[derive(Debug, Clone)]
struct Journal(Arc<Mutex<File>>);

impl ServerHandler for Journal {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        let [number, ms] = ["number", "ms"].map(|name| arguments[name].as_u64().unwrap());
        // Not lost with the process, however it ends.
        self.0.lock().unwrap().write_all(&number.to_le_bytes()).unwrap();
        sleep(Duration::from_millis(ms)).await;
        Ok(CallToolResult::success(vec![ContentBlock::text(answer(number))]).into())
    }
}

/// Serves until its standard input ends, then drains. Does nothing unless another test has started
/// it for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_process_for_the_other_test() {
    let Some(executed) = env::var_os(EXECUTED) else { return };
    let file = OpenOptions::new().append(true).create(true).open(executed).unwrap();
    let journal = Journal(Arc::new(Mutex::new(file)));
    let config = Config::default()
        .transport(layers(1))
        .drain(Drain::default().deadline(Duration::from_secs(5)).closes_per_second(1000));
    let server = serve("127.0.0.1:0", move || journal.clone()).config(config).await.unwrap();
    println!("\nlistening on {}", server.local_addr());
    let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
    server.shutdown().await;
}

/// Returns the layers of a client; some compress.
fn layers(number: usize) -> transport::Config {
    let layers = transport::Config::default();
    #[cfg(feature = "deflate")]
    if number % 2 == 1 {
        use mcp_ws_transport::layer::socket::{self, deflate};
        let deflate = deflate::Config::default().context_takeover(number % 4 == 3).threshold(100);
        return layers.socket(socket::Config::default().deflate(deflate));
    }
    let _ = number;
    layers
}

struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    async fn new(executed: &Path) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "reconnect::chaos::a_server_process_for_the_other_test",
                "--nocapture",
            ])
            .env(EXECUTED, executed)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = within(Duration::from_secs(20), async {
            loop {
                let line = lines.next_line().await.unwrap().expect("a server that listens");
                if let Some(address) = line.strip_prefix("listening on ") {
                    return address.parse().unwrap();
                }
            }
        });
        let address = address.await;
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child, address }
    }

    async fn killed(mut self) {
        self.child.kill().await.unwrap();
    }

    async fn drained(mut self) {
        drop(self.child.stdin.take());
        within(Duration::from_secs(20), self.child.wait()).await.unwrap();
    }
}

/// Time in which there was not one server alone, and the reason.
#[derive(Debug, Clone, Copy)]
struct Change {
    killed: bool,
    from: Instant,
    until: Instant,
}

/// Outcome of one call.
#[derive(Debug)]
struct Ended {
    number: u64,
    from: Instant,
    until: Instant,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Answered,
    NotSent,
    Unknown,
}

async fn call(peer: &Peer<RoleClient>, number: u64, ms: u64) -> Ended {
    let Value::Object(arguments) = json!({ "number": number, "ms": ms }) else { unreachable!() };
    let params = CallToolRequestParams::new("journal").with_arguments(arguments);
    let from = Instant::now();
    let Ok(result) = tokio::time::timeout(HUNG, peer.call_tool(params)).await else {
        panic!("the call {number} hangs")
    };
    let outcome = match result {
        Ok(result) => {
            assert_eq!(result.content[0].as_text().unwrap().text, answer(number));
            Outcome::Answered
        }
        Err(ServiceError::McpError(error)) => {
            match error.data.as_ref().and_then(|data| data["reason"].as_str()) {
                Some("not_sent") => Outcome::NotSent,
                Some("outcome_unknown") => Outcome::Unknown,
                _ => panic!("{number}: {error:?}"),
            }
        }
        Err(error) => panic!("{number}: {error}"),
    };
    Ended { number, from, until: Instant::now(), outcome }
}

/// Draws what becomes of connections: some are cut in the handshake, most sooner or later, and some
/// are far away.
fn draw_faults(seed: u64) -> impl FnMut() -> Faults {
    let mut random = random(seed);
    move || {
        let cut_after = match random.random_range(0..10) {
            0..2 => Some(random.random_range(0..800)),
            2..8 => Some(random.random_range(800..200_000)),
            _ => None,
        };
        let latency = match cut_after {
            None if random.random() => Duration::from_millis(random.random_range(1..20)),
            _ => Duration::ZERO,
        };
        Faults { cut_after, reset: random.random(), latency, ..Faults::default() }
    }
}

type Client = RunningService<RoleClient, ()>;

async fn client(proxy: &Proxy, number: usize) -> Client {
    let bound = Duration::from_millis(5);
    let pace =
        ReconnectPolicy::default().first(bound).after_restart(bound).min(bound).max(bound * 4);
    let connect = connect(proxy.url()).reconnect(pace).retry_first().transport(layers(number));
    within(HUNG, async { ().serve(connect.await.unwrap()).await.unwrap() }).await
}

/// Cuts, stalls, kills and drains until it is told that it is enough.
async fn faults(
    seed: u64,
    executed: &Path,
    mut server: Process,
    proxies: &[Proxy],
    enough: &AtomicBool,
) -> Vec<Change> {
    let mut random = random(seed ^ 0xc4a05);
    let mut changes = Vec::new();
    while !enough.load(SeqCst) {
        sleep(Duration::from_millis(random.random_range(10..200))).await;
        let proxy = &proxies[random.random_range(0..proxies.len())];
        let what = random.random_range(0..10);
        match what {
            0..4 => proxy.cut(),
            4..6 => {
                proxy.stall(true);
                sleep(Duration::from_millis(random.random_range(1..100))).await;
                proxy.stall(false);
            }
            _ => {
                let (killed, gap) = (what < 8, what == 7);
                let from = Instant::now();
                if gap {
                    server.killed().await;
                    sleep(Duration::from_millis(random.random_range(0..100))).await;
                    server = Process::new(executed).await;
                    redirect(proxies, server.address);
                } else {
                    let old = std::mem::replace(&mut server, Process::new(executed).await);
                    redirect(proxies, server.address);
                    if killed { old.killed().await } else { old.drained().await }
                }
                changes.push(Change { killed, from, until: Instant::now() });
            }
        }
    }
    server.drained().await;
    changes
}

fn redirect(proxies: &[Proxy], address: SocketAddr) {
    for proxy in proxies {
        *proxy.target.lock().unwrap() = address;
    }
}

/// Returns the number of times that each call was executed, by whichever process.
fn executions(path: &Path) -> HashMap<u64, usize> {
    let mut bytes = Vec::new();
    File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    let mut times = HashMap::new();
    for number in bytes.chunks_exact(8) {
        *times.entry(u64::from_le_bytes(number.try_into().unwrap())).or_default() += 1;
    }
    times
}

/// Time within which the end of a killed server's connections reaches the clients, on a busy
/// machine.
const NEWS: Duration = Duration::from_millis(200);

/// Returns `true` if a server was killed, or drained, while the call was in flight, or was killed
/// before and the client that made it did not know of that yet. What crosses the Close of a server
/// that drains is not known to be unread.
fn is_expected(ended: &Ended, changes: &[Change]) -> bool {
    changes.iter().any(|change| {
        let until = if change.killed { change.until + NEWS } else { change.until };
        change.from <= ended.until && ended.from <= until
    })
}

/// Returns how many calls were answered, not sent, and lost.
async fn chaos(seed: u64, calls: usize) -> [usize; 3] {
    let executed = TemporaryFile::new(seed);
    let server = Process::new(&executed.0).await;
    let mut proxies = Vec::new();
    for number in 0..4 {
        let proxy = Proxy::new(server.address).await;
        proxy.draw_faults(draw_faults(seed ^ (number << 32)));
        proxies.push(proxy);
    }
    let enough = AtomicBool::new(false);
    let next = AtomicU64::new(seed * 1_000_000);
    let last = seed * 1_000_000 + calls as u64;
    let calling = async {
        let lanes = proxies.iter().enumerate().map(async |(number, proxy)| {
            let client = client(proxy, number).await;
            let (peer, mut random) = (client.peer(), random(seed ^ ((number as u64) << 40)));
            let numbers = std::iter::from_fn(|| {
                let call = next.fetch_add(1, SeqCst);
                (call < last).then(|| (call, random.random_range(0..30)))
            });
            let ended: Vec<_> = stream::iter(numbers)
                .map(|(each, ms)| call(peer, each, ms))
                .buffer_unordered(IN_FLIGHT)
                .collect()
                .await;
            within(HUNG, client.cancel()).await.unwrap();
            ended
        });
        let ended = join_all(lanes).await.into_iter().flatten().collect::<Vec<_>>();
        enough.store(true, SeqCst);
        ended
    };
    let faults = faults(seed, &executed.0, server, &proxies, &enough);
    let (ended, changes) = tokio::join!(calling, faults);
    assert_eq!(ended.len(), calls);
    let times = executions(&executed.0);
    let mut outcomes = [0; 3];
    for call in &ended {
        let times = times.get(&call.number).copied().unwrap_or(0);
        outcomes[call.outcome as usize] += 1;
        match call.outcome {
            Outcome::Answered => assert_eq!(times, 1, "{call:?}"),
            Outcome::NotSent => assert_eq!(times, 0, "{call:?}"),
            Outcome::Unknown => assert!(times <= 1, "executed {times} times: {call:?}"),
        }
        let expected = call.outcome == Outcome::Answered || is_expected(call, &changes);
        assert!(expected, "lost without need: {call:?} {changes:?}");
    }
    let (dials, cuts) = proxies.iter().fold((0, 0), |(dials, cuts), proxy| {
        (dials + proxy.dials.load(SeqCst), cuts + proxy.cut_at.lock().unwrap().len())
    });
    let killed = changes.iter().filter(|change| change.killed).count();
    let drained = changes.len() - killed;
    let slowest = ended.iter().map(|call| call.until - call.from).max().unwrap_or_default();
    println!(
        "seed {seed}: {dials} dials, {cuts} cuts, {killed} kills, {drained} drains; {} answered, {} \
         not sent, {} unknown; the slowest took {slowest:?}",
        outcomes[0], outcomes[1], outcomes[2]
    );
    outcomes
}

struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn new(seed: u64) -> Self {
        let name = format!("mcp-ws-chaos-{}-{seed}", std::process::id());
        let path = env::temp_dir().join(name);
        File::create(&path).unwrap();
        Self(path)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_chaos_every_call_ends_once_and_truly() {
    let first = env::var("MCP_WS_SEED").map_or(1, |seed| seed.parse().unwrap());
    for seed in first..first + scale(1, 10) as u64 {
        println!("seed {seed}");
        let [answered, ..] = chaos(seed, scale(2000, 10_000)).await;
        assert!(answered > 0);
    }
}
