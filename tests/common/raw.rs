//! A WebSocket peer that does as it is told, right or wrong.

use std::{io, net::SocketAddr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// One frame (RFC 6455, section 5.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    pub reserved: u8,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(opcode: u8, payload: impl Into<Vec<u8>>) -> Self {
        Self { fin: true, reserved: 0, opcode, payload: payload.into() }
    }

    pub fn text(text: impl AsRef<str>) -> Self {
        Self::new(TEXT, text.as_ref())
    }

    pub fn close(code: u16) -> Self {
        Self::new(CLOSE, code.to_be_bytes())
    }

    /// Clears the FIN bit.
    pub fn more(mut self) -> Self {
        self.fin = false;
        self
    }

    pub fn bytes(&self, masked: bool) -> Vec<u8> {
        let mut bytes = head(self, self.payload.len() as u64, masked);
        bytes.extend(&self.payload);
        bytes
    }
}

/// The header of a frame of `length` bytes; where it is masked, the mask is zero.
pub fn head(frame: &Frame, length: u64, masked: bool) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut bytes = vec![u8::from(frame.fin) << 7 | frame.reserved << 4 | frame.opcode];
    match length {
        0..126 => bytes.push(mask | length as u8),
        126..=0xFFFF => {
            bytes.push(mask | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(mask | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    if masked {
        bytes.extend([0; 4]);
    }
    bytes
}

/// The `Sec-WebSocket-Accept` for a key.
pub fn accept_key(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// An upgrade request for `/mcp` with more header lines.
pub fn upgrade_request(address: SocketAddr, more: &str) -> String {
    format!(
        "GET /mcp HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{more}\r\n"
    )
}

/// The head of a request or answer.
#[derive(Debug, Clone)]
pub struct Head(pub String);

impl Head {
    pub fn status(&self) -> u16 {
        self.0.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let lines = self.0.lines().skip(1).filter_map(|line| line.split_once(':'));
        let of_name = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        of_name.map(|(_, value)| value.trim()).collect()
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }
}

/// A raw peer.
#[derive(Debug)]
pub struct Raw<S = TcpStream> {
    pub stream: S,
    buffer: Vec<u8>,
    pub masked: bool,
}

impl Raw {
    /// A client of the server at `address`, after the opening handshake.
    pub async fn dial(address: SocketAddr) -> Self {
        Self::dial_over(TcpStream::connect(address).await.unwrap(), address).await
    }

    /// Opens a connection on `stream`, which leads there.
    pub async fn dial_over(stream: TcpStream, address: SocketAddr) -> Self {
        stream.set_nodelay(true).unwrap();
        let mut raw = Self::over(stream, true);
        raw.write(upgrade_request(address, "Sec-WebSocket-Protocol: mcp\r\n")).await;
        let head = raw.head().await.unwrap();
        assert_eq!(head.status(), 101, "{head:?}");
        raw
    }

    /// Opens a connection and initializes it.
    pub async fn initialized(address: SocketAddr) -> Self {
        let mut raw = Self::dial(address).await;
        raw.initialize().await;
        raw
    }

    pub async fn initialized_over(stream: TcpStream, address: SocketAddr) -> Self {
        let mut raw = Self::dial_over(stream, address).await;
        raw.initialize().await;
        raw
    }

    /// Resets the connection, without a FIN.
    pub fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub fn over(stream: S, masked: bool) -> Self {
        Self { stream, buffer: Vec::new(), masked }
    }

    /// A server that accepts what is asked of it on `stream`.
    pub async fn upgraded(stream: S) -> Self {
        let mut raw = Self::over(stream, false);
        let head = raw.head().await.unwrap();
        raw.write(accepted(&head, "Sec-WebSocket-Protocol: mcp\r\n")).await;
        raw
    }

    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_write(bytes).await.unwrap();
    }

    pub async fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await?;
        self.stream.flush().await
    }

    pub async fn send(&mut self, frame: Frame) {
        self.write(frame.bytes(self.masked)).await;
    }

    pub async fn text(&mut self, text: impl AsRef<str>) {
        self.send(Frame::text(text)).await;
    }

    pub async fn json(&mut self, message: &Value) {
        self.text(message.to_string()).await;
    }

    /// Reads until `blank line`; what follows stays for frames.
    pub async fn head(&mut self) -> Option<Head> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.buffer.drain(..end + 4).collect();
                return Some(Head(String::from_utf8(head).unwrap()));
            }
            if self.fill().await.unwrap() == 0 {
                assert!(self.buffer.is_empty(), "half a head: {:?}", self.buffer);
                return None;
            }
        }
    }

    /// Reads `length` bytes of a body.
    pub async fn body(&mut self, length: usize) -> String {
        while self.buffer.len() < length {
            assert!(self.fill().await.unwrap() > 0, "half a body");
        }
        String::from_utf8(self.buffer.drain(..length).collect()).unwrap()
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.stream.read_buf(&mut self.buffer).await
    }

    /// The next frame; `None` at the end of the stream.
    pub async fn try_next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.parse() {
                return Ok(Some(frame));
            }
            if self.fill().await? == 0 {
                return Ok(None);
            }
        }
    }

    pub async fn next(&mut self) -> Option<Frame> {
        self.try_next().await.unwrap()
    }

    fn parse(&mut self) -> Option<Frame> {
        let [first, second, rest @ ..] = &self.buffer[..] else { return None };
        let (length, mut start) = match second & 0x7F {
            126 => (u64::from(u16::from_be_bytes(rest.get(..2)?.try_into().unwrap())), 4),
            127 => (u64::from_be_bytes(rest.get(..8)?.try_into().unwrap()), 10),
            length => (u64::from(length), 2),
        };
        let mask = match second & 0x80 {
            0 => [0; 4],
            _ => {
                start += 4;
                self.buffer.get(start - 4..start)?.try_into().unwrap()
            }
        };
        assert_eq!(second & 0x80 == 0, self.masked, "a client masks, a server does not");
        let end = start + usize::try_from(length).unwrap();
        let payload = self.buffer.get(start..end)?;
        let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        let frame = Frame {
            fin: first & 0x80 != 0,
            reserved: first >> 4 & 7,
            opcode: first & 0x0F,
            payload: payload.collect(),
        };
        self.buffer.drain(..end);
        Some(frame)
    }

    /// The next text message as JSON; pings are answered on the way.
    pub async fn receive(&mut self) -> Value {
        loop {
            let frame = self.next().await.expect("the stream ended");
            match frame.opcode {
                TEXT => return serde_json::from_slice(&frame.payload).unwrap(),
                PING => self.send(Frame::new(PONG, frame.payload)).await,
                PONG => {}
                _ => panic!("not a text message: {frame:?}"),
            }
        }
    }

    /// The code and reason of the Close frame that comes before the end of the stream.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            let frame = self.next().await.expect("the stream ended without a Close frame");
            if frame.opcode == CLOSE {
                let (code, reason) = frame.payload.split_at(2);
                let code = u16::from_be_bytes(code.try_into().unwrap());
                return (code, String::from_utf8(reason.to_vec()).unwrap());
            }
        }
    }

    /// The end of the stream follows, and nothing before it.
    pub async fn end(&mut self) {
        assert_eq!(self.next().await, None);
    }

    /// Asserts that nothing arrives for this long.
    pub async fn assert_silent(&mut self, time: Duration) {
        if let Ok(frame) = tokio::time::timeout(time, self.next()).await {
            panic!("not silent: {frame:?}");
        }
    }

    pub async fn initialize(&mut self) {
        let answer = self.ask(&initialize("init")).await;
        assert_eq!(answer["result"]["protocolVersion"], "2025-11-25", "{answer}");
        self.json(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
    }

    /// Answers a client's `initialize`, whatever it probes before it.
    pub async fn answer_initialize(&mut self) {
        loop {
            let request = self.receive().await;
            let id = &request["id"];
            match request["method"].as_str() {
                Some("initialize") => {
                    let result = json!({
                        "protocolVersion": "2025-11-25", "capabilities": { "tools": {} },
                        "serverInfo": { "name": "raw", "version": "1" },
                    });
                    self.json(&json!({ "jsonrpc": "2.0", "id": id, "result": result })).await;
                }
                Some("notifications/initialized") => return,
                _ => {
                    let error = json!({ "code": -32601, "message": "unknown" });
                    self.json(&json!({ "jsonrpc": "2.0", "id": id, "error": error })).await;
                }
            }
        }
    }

    /// The answer to `message`.
    pub async fn ask(&mut self, message: &Value) -> Value {
        self.json(message).await;
        self.receive().await
    }

    /// The link is alive: the peer's service answers.
    pub async fn ping(&mut self) {
        let answer = self.ask(&json!({ "jsonrpc": "2.0", "id": "ping", "method": "ping" })).await;
        assert_eq!(answer, json!({ "jsonrpc": "2.0", "id": "ping", "result": {} }));
    }
}

/// The 101 that answers the request with this head.
pub fn accepted(request: &Head, more: &str) -> String {
    let key = request.get("sec-websocket-key").unwrap();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\n{more}\r\n",
        accept_key(key)
    )
}

/// An `initialize` request.
pub fn initialize(id: &str) -> Value {
    json!({
        "jsonrpc": "2.0", "id": id, "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": { "name": "raw", "version": "1" },
        },
    })
}
