//! Instances of a server as processes of their own, which note each call that they execute.

use std::{
    collections::HashMap,
    env,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use mcp_ws_transport::{
    cluster::{AskError, Bus, Cluster, PublishError, Subject, SubscribeError, Subscription},
    serve,
    server::Config,
};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ServerCapabilities,
        ServerConfig,
    },
    service::RequestContext,
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    sync::watch,
    time::timeout,
};

use super::server::send_signal;

/// Time within which an instance has to be there.
const START: Duration = Duration::from_secs(60);

/// Environment variable of an instance: its tag, the address of the broker, and the log.
const INSTANCE: &str = "MCP_WS_INSTANCE";

/// Share of the messages of relayed sessions that are lost.
const LOSS: f64 = 0.02;

/// Program that carries the messages between instances.
pub(crate) trait Broker {
    type Bus: Bus;
    const PROGRAM: &str;

    /// Returns the arguments with which the program listens at this port.
    fn arguments(port: u16) -> Vec<OsString>;

    /// Connects to the program. A connection on which nothing comes is lost within 2 s.
    fn connect(address: &str) -> impl Future<Output = Self::Bus>;
}

/// Service of one session, whose tool `count` notes its argument `number`, and returns it with the
/// session and the length of `padding` after `ms` milliseconds.
#[derive(Clone)]
struct Noting {
    /// Tag of the instance, and the number of the session there.
    session: String,
    log: Arc<File>,
}

impl ServerHandler for Noting {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = Value::from(request.arguments.unwrap_or_default());
        let (number, session) = (arguments["number"].as_i64().unwrap(), &self.session);
        // One write, so that it is whole whatever happens to the process.
        (&*self.log).write_all(format!("{number} {session}\n").as_bytes()).unwrap();
        tokio::time::sleep(Duration::from_millis(arguments["ms"].as_u64().unwrap())).await;
        let padding = arguments["padding"].as_str().unwrap().len();
        let text = ContentBlock::text(format!("{number} {session} {padding}"));
        Ok(CallToolResult::success(vec![text]).into())
    }
}

/// Bus that loses a message now and then which it says that it has taken.
struct Lossy<B> {
    bus: B,
    /// File that has a byte for each message lost.
    lost: File,
}

impl<B: Bus> Bus for Lossy<B> {
    fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), PublishError> {
        if rand::random_bool(LOSS) {
            (&self.lost).write_all(b".").unwrap();
            return Ok(());
        }
        self.bus.publish(subject, payload)
    }

    fn subscribe(
        &self,
        subject: &Subject,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Subscription, SubscribeError>> {
        self.bus.subscribe(subject, max_bytes)
    }

    fn ask(
        &self,
        subject: &Subject,
        payload: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Bytes, AskError>> {
        self.bus.ask(subject, payload, timeout)
    }

    fn max_payload(&self) -> usize {
        self.bus.max_payload()
    }

    fn watch_up(&self) -> watch::Receiver<bool> {
        self.bus.watch_up()
    }
}

/// Runs this process as an instance if it was started as one, until its standard input ends.
pub(crate) async fn run_instance<B: Broker>() {
    let Ok(told) = env::var(INSTANCE) else { return };
    let told: Vec<_> = told.splitn(3, ' ').collect();
    let [tag, address, log] = told[..] else { panic!("{told:?}") };
    let append = |path: &Path| OpenOptions::new().append(true).open(path).unwrap();
    let lost = append(&Log::lost_at(Path::new(log)));
    let (bus, relays) = (B::connect(address).await, B::connect(address).await);
    let relays = Lossy { bus: relays, lost };
    let cluster = Cluster::join(bus, "chaos").instance(tag).relay_bus(relays).await.unwrap();
    let log = Arc::new(append(Path::new(log)));
    let (tag, sessions) = (tag.to_owned(), AtomicU64::new(0));
    let service = move || {
        let session = format!("{tag}-{}", sessions.fetch_add(1, SeqCst));
        Noting { session, log: log.clone() }
    };
    let server = serve("127.0.0.1:0", service);
    let server = server.config(Config::default().cluster(cluster)).await.unwrap();
    println!("\nlistening on {}", server.local_addr());
    tokio::io::stdin().read_to_end(&mut Vec::new()).await.unwrap();
}

/// Process of an instance, which is killed when this is dropped.
pub(crate) struct Instance {
    pub(crate) tag: String,
    pub(crate) address: SocketAddr,
    process: Child,
    /// Kept open, since a process ends that cannot write its output.
    _output: Lines<BufReader<ChildStdout>>,
}

impl Instance {
    /// Starts the test of this name, which calls [`run_instance`], as an instance.
    pub(crate) async fn start(test: &str, tag: &str, broker: SocketAddr, log: &Log) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["--exact", test, "--include-ignored", "--nocapture"])
            .env(INSTANCE, format!("{tag} {broker} {}", log.path.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let listening = async {
            loop {
                let line = lines.next_line().await.unwrap().expect("the instance has ended");
                if let Some(address) = line.strip_prefix("listening on ") {
                    return address.parse().unwrap();
                }
            }
        };
        let address = timeout(START, listening).await.unwrap();
        Self { tag: tag.to_owned(), address, process, _output: lines }
    }

    /// Returns `true` if the process has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Sends the process a signal, such as `STOP`.
    pub(crate) fn signal(&self, signal: &str) {
        send_signal(self.process.id().unwrap(), signal);
    }

    /// Kills the process, which has no time to say anything.
    pub(crate) async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }
}

/// File in which all instances note what they execute, and one for the messages that they lose.
pub(crate) struct Log {
    path: PathBuf,
}

impl Log {
    pub(crate) fn new(folder: &Path) -> Self {
        let path = folder.join("calls");
        for file in [&path, &Self::lost_at(&path)] {
            File::create(file).unwrap();
        }
        Self { path }
    }

    fn lost_at(path: &Path) -> PathBuf {
        path.with_extension("lost")
    }

    /// Returns how many messages were lost.
    pub(crate) fn lost(&self) -> u64 {
        fs::metadata(Self::lost_at(&self.path)).unwrap().len()
    }

    /// Returns the sessions in which each call was executed, and the numbers of all in that order.
    pub(crate) fn read(&self) -> (HashMap<i64, Vec<String>>, Vec<i64>) {
        let (mut executed, mut order) = (HashMap::<_, Vec<_>>::new(), Vec::new());
        for line in fs::read_to_string(&self.path).unwrap().lines() {
            let (number, session) = line.split_once(' ').unwrap();
            let number = number.parse().unwrap();
            executed.entry(number).or_default().push(session.to_owned());
            order.push(number);
        }
        (executed, order)
    }
}
