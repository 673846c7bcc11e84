//! A client of a round: makes calls, and writes down how each ends.

use std::{
    fs::{File, OpenOptions},
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream};
use mcp_ws_transport::{
    client::ReconnectPolicy,
    connect,
    event::{Event, Events},
    layer::{heartbeat, resume::SUBPROTOCOL},
    transport,
};
use proptest::{
    prelude::RngExt as _,
    test_runner::{RngAlgorithm, TestRng},
};
use rmcp::{
    RoleClient, ServiceError, ServiceExt,
    model::CallToolRequestParams,
    object,
    service::{Peer, RunningService},
};
use tokio::time::timeout;

use crate::{child, journal};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[arg(long)]
    url: String,
    /// File to which the begin and the end of each call are appended.
    #[arg(long)]
    report: PathBuf,
    /// Number of the first call.
    #[arg(long)]
    first: u64,
    #[arg(long)]
    calls: u64,
    #[arg(long)]
    in_flight: usize,
    /// Seconds after which a call counts as hung.
    #[arg(long)]
    patience: u64,
    #[arg(long)]
    seed: u64,
    /// Offers permessage-deflate.
    #[arg(long)]
    deflate: bool,
    /// Offers no `mcp.resume.v1`.
    #[arg(long)]
    no_resume: bool,
}

/// Time for a handshake, which may be half open too.
pub const HANDSHAKE: Duration = Duration::from_secs(2);

pub fn random(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

/// Returns the layers of either side. The heartbeat finds what is half open within
/// [`DETECTION`](crate::verdict::DETECTION).
pub fn layers(deflate: bool, context_takeover: bool) -> transport::Config {
    let heartbeat = heartbeat::Config::default()
        .ping_interval(Duration::from_millis(500))
        .pong_timeout(Duration::from_millis(1500));
    let layers = transport::Config::default().heartbeat(heartbeat);
    #[cfg(feature = "deflate")]
    if deflate {
        use mcp_ws_transport::layer::socket::{self, deflate};
        let deflate = deflate::Config::default().context_takeover(context_takeover).threshold(100);
        return layers.socket(socket::Config::default().deflate(deflate));
    }
    assert!(!deflate, "built without the feature `deflate`");
    let _ = context_takeover;
    layers
}

pub async fn main(arguments: &Arguments) -> ExitCode {
    child::log();
    tokio::select! {
        code = calls(arguments) => std::process::exit(code),
        () = child::orphaned() => std::process::exit(1),
    }
}

async fn calls(arguments: &Arguments) -> i32 {
    let patience = Duration::from_secs(arguments.patience);
    let report = OpenOptions::new().append(true).create(true).open(&arguments.report).unwrap();
    let client = timeout(patience, connected(arguments, &report)).await.expect("a connection");

    let mut random = random(arguments.seed);
    let is_hung = AtomicBool::new(false);
    // No further calls after one that hangs: all together would take for ever.
    let numbers =
        (arguments.first..arguments.first + arguments.calls).take_while(|_| !is_hung.load(SeqCst));
    let (peer, report, is_hung) = (client.peer(), &report, &is_hung);
    stream::iter(numbers)
        .map(|number| {
            let call = Call::new(number, &mut random);
            async move {
                journal::append(report, &journal::begun(number));
                let kind = timeout(patience, call.make(peer)).await.unwrap_or_else(|_| {
                    is_hung.store(true, SeqCst);
                    "hung".to_owned()
                });
                journal::append(report, &journal::ended(number, &kind));
            }
        })
        .buffer_unordered(arguments.in_flight)
        .collect::<()>()
        .await;
    if is_hung.load(SeqCst) || timeout(patience, client.cancel()).await.is_err() {
        eprintln!("the client does not end");
        return 1;
    }
    0
}

/// Connects, and writes down from then on when a session begins in place of one that was lost.
async fn connected(arguments: &Arguments, report: &File) -> RunningService<RoleClient, ()> {
    let bound = Duration::from_millis(5);
    let pace =
        ReconnectPolicy::default().first(bound).after_restart(bound).min(bound).max(bound * 4);
    loop {
        let connect = connect(&arguments.url)
            .reconnect(pace.clone())
            .retry_first()
            .resume(!arguments.no_resume)
            .handshake_timeout(HANDSHAKE)
            .transport(layers(arguments.deflate, arguments.seed.is_multiple_of(2)));
        let mut events = connect.events();
        let transport = connect.await.unwrap();
        // Less is offered where the handshakes of a first connection are cut: the server may be one
        // that drops what it does not know.
        if !arguments.no_resume && transport.subprotocol() != Some(SUBPROTOCOL) {
            continue;
        }
        // It gives up where one connection after the other is lost before it is initialized.
        let Ok(client) = ().serve(transport).await else { continue };
        while events.next().now_or_never().is_some() {}
        tokio::spawn(note_restarts(events, report.try_clone().unwrap()));
        return client;
    }
}

async fn note_restarts(mut events: Events<Event>, report: File) {
    while let Some(event) = events.next().await {
        match event {
            Event::Restarted { .. } => journal::append(&report, &journal::restarted()),
            Event::Lagged(missed) => panic!("{missed} events were missed"),
            _ => {}
        }
    }
}

/// Arguments of a call.
struct Call {
    number: u64,
    ms: u64,
    text: String,
    repeat: usize,
}

impl Call {
    /// Draws a call. Neither it nor its answer has much more than 4 KiB.
    fn new(number: u64, random: &mut TestRng) -> Self {
        let words = 1 << random.random_range(0..8);
        let word = random.random::<u64>();
        Self {
            number,
            ms: random.random_range(0..30),
            text: format!("{number}: {}", format!("{word:x} ").repeat(words)),
            repeat: random.random_range(1..=256 / words),
        }
    }

    /// Returns how it has ended.
    async fn make(self, peer: &Peer<RoleClient>) -> String {
        let Self { number, ms, text, repeat } = self;
        let answer = text.repeat(repeat);
        let arguments = object!({ "number": number, "ms": ms, "text": text, "repeat": repeat });
        let params = CallToolRequestParams::new("journal").with_arguments(arguments);
        match peer.call_tool(params).await {
            Ok(result) => {
                let text = result.content.first().and_then(|content| content.as_text());
                if text.is_some_and(|text| text.text == answer) {
                    "ok".to_owned()
                } else {
                    eprintln!("{number}: {result:?} in place of {answer:?}");
                    "wrong".to_owned()
                }
            }
            Err(ServiceError::McpError(error)) => {
                eprintln!("{number}: {error:?}");
                let reason = error.data.as_ref().and_then(|data| data["reason"].as_str());
                reason.map_or_else(|| error.code.0.to_string(), str::to_owned)
            }
            Err(error) => {
                eprintln!("{number}: {error:?}");
                "error".to_owned()
            }
        }
    }
}
