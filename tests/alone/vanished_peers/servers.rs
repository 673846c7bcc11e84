//! Servers that flood clients of ours.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::future::join_all;
use mcp_ws_transport::{CloseCode, Error, State, connect, server::Server, stats::Stats};
use rmcp::{
    RoleClient, ServiceError, ServiceExt,
    model::{CallToolRequestParams, CallToolResult},
    service::RunningService,
};
use serde_json::json;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    gone::{End, FLOODS, Gone, Side, descriptors},
    scene::{Auth, GoodClient, Mode, SECOND, TOKEN, flood_and_go, is_full, layers, server_config},
};
use crate::common::{
    Tools,
    raw::{Raw, accepted},
    scripted::{Link, immediate_reconnect, session},
    serve_tools, tool_call, within,
};

/// The result of a call.
type Called = Result<CallToolResult, ServiceError>;

/// A client of ours.
struct Client {
    running: RunningService<RoleClient, ()>,
    state: watch::Receiver<State>,
    /// A call that the server has received.
    calling: JoinHandle<Called>,
    /// More than a window holds, of which nothing is read.
    large: Vec<JoinHandle<Called>>,
}

/// One server of each kind, each with a client of ours, which finds a good server when it comes
/// back.
pub struct Servers {
    mode: Mode,
    good: GoodClient,
    server: Server,
    port: u16,
    stats: Vec<Stats>,
    clients: Vec<Client>,
    /// Tasks of those that were never answered.
    connecting: Vec<JoinHandle<Result<(), Error>>>,
    raws: Vec<Raw>,
    floods: Vec<Arc<Vec<u8>>>,
}

/// A listener whose network takes little before it is read.
fn listen() -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    socket.listen(64).unwrap()
}

fn echo(text: &str) -> CallToolRequestParams {
    tool_call("echo", json!({ "text": text }))
}

/// The next connection, which has got as far as it gets in this mode.
async fn accept(listener: &TcpListener, mode: Mode) -> Link {
    let (stream, _) = listener.accept().await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut raw = Raw::over(stream, false);
    let head = raw.head().await.expect("no request");
    let subprotocol = if mode.resume { "mcp.resume.v1" } else { "mcp" };
    let mut more = format!("Sec-WebSocket-Protocol: {subprotocol}\r\n");
    if mode.deflate {
        more += "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
                 client_no_context_takeover\r\n";
    }
    raw.write(accepted(&head, &more)).await;
    let mut link = Link { raw, received: 0, sent: 0 };
    if mode.auth != Auth::Unasked {
        let asked = link.receive().await;
        if mode.auth == Auth::Never {
            return link;
        }
        let result = json!({ "authenticated": true });
        link.send(json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result })).await;
    }
    if mode.resume {
        assert_eq!(link.open().await, json!({}));
        link.raw.text(session("s-1", "one", 0, false)).await;
    }
    let first = link.receive().await;
    link.initialize(first).await;
    link
}

/// Leads whoever comes to the server at `address`.
async fn forward(listener: TcpListener, address: SocketAddr) {
    while let Ok((mut near, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut far = TcpStream::connect(address).await.unwrap();
            let _ = copy_bidirectional(&mut near, &mut far).await;
        });
    }
}

impl Servers {
    pub async fn new(mode: Mode, floods: Vec<Arc<Vec<u8>>>) -> Self {
        let listener = listen();
        let port = listener.local_addr().unwrap().port();
        let (server, address) = serve_tools(&Tools::default(), server_config(mode)).await;
        let mut this = Self {
            mode,
            good: GoodClient::new(address).await,
            server,
            port,
            stats: Vec::new(),
            clients: Vec::new(),
            connecting: Vec::new(),
            raws: Vec::new(),
            floods,
        };
        for _ in FLOODS {
            this.connect(&listener).await;
        }
        tokio::spawn(forward(listener, address));
        this
    }

    /// One more client, which waits for an answer.
    async fn connect(&mut self, listener: &TcpListener) {
        let connect = immediate_reconnect(connect(format!("ws://127.0.0.1:{}/mcp", self.port)));
        let mut connect = connect.transport(layers(self.mode)).resume(self.mode.resume);
        if self.mode.auth != Auth::Unasked {
            connect = connect.bearer(TOKEN).authenticate_in_band();
        }
        if !is_full() {
            connect = connect.handshake_timeout(3 * SECOND);
        }
        if self.mode.auth == Auth::Never {
            self.connecting.push(tokio::spawn(async move { connect.await.map(drop) }));
            self.raws.push(accept(listener, self.mode).await.raw);
            return;
        }
        let client = async {
            let transport = connect.await.unwrap();
            self.stats.push(transport.stats());
            let state = transport.state();
            (().serve(transport).await.unwrap(), state)
        };
        let ((running, state), mut link) = tokio::join!(client, accept(listener, self.mode));
        let peer = running.peer().clone();
        let calling = tokio::spawn(async move { peer.call_tool(echo("lost")).await });
        assert_eq!(link.receive().await["method"], "tools/call");
        let large = (0..3).map(|_| {
            let peer = running.peer().clone();
            tokio::spawn(async move { peer.call_tool(echo(&"x".repeat(1 << 20))).await })
        });
        let large = large.collect();
        self.clients.push(Client { running, state, calling, large });
        self.raws.push(link.raw);
    }

    /// Floods from all at once, then has them go.
    pub async fn flood_and_go(&mut self, end: End) -> Vec<Option<Gone>> {
        flood_and_go(&mut self.raws, &self.floods, end, || {
            self.stats.iter().map(|stats| stats.snapshot().bytes_received).sum()
        })
        .await
    }

    /// Until each call has ended, each client has its answer from the good server or has given up the
    /// server that kept to no window, and nobody has a descriptor beside.
    pub async fn all_are_back(&mut self) -> Duration {
        let start = Instant::now();
        let mode = self.mode;
        for (flood, connecting) in FLOODS.iter().zip(&mut self.connecting) {
            let ended = timeout(60 * SECOND, connecting).await;
            let ended = ended.unwrap_or_else(|_| panic!("{flood:?} keeps a client: {mode:?}"));
            ended.unwrap().expect_err("it was never answered");
        }
        let back = FLOODS.iter().zip(&mut self.clients).map(|(flood, client)| async move {
            let mut step = "its lost call has not ended";
            let back = timeout(60 * SECOND, client.comes_back(&mut step)).await;
            let is_back = back.unwrap_or_else(|_| panic!("{flood:?}: {step}: {mode:?}"));
            assert!(is_back || mode.resume, "{flood:?}: it has given up: {mode:?}");
            usize::from(is_back)
        });
        let back: usize = join_all(back).await.into_iter().sum();
        loop {
            let descriptors = descriptors(self.port, Side::Far);
            if descriptors == back {
                return start.elapsed();
            }
            assert!(start.elapsed() < 60 * SECOND, "{descriptors} descriptors: {mode:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn end(self) -> Duration {
        for client in self.clients {
            within(20 * SECOND, client.running.cancel()).await.unwrap();
        }
        let slowest = self.good.assert_served().await;
        within(40 * SECOND, self.server.shutdown()).await;
        slowest
    }
}

impl Client {
    /// Its calls end, and a further one is answered. `false` where it has given up its server, which had
    /// sent more than the window of a session holds.
    async fn comes_back(&mut self, step: &mut &str) -> bool {
        let called = (&mut self.calling).await.unwrap();
        called.expect_err("nobody has answered");
        *step = "its large calls have not ended";
        for calling in self.large.drain(..) {
            // What was never sent is sent to the server that is there then.
            let _ = calling.await.unwrap();
        }
        *step = "it has not come back";
        loop {
            match self.running.call_tool(echo("hi")).await {
                Ok(result) => {
                    assert_eq!(result.content[0].as_text().unwrap().text, "hi");
                    return true;
                }
                Err(ServiceError::TransportClosed) => {
                    let state = self.state.borrow();
                    let State::Closed(reason) = &*state else { panic!("{state:?}") };
                    assert_eq!(reason.code, CloseCode::Policy, "{reason}");
                    let said = "by this side: resume: more was sent than a window holds";
                    assert_eq!(reason.reason, said);
                    return false;
                }
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }
}
