//! Memory of unauthenticated connections.
//!
//! With `MCP_WS_FULL` set, 1,024 of them at once (`--release`).

use std::{net::SocketAddr, time::Duration};

use mcp_ws_transport::{
    connect,
    framing::{Envelope, ToolCall},
    layer::socket,
    server::{BearerTokens, Config, Limits, Server},
    transport,
};
use rmcp::RoleClient;
use tokio::net::TcpStream;

use crate::{
    HEAP,
    common::{
        Tools,
        handshake::upgrade,
        listen,
        raw::{Frame, Raw, TEXT, head},
        scale, serve_tools, within,
    },
};

/// Returns the number of clients that are pending at once.
fn pending() -> usize {
    scale(256, 1024)
}

/// All that a connection and what its client sends may take: 16 KiB, and some more where the
/// futures are not optimised.
const EACH: usize = if cfg!(debug_assertions) { 17 << 10 } else { 16 << 10 };

/// The largest first message, by default.
const LIMIT: usize = 4 << 10;

fn config() -> Config {
    let socket = socket::Config::default();
    #[cfg(feature = "deflate")]
    let socket = socket.deflate(socket::deflate::Config::default());
    Config::default()
        .authenticator(BearerTokens::default())
        .in_band_authentication()
        .handshake_timeout(Duration::from_secs(60))
        .limits(Limits::default().handshakes(pending()).connections(2 * pending()))
        .transport(transport::Config::default().socket(socket))
}

/// JSON of this size, that takes as much memory as possible once it is decoded.
fn worst(begin: &str, end: &str, size: usize) -> Vec<u8> {
    let mut json = format!("{begin}[").into_bytes();
    while json.len() + end.len() + 10 < size {
        json.extend(b"{\"\":0},");
    }
    json.extend(b"0]");
    json.extend(end.as_bytes());
    json
}

/// Opens pending connections that each send `bytes`. Returns them, and what each took in bytes.
async fn connect_all(address: SocketAddr, bytes: &[u8]) -> (Vec<Raw>, usize) {
    let (count, before) = (pending(), HEAP.allocated());
    let mut pending = Vec::with_capacity(count);
    for _ in 0..count {
        let mut raw = upgrade(address, "Sec-WebSocket-Extensions: permessage-deflate\r\n").await;
        raw.write(bytes).await;
        // Without the buffer in which it has read the answer.
        pending.push(Raw::over(raw.stream, true));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let each = HEAP.allocated().saturating_sub(before) / count;
    (pending, each)
}

/// Measures the memory of the test's own end of a connection.
async fn own_end() -> usize {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (count, before) = (pending(), HEAP.allocated());
    let mut ends = Vec::with_capacity(count);
    for _ in 0..count {
        ends.push(Raw::over(TcpStream::connect(address).await.unwrap(), true));
        drop(listener.accept().unwrap());
    }
    HEAP.allocated().saturating_sub(before) / count
}

async fn serve(config: Config) -> (Server, SocketAddr) {
    serve_tools(&Tools::default(), config).await
}

#[tokio::test]
async fn an_unauthenticated_client_takes_next_to_nothing() {
    alone!();
    within(Duration::from_secs(scale(120, 600) as u64), async {
        let own = own_end().await;
        println!("the test's own end: {own} bytes each");
        let begin = r#"{"jsonrpc":"2.0","id":1,"method":"authenticate","params":{"a":"#;
        let json_rpc = worst(begin, "}}", LIMIT);
        let begin = r#"{"type":"mcp_request","requestId":"1","request":{"method":"x","params":"#;
        let envelope = worst(begin, "}}", LIMIT);
        let tool_call = worst(r#"{"id":"1","name":"x","parameters":"#, "}", LIMIT);
        let garbage = worst("", "", LIMIT);
        let mut most = 0;
        for (form, config, whole) in [
            ("JSON-RPC", config(), json_rpc),
            ("envelope", config().framing(Envelope::default()), envelope),
            ("tool call", config().framing(ToolCall::default()), tool_call),
            ("garbage", config(), garbage),
        ] {
            let (_server, address) = serve(config).await;
            let frame = Frame::new(TEXT, whole).bytes(true);
            let unfinished = &frame[..frame.len() - 1];
            let mut parts = Vec::new();
            for part in frame[8..].chunks(100) {
                let opcode = if parts.is_empty() { TEXT } else { crate::common::raw::CONTINUATION };
                parts.extend(Frame::new(opcode, part).more().bytes(true));
            }
            for (what, bytes) in
                [("nothing", &[][..]), ("unfinished", unfinished), ("in parts", &parts)]
            {
                let (pending, each) = connect_all(address, bytes).await;
                let each = each.saturating_sub(own);
                println!("{form}, {what}: {each} bytes each");
                most = most.max(each);
                assert!(each <= EACH, "{form}, {what}: {each}");
                drop(pending);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }

            // What decoding takes while it lasts: nothing beyond a few times the message.
            let mut raw = upgrade(address, "").await;
            let before = HEAP.allocated();
            HEAP.set_limit(before + (64 << 10)).unwrap();
            for _ in 0..20 {
                raw.write(&frame).await;
                let answer = raw.next().await.unwrap();
                assert_eq!(answer.opcode, TEXT, "{answer:?}");
                if form == "JSON-RPC" {
                    break;
                }
            }
            HEAP.set_limit(usize::MAX).unwrap();
        }

        println!(
            "figure: {} unauthenticated clients at once, {most} bytes each at most",
            pending()
        );

        // What is announced takes nothing, and what is compressed is not inflated.
        let (_server, address) = serve(config()).await;
        let mut raw = upgrade(address, "").await;
        raw.write(head(&Frame::text(""), 4 << 20, true)).await;
        assert_eq!(raw.closed().await.0, 1009);
        let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
        let (answer, mut raw) = crate::common::handshake::try_upgrade(address, offer).await;
        assert_eq!(answer.get("sec-websocket-extensions"), None);
        raw.send(Frame { reserved: 4, ..Frame::text("compressed") }).await;
        assert_eq!(raw.closed().await.0, 1002);

        a_client_decodes_nothing_large_before_it_is_let_in().await;
    })
    .await;
}

async fn a_client_decodes_nothing_large_before_it_is_let_in() {
    let (listener, url) = listen().await;
    let client = connect::<RoleClient>(url).bearer("t").authenticate_in_band().no_reconnect();
    let client = tokio::spawn(client.into_future());
    let mut raw = Raw::upgraded(listener.accept().await.unwrap().0).await;
    assert_eq!(raw.receive().await["method"], "authenticate");
    let large = Frame::new(TEXT, worst("", "", 8 << 20)).bytes(false);
    HEAP.set_limit(HEAP.allocated() + (64 << 20)).unwrap();
    raw.write(large).await;
    raw.text(r#"{"jsonrpc":"2.0","id":"authenticate","result":{}}"#).await;
    drop(client.await.unwrap().unwrap());
    HEAP.set_limit(usize::MAX).unwrap();
}
