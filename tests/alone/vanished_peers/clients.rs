//! Clients that flood a server of ours.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::future::join_all;
use mcp_ws_transport::server::{Limits, Server};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    gone::{End, FLOODS, Gone, Side, descriptors, return_of_owner},
    scene::{Auth, GoodClient, Mode, SECOND, TOKEN, flood_and_go, server_config},
};
use crate::common::{
    Tools, call,
    flood::{OFFER, dial, open},
    raw::Raw,
    serve_tools, text_of, within,
};

/// A server with a place for each flood and one more.
async fn serve(mode: Mode) -> (Server, SocketAddr) {
    let limits = Limits::default().connections(FLOODS.len() + 1).handshakes(FLOODS.len() + 1);
    serve_tools(&Tools::default(), server_config(mode).limits(limits)).await
}

/// A raw client in this mode, and its session if it has one.
async fn connect(address: SocketAddr, mode: Mode) -> (Raw, Option<Value>) {
    let mut more = if mode.resume { OFFER } else { "Sec-WebSocket-Protocol: mcp\r\n" }.to_owned();
    if mode.deflate {
        more += "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    }
    let mut raw = dial(address, &more).await;
    let session = if mode.resume { Some(open(&mut raw, &json!({})).await) } else { None };
    if mode.auth == Auth::InBand {
        let params = json!({ "token": TOKEN });
        let answer = raw
            .ask(&json!({ "jsonrpc": "2.0", "id": 0, "method": "authenticate", "params": params }))
            .await;
        assert_eq!(answer["result"]["authenticated"], true, "{answer}");
    }
    if mode.auth != Auth::Never {
        raw.initialize().await;
    }
    (raw, session)
}

/// One client of each kind, at one server.
pub struct Clients {
    mode: Mode,
    pub server: Server,
    address: SocketAddr,
    good: GoodClient,
    raws: Vec<Raw>,
    sessions: Vec<Value>,
    floods: Vec<Arc<Vec<u8>>>,
}

impl Clients {
    pub async fn new(mode: Mode, floods: Vec<Arc<Vec<u8>>>) -> Self {
        let (server, address) = serve(mode).await;
        let good = GoodClient::new(address).await;
        let (mut raws, mut sessions) = (Vec::new(), Vec::new());
        for _ in FLOODS {
            let (raw, session) = connect(address, mode).await;
            raws.push(raw);
            sessions.extend(session);
        }
        Self { mode, server, address, good, raws, sessions, floods }
    }

    /// Floods from all at once, then has them go.
    pub async fn flood_and_go(&mut self, end: End) -> Vec<Option<Gone>> {
        let registry = self.server.registry();
        let received = || registry.health().bytes_received;
        flood_and_go(&mut self.raws, &self.floods, end, received).await
    }

    /// Until the server has no descriptor and no place but for the good client.
    pub async fn all_have_gone(&self) -> Duration {
        let start = Instant::now();
        loop {
            let health = self.server.registry().health();
            let active = health.active - health.detached;
            let descriptors = descriptors(self.address.port(), Side::Near);
            if (active, descriptors) == (1, 1) {
                return start.elapsed();
            }
            let left = format!("{active} are still here, {descriptors} descriptors");
            assert!(start.elapsed() < 60 * SECOND, "{left}: {:?}", self.mode);
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asserts that as many new clients as there were vanished peers are served at once.
    pub async fn assert_places(&self) {
        let mode = match self.mode.auth {
            Auth::Never => Mode { auth: Auth::InBand, ..self.mode },
            _ => self.mode,
        };
        let connecting = FLOODS.map(|_| async {
            let (mut raw, _) = connect(self.address, mode).await;
            let answer = raw.ask(&call(1, "echo", json!({ "text": "hi" }))).await;
            assert_eq!(text_of(&answer), "hi");
            raw
        });
        let connected = within(20 * SECOND, join_all(connecting)).await;
        connected.into_iter().for_each(Raw::reset);
    }

    pub async fn end(self) -> Duration {
        self.all_have_gone().await;
        for session in &self.sessions {
            within(20 * SECOND, return_of_owner(self.address, session)).await;
        }
        let slowest = self.good.assert_served().await;
        within(40 * SECOND, self.server.shutdown()).await;
        slowest
    }
}
