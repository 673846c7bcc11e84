//! Parts that the scenes with vanished peers share.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::future::join_all;
use mcp_ws_transport::{
    connect,
    layer::{heartbeat, socket},
    server::{BearerTokens, Config, Identity},
    transport,
};
use rmcp::ServiceExt;
use serde_json::json;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::gone::{ENDS, End, FLOODS, Gone};
use crate::{
    HEAP,
    common::{
        flood::{Flood, flood, wait_until_quiet},
        raw::{Frame, Raw},
        scale, tool_call, within,
    },
};

pub const SECOND: Duration = Duration::from_secs(1);

pub const TOKEN: &str = "s3cr3t";

/// Form of messages, sessions and authentication between the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    pub resume: bool,
    pub deflate: bool,
    pub auth: Auth,
}

/// Authentication of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Not requested.
    Unasked,
    InBand,
    /// Requested, and never given.
    Never,
}

/// Returns all modes; a client that authenticates within the connection resumes nothing.
pub fn modes() -> Vec<Mode> {
    let mut modes = Vec::new();
    for deflate in [false, true] {
        if deflate && !cfg!(feature = "deflate") {
            continue;
        }
        for (resume, auth) in [
            (true, Auth::Unasked),
            (false, Auth::Unasked),
            (false, Auth::InBand),
            (false, Auth::Never),
        ] {
            modes.push(Mode { resume, deflate, auth });
        }
    }
    modes
}

pub fn is_full() -> bool {
    scale(0, 1) == 1
}

/// Two ends, each in one mode; or all of them.
pub fn scenes() -> Vec<(End, Vec<Mode>)> {
    let modes = modes();
    if is_full() {
        return ENDS.map(|end| (end, modes.clone())).to_vec();
    }
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as usize;
    let seed = std::env::var("MCP_WS_SEED").map_or_else(|_| now(), |seed| seed.parse().unwrap());
    println!("MCP_WS_SEED={seed}");
    let draw = seed % (modes.len() * ENDS.len());
    let (end, mode) = (draw % ENDS.len(), draw / ENDS.len());
    let other = (mode + 1 + seed / 1000 % (modes.len() - 1)) % modes.len();
    vec![(ENDS[end], vec![modes[mode]]), (ENDS[(end + 2) % ENDS.len()], vec![modes[other]])]
}

/// Returns the layers of either side.
pub fn layers(mode: Mode) -> transport::Config {
    let (mut heartbeat, mut socket) = (heartbeat::Config::default(), socket::Config::default());
    if !is_full() {
        heartbeat = heartbeat.ping_interval(2 * SECOND).pong_timeout(2 * SECOND);
        socket = socket.write_timeout(3 * SECOND).send_window(3 * SECOND);
    }
    #[cfg(feature = "deflate")]
    if mode.deflate {
        socket = socket.deflate(socket::deflate::Config::default());
    }
    let _ = mode;
    transport::Config::default().heartbeat(heartbeat).socket(socket)
}

/// Returns the settings of a server in this mode.
pub fn server_config(mode: Mode) -> Config {
    let mut config = Config::default().transport(layers(mode));
    if !is_full() {
        config = config.handshake_timeout(3 * SECOND);
    }
    if mode.auth != Auth::Unasked {
        let tokens = BearerTokens::default().token(TOKEN, Identity::new("alice"));
        config = config.authenticator(tokens).in_band_authentication();
    }
    config
}

/// The floods of all kinds in each of these modes. They are made before anybody connects: a peer that
/// makes its flood answers no ping.
pub fn floods(modes: &[Mode], masked: bool) -> Vec<Vec<Arc<Vec<u8>>>> {
    let messages = scale(3_000, 20_000);
    let flood =
        |mode, kind: Flood| Arc::new(kind.bytes_of(messages, masked, &|text| frame(mode, text)));
    modes.iter().map(|mode| FLOODS.map(|kind| flood(*mode, kind)).into()).collect()
}

/// The frame of a text message in this mode.
pub fn frame(mode: Mode, text: String) -> Frame {
    #[cfg(feature = "deflate")]
    if mode.deflate {
        use flate2::{Compress, Compression, FlushCompress};

        use crate::common::raw::TEXT;

        let mut compressed = Vec::with_capacity(text.len() + 64);
        let mut compress = Compress::new(Compression::fast(), false);
        compress.compress_vec(text.as_bytes(), &mut compressed, FlushCompress::Sync).unwrap();
        compressed.truncate(compressed.len() - 4);
        return Frame { reserved: 4, ..Frame::new(TEXT, compressed) };
    }
    let _ = mode;
    Frame::text(text)
}

/// Floods from all these peers at once, then has them go. Returns what is left of them.
pub async fn flood_and_go(
    raws: &mut Vec<Raw>,
    floods: &[Arc<Vec<u8>>],
    end: End,
    bytes_received: impl Fn() -> u64,
) -> Vec<Option<Gone>> {
    let mut flooding = Vec::new();
    for (raw, bytes) in raws.drain(..).zip(floods) {
        let bytes = bytes.clone();
        flooding.push(tokio::spawn(async move { flood(raw, &bytes).await }));
    }
    let raws = join_all(flooding).await;
    wait_until_quiet(bytes_received).await;
    join_all(raws.into_iter().map(|raw| end.apply(raw.unwrap()))).await
}

/// A client that calls a server all the time, over one connection.
pub struct GoodClient {
    stop: Arc<AtomicBool>,
    calling: JoinHandle<Duration>,
}

impl GoodClient {
    pub async fn new(address: SocketAddr) -> Self {
        let connect = connect(format!("ws://{address}/mcp")).bearer(TOKEN).no_reconnect();
        let client = ().serve(connect.await.unwrap()).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let calling = tokio::spawn(async move {
            let (mut calls, mut slowest) = (0, Duration::ZERO);
            // Also where a scene is soon over.
            while !stopped.load(SeqCst) || calls <= 20 {
                let start = Instant::now();
                let call = tool_call("echo", json!({ "text": "good" }));
                let result = client.call_tool(call).await.expect("a good client is served");
                assert_eq!(result.content[0].as_text().unwrap().text, "good");
                calls += 1;
                slowest = slowest.max(start.elapsed());
                sleep(Duration::from_millis(20)).await;
            }
            client.cancel().await.unwrap();
            slowest
        });
        Self { stop, calling }
    }

    /// Asserts that it was served throughout.
    pub async fn assert_served(self) -> Duration {
        self.stop.store(true, SeqCst);
        let slowest = within(20 * SECOND, self.calling).await.unwrap();
        assert!(slowest < 10 * SECOND, "{slowest:?}");
        slowest
    }
}

/// Growth of the heap, in bytes.
pub struct Peak {
    before: usize,
    most: Arc<AtomicUsize>,
    watching: JoinHandle<()>,
}

impl Peak {
    pub fn new() -> Self {
        let before = HEAP.allocated();
        let most = Arc::new(AtomicUsize::new(before));
        let noted = most.clone();
        let watching = tokio::spawn(async move {
            loop {
                noted.fetch_max(HEAP.allocated(), SeqCst);
                sleep(Duration::from_millis(5)).await;
            }
        });
        Self { before, most, watching }
    }

    pub fn end(self) -> usize {
        self.watching.abort();
        self.most.load(SeqCst) - self.before
    }
}
