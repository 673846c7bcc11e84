//! `mcp-ws ping`: what a person needs to know of a server when it does not work.

use std::{future::IntoFuture, time::Instant};

use mcp_ws_transport::layer::resume;
use rmcp::{
    ServiceExt,
    model::{ClientRequest, PingRequest},
};
use serde_json::json;

use crate::{
    deadline::{DEFAULT, Deadline, Step, seconds},
    failure::{Failure, one_line},
    options::ClientOptions,
    output::{print, print_json},
};

/// Fate of a session whose connection is lost, as it is told.
const RESUMES: &str = "are resumed after a lost connection";
const ENDS: &str = "end with their connection";

/// Answer of the server to the offer of compression, as it is told.
const COMPRESSES: &str = "permessage-deflate, where it is offered (--deflate)";
const DECLINES: &str = "none: the server declines it";

/// Pings, of which the median is told.
const PINGS: usize = 5;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The server, such as ws://127.0.0.1:8080/mcp or wss://example.com/mcp
    url: String,
    #[command(flatten)]
    client: ClientOptions,
    /// The time in which the server has to answer
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT, value_parser = seconds())]
    timeout: u64,
    /// Print all that is known as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(mut args: Args) -> Result<(), Failure> {
    // To find out whether the server does, too.
    args.client.deflate = true;
    let start = Instant::now();
    let deadline = Deadline::new(args.timeout);
    let connect = args.client.connect(&args.url)?.handshake_timeout(deadline.time);
    let transport = deadline.keep(Step::Connect, connect.into_future()).await?;
    let connected = start.elapsed();
    let is_compressed = transport.stats().is_compressed();
    let is_encrypted = args.url.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("wss:"));
    let subprotocol = transport.subprotocol().map(str::to_owned);
    let service = deadline.keep(Step::Initialize, ().serve(transport)).await?;
    let initialized = start.elapsed() - connected;
    let mut times = Vec::new();
    for _ in 0..PINGS {
        let start = Instant::now();
        let ping = ClientRequest::PingRequest(PingRequest::default());
        deadline.keep(Step::Ping, service.send_request(ping)).await?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let info = service.peer_info().map(|info| json!(&*info)).unwrap_or_default();
    let _ = service.cancel().await;

    let millis = |time: std::time::Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    let told = json!({
        "connect_ms": millis(connected),
        "initialize_ms": millis(initialized),
        "ping_ms": millis(times[PINGS / 2]),
        "subprotocol": subprotocol,
        "resumes": subprotocol.as_deref() == Some(resume::SUBPROTOCOL),
        "compresses": is_compressed,
        "tls": is_encrypted,
        "protocolVersion": info["protocolVersion"],
        "serverInfo": info["serverInfo"],
        "capabilities": info["capabilities"],
    });
    if args.json {
        return print_json(&told);
    }
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("none").to_owned();
    let server = &told["serverInfo"];
    let capabilities = told["capabilities"].as_object();
    let capabilities = capabilities.into_iter().flat_map(|all| all.keys().cloned());
    let lines = [
        ("server", format!("{} {}", text(&server["name"]), text(&server["version"]))),
        ("protocol", text(&told["protocolVersion"])),
        ("capabilities", capabilities.collect::<Vec<_>>().join(", ")),
        ("subprotocol", text(&told["subprotocol"])),
        ("sessions", if told["resumes"] == true { RESUMES } else { ENDS }.to_owned()),
        ("compression", if is_compressed { COMPRESSES } else { DECLINES }.to_owned()),
        ("encryption", if is_encrypted { "TLS" } else { "none" }.to_owned()),
        ("connected", format!("in {} ms", told["connect_ms"])),
        ("initialized", format!("in {} ms", told["initialize_ms"])),
        ("ping", format!("{} ms (median of {PINGS})", told["ping_ms"])),
    ];
    let lines = lines.map(|(name, value)| format!("{name:13} {}", one_line(&value)));
    print(&lines.join("\n"))
}
