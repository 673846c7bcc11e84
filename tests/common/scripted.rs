//! A server of `mcp.resume.v1` that says what it is told to.

use std::time::Duration;

use mcp_ws_transport::{
    State,
    client::{Connect, ReconnectPolicy},
    connect,
    event::{Event, Events},
};
use rmcp::{
    RoleClient, ServiceError, ServiceExt,
    model::CallToolRequestParams,
    service::{Peer, RunningService},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use super::{
    listen,
    raw::{Frame, Head, PING, PONG, Raw, TEXT, accepted},
    within,
};

/// Subprotocols that are offered by default.
pub const OFFER: &str = "mcp, mcp.resume.v1";

pub const CHOSEN: &str = "Sec-WebSocket-Protocol: mcp.resume.v1\r\n";

/// A `@session` frame.
pub fn session(id: &str, secret: &str, received: u64, resumed: bool) -> String {
    session_of(60, id, secret, received, resumed)
}

/// Builds a `@session` of a session that is kept for `window_s` seconds.
pub fn session_of(window_s: u32, id: &str, secret: &str, received: u64, resumed: bool) -> String {
    let session = json!({
        "session": id, "secret": secret, "received": received, "resumed": resumed,
        "window_s": window_s, "window_bytes": 1 << 20,
    });
    format!("@session {session}")
}

/// The server's end of one link. What is sent and received in a session is counted.
#[derive(Debug)]
pub struct Link {
    pub raw: Raw,
    pub received: u64,
    pub sent: u64,
}

impl Link {
    /// The next connection, and its upgrade request.
    pub async fn asked(listener: &TcpListener) -> (Raw, Head) {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut raw = Raw::over(stream, false);
        let head = raw.head().await.expect("no request");
        (raw, head)
    }

    /// The next connection, upgraded with these lines.
    pub async fn upgraded(listener: &TcpListener, more: &str) -> Self {
        let (mut raw, head) = Self::asked(listener).await;
        assert_eq!(head.all("sec-websocket-protocol"), [OFFER]);
        raw.write(accepted(&head, more)).await;
        Self { raw, received: 0, sent: 0 }
    }

    /// The next connection that speaks the extension.
    pub async fn new(listener: &TcpListener) -> Self {
        Self::upgraded(listener, CHOSEN).await
    }

    /// The next text message.
    pub async fn text(&mut self) -> String {
        loop {
            let frame = self.raw.next().await.expect("the stream ended");
            match frame.opcode {
                TEXT => return String::from_utf8(frame.payload).unwrap(),
                PING => self.raw.send(Frame::new(PONG, frame.payload)).await,
                PONG => {}
                _ => panic!("not a text message: {frame:?}"),
            }
        }
    }

    /// The body of the `@open` that comes first, but for what the client takes.
    pub async fn open(&mut self) -> Value {
        let text = self.text().await;
        let body = text.strip_prefix("@open ").unwrap_or_else(|| panic!("{text}"));
        let mut body: Value = serde_json::from_str(body).unwrap();
        for limit in ["max_message", "max_inbound"] {
            let told = body.as_object_mut().unwrap().remove(limit);
            assert!(told.unwrap().is_u64(), "{text}");
        }
        body
    }

    /// The next data message.
    pub async fn receive(&mut self) -> Value {
        loop {
            let text = self.text().await;
            if !text.starts_with("@ack ") {
                self.received += 1;
                return serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
            }
        }
    }

    pub async fn send(&mut self, message: Value) {
        self.sent += 1;
        self.raw.json(&message).await;
    }

    /// Answers a client's `initialize`, of which this is the first message.
    pub async fn initialize(&mut self, mut request: Value) {
        while request["method"] != "notifications/initialized" {
            let id = request["id"].clone();
            let result = json!({
                "protocolVersion": "2025-11-25", "capabilities": { "tools": {} },
                "serverInfo": { "name": "scripted", "version": "1" },
            });
            let error = json!({ "code": -32601, "message": "unknown" });
            self.send(match request["method"].as_str() {
                Some("initialize") => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
                _ => json!({ "jsonrpc": "2.0", "id": id, "error": error }),
            })
            .await;
            request = self.receive().await;
        }
    }

    /// Answers the call.
    pub async fn answer(&mut self, call: &Value, text: &str) {
        let content = json!([{ "type": "text", "text": text }]);
        let result = json!({ "content": content });
        self.send(json!({ "jsonrpc": "2.0", "id": call["id"], "result": result })).await;
    }

    /// Answers an `@open` with a new session, in which the client initializes again.
    pub async fn begins(self, session: String) -> Self {
        let mut link = Self { raw: self.raw, received: 0, sent: 0 };
        link.raw.text(session).await;
        let first = link.receive().await;
        link.initialize(first).await;
        link
    }

    /// Resumes the session on the next connection.
    pub async fn cut_and_resumed(self, listener: &TcpListener, old: &str, new: &str) -> Self {
        let asked = json!({ "session": "s-1", "secret": old, "received": self.sent });
        let (mut next, open) = self.cut(listener).await;
        assert_eq!(open, asked);
        next.raw.text(session("s-1", new, next.received, true)).await;
        next
    }

    /// Cuts the connection, and takes the next, on which the client says what it wants.
    pub async fn cut(self, listener: &TcpListener) -> (Self, Value) {
        let Self { raw, received, sent } = self;
        raw.reset();
        let mut next = Self { received, sent, ..Self::new(listener).await };
        let open = next.open().await;
        (next, open)
    }
}

/// A client, and the server of its session `s-1`, with the secret `one`.
#[derive(Debug)]
pub struct Scene {
    pub listener: TcpListener,
    pub client: RunningService<RoleClient, ()>,
    pub reconnect_handle: mcp_ws_transport::layer::reconnect::ReconnectHandle,
    pub state: watch::Receiver<State>,
    pub events: Events<Event>,
}

/// Waits are short, so that tests are.
pub fn immediate_reconnect(connect: Connect<RoleClient>) -> Connect<RoleClient> {
    let bound = Duration::from_millis(20);
    let reconnect = ReconnectPolicy::default().first(Duration::ZERO);
    connect.reconnect(reconnect.after_restart(bound).min(bound).max(bound))
}

/// Connects to `url` and initializes MCP; every later connection follows at once.
pub async fn client(url: String) -> RunningService<RoleClient, ()> {
    ().serve(immediate_reconnect(connect(url)).await.unwrap()).await.unwrap()
}

impl Scene {
    pub async fn new() -> (Self, Link) {
        Self::with(60, |connect| connect).await
    }

    pub async fn with(
        window_s: u32,
        options: impl FnOnce(Connect<RoleClient>) -> Connect<RoleClient>,
    ) -> (Self, Link) {
        let (listener, url) = listen().await;
        let connect = options(immediate_reconnect(connect(url)));
        let (state, events) = (connect.state(), connect.events());
        let dialling = async {
            let transport = connect.await.unwrap();
            let reconnect_handle = transport.reconnect_handle().unwrap();
            (().serve(transport).await.unwrap(), reconnect_handle)
        };
        let serving = async {
            let mut link = Link::new(&listener).await;
            assert_eq!(link.open().await, json!({}));
            link.begins(session_of(window_s, "s-1", "one", 0, false)).await
        };
        let ((client, reconnect_handle), link) = tokio::join!(dialling, serving);
        (Self { listener, client, reconnect_handle, state, events }, link)
    }

    /// A call under way.
    pub fn call(&self) -> JoinHandle<Result<String, ServiceError>> {
        let client: Peer<RoleClient> = self.client.peer().clone();
        tokio::spawn(async move {
            let result = client.call_tool(CallToolRequestParams::new("echo")).await?;
            Ok(result.content[0].as_text().unwrap().text.clone())
        })
    }

    /// Begins a call of the tool. Returns it, and its request when that has arrived.
    pub async fn called(
        &self,
        link: &mut Link,
    ) -> (JoinHandle<Result<String, ServiceError>>, Value) {
        let calling = self.call();
        let call = link.receive().await;
        assert_eq!(call["method"], "tools/call");
        (calling, call)
    }

    pub async fn event(&mut self) -> Event {
        use futures::StreamExt;
        within(Duration::from_secs(5), self.events.next()).await.expect("no more events")
    }
}

/// The call has ended so.
pub async fn result(calling: JoinHandle<Result<String, ServiceError>>) -> Result<String, String> {
    let result = within(Duration::from_secs(5), calling).await.unwrap();
    result.map_err(|error| {
        let ServiceError::McpError(error) = error else { panic!("{error}") };
        let data = error.data.as_ref().unwrap_or_else(|| panic!("{error}"));
        data["reason"].as_str().unwrap().to_owned()
    })
}
