//! `mcp-ws serve`: stdio servers on WebSockets, one process for each session.

use std::{
    collections::BTreeMap, io, net::SocketAddr, num::NonZeroUsize, path::PathBuf, sync::Arc,
};

use futures::{FutureExt, future::Either};
use http::request::Parts;
use mcp_ws_transport::{
    relay,
    server::{BearerTokens, Config, Limits, Registry, ServerTls, SessionConfig, TrustedProxies},
    transport,
};
use rmcp::model::Extensions;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::{
    child::{Child, Program},
    config, example,
    failure::{Failure, Kind, with_options},
    guard::Guard,
    health::HealthPage,
    options::{read_token, socket, unreadable},
    output::print,
    restart::Restarting,
    stop::Stop,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The IP address and the port to listen on, 0 for any free one. 0.0.0.0 lets other machines
    /// in, whose clients need --allow-host
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// A file with several servers, as hosts have it (mcpServers.json), with command, args, env and
    /// cwd of each; each is served at /NAME
    #[arg(long, value_name = "FILE", conflicts_with = "command")]
    config: Option<PathBuf>,
    /// The clients that may be connected at once, each with a process of its own. As many more may
    /// have lost their connection and come back
    #[arg(long, value_name = "N", default_value = "64")]
    max_sessions: NonZeroUsize,
    /// The time in which a client that has lost its connection may come back to its process; 0 for
    /// none
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    resume_window: u64,
    /// Start a process again that ends while its client is connected, as often as 5 times within
    /// 60 s, and initialize it as the client has. What was in flight ends with an error
    #[arg(long)]
    restart: bool,
    /// A token that lets a client in, who sends it as `Authorization: Bearer`; may be given several
    /// times. Without one, whoever reaches the address may enter. Others can see it in the list of
    /// processes: prefer the file or the variable
    #[arg(long = "bearer", value_name = "TOKEN", env = "MCP_WS_BEARER", hide_env_values = true)]
    bearers: Vec<String>,
    /// A file with such a token, which is read once, at the start
    #[arg(long, value_name = "FILE")]
    bearer_file: Option<PathBuf>,
    /// A host that clients may name in their URL, such as mcp.example.com or *.example.com; may be
    /// given several times, and takes the place of localhost, 127.0.0.1 and ::1
    #[arg(long = "allow-host", value_name = "HOST")]
    hosts: Vec<String>,
    /// An origin whose web pages may connect, such as https://app.example.com, or
    /// http://localhost:* for any port; may be given several times. Without one, only pages of the
    /// served hosts may
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    origins: Vec<String>,
    /// A proxy whose X-Forwarded-For tells the address of a client, such as 127.0.0.1 or
    /// 10.0.0.0/8; may be given several times
    #[arg(long = "trusted-proxy", value_name = "ADDR")]
    proxies: Vec<String>,
    /// The certificate chain for wss://, in PEM form
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate, in PEM form
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Answer /health with what the server is doing, as JSON, to whoever may connect: it asks for
    /// the same hosts and tokens
    #[arg(long)]
    health: bool,
    /// Compress messages, for clients that offer it
    #[arg(long)]
    deflate: bool,
    /// The command of the server, and its arguments, behind `--`. It is served at /mcp
    #[arg(required_unless_present = "config", last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Returns the end of `--help`.
pub(crate) fn help() -> String {
    let example = example("mcp-ws serve -- npx -y @modelcontextprotocol/server-everything");
    format!(
        "It prints `listening on ws://127.0.0.1:8080/mcp` when clients may come. Ctrl+C and \
         SIGTERM let the calls in flight end, for 30 s at most, and then end all processes; a \
         second one ends them at once.\n\n{example}"
    )
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let mut stop = Stop::new()?;
    let programs = programs(&args)?;
    programs.values().try_for_each(Program::check)?;
    let paths: Vec<String> = programs.keys().cloned().collect();
    let registry = Registry::default();
    let config = server_config(&args)?.registry(registry.clone());
    // Those whose clients are connected, and those whose clients may come back.
    let most = args.max_sessions.get().saturating_mul(2).min(Semaphore::MAX_PERMITS);
    let starter = Arc::new(Starter {
        programs,
        guard: Guard::start()?,
        children: TaskTracker::new(),
        room: Arc::new(Semaphore::new(most)),
        restarts: args.restart,
    });
    let children = starter.children.clone();
    let serve = relay::serve(args.listen, move |extensions| {
        let starter = starter.clone();
        async move { starter.start(&extensions).await }
    });
    let mut serve = serve.paths(paths.clone()).config(config);
    if args.health {
        serve = serve.fallback(HealthPage { registry });
    }
    let mut scheme = "ws";
    if let Some((cert, key)) = args.tls_cert.zip(args.tls_key) {
        let tls = ServerTls::from_pem_files(cert, key);
        serve = serve.tls(tls.map_err(|error| Failure::new(Kind::Usage, error.to_string()))?);
        scheme = "wss";
    }
    let server = serve.await.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput => Failure::usage(with_options(error.to_string())),
        _ => Failure::usage(format!("cannot listen on {}: {error}", args.listen)),
    })?;
    for path in paths {
        print(&format!("listening on {scheme}://{}{path}", server.local_addr()))?;
    }

    stop.asked().await;
    let stopped = async {
        server.shutdown().await;
        children.close();
        children.wait().await;
    };
    tokio::select! {
        () = stopped => Ok(()),
        () = stop.asked() => {
            Err(Failure::new(Kind::Connection, "stopped before every client was told"))
        }
    }
}

/// Returns what is served, by path.
fn programs(args: &Args) -> Result<BTreeMap<String, Program>, Failure> {
    Ok(match &args.config {
        Some(file) => config::read(file)?
            .into_iter()
            .map(|program| (format!("/{}", program.name), program))
            .collect(),
        None => BTreeMap::from([("/mcp".to_owned(), Program::of(&args.command)?)]),
    })
}

fn server_config(args: &Args) -> Result<Config<relay::Server>, Failure> {
    let window = std::time::Duration::from_secs(args.resume_window);
    let sessions = (!window.is_zero())
        .then(|| SessionConfig::default().window(window).max_sessions(args.max_sessions.get()));
    let mut tokens = args.bearers.clone();
    if let Some(file) = &args.bearer_file {
        let token = read_token(file).map_err(|error| unreadable("--bearer-file", file, &error))?;
        tokens.push(token);
    }
    let mut config = Config::default()
        .sessions(sessions)
        .limits(Limits::default().connections(args.max_sessions.get()))
        .allowed_origins(&args.origins)
        .transport(transport::Config::default().socket(socket(args.deflate)));
    if !tokens.is_empty() {
        config = config.authenticator(tokens.into_iter().collect::<BearerTokens>());
    }
    if !args.hosts.is_empty() {
        config = config.allowed_hosts(&args.hosts);
    }
    if !args.proxies.is_empty() {
        config = config.trusted_proxies(TrustedProxies::x_forwarded_for(&args.proxies));
    }
    Ok(config)
}

/// Starter of a process for each session.
struct Starter {
    programs: BTreeMap<String, Program>,
    guard: Guard,
    children: TaskTracker,
    /// Room for processes, those included that are being ended.
    room: Arc<Semaphore>,
    restarts: bool,
}

impl Starter {
    async fn start(
        self: Arc<Self>,
        extensions: &Extensions,
    ) -> io::Result<Either<Child, Restarting>> {
        let asked = extensions.get::<Parts>().map_or("", |parts| parts.uri.path());
        let asked = asked.strip_suffix('/').unwrap_or(asked);
        let program = self.programs.get(asked).ok_or(io::ErrorKind::NotFound)?.clone();
        let child = self.child(&program).await?;
        if !self.restarts {
            return Ok(Either::Left(child));
        }
        let name = program.name.clone();
        let again = move || {
            let (starter, program) = (self.clone(), program.clone());
            async move { starter.child(&program).await }.boxed()
        };
        Ok(Either::Right(Restarting::new(name, child, Box::new(again))))
    }

    /// Starts a process once there is room for one, which waits until another has ended.
    async fn child(&self, program: &Program) -> io::Result<Child> {
        let permit = self.room.clone().acquire_owned().await.map_err(io::Error::other)?;
        program.start(&self.guard, &self.children, Some(permit))
    }
}
