//! Three instances of one server behind nginx, which leads each connection to the next of them and
//! knows nothing of sessions. NATS joins them: notifications reach every client, and a client that
//! comes back finds its session at whichever instance.
//!
//! `cargo run --package mcp-ws-transport-nats --example cluster`, where `nats-server` and `nginx`
//! are installed. It starts all of them on free ports, and ends them.

use std::{
    env,
    error::Error,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use futures::{StreamExt, future::try_join_all};
use mcp_ws_transport::{
    cluster::{Audience, Cluster, Subject},
    connect,
    event::{Event, Events},
    serve,
    server::{Config, Registry},
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
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdin, Command},
    sync::watch,
    time::{sleep, timeout},
};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Prefix of the subjects on NATS that the instances use.
const PREFIX: &str = "example.cluster";

/// Time limit of each step, which none of them reaches.
const LIMIT: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match &arguments[..] {
        [mode, tag, nats] if mode == "instance" => instance(tag, nats).await,
        [] => timeout(4 * LIMIT, story()).await?,
        _ => Err("it takes no arguments".into()),
    }
}

// An instance, as a process of its own.

/// Service that knows the tag of its instance.
#[derive(Clone)]
struct Service {
    tag: String,
    registry: Registry,
}

/// Serves until the standard input ends, and prints the address first.
async fn instance(tag: &str, nats: &str) -> Result<()> {
    let prefix = Subject::new(PREFIX)?;
    // Two connections, so that the messages of sessions do not delay those between the instances.
    let bus = Nats::connect(nats).prefix(&prefix).await?;
    let relays = Nats::connect(nats).prefix(&prefix).await?;
    let cluster = Cluster::join(bus, PREFIX).instance(tag).relay_bus(relays).await?;
    let registry = Registry::default();
    let config = Config::default().cluster(cluster.clone()).registry(registry.clone());
    let service = Service { tag: tag.to_owned(), registry };
    let server = serve("127.0.0.1:0", move || service.clone()).config(config).await?;
    println!("{}", server.local_addr());
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    server.shutdown().await;
    cluster.leave().await;
    Ok(())
}

impl ServerHandler for Service {
    fn get_info(&self) -> ServerConfig {
        let tools = ServerCapabilities::builder().enable_tools().enable_tool_list_changed();
        ServerConfig::new(tools.build())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let text = match &*request.name {
            // The instance at which the session is, whichever the client is connected to.
            "instance" => self.tag.clone(),
            "work" => {
                let arguments = Value::from(request.arguments.unwrap_or_default());
                let time = Duration::from_millis(arguments["ms"].as_u64().unwrap_or_default());
                sleep(time).await;
                format!("{time:?} of work at {}", self.tag)
            }
            "announce" => self.announce().await?,
            other => return Err(ErrorData::invalid_params(format!("no tool {other}"), None)),
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

impl Service {
    /// Notifies the clients of all instances that the list of tools has changed.
    async fn announce(&self) -> Result<String, ErrorData> {
        let changed = ToolListChangedNotification::default();
        let sent = self
            .registry
            .notify_cluster(&Audience::All, changed.into())
            .map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        let report = sent.report(Duration::from_secs(2)).await;
        let mut text = format!("clients that are told: {} at {}", report.local.sent, self.tag);
        for (tag, reached) in report.others {
            text += &format!(", {} at {tag}", reached.sent);
        }
        if let Some(error) = report.not_sent {
            text += &format!("; the others are not told: {error}");
        }
        Ok(text)
    }
}

// The programs that are started, each of which ends with its handle.

/// Returns a port that is free now.
fn free_port() -> io::Result<u16> {
    Ok(StdListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn start(program: &str, arguments: &[&str]) -> Result<Child> {
    let mut command = Command::new(program);
    command.args(arguments).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().map_err(|error| format!("{program}: {error}; is it installed?").into())
}

/// Waits until somebody listens there.
async fn listening(port: u16) -> Result<()> {
    let connected = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LIMIT, connected).await.map_err(|_| format!("nobody listens at port {port}").into())
}

async fn start_nats(port: u16) -> Result<Child> {
    let nats = start("nats-server", &["--addr", "127.0.0.1", "--port", &port.to_string()])?;
    listening(port).await?;
    Ok(nats)
}

/// Process of an instance, and the address at which it listens.
struct Instance {
    tag: &'static str,
    process: Child,
    _input: Option<ChildStdin>,
    address: SocketAddr,
}

async fn start_instance(tag: &'static str, nats: &str) -> Result<Instance> {
    let this = env::current_exe()?;
    let this = this.to_str().ok_or("the path of this program is not UTF-8")?;
    let mut process = start(this, &["instance", tag, nats])?;
    let output = process.stdout.take().ok_or("no output")?;
    let mut lines = BufReader::new(output).lines();
    let address = timeout(LIMIT, lines.next_line()).await??.ok_or("an instance has not begun")?;
    let address = address.parse()?;
    Ok(Instance { tag, _input: process.stdin.take(), process, address })
}

/// Process of nginx, which leads each connection to the next instance, and its folder.
struct Nginx {
    _process: Child,
    port: u16,
    folder: PathBuf,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn start_nginx(instances: &[Instance]) -> Result<Nginx> {
    let port = free_port()?;
    let folder = env::temp_dir().join(format!("mcp-ws-cluster-{port}"));
    std::fs::create_dir_all(&folder)?;
    let servers: String = instances
        .iter()
        .map(|Instance { address, .. }| format!("server {address} max_fails=0; "))
        .collect();
    let configuration = format!(
        "daemon off; master_process off; pid nginx.pid; error_log error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  upstream instances {{ {servers}}}
  server {{
    listen 127.0.0.1:{port};
    location /mcp {{
      proxy_pass http://instances;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection upgrade;
    }}
  }}
}}
"
    );
    std::fs::write(folder.join("nginx.conf"), configuration)?;
    let program = if Path::new("/usr/sbin/nginx").exists() { "/usr/sbin/nginx" } else { "nginx" };
    let at = folder.to_str().ok_or("the path of the folder is not UTF-8")?;
    let process = start(program, &["-p", at, "-c", "nginx.conf", "-e", "error.log"])?;
    let nginx = Nginx { _process: process, port, folder };
    listening(port).await?;
    Ok(nginx)
}

/// Starts a network between the clients and nginx, which can be cut, and returns its address.
async fn network(to: u16, cuts: watch::Receiver<u32>) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut cut = cuts.clone();
            cut.mark_unchanged();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(("127.0.0.1", to)).await?;
                tokio::select! {
                    carried = copy_bidirectional(&mut near, &mut far) => carried.map(drop),
                    _ = cut.changed() => Ok(()),
                }
            });
        }
    });
    Ok(address)
}

// The clients.

/// Client that counts its notifications.
struct Client {
    service: RunningService<RoleClient, Listener>,
    events: Events<Event>,
    told: watch::Receiver<u32>,
}

struct Listener(watch::Sender<u32>);

impl ClientHandler for Listener {
    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.0.send_modify(|told| *told += 1);
    }
}

impl Client {
    async fn connect(network: SocketAddr) -> Result<Self> {
        let (sender, told) = watch::channel(0);
        let connecting = connect(format!("ws://{network}/mcp"));
        let events = connecting.events();
        let service = Listener(sender).serve(connecting.await?).await?;
        Ok(Self { service, events, told })
    }

    /// Calls a tool, and returns the text of its answer.
    async fn call(&self, tool: &'static str, arguments: Value) -> Result<String> {
        let mut request = CallToolRequestParams::new(tool);
        request.arguments = arguments.as_object().cloned();
        let answer = timeout(LIMIT, self.service.call_tool(request)).await??;
        let text = answer.content.first().and_then(|content| content.as_text());
        Ok(text.ok_or("no text")?.text.clone())
    }

    /// Returns the tag of the instance that has its session.
    async fn instance(&self) -> Result<String> {
        self.call("instance", json!({})).await
    }

    /// Waits until so many notifications have come.
    async fn told(&mut self, times: u32) -> Result<()> {
        timeout(LIMIT, self.told.wait_for(|told| *told >= times)).await??;
        Ok(())
    }

    /// Waits until it is connected again, and returns whether its session goes on.
    async fn back(&mut self) -> Result<bool> {
        let back = async {
            while let Some(event) = self.events.next().await {
                match event {
                    Event::Resumed { .. } => return Ok(true),
                    Event::Restarted { .. } => return Ok(false),
                    _ => {}
                }
            }
            Err("the client does not come back".into())
        };
        timeout(LIMIT, back).await?
    }
}

// The story.

async fn story() -> Result<()> {
    let nats_port = free_port()?;
    let nats_url = format!("nats://127.0.0.1:{nats_port}");
    let mut nats = start_nats(nats_port).await?;
    let starting = ["a", "b", "c"].map(|tag| start_instance(tag, &nats_url));
    let mut instances = try_join_all(starting).await?;
    let nginx = start_nginx(&instances).await?;
    let (cut, cuts) = watch::channel(0);
    let network = network(nginx.port, cuts).await?;

    println!("Three clients, led to one instance after the other");
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Client::connect(network).await?);
    }
    let tags = try_join_all(clients.iter().map(Client::instance)).await?;
    println!("  their sessions are at {}", tags.join(", "));

    println!("One instance tells the clients of all");
    println!("  {}", clients[0].call("announce", json!({})).await?);
    for client in &mut clients {
        client.told(1).await?;
    }
    println!("  every client was told");

    println!("The network is cut four times, while each client has a call in flight");
    for round in 1..=4 {
        let (answers, ()) = {
            let calls = clients.iter().map(|client| client.call("work", json!({ "ms": 300 })));
            let cutting = async {
                sleep(Duration::from_millis(100)).await;
                cut.send_modify(|cuts| *cuts += 1);
            };
            tokio::join!(try_join_all(calls), cutting)
        };
        for ((client, tag), answer) in clients.iter_mut().zip(&tags).zip(answers?) {
            let resumed = client.back().await?;
            ensure(resumed && answer.ends_with(tag.as_str()), "a session was not found")?;
        }
        println!("  {round}: every session was found, and every call answered by it");
    }

    println!("NATS stops");
    nats.kill().await?;
    println!("  {}", clients[0].call("announce", json!({})).await.or_else(lost)?);
    println!("NATS starts again");
    nats = start_nats(nats_port).await?;
    let healed = async {
        loop {
            let report = clients[0].call("announce", json!({})).await?;
            if report.matches(" at ").count() == 3 {
                return Ok::<_, Box<dyn Error + Send + Sync>>(report);
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    println!("  {}", timeout(LIMIT, healed).await??);

    let instance = clients[1].instance().await?;
    println!("Instance {instance} is killed, while a client of it has a call in flight");
    let killed = instances.iter_mut().find(|other| other.tag == instance);
    let killed = killed.ok_or("no such instance")?;
    let (lost_call, killing) =
        tokio::join!(clients[1].call("work", json!({ "ms": 10_000 })), async {
            sleep(Duration::from_millis(200)).await;
            killed.process.kill().await
        });
    killing?;
    println!("  the call: {}", lost_call.or_else(lost)?);
    println!("  the next call is answered at {}", clients[1].instance().await?);

    for client in clients {
        client.service.cancel().await?;
    }
    drop(nginx);
    nats.kill().await?;
    Ok(())
}

/// Returns the text of a call's error.
fn lost(error: Box<dyn Error + Send + Sync>) -> Result<String> {
    Ok(error.to_string())
}

fn ensure(is_so: bool, otherwise: &str) -> Result<()> {
    if is_so { Ok(()) } else { Err(otherwise.into()) }
}
