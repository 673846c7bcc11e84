//! permessage-deflate between our ends, and between them and raw peers: when it is agreed on, and
//! that nothing is compressed where it is not.

use std::{net::SocketAddr, time::Duration};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use mcp_ws_transport::{
    Error, WebSocketTransport, accept, connect,
    error::HandshakeError,
    layer::{
        heartbeat,
        socket::{self, deflate},
    },
    server, transport,
};
use rmcp::{RoleClient, RoleServer, ServiceExt, model::CallToolRequestParams};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::common::{
    Tools, call, limit, listen,
    raw::{CONTINUATION, Frame, PING, PONG, Raw, TEXT, accepted, upgrade_request},
    serve_tools, text_of, tool_call,
};

/// A client's offer as Node's `ws` and browsers make it.
const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

fn layers(config: impl Into<Option<deflate::Config>>) -> transport::Config {
    transport::Config::default().socket(socket::Config::default().deflate(config))
}

fn settings(config: impl Into<Option<deflate::Config>>) -> server::Config {
    server::Config::default().transport(layers(config))
}

fn deflated(text: &str) -> Vec<u8> {
    let mut compressed = Vec::with_capacity(text.len() + 1024);
    let mut compress = Compress::new(Compression::best(), false);
    compress.compress_vec(text.as_bytes(), &mut compressed, FlushCompress::Sync).unwrap();
    compressed.truncate(compressed.len() - 4);
    compressed
}

fn inflated(payload: &[u8]) -> String {
    let mut text = Vec::with_capacity(4 << 20);
    let payload = [payload, &[0, 0, 0xff, 0xff]].concat();
    Decompress::new(false).decompress_vec(&payload, &mut text, FlushDecompress::Sync).unwrap();
    String::from_utf8(text).unwrap()
}

fn compressed(text: &str) -> Frame {
    Frame { reserved: 4, ..Frame::new(TEXT, deflated(text)) }
}

/// A raw client with these lines in its request, and what was answered to its offer.
async fn dial(address: SocketAddr, more: &str) -> (Raw, Option<String>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let mut raw = Raw::over(stream, true);
    raw.write(upgrade_request(address, &format!("Sec-WebSocket-Protocol: mcp\r\n{more}"))).await;
    let head = raw.head().await.unwrap();
    assert_eq!(head.status(), 101, "{head:?}");
    (raw, head.get("sec-websocket-extensions").map(str::to_owned))
}

#[tokio::test]
async fn it_is_answered_where_it_is_asked_for_on_both_sides_and_else_not() {
    limit(async {
        let on = deflate::Config::default();
        for (config, offer, answer) in [
            (None, OFFER, None),
            (Some(on), "", None),
            (Some(on), OFFER, Some(ANSWER)),
            (Some(on.context_takeover(true)), OFFER, Some("permessage-deflate")),
            (Some(on), "Sec-WebSocket-Extensions: permessage-deflate; what\r\n", None),
            (Some(on), "Sec-WebSocket-Extensions: \"\r\n", None),
        ] {
            let (_server, address) = serve_tools(&Tools::default(), settings(config)).await;
            let (mut raw, answered) = dial(address, offer).await;
            assert_eq!(answered.as_deref(), answer, "{offer}");
            raw.initialize().await;
            raw.text(call(1, "big", json!({ "size": 5000 })).to_string()).await;
            let frame = raw.next().await.unwrap();
            assert_eq!(frame.reserved, if answer.is_some() { 4 } else { 0 }, "{offer}");
            raw.send(compressed(&call(2, "big", json!({ "size": 1 })).to_string())).await;
            if answer.is_some() {
                assert!(frame.payload.len() < 200, "{}", frame.payload.len());
                let response: Value = serde_json::from_str(&inflated(&frame.payload)).unwrap();
                assert_eq!(text_of(&response).len(), 5000);
                assert_eq!(raw.receive().await["id"], 2);
            } else {
                assert_eq!(raw.closed().await.0, 1002);
            }
        }
    })
    .await;
}

/// A client of ours and a server of ours.
async fn both(of_client: deflate::Config, of_server: deflate::Config) -> (u64, u64) {
    let (_server, address) = serve_tools(&Tools::default(), settings(of_server)).await;
    let transport: WebSocketTransport<RoleClient> =
        connect(format!("ws://{address}/mcp")).transport(layers(of_client)).await.unwrap();
    let stats = transport.stats();
    let client = ().serve(transport).await.unwrap();
    for size in [1, 1000, 2000, 100_000, 1 << 20] {
        let arguments = json!({ "size": size, "padding": "x".repeat(size) });
        let request = tool_call("big", arguments);
        let answer = client.call_tool(request).await.unwrap();
        assert_eq!(answer.content[0].as_text().unwrap().text.len(), size);
    }
    client.cancel().await.unwrap();
    let snapshot = stats.snapshot();
    (snapshot.bytes_sent, snapshot.bytes_received)
}

#[tokio::test]
async fn our_own_ends_agree_whatever_their_settings() {
    limit(async {
        let on = deflate::Config::default();
        for of_client in [on, on.context_takeover(true), on.level(9).threshold(0)] {
            for of_server in [on, on.context_takeover(true).level(6)] {
                let (sent, received) = both(of_client, of_server).await;
                assert!(sent < 50_000 && received < 50_000, "{sent} {received}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_ignores_the_offer_is_spoken_to_without() {
    limit(async {
        let (_server, address) = serve_tools(&Tools::default(), server::Config::default()).await;
        let config = layers(deflate::Config::default());
        let transport = connect(format!("ws://{address}/mcp")).transport(config).await.unwrap();
        let client = ().serve(transport).await.unwrap();
        client.call_tool(CallToolRequestParams::new("echo")).await.unwrap();
    })
    .await;
}

/// Connects a client to a server with this answer, with and without an offer.
async fn answered(offers: bool, answer: &str) -> Result<(), HandshakeError> {
    let (listener, url) = listen().await;
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut raw = Raw::over(stream, false);
        let request = raw.head().await.unwrap();
        let offered = request.get("sec-websocket-extensions");
        assert_eq!(offered.is_some(), offers, "{offered:?}");
        raw.write(accepted(&request, answer)).await;
        raw
    };
    let stream = async { TcpStream::connect(url.split('/').nth(2).unwrap()).await.unwrap() };
    let config = layers(offers.then(deflate::Config::default));
    let client =
        async { connect::<RoleClient>(&url).transport(config).over(stream.await).await.map(drop) };
    match tokio::join!(server, client).1 {
        Ok(()) => Ok(()),
        Err(Error::Handshake(error)) => Err(error),
        Err(other) => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_answer_that_is_none_to_the_offer_fails_the_handshake() {
    limit(async {
        let header = |value: &str| format!("Sec-WebSocket-Extensions: {value}\r\n");
        answered(true, "").await.unwrap();
        answered(true, &header(ANSWER)).await.unwrap();
        for (offers, answer, expected) in [
            (false, ANSWER, "an extension that was not offered"),
            (true, "permessage-bzip2", "permessage-bzip2, which was not offered"),
            (
                true,
                "permessage-deflate; server_no_context_takeover; server_max_window_bits=20",
                "permessage-deflate with an invalid server_max_window_bits",
            ),
            (true, "permessage-deflate", "server_no_context_takeover, which was asked for"),
            (true, "permessage-deflate;", "malformed"),
        ] {
            let error = answered(offers, &header(answer)).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{answer}: {error}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_bad_message_ends_its_own_link_alone() {
    limit(async {
        let config = settings(deflate::Config::default());
        let (_server, address) = serve_tools(&Tools::default(), config).await;
        let (mut other, _) = dial(address, OFFER).await;
        other.initialize().await;
        let rsv1 = |frame: Frame| Frame { reserved: 4, ..frame };
        for (frames, code) in [
            (vec![rsv1(Frame::new(TEXT, [0xff; 32]))], 1007),
            (vec![rsv1(Frame::new(TEXT, "{}"))], 1007),
            (vec![compressed("\u{0}").more(), rsv1(Frame::new(CONTINUATION, ""))], 1002),
            (vec![rsv1(Frame::new(PING, ""))], 1002),
            (vec![compressed(&"[".repeat(5 << 20))], 1009),
        ] {
            let (mut raw, _) = dial(address, OFFER).await;
            raw.initialize().await;
            for frame in frames {
                raw.send(frame).await;
            }
            assert_eq!(raw.closed().await.0, code);
        }
        other.ping().await;
    })
    .await;
}

/// Runs on virtual time.
#[tokio::test(start_paused = true)]
async fn a_large_message_that_trickles_in_is_life() {
    limit(async {
        let heartbeat = heartbeat::Config::default()
            .ping_interval(Duration::from_millis(50))
            .pong_timeout(Duration::from_millis(200))
            .idle_timeout(Duration::from_millis(400));
        let layers = layers(deflate::Config::default()).heartbeat(heartbeat);
        let config = server::Config::default().transport(layers);
        let (near, far) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move {
            let transport = accept::<RoleServer, _>(near).config(config).await.unwrap();
            Tools::default().serve(transport).await.unwrap().waiting().await
        });
        let mut raw = Raw::over(far, true);
        let lines = format!("Sec-WebSocket-Protocol: mcp\r\n{OFFER}");
        raw.write(upgrade_request(([127, 0, 0, 1], 80).into(), &lines)).await;
        assert_eq!(raw.head().await.unwrap().status(), 101);
        raw.initialize().await;
        let noise: String =
            (0..2000_u32).map(|n| char::from(b'a' + (n.wrapping_mul(n) % 26) as u8)).collect();
        let message = call(1, "big", json!({ "size": 10, "padding": noise }));
        for byte in compressed(&message.to_string()).bytes(true).chunks(40) {
            raw.write(byte).await;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        loop {
            let frame = raw.next().await.expect("it was cut");
            if frame.opcode == TEXT {
                let answer: Value = serde_json::from_slice(&frame.payload).unwrap();
                assert_eq!(answer["id"], 1);
                break;
            }
            assert!([PING, PONG].contains(&frame.opcode));
        }
    })
    .await;
}
