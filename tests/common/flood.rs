//! Peers that flood the other end.

use std::{net::SocketAddr, sync::LazyLock, time::Duration};

use serde_json::{Value, json};
use tokio::{
    net::TcpSocket,
    time::{sleep, timeout},
};

use super::{
    call,
    raw::{CONTINUATION, Frame, PING, PONG, Raw, upgrade_request},
};

/// Kind of messages that a peer floods with.
#[allow(dead_code, reason = "not every program floods with everything")]
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

impl Flood {
    /// Bytes of this number of messages, or of fewer that are larger. Their ids are long, so that
    /// refusals are.
    pub fn bytes(self, messages: usize, masked: bool) -> Vec<u8> {
        self.bytes_of(messages, masked, &Frame::text)
    }

    /// Builds a flood whose messages become frames like this.
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

/// Waits until this has nearly stopped growing: what is not read is lost with a connection.
pub async fn wait_until_quiet(bytes_received: impl Fn() -> u64) {
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
