//! Ends of connections: who is told what, and that nobody is kept waiting.

use std::time::{Duration, Instant};

use bytes::Bytes;
use mcp_ws_transport::{
    CloseCode, Error, State, WebSocketTransport, connect,
    framing::{BinaryPolicy, JsonRpc},
    layer::{
        correlation, framed,
        socket::{self, Side},
    },
    serve,
    server::{self, Drain},
    transport::Config,
};
use rmcp::{
    RoleClient, RoleServer, ServiceError, ServiceExt,
    model::{CallToolRequestParams, ErrorData},
    service::{PeerRequestOptions, QuitReason},
    transport::Transport,
};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::common::{
    LIMIT, Observer, Tools, call, client_and_raw, host, limit, listen, pair,
    raw::{BINARY, CLOSE, CONTINUATION, Frame, PING, Raw, TEXT, head},
    text_of, tool_call, within,
};

fn code(state: &State) -> u16 {
    match state {
        State::Closed(reason) => reason.code.into(),
        other => panic!("not closed: {other:?}"),
    }
}

fn ping() -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" })
}

/// Every rule that a peer can break, and the code that it is told.
#[tokio::test]
async fn a_broken_rule_closes_with_its_code() {
    let rows: Vec<(&str, u16, Vec<u8>)> = vec![
        ("bad UTF-8", 1007, Frame::new(TEXT, [b'"', 0xFF, b'"']).bytes(true)),
        ("overlong UTF-8", 1007, Frame::new(TEXT, [0xC0, 0xAF]).bytes(true)),
        ("a surrogate in UTF-8", 1007, Frame::new(TEXT, [0xED, 0xA0, 0x80]).bytes(true)),
        ("half a character", 1007, Frame::new(TEXT, [0xC3]).bytes(true)),
        (
            "bad UTF-8 in a later fragment",
            1007,
            [Frame::text("a").more().bytes(true), Frame::new(CONTINUATION, [0xFF]).bytes(true)]
                .concat(),
        ),
        ("no mask", 1002, Frame::text(ping().to_string()).bytes(false)),
        ("a reserved bit", 1002, Frame { reserved: 4, ..Frame::text("{}") }.bytes(true)),
        ("reserved bits", 1002, Frame { reserved: 3, ..Frame::text("{}") }.bytes(true)),
        ("opcode 3", 1002, Frame::new(3, "").bytes(true)),
        ("opcode 7", 1002, Frame::new(7, "x").bytes(true)),
        ("opcode 11", 1002, Frame::new(11, "").bytes(true)),
        ("opcode 15", 1002, Frame::new(15, "").bytes(true)),
        ("a fragmented ping", 1002, Frame::new(PING, "").more().bytes(true)),
        ("a long ping", 1002, Frame::new(PING, [0; 126]).bytes(true)),
        ("a continuation of nothing", 1002, Frame::new(CONTINUATION, "").bytes(true)),
        (
            "a message within a message",
            1002,
            [Frame::text("{").more().bytes(true), Frame::text("{}").bytes(true)].concat(),
        ),
        ("a Close of one byte", 1002, Frame::new(CLOSE, [3]).bytes(true)),
        ("a fragmented Close", 1002, Frame::close(1000).more().bytes(true)),
    ];
    limit(async {
        let (address, mut connections) = host(Tools::default(), Config::default()).await;
        let mut other = Raw::initialized(address).await;
        connections.recv().await.unwrap();
        for (what, expected, bytes) in rows {
            let mut raw = Raw::initialized(address).await;
            let mut observer = connections.recv().await.unwrap();
            raw.write(&bytes).await;
            assert_eq!(raw.closed().await.0, expected, "{what}");
            raw.end().await;
            assert_eq!(code(&observer.ended().await), expected, "{what}");
            other.ping().await;
        }
    })
    .await;
}

/// Codes that may not stand in a Close frame are themselves a violation (RFC 6455, section 7.4.1).
#[tokio::test]
async fn a_close_with_a_code_that_may_not_travel_is_answered_1002() {
    limit(async {
        let (address, _) = host(Tools::default(), Config::default()).await;
        for code in [0, 999, 1004, 1005, 1006, 1015, 2999] {
            let mut raw = Raw::initialized(address).await;
            raw.send(Frame::close(code)).await;
            assert_eq!(raw.closed().await.0, 1002, "{code}");
            raw.end().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_close_is_answered_and_nothing_after_it() {
    limit(async {
        let (address, mut connections) = host(Tools::default(), Config::default()).await;
        for code_sent in [1000, 1001, 1011, 3000, 4999] {
            let mut raw = Raw::initialized(address).await;
            let mut observer = connections.recv().await.unwrap();
            let close = Frame::close(code_sent).bytes(true);
            raw.write([close, Frame::text(ping().to_string()).bytes(true)].concat()).await;
            assert_eq!(raw.closed().await.0, code_sent);
            // The text behind it may turn the end into a reset.
            assert!(!matches!(raw.try_next().await, Ok(Some(_))));
            assert_eq!(code(&observer.ended().await), code_sent);
        }
        let mut raw = Raw::initialized(address).await;
        raw.send(Frame::new(CLOSE, "")).await;
        assert_eq!(raw.next().await.unwrap(), Frame::new(CLOSE, ""));
        raw.end().await;
    })
    .await;
}

#[tokio::test]
async fn a_binary_message_closes_with_1003_where_it_is_refused() {
    limit(async {
        let (near, far) = pair().await;
        let framing = JsonRpc::default().binary(BinaryPolicy::Reject);
        let transport = WebSocketTransport::builder().framing(framing).over_stream(
            far,
            Bytes::new(),
            Side::Server,
        );
        let mut state = transport.state();
        let service = tokio::spawn(async move {
            Tools::default().serve(transport).await.unwrap().waiting().await.unwrap()
        });
        let mut raw = Raw::over(near, true);
        raw.initialize().await;
        raw.ping().await;
        raw.send(Frame::new(BINARY, ping().to_string())).await;
        assert_eq!(raw.closed().await.0, 1003);
        raw.send(Frame::close(1003)).await;
        raw.end().await;
        assert!(matches!(service.await.unwrap(), QuitReason::Closed));
        let ended =
            state.wait_for(|state| matches!(state, State::Closed(_))).await.unwrap().clone();
        assert_eq!(code(&ended), 1003, "{ended:?}");
    })
    .await;
}

/// A client that is still sending when the server refuses must read why: a reset would overtake it.
#[tokio::test]
async fn a_message_too_big_is_told_to_a_client_that_sends_it_whole_before_it_reads() {
    limit(async {
        let (address, mut connections) = host(Tools::default(), Config::default()).await;
        for size in [(4 << 20) + 1, 17 << 20] {
            let mut raw = Raw::initialized(address).await;
            let mut observer = connections.recv().await.unwrap();
            raw.write(head(&Frame::text(""), size as u64, true)).await;
            raw.write(vec![b' '; size]).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(raw.closed().await.0, 1009);
            assert_eq!(code(&observer.ended().await), 1009);
            raw.end().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_whose_message_is_too_big_learns_so() {
    limit(async {
        let address = crate::common::host_without_limits(Tools::default()).await;
        let config = Config::default().framed(framed::Config::default().max_message_size(32 << 20));
        let connect = connect(format!("ws://{address}/")).transport(config).no_reconnect();
        let transport = connect.await.unwrap();
        let state = transport.state();
        let client = ().serve(transport).await.unwrap();
        let text = "x".repeat(17 << 20);
        let error = client.call_tool(echo(&text)).await.unwrap_err();
        assert!(error.to_string().contains("1009"), "{error}");
        client.waiting().await.unwrap();
        assert_eq!(code(&state.borrow()), 1009, "{:?}", state.borrow());
    })
    .await;
}

/// A write that fails is explained by the Close that arrived before it, not by "broken pipe".
#[tokio::test]
async fn the_reason_of_a_peer_that_closed_and_left_is_found_by_a_failed_write() {
    limit(async {
        for _ in 0..10 {
            let (near, far) = pair().await;
            let mut raw = Raw::over(far, false);
            raw.json(&json!({
                "jsonrpc": "2.0", "method": "notifications/progress",
                "params": { "progressToken": 1, "progress": 1 },
            }))
            .await;
            raw.send(Frame::new(CLOSE, [&1013_u16.to_be_bytes()[..], b"busy"].concat())).await;
            raw.reset();
            near.readable().await.unwrap();
            let mut transport = WebSocketTransport::<RoleClient>::builder().over_stream(
                near,
                Bytes::new(),
                Side::Client,
            );
            let message = serde_json::from_value(call(1, "echo", json!({}))).unwrap();
            transport.send(message).await.unwrap();
            assert_eq!(code(&transport.state().borrow()), 1013);
            // What came before it is not lost, and the call is answered.
            let received = serde_json::to_value(transport.receive().await.unwrap()).unwrap();
            assert_eq!(received["method"], "notifications/progress");
            let received = serde_json::to_value(transport.receive().await.unwrap()).unwrap();
            assert_eq!(received["error"]["data"]["reason"], "outcome_unknown", "{received}");
            assert_eq!(received["error"]["data"]["cause"], "closed: 1013 (try again later): busy");
            assert!(transport.receive().await.is_none());
        }
    })
    .await;
}

fn echo(text: &str) -> CallToolRequestParams {
    tool_call("echo", json!({ "text": text }))
}

#[tokio::test]
async fn a_peer_that_vanishes_is_noticed_at_once() {
    limit(async {
        let tools = Tools::default();
        let (address, mut connections) = host(tools.clone(), Config::default()).await;
        for reset in [false, true] {
            let mut raw = Raw::initialized(address).await;
            let mut observer = connections.recv().await.unwrap();
            raw.ping().await;
            if reset {
                raw.reset();
            } else {
                drop(raw);
            }
            let ended = within(Duration::from_secs(1), observer.ended()).await;
            assert_eq!(code(&ended), 1006, "{ended:?}");
        }
        // Half a frame behind, too.
        let mut raw = Raw::initialized(address).await;
        let mut observer = connections.recv().await.unwrap();
        raw.write(head(&Frame::text(""), 1000, true)).await;
        drop(raw);
        assert_eq!(code(&observer.ended().await), 1006);
    })
    .await;
}

/// Returns the error that a pending call of an rmcp client gets.
fn reason(result: Result<impl std::fmt::Debug, ServiceError>) -> String {
    match result.unwrap_err() {
        ServiceError::McpError(ErrorData { code, data: Some(data), .. }) => {
            assert_eq!(code.0, -32000);
            data["reason"].as_str().unwrap().to_owned()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn every_pending_call_ends_when_the_link_is_lost_and_later_ones_fail_at_once() {
    for how in ["FIN", "RST", "Close", "violation"] {
        limit(async {
            let (client, mut observer, mut raw) = client_and_raw(connect).await;
            let calls: Vec<_> = (0..50)
                .map(|_| {
                    let peer = client.peer().clone();
                    tokio::spawn(async move { peer.call_tool(echo("hello")).await })
                })
                .collect();
            for _ in 0..50 {
                assert_eq!(raw.receive().await["method"], "tools/call");
            }
            let keep = match how {
                "FIN" => {
                    drop(raw);
                    None
                }
                "RST" => {
                    raw.reset();
                    None
                }
                "Close" => {
                    raw.send(Frame::close(1012)).await;
                    Some(raw)
                }
                _ => {
                    raw.send(Frame { reserved: 1, ..Frame::text("{}") }).await;
                    Some(raw)
                }
            };
            let lost = Instant::now();
            for call in calls {
                let result = within(Duration::from_secs(5), call).await.unwrap();
                assert_eq!(reason(result), "outcome_unknown", "{how}");
            }
            assert!(lost.elapsed() < Duration::from_secs(5), "{how}");
            observer.ended().await;
            drop(keep);
            client.peer().call_tool(echo("late")).await.unwrap_err();
            let start = Instant::now();
            client.peer().call_tool(echo("later")).await.unwrap_err();
            assert!(start.elapsed() < Duration::from_secs(5), "{how}");
        })
        .await;
    }
}

/// The link ends while much is queued: what was handed over may have run, what was not has not.
#[tokio::test]
async fn calls_that_never_left_are_told_so() {
    limit(async {
        let (client, _, raw) = client_and_raw(connect).await;
        let text = "x".repeat(1 << 20);
        let calls: Vec<_> = (0..30)
            .map(|_| {
                let (peer, params) = (client.peer().clone(), echo(&text));
                tokio::spawn(async move { peer.call_tool(params).await })
            })
            .collect();
        // The peer reads nothing, so most of it stays here.
        tokio::time::sleep(Duration::from_millis(300)).await;
        raw.reset();
        let mut reasons = Vec::new();
        for call in calls {
            reasons.push(reason(within(Duration::from_secs(10), call).await.unwrap()));
        }
        let sent = reasons.iter().filter(|reason| *reason == "outcome_unknown").count();
        assert!(sent >= 1, "{reasons:?}");
        assert!(reasons.len() - sent >= 10, "{reasons:?}");
        assert_eq!(reasons.iter().filter(|reason| *reason == "not_sent").count(), 30 - sent);
    })
    .await;
}

#[tokio::test]
async fn a_call_past_its_deadline_ends_and_is_cancelled_and_its_late_answer_dropped() {
    limit(async {
        let (client, observer, mut raw) = client_and_raw(|url| {
            let config = Config::default()
                .correlation(correlation::Config::default().deadline(Duration::from_millis(200)));
            connect(url).transport(config)
        })
        .await;
        let start = Instant::now();
        let late = tokio::spawn({
            let peer = client.peer().clone();
            async move { peer.call_tool(echo("late")).await }
        });
        let request = raw.receive().await;
        let error = match late.await.unwrap().unwrap_err() {
            ServiceError::McpError(error) => error,
            other => panic!("{other:?}"),
        };
        assert_eq!(error.code.0, -32001, "{error:?}");
        assert!((200..5000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
        let cancelled = raw.receive().await;
        assert_eq!(cancelled["method"], "notifications/cancelled", "{cancelled}");
        assert_eq!(cancelled["params"]["requestId"], request["id"]);
        let before = observer.stats().orphans;
        let result = json!({ "content": [{ "type": "text", "text": "late" }] });
        raw.json(&json!({ "jsonrpc": "2.0", "id": request["id"], "result": result })).await;
        // The link lives on, with a deadline of its own for each call.
        let again = tokio::spawn({
            let peer = client.peer().clone();
            async move { peer.call_tool(echo("again")).await }
        });
        let request = raw.receive().await;
        raw.json(&json!({ "jsonrpc": "2.0", "id": request["id"], "result": result })).await;
        again.await.unwrap().unwrap();
        assert_eq!(observer.stats().orphans, before + 1);
    })
    .await;
}

/// A server that never falls silent cannot keep a call past its deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_holds_under_a_flood() {
    limit(async {
        let (client, _, mut raw) = client_and_raw(|url| {
            let config = Config::default()
                .correlation(correlation::Config::default().deadline(Duration::from_millis(200)));
            connect(url).transport(config)
        })
        .await;
        let call = tokio::spawn({
            let peer = client.peer().clone();
            async move { peer.call_tool(echo("late")).await }
        });
        raw.receive().await;
        let flood = tokio::spawn(async move {
            let frame = Frame::text(r#"{"jsonrpc":"2.0","id":77,"result":{}}"#).bytes(false);
            let many = frame.repeat(1000);
            while raw.try_write(&many).await.is_ok() {}
        });
        within(Duration::from_secs(3), call).await.unwrap().unwrap_err();
        flood.abort();
    })
    .await;
}

/// The side that ends closes, and both the Close frame and the end of the TCP connection follow.
#[tokio::test]
async fn a_client_that_ends_closes_with_1000_and_a_server_with_1012() {
    limit(async {
        // The client's.
        let (client, mut observer, mut raw) = client_and_raw(connect).await;
        let peer = async {
            assert_eq!(raw.closed().await.0, 1000);
            raw.send(Frame::close(1000)).await;
            // The server closes the TCP connection (RFC 6455, section 7.1.1), so only now.
            raw.stream.set_zero_linger().ok();
            drop(raw);
        };
        let (quit, ()) = tokio::join!(client.cancel(), peer);
        assert!(matches!(quit.unwrap(), QuitReason::Cancelled));
        assert_eq!(code(&observer.ended().await), 1000);

        // The server's.
        let service = || Tools::default();
        let server = serve("127.0.0.1:0", service).await.unwrap();
        let mut raws = [
            Raw::initialized(server.local_addr()).await,
            Raw::initialized(server.local_addr()).await,
        ];
        let address = server.local_addr();
        let shutdown = tokio::spawn(server.shutdown());
        for raw in &mut raws {
            let (code, _) = raw.closed().await;
            assert_eq!(code, 1012);
            raw.send(Frame::close(code)).await;
            raw.end().await;
        }
        shutdown.await.unwrap();
        TcpStream::connect(address).await.unwrap_err();
    })
    .await;
}

/// … also with clients that do not answer the Close, that have not spoken yet, or not even
/// upgraded.
#[tokio::test]
async fn a_server_stops_in_time_whatever_its_clients_do() {
    limit(async {
        let tools = Tools::default();
        let service = tools.clone();
        let drain = Drain::default().deadline(Duration::from_secs(2));
        let server = serve("127.0.0.1:0", move || service.clone())
            .config(server::Config::default().drain(drain))
            .await
            .unwrap();
        let address = server.local_addr();
        let unread = Raw::initialized(address).await;
        let silent = Raw::dial(address).await;
        let bare = TcpStream::connect(address).await.unwrap();
        let mut busy = Raw::initialized(address).await;
        busy.json(&call(1, "uncancellable", json!({}))).await;
        tools.begun(1).await;
        let start = Instant::now();
        within(Duration::from_secs(6), server.shutdown()).await;
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        drop((unread, silent, bare, busy));
    })
    .await;
}

#[tokio::test]
async fn dropping_the_server_stops_it_too() {
    limit(async {
        let server = serve("127.0.0.1:0", Tools::default).await.unwrap();
        let mut raw = Raw::initialized(server.local_addr()).await;
        drop(server);
        assert_eq!(raw.closed().await.0, 1012);
        raw.send(Frame::close(1012)).await;
        raw.end().await;
    })
    .await;
}

/// A client that answers before it was let in is told so by a Close, not by silence.
#[tokio::test]
async fn a_client_that_skips_initialize_is_not_served() {
    limit(async {
        let (address, _) = host(Tools::default(), Config::default()).await;
        let mut raw = Raw::dial(address).await;
        let answer = raw.ask(&call(1, "echo", json!({ "text": "early" }))).await;
        assert!(answer["error"].is_object(), "{answer}");
        raw.initialize().await;
        assert_eq!(text_of(&raw.ask(&call(2, "echo", json!({ "text": "in" }))).await), "in");
    })
    .await;
}

/// Calls in flight are answered before a server that stops closes.
#[tokio::test]
async fn a_stopping_server_answers_what_is_about_to_finish() {
    limit(async {
        let tools = Tools::default();
        let service = tools.clone();
        let server = serve("127.0.0.1:0", move || service.clone()).await.unwrap();
        let mut raw = Raw::initialized(server.local_addr()).await;
        raw.json(&call(1, "uncancellable", json!({}))).await;
        tools.begun(1).await;
        let shutdown = tokio::spawn(server.shutdown());
        tokio::time::sleep(Duration::from_millis(100)).await;
        tools.gate.notify_one();
        assert_eq!(text_of(&raw.receive().await), "waited");
        assert_eq!(raw.closed().await.0, 1012);
        raw.send(Frame::close(1012)).await;
        raw.end().await;
        shutdown.await.unwrap();
    })
    .await;
}

/// Both sides close at the same moment.
#[tokio::test]
async fn closes_that_cross_end_the_connection() {
    limit(async {
        let (client, mut observer, mut raw) = client_and_raw(connect).await;
        raw.send(Frame::close(1001)).await;
        let start = Instant::now();
        let peer = async {
            let (code, _) = raw.closed().await;
            assert!(matches!(code, 1000 | 1001), "{code}");
            drop(raw);
        };
        let (_, ()) = tokio::join!(client.cancel(), peer);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        observer.ended().await;
    })
    .await;
}

fn stuck_config() -> Config {
    let socket = socket::Config::default().write_timeout(Duration::from_millis(500));
    Config::default().socket(socket)
}

/// A transport whose peer reads nothing, with more to write than the kernel takes.
async fn stuck(config: Config) -> (WebSocketTransport<RoleClient>, Vec<PendingSend>, TcpStream) {
    let (near, far) = pair().await;
    let mut transport = WebSocketTransport::<RoleClient>::builder().transport(config).over_stream(
        near,
        Bytes::new(),
        Side::Client,
    );
    let text = "x".repeat(1 << 20);
    let sends = (0..16)
        .map(|id| {
            let message =
                serde_json::from_value(call(id, "echo", json!({ "text": text }))).unwrap();
            tokio::spawn(transport.send(message))
        })
        .collect();
    (transport, sends, far)
}

type PendingSend = tokio::task::JoinHandle<Result<(), Error>>;

#[tokio::test]
async fn sends_to_a_peer_that_reads_nothing_pend_until_the_write_timeout() {
    limit(async {
        let (mut transport, mut sends, _far) = stuck(stuck_config()).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!sends.last().unwrap().is_finished());
        let start = Instant::now();
        let last = within(Duration::from_secs(3), sends.pop().unwrap()).await.unwrap();
        assert!(last.is_ok(), "its end is for the reader to tell: {last:?}");
        assert!(start.elapsed() >= Duration::from_millis(200));
        // Each call is answered, and then no more comes.
        for _ in 0..16 {
            let answer = within(Duration::from_secs(1), transport.receive()).await.unwrap();
            let answer = serde_json::to_value(&answer).unwrap();
            let reason = &answer["error"]["data"]["reason"];
            assert!(matches!(reason.as_str(), Some("not_sent" | "outcome_unknown")), "{answer}");
        }
        assert!(within(Duration::from_secs(1), transport.receive()).await.is_none());
        let state = transport.state();
        assert_eq!(code(&state.borrow()), u16::from(CloseCode::TryAgainLater));
    })
    .await;
}

/// The verdict falls whoever waits: the reader alone, too.
#[tokio::test]
async fn the_reader_alone_notices_a_peer_that_reads_nothing() {
    limit(async {
        let (mut transport, sends, _far) = stuck(stuck_config()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        sends.iter().for_each(PendingSend::abort);
        let received = within(Duration::from_secs(3), transport.receive()).await;
        assert!(received.is_some());
        assert!(transport.state().borrow().clone() != State::Connected);
    })
    .await;
}

#[tokio::test]
async fn closing_a_stuck_connection_takes_two_seconds_and_dropping_it_none() {
    limit(async {
        let (mut transport, sends, far) = stuck(Config::default()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let start = Instant::now();
        within(Duration::from_secs(5), transport.close()).await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(1900));
        for send in sends.into_iter().skip(1).rev() {
            within(Duration::from_secs(5), send).await.unwrap().unwrap();
        }
        drop(far);

        let (transport, mut sends, _far) = stuck(Config::default()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let start = Instant::now();
        drop(transport);
        assert!(start.elapsed() < Duration::from_secs(1));
        let last = within(Duration::from_secs(5), sends.pop().unwrap()).await.unwrap();
        last.unwrap();
    })
    .await;
}

#[tokio::test]
async fn closing_twice_and_receiving_afterwards_is_harmless() {
    limit(async {
        let (near, far) = pair().await;
        let mut transport = WebSocketTransport::<RoleClient>::builder().over_stream(
            near,
            Bytes::new(),
            Side::Client,
        );
        let mut raw = Raw::over(far, false);
        let peer = tokio::spawn(async move {
            assert_eq!(raw.closed().await.0, 1000);
            raw.send(Frame::close(1000)).await;
        });
        transport.close().await.unwrap();
        peer.await.unwrap();
        transport.close().await.unwrap();
        assert!(transport.receive().await.is_none());
        let message = serde_json::from_value(ping()).unwrap();
        transport.send(message).await.unwrap_err();
        assert!(transport.receive().await.is_none());
    })
    .await;
}

#[tokio::test]
async fn the_state_tells_the_whole_story() {
    limit(async {
        let (listener, url) = listen().await;
        let dialling = connect::<RoleClient>(url).no_reconnect();
        let mut state = dialling.state();
        assert_eq!(*state.borrow_and_update(), State::Connecting);
        let dialling = tokio::spawn(dialling.into_future());
        let (stream, _) = listener.accept().await.unwrap();
        assert!(!state.has_changed().unwrap());
        let mut raw = Raw::upgraded(stream).await;
        let mut transport = dialling.await.unwrap().unwrap();
        assert_eq!(*state.borrow_and_update(), State::Connected);
        raw.send(Frame::new(CLOSE, [&1012_u16.to_be_bytes()[..], b"back soon"].concat())).await;
        assert!(transport.receive().await.is_none());
        let ended = state.borrow_and_update().clone();
        assert!(
            matches!(&ended, State::Closed(reason)
            if reason.code == CloseCode::Restart && reason.reason == "back soon"),
            "{ended:?}"
        );
        // The first reason stays.
        drop(raw);
        transport.close().await.unwrap();
        drop(transport);
        assert_eq!(*state.borrow(), ended);

        // A connection that never came about.
        drop(listener);
        let dialling = connect::<RoleClient>("ws://127.0.0.1:1/");
        let state = dialling.state();
        dialling.await.unwrap_err();
        assert_eq!(code(&state.borrow()), 1006);
    })
    .await;
}

/// A call that the caller itself gives up (rmcp's own timeout) is forgotten here too.
#[tokio::test]
async fn a_call_that_rmcp_gives_up_is_cancelled_and_its_late_answer_counted() {
    limit(async {
        let (client, observer, mut raw) = client_and_raw(connect).await;
        let peer = client.peer().clone();
        let call = tokio::spawn(async move {
            let mut options = PeerRequestOptions::default();
            options.timeout = Some(Duration::from_millis(100));
            let request = rmcp::model::CallToolRequest::new(echo("x")).into();
            peer.send_request_with_option(request, options).await.unwrap().await_response().await
        });
        let request = raw.receive().await;
        assert!(matches!(call.await.unwrap(), Err(ServiceError::Timeout { .. })));
        let cancelled = raw.receive().await;
        assert_eq!(cancelled["params"]["requestId"], request["id"], "{cancelled}");
        raw.json(&json!({ "jsonrpc": "2.0", "id": request["id"], "result": {} })).await;
        within(LIMIT, async {
            while observer.stats().orphans == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        drop::<Observer>(observer);
    })
    .await;
}

/// A role that accepts and then calls: the same goes for a server's own requests.
#[tokio::test]
async fn a_servers_own_calls_end_with_the_link_too() {
    limit(async {
        let (near, far) = pair().await;
        let transport = WebSocketTransport::<RoleServer>::builder().over_stream(
            far,
            Bytes::new(),
            Side::Server,
        );
        let mut raw = Raw::over(near, true);
        let (running, ()) = tokio::join!(Tools::default().serve(transport), raw.initialize());
        let running = running.unwrap();
        let peer = running.peer().clone();
        let call = tokio::spawn(async move {
            let request = rmcp::model::PingRequest {
                method: Default::default(),
                extensions: Default::default(),
            };
            peer.send_request(rmcp::model::ServerRequest::PingRequest(request)).await
        });
        assert_eq!(raw.receive().await["method"], "ping");
        drop(raw);
        let result = within(Duration::from_secs(1), call).await.unwrap();
        assert_eq!(reason(result), "outcome_unknown");
    })
    .await;
}
