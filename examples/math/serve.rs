//! `math serve`: the server, until it is told to stop.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    pin::pin,
    time::Duration,
};

use futures::{Stream, StreamExt};
use mcp_ws_transport::{
    layer::socket,
    server::{BearerTokens, Config, Limits, RegistryEvent, RejectReason, ServerTls, SessionConfig},
    transport,
};
use tokio_util::sync::CancellationToken;

use crate::{service::Math, stop::Stop, web::Web};

/// Number of paths for WebSockets.
const PATHS: usize = 4;

/// Most clients on each of them that have not yet shown who they are.
const MAX_HANDSHAKES: usize = 1024;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The address to listen on
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// A token that lets a client in; may be given several times. Without one, every client is
    /// accepted
    #[arg(long = "token", value_name = "TOKEN")]
    tokens: Vec<String>,
    /// A host to be served, such as math.example.com:8080; may be given several times. Without one,
    /// only localhost is
    #[arg(long = "allow-host", value_name = "HOST")]
    hosts: Vec<String>,
    /// An origin whose web pages may connect, such as https://app.example.com; may be given several
    /// times
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    origins: Vec<String>,
    /// How many clients may be connected at once to each of the paths
    #[arg(long, value_name = "N", default_value_t = 1024)]
    max_connections: usize,
    /// How long a client that has lost its connection may come back to its session; 0 for not at
    /// all
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    resume_window: u64,
    /// The certificate chain for wss://, in PEM form
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key, in PEM form. Both files are read again on SIGHUP
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Compress messages, for clients that offer it
    #[cfg(feature = "deflate")]
    #[arg(long)]
    deflate: bool,
}

pub(crate) async fn run(args: Args) -> crate::Result {
    let mut signals = Stop::new()?;
    let limits = Limits::default().connections(args.max_connections).handshakes(MAX_HANDSHAKES);
    let connections = args.max_connections.saturating_add(MAX_HANDSHAKES);
    raise_open_files(connections.saturating_mul(PATHS))?;
    let math = Math::new();
    let stop = CancellationToken::new();
    let config = config(&args).limits(limits.clone()).cancellation_token(stop.clone());
    let web = Web::new(&math, &config, limits, socket(&args), args.tokens)?;
    let (beside, router) = (web.clone().beside(), web.clone().router());

    let serve = mcp_ws_transport::serve(args.listen, move || math.clone());
    let mut serve = serve.config(config).or_unguarded(beside).fallback_unguarded(router);
    let scheme = match args.tls_cert.zip(args.tls_key) {
        Some((cert, key)) => {
            let tls = ServerTls::from_pem_files(cert, key)?;
            reload_on_hangup(tls.clone())?;
            serve = serve.tls(tls);
            "wss"
        }
        None => "ws",
    };
    let server =
        serve.await.map_err(|error| format!("cannot listen on {}: {error}", args.listen))?;

    tokio::spawn(hint(server.registry().events()));

    let mut stdout = io::stdout();
    let address = server.local_addr();
    writeln!(stdout, "listening on {scheme}://{address}/mcp")?;
    writeln!(stdout, "a page to try it: {}://{address}/", scheme.replace("ws", "http"))?;
    stdout.flush()?;

    signals.asked().await;
    stop.cancel();
    let stopped = async { tokio::join!(server.shutdown(), web.closed()) };
    tokio::select! {
        _ = stopped => Ok(()),
        () = signals.asked() => Err("stopped before every client was told".into()),
    }
}

/// Says, once for each reason, which option would let in who was refused.
async fn hint(events: impl Stream<Item = RegistryEvent>) {
    let mut events = pin!(events);
    let mut said = BTreeSet::new();
    while let Some(event) = events.next().await {
        let RegistryEvent::Rejected { reason, .. } = event else { continue };
        let hint = match reason {
            RejectReason::Origin => {
                "a web page was refused: with --allow-origin ORIGIN its pages may connect"
            }
            RejectReason::Host => {
                "a request for another host was refused: with --allow-host HOST it is served"
            }
            _ => continue,
        };
        if said.insert(reason) {
            eprintln!("{hint}");
        }
    }
}

fn config(args: &Args) -> Config {
    let window = Duration::from_secs(args.resume_window);
    let sessions = (!window.is_zero()).then(|| SessionConfig::default().window(window));
    let mut config = Config::default().sessions(sessions);
    if !args.tokens.is_empty() {
        config = config.authenticator(args.tokens.iter().cloned().collect::<BearerTokens>());
    }
    if !args.hosts.is_empty() {
        config = config.allowed_hosts(&args.hosts);
    }
    if args.tls_cert.is_some() {
        config = config.assume_https();
    }
    config
        .allowed_origins(&args.origins)
        .transport(transport::Config::default().socket(socket(args)))
}

#[cfg(feature = "deflate")]
fn socket(args: &Args) -> socket::Config {
    socket::Config::default().deflate(args.deflate.then(socket::deflate::Config::default))
}

#[cfg(not(feature = "deflate"))]
fn socket(_: &Args) -> socket::Config {
    socket::Config::default()
}

/// Raises the limit of open files, of which each connection is one: most systems let a process have
/// 1,024 until it asks for more.
#[cfg(target_os = "linux")]
fn raise_open_files(connections: usize) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let needed = (connections as u64).saturating_add(64).min(maximum.unwrap_or(u64::MAX));
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum })?)
}

#[cfg(not(target_os = "linux"))]
fn raise_open_files(_: usize) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn reload_on_hangup(tls: ServerTls) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match tls.reload() {
                Ok(()) => eprintln!("the certificate was read again"),
                Err(error) => eprintln!("the certificate stays as it was: {error}"),
            }
        }
    });
    Ok(())
}

#[cfg(windows)]
fn reload_on_hangup(_: ServerTls) -> io::Result<()> {
    Ok(())
}
