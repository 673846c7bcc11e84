//! Peers that flood the other end and then go, or pretend to be there.

use std::{io, net::SocketAddr, sync::LazyLock, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    time::{sleep, timeout},
};

use super::{
    Frame, Raw, call,
    raw::{CONTINUATION, PING, PONG, TEXT, upgrade_request},
    text_of,
};

/// What a peer floods with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// Ping frames and unasked pong frames.
    Frames,
    /// `ping` requests.
    Pings,
    /// Calls that are answered in full.
    Calls,
    /// Requests that nobody knows.
    Unknown,
    /// Text that is no JSON, and JSON that is no message.
    Rubbish,
    /// Notifications that nobody knows, and cancellations of what is not there.
    Notifications,
    /// Fragments of a byte, and empty ones.
    Fragments,
    /// Answers to nothing.
    Answers,
    /// Messages of a mebibyte.
    Large,
    /// Acknowledgements that say nothing new.
    Acks,
}

pub const FLOODS: [Flood; 10] = [
    Flood::Frames,
    Flood::Pings,
    Flood::Calls,
    Flood::Unknown,
    Flood::Rubbish,
    Flood::Notifications,
    Flood::Fragments,
    Flood::Answers,
    Flood::Large,
    Flood::Acks,
];

impl Flood {
    /// The bytes of so many messages, or of fewer that are larger. Their ids are long, so that refusals are.
    pub fn bytes(self, messages: usize, masked: bool) -> Vec<u8> {
        self.bytes_of(messages, masked, &Frame::text)
    }

    /// The same, where each message becomes a frame like this.
    pub fn bytes_of(
        self,
        messages: usize,
        masked: bool,
        frame: &dyn Fn(String) -> Frame,
    ) -> Vec<u8> {
        let messages = match self {
            Self::Large => messages / 1000 + 3,
            Self::Fragments => messages / 100,
            _ => messages,
        };
        let mut bytes = Vec::new();
        for number in 0..messages {
            bytes.extend_from_slice(&self.message(number, masked, frame));
        }
        bytes
    }

    fn message(self, number: usize, masked: bool, frame: &dyn Fn(String) -> Frame) -> Vec<u8> {
        let id = id(number);
        let is_even = number.is_multiple_of(2);
        let message = match self {
            Self::Frames => {
                let opcode = if is_even { PING } else { PONG };
                return Frame::new(opcode, [b'x'; 125]).bytes(masked);
            }
            Self::Fragments => return fragments(&ping(id).to_string(), masked),
            Self::Pings => ping(id),
            Self::Calls if masked => call(id, "echo", json!({ "text": "hi" })),
            Self::Calls => json!({ "jsonrpc": "2.0", "id": id, "method": "roots/list" }),
            Self::Unknown => json!({ "jsonrpc": "2.0", "id": id, "method": "acme/unknown" }),
            Self::Rubbish if is_even => return frame("rubbish".to_owned()).bytes(masked),
            Self::Rubbish => json!({ "no": id }),
            Self::Notifications if is_even => {
                json!({ "jsonrpc": "2.0", "method": "notifications/acme", "params": { "id": id } })
            }
            Self::Notifications => {
                let params = json!({ "requestId": id });
                json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params })
            }
            Self::Answers => json!({ "jsonrpc": "2.0", "id": id, "result": {} }),
            Self::Large => call(id, "echo", json!({ "text": "x".repeat(1 << 20) })),
            Self::Acks => return frame("@ack 1".to_owned()).bytes(masked),
        };
        frame(message.to_string()).bytes(masked)
    }
}

/// Characters without order. They repeat beyond the window of any compression.
static LETTERS: LazyLock<String> = LazyLock::new(|| {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut state = 1_u64;
    let letter = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(ALPHABET[(state >> 58) as usize])
    };
    std::iter::repeat_with(letter).take(1 << 20).collect()
});

/// Returns a long id, which can hardly be compressed. It is quickly made: a peer that was silent
/// while it makes its flood would be taken for dead.
fn id(number: usize) -> String {
    let at = number % 1000 * 1000;
    format!("{number}-{}", &LETTERS[at..at + 1000])
}

fn ping(id: String) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": "ping" })
}

fn fragments(message: &str, masked: bool) -> Vec<u8> {
    let mut bytes = Frame::text("").more().bytes(masked);
    for byte in message.bytes() {
        bytes.extend(Frame::new(CONTINUATION, [byte]).more().bytes(masked));
        bytes.extend(Frame::new(CONTINUATION, []).more().bytes(masked));
    }
    bytes.extend(Frame::new(CONTINUATION, []).bytes(masked));
    bytes
}

/// How a peer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Reset,
    Fin,
    Silence,
    /// It reads a byte a second.
    Trickle,
}

pub const ENDS: [End; 4] = [End::Reset, End::Fin, End::Silence, End::Trickle];

impl End {
    /// Goes. What has to be kept where the end of the connection is not its peer's own doing.
    pub async fn of(self, mut raw: Raw) -> Option<Gone> {
        match self {
            Self::Reset => {
                raw.reset();
                return None;
            }
            Self::Fin => _ = raw.stream.shutdown().await,
            Self::Silence => {}
            Self::Trickle => {
                let reading = tokio::spawn(async move {
                    while let Ok(1) = raw.stream.read(&mut [0]).await {
                        sleep(Duration::from_secs(1)).await;
                    }
                });
                return Some(Gone::Reading(reading));
            }
        }
        Some(Gone::Held(raw))
    }
}

/// The connection of a peer that has gone.
#[derive(Debug)]
pub enum Gone {
    Held(Raw),
    Reading(tokio::task::JoinHandle<()>),
}

impl Drop for Gone {
    fn drop(&mut self) {
        if let Self::Reading(reading) = self {
            reading.abort();
        }
    }
}

/// Floods, until the other end takes nothing for a second.
pub async fn flood(mut raw: Raw, bytes: &[u8]) -> Raw {
    for part in bytes.chunks(16 << 10) {
        match timeout(Duration::from_secs(1), raw.try_write(part)).await {
            Ok(Ok(())) => {}
            _ => break,
        }
    }
    raw
}

/// Until this has nearly stopped growing: what is not read is lost with a connection.
pub async fn is_quiet(bytes_received: impl Fn() -> u64) {
    let mut before = 0;
    for _ in 0..60 {
        let now = bytes_received();
        if now - before < 32 << 10 {
            return;
        }
        before = now;
        sleep(Duration::from_millis(500)).await;
    }
}

/// A raw client with these header lines, whose network takes little before it reads.
pub async fn dial(address: SocketAddr, more: &str) -> Raw {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let stream = socket.connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut raw = Raw::over(stream, true);
    raw.write(upgrade_request(address, more)).await;
    let head = raw.head().await.expect("no answer");
    assert_eq!(head.status(), 101, "{head:?}");
    raw
}

pub const OFFER: &str = "Sec-WebSocket-Protocol: mcp, mcp.resume.v1\r\n";

/// The `@session` in answer to this `@open`.
pub async fn open(raw: &mut Raw, open: &Value) -> Value {
    raw.text(format!("@open {open}")).await;
    let frame = raw.next().await.expect("an answer");
    let text = String::from_utf8(frame.payload).unwrap();
    serde_json::from_str(text.strip_prefix("@session ").expect(&text)).unwrap()
}

/// A raw client that speaks the extension, and the `@session` that it was given.
pub async fn dial_and_open(address: SocketAddr, wanted: &Value) -> (Raw, Value) {
    let mut raw = dial(address, OFFER).await;
    let session = open(&mut raw, wanted).await;
    (raw, session)
}

/// The owner of this session returns, and is answered, whether it goes on or is over. What is sent again
/// it acknowledges.
pub async fn return_of_owner(address: SocketAddr, session: &Value) -> bool {
    let (id, secret) = (&session["session"], &session["secret"]);
    let wanted = json!({ "session": id, "secret": secret, "received": 1 });
    let (mut raw, session) = dial_and_open(address, &wanted).await;
    let resumed = session["resumed"].as_bool().expect("whether it is the same");
    let mut received = if resumed { 1 } else { 0 };
    if !resumed {
        raw.initialize().await;
        received += 1;
    }
    raw.json(&call("owner", "echo", json!({ "text": "hi" }))).await;
    loop {
        let frame = raw.next().await.expect("the stream ended");
        match frame.opcode {
            TEXT if frame.payload.starts_with(b"@ack ") => {}
            TEXT => {
                received += 1;
                raw.text(format!("@ack {received}")).await;
                let message: Value = serde_json::from_slice(&frame.payload).unwrap();
                if message["id"] == "owner" {
                    assert_eq!(text_of(&message), "hi");
                    break;
                }
            }
            PING => raw.send(Frame::new(PONG, frame.payload)).await,
            _ => panic!("{frame:?}"),
        }
    }
    raw.reset();
    resumed
}

/// How many sockets of this process are at `port`, at the near end or at the far one. Listeners, and those
/// that are the kernel's own by now, are not counted.
#[cfg(target_os = "linux")]
pub fn descriptors(port: u16, at: Side) -> usize {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let port = format!(":{port:04X}");
    let of_port = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, state, inode) = (fields[at as usize], fields[3], fields[9]);
        (address.ends_with(&port) && state != "0A").then(|| format!("socket:[{inode}]"))
    });
    let of_port: std::collections::HashSet<String> = of_port.collect();
    let own = std::fs::read_dir("/proc/self/fd").unwrap();
    let own = own.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    own.filter(|link| link.to_str().is_some_and(|link| of_port.contains(link))).count()
}

/// An end of a connection, by its column in the kernel's table.
#[derive(Debug, Clone, Copy)]
pub enum Side {
    Near = 1,
    Far = 2,
}
