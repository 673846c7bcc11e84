//! Sessions that outlive their connections, as a server keeps them for raw clients.

use std::{net::SocketAddr, time::Duration};

use futures::StreamExt;
use mcp_ws_transport::{
    layer::socket,
    server::{BearerTokens, Config, Identity, Limits, RegistryEvent, Server, SessionConfig},
    transport,
};
use serde_json::{Value, json};

use crate::common::{
    Tools, call, limit,
    raw::{CLOSE, Frame, PONG, Raw, TEXT, initialize, upgrade_request},
    serve_tools, text_of,
};

/// A client that speaks the extension, and what it knows of its session.
struct Client {
    raw: Raw,
    session: Value,
}

impl Client {
    /// Asks for the extension, and nothing more.
    async fn dial(address: SocketAddr, more: &str) -> Raw {
        let mut raw = Raw::over(tokio::net::TcpStream::connect(address).await.unwrap(), true);
        let offers = format!("Sec-WebSocket-Protocol: mcp, mcp.resume.v1\r\n{more}");
        raw.write(upgrade_request(address, &offers)).await;
        let head = raw.head().await.unwrap();
        assert_eq!(head.get("sec-websocket-protocol"), Some("mcp.resume.v1"), "{head:?}");
        raw
    }

    async fn open(address: SocketAddr, more: &str, open: &Value) -> Self {
        let mut raw = Self::dial(address, more).await;
        raw.text(format!("@open {open}")).await;
        let session = session(&mut raw).await;
        Self { raw, session }
    }

    async fn new(address: SocketAddr) -> Self {
        Self::new_as(address, "").await
    }

    async fn new_as(address: SocketAddr, more: &str) -> Self {
        let mut client = Self::open(address, more, &json!({})).await;
        assert_eq!(
            (&client.session["resumed"], &client.session["received"]),
            (&json!(false), &json!(0))
        );
        client.raw.initialize().await;
        client
    }

    /// Returns its request after it has lost its connection, with this number of messages `received`.
    fn asks(&self, received: u64) -> Value {
        json!({
            "session": self.session["session"], "secret": self.session["secret"], "received": received,
        })
    }
}

/// The `@session` that comes next.
async fn session(raw: &mut Raw) -> Value {
    let frame = raw.next().await.expect("an answer");
    let text = String::from_utf8(frame.payload).unwrap();
    serde_json::from_str(text.strip_prefix("@session ").expect(&text)).unwrap()
}

/// Waits for something that happens in the server.
async fn until(server: &Server, expected: impl Fn(&RegistryEvent) -> bool) {
    let mut events = server.registry().events();
    while !expected(&events.next().await.unwrap()) {}
}

/// The client loses its connection, which the server has noticed.
async fn lose(server: &Server, raw: Raw) {
    let mut events = server.registry().events();
    raw.reset();
    while !matches!(events.next().await.unwrap(), RegistryEvent::Detached(_)) {}
}

#[tokio::test]
async fn a_call_is_answered_over_the_next_connection_and_runs_once() {
    limit(async {
        let tools = Tools::default();
        let (server, address) = serve_tools(&tools, Config::default()).await;
        let mut client = Client::new(address).await;
        assert_eq!(
            (&client.session["window_s"], &client.session["window_bytes"]),
            (&json!(120), &json!(1 << 20))
        );
        client.raw.json(&call(1, "wait", json!({}))).await;
        tools.begun(1).await;
        let asks = client.asks(1);
        lose(&server, client.raw).await;
        let health = server.registry().health();
        assert_eq!((health.active, health.detached, health.total), (1, 1, 1));
        tools.gate.notify_one();

        let mut client = Client::open(address, "", &asks).await;
        // `initialize`, its notification, and the call.
        assert_eq!(
            (&client.session["resumed"], &client.session["received"]),
            (&json!(true), &json!(3))
        );
        let answer = client.raw.receive().await;
        assert_eq!((text_of(&answer), &answer["id"]), ("waited", &json!(1)));
        let answer = client.raw.ask(&call(2, "echo", json!({ "text": "hi" }))).await;
        assert_eq!(text_of(&answer), "hi");
        assert_eq!(*tools.started.borrow(), 1);
        let health = server.registry().health();
        assert_eq!((health.active, health.detached, health.total), (1, 0, 1));
        // Each control frame is a message too.
        assert_eq!((health.messages_received, health.messages_sent), (6, 5));
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn what_the_client_has_not_received_is_sent_again_and_nothing_else() {
    limit(async {
        let (server, address) = serve_tools(&Tools::default(), Config::default()).await;
        let mut client = Client::new(address).await;
        for id in 1..=3 {
            client.raw.ask(&call(id, "echo", json!({ "text": "hi" }))).await;
        }
        let asks = client.asks(2);
        lose(&server, client.raw).await;
        let mut client = Client::open(address, "", &asks).await;
        for id in 2..=3 {
            assert_eq!(client.raw.receive().await["id"], id);
        }
        client.raw.assert_silent(Duration::from_millis(50)).await;
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn whoever_is_not_the_owner_gets_a_new_session_and_the_owner_keeps_his() {
    limit(async {
        let tokens = BearerTokens::default()
            .token("a", Identity::new("alice"))
            .token("b", Identity::new("bob"));
        let config = Config::default().authenticator(tokens);
        let (server, address) = serve_tools(&Tools::default(), config).await;
        let (alice, bob) = ("Authorization: Bearer a\r\n", "Authorization: Bearer b\r\n");
        let mut client = Client::new_as(address, alice).await;
        let mut wrong = client.asks(0);
        wrong["secret"] = "guess".into();
        let mut unknown = client.asks(0);
        unknown["session"] = "guess".into();
        for (who, asks) in [(bob, client.asks(0)), (alice, wrong), (alice, unknown)] {
            let mut attacker = Client::open(address, who, &asks).await;
            let told = &attacker.session;
            assert_eq!((&told["resumed"], &told["why"]), (&json!(false), &json!("unknown")));
            assert_ne!(told["session"], client.session["session"]);
            attacker.raw.initialize().await;
        }
        let answer = client.raw.ask(&call(1, "echo", json!({ "text": "mine" }))).await;
        assert_eq!(text_of(&answer), "mine");

        let asks = client.asks(2);
        lose(&server, client.raw).await;
        let resumed = Client::open(address, alice, &asks).await;
        assert_eq!(resumed.session["resumed"], true);
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn a_secret_is_worth_nothing_once_its_successor_was_used() {
    limit(async {
        let (server, address) = serve_tools(&Tools::default(), Config::default()).await;
        let client = Client::new(address).await;
        let first = client.asks(1);
        // The answer is lost, as far as the server can know: the same secret does again.
        let second = Client::open(address, "", &first).await;
        let mut third = Client::open(address, "", &first).await;
        assert_eq!(third.session["resumed"], true);
        assert_eq!(second.session["secret"], third.session["secret"]);
        assert_ne!(second.session["secret"], client.session["secret"]);
        // From here on it was not.
        third.raw.ask(&call(1, "echo", json!({ "text": "" }))).await;
        let replayed = Client::open(address, "", &first).await;
        assert_eq!(replayed.session["why"], "unknown");
        let answer = third.raw.ask(&call(2, "echo", json!({ "text": "here" }))).await;
        assert_eq!(text_of(&answer), "here");
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn the_connection_that_is_taken_over_is_told_so() {
    limit(async {
        let (server, address) = serve_tools(&Tools::default(), Config::default()).await;
        let mut client = Client::new(address).await;
        let mut next = Client::open(address, "", &client.asks(1)).await;
        assert_eq!(client.raw.closed().await.0, 4409);
        let answer = next.raw.ask(&call(1, "echo", json!({ "text": "hi" }))).await;
        assert_eq!(text_of(&answer), "hi");
        let health = server.registry().health();
        assert_eq!((health.active, health.detached), (1, 0));
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn of_many_who_come_at_once_the_last_wins_and_no_message_is_doubled() {
    limit(async {
        let tools = Tools::default();
        let (server, address) = serve_tools(&tools, Config::default()).await;
        let mut client = Client::new(address).await;
        client.raw.json(&call(1, "wait", json!({}))).await;
        tools.begun(1).await;
        let asks = client.asks(1);
        lose(&server, client.raw).await;
        let racers = (0..50).map(|_| Client::open(address, "", &asks));
        let racers = futures::future::join_all(racers).await;
        assert!(racers.iter().all(|racer| racer.session["resumed"] == true));
        tools.gate.notify_one();
        let mut answers = 0;
        for mut racer in racers {
            match racer.raw.next().await {
                Some(frame) if frame.opcode == TEXT => answers += 1,
                Some(frame) => {
                    assert_eq!(
                        (frame.opcode, &frame.payload[..2]),
                        (CLOSE, &4409_u16.to_be_bytes()[..])
                    );
                }
                None => panic!("cut without a word"),
            }
        }
        assert_eq!((answers, *tools.started.borrow()), (1, 1));
        server.shutdown().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_when_its_window_does_and_so_do_its_handlers() {
    limit(async {
        let tools = Tools::default();
        let config = Config::default().sessions(SessionConfig::default().window(Duration::from_secs(7)));
        let (server, address) = serve_tools(&tools, config).await;
        let mut client = Client::new(address).await;
        client.raw.json(&call(1, "uncancellable", json!({}))).await;
        tools.begun(1).await;
        let asks = client.asks(1);
        lose(&server, client.raw).await;
        let lost = tokio::time::Instant::now();
        until(&server, |event| matches!(event, RegistryEvent::Disconnected { reason, .. } if u16::from(reason.code) == 4410)).await;
        assert_eq!(lost.elapsed().as_secs(), 7);
        let again = Client::open(address, "", &asks).await;
        assert_eq!(again.session["why"], "unknown");
        server.shutdown().await;
    })
    .await;
}

/// Whoever believes it gives no session up that is still kept.
#[tokio::test(start_paused = true)]
async fn a_window_is_told_in_whole_seconds_and_none_too_few() {
    limit(async {
        for (window, told) in [
            (Duration::ZERO, 0),
            (Duration::from_nanos(1), 1),
            (Duration::from_millis(999), 1),
            (Duration::from_secs(1), 1),
            (Duration::from_millis(1001), 2),
            (Duration::MAX, u32::MAX),
        ] {
            let config = Config::default().sessions(SessionConfig::default().window(window));
            let (server, address) = serve_tools(&Tools::default(), config).await;
            let client = Client::open(address, "", &json!({})).await;
            assert_eq!(client.session["window_s"], told, "{window:?}");
            server.shutdown().await;
        }
    })
    .await;
}

#[tokio::test]
async fn too_many_sessions_without_a_client_cost_the_oldest_its_place() {
    limit(async {
        let tools = Tools::default();
        let sessions = SessionConfig::default().max_sessions(2).max_bytes(1 << 20);
        let (server, address) = serve_tools(&tools, Config::default().sessions(sessions)).await;
        let mut asks = Vec::new();
        for _ in 0..3 {
            let client = Client::new(address).await;
            asks.push(client.asks(1));
            lose(&server, client.raw).await;
        }
        while server.registry().health().active > 2 {
            tokio::task::yield_now().await;
        }
        let oldest = Client::open(address, "", &asks[0]).await;
        assert_eq!(oldest.session["why"], "unknown");
        let mut kept = Client::open(address, "", &asks[1]).await;
        assert_eq!(kept.session["resumed"], true);

        // The same for what waits in them, also what comes when they are without a client.
        for id in 1..=2 {
            let size = json!({ "size": 600 << 10 });
            kept.raw.json(&call(id, "big", size)).await;
        }
        kept.raw.json(&call(3, "wait", json!({}))).await;
        tools.begun(1).await;
        let disconnected =
            until(&server, |event| matches!(event, RegistryEvent::Disconnected { .. }));
        let (again, ()) = tokio::join!(
            async {
                let asks = kept.asks(1);
                kept.raw.reset();
                tools.gate.notify_one();
                asks
            },
            disconnected
        );
        assert_eq!(Client::open(address, "", &asks[2]).await.session["why"], "unknown");
        drop(again);
        server.shutdown().await;
    })
    .await;
}

/// The message would come as slowly over the next connection, and hold as much memory again.
#[tokio::test]
async fn a_session_ends_with_a_message_that_is_too_slow() {
    limit(async {
        let layers = transport::Config::default()
            .socket(socket::Config::default().receive_window(Duration::from_millis(300)));
        let config = Config::default().transport(layers);
        let (_server, address) = serve_tools(&Tools::default(), config).await;
        let mut client = Client::new(address).await;
        client.raw.send(Frame::text("{").more()).await;
        assert_eq!(client.raw.closed().await.0, 1008);
        let again = Client::open(address, "", &client.asks(1)).await;
        assert_eq!(again.session["why"], "unknown", "{}", again.session);
    })
    .await;
}

/// Whoever opens sessions and leaves them ends his own, however many.
#[tokio::test]
async fn one_address_does_not_end_the_sessions_of_another() {
    limit(async {
        let sessions = SessionConfig::default().max_sessions(16);
        let config = Config::default().sessions(sessions).peer_addr(|parts| {
            let line = parts.headers.get("x-peer")?;
            line.to_str().ok()?.parse().ok()
        });
        let (server, address) = serve_tools(&Tools::default(), config).await;
        let mut owners = Vec::new();
        for peer in ["192.0.2.1:1", "[2001:db8:0:1::1]:1"] {
            let client = Client::new_as(address, &format!("X-Peer: {peer}\r\n")).await;
            owners.push(client.asks(1));
            lose(&server, client.raw).await;
        }
        for number in 0..2000 {
            // The /64 is one subscriber's.
            let more = format!("X-Peer: [2001:db8::{number:x}]:1\r\n");
            Client::open(address, &more, &json!({})).await.raw.reset();
        }
        while server.registry().health().active > 16 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for asks in owners {
            let client = Client::open(address, "", &asks).await;
            assert_eq!(client.session["resumed"], true, "{}", client.session);
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_is_away_takes_up_no_place() {
    limit(async {
        let limits = Limits::default().connections(1);
        let (server, address) =
            serve_tools(&Tools::default(), Config::default().limits(limits)).await;
        let client = Client::new(address).await;
        let asks = client.asks(1);
        lose(&server, client.raw).await;
        let other = Client::new(address).await;
        let mut refused = Raw::over(tokio::net::TcpStream::connect(address).await.unwrap(), true);
        refused.write(upgrade_request(address, "Sec-WebSocket-Protocol: mcp.resume.v1\r\n")).await;
        assert_eq!(refused.head().await.unwrap().status(), 503);
        lose(&server, other.raw).await;
        assert_eq!(Client::open(address, "", &asks).await.session["resumed"], true);
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn a_server_that_stops_waits_for_nobody_who_is_away() {
    limit(async {
        let tools = Tools::default();
        let (server, address) = serve_tools(&tools, Config::default()).await;
        let mut client = Client::new(address).await;
        client.raw.json(&call(1, "uncancellable", json!({}))).await;
        tools.begun(1).await;
        lose(&server, client.raw).await;
        let stopping = tokio::time::Instant::now();
        server.shutdown().await;
        assert!(stopping.elapsed() < Duration::from_secs(5), "{:?}", stopping.elapsed());
    })
    .await;
}

/// A Pong may come at any time (RFC 6455, section 5.5.3).
#[tokio::test]
async fn a_pong_before_the_session_is_opened_is_no_message() {
    limit(async {
        let (_server, address) = serve_tools(&Tools::default(), Config::default()).await;
        let mut raw = Client::dial(address, "").await;
        raw.send(Frame::new(PONG, "alive")).await;
        raw.text("@open {}").await;
        assert_eq!(session(&mut raw).await["resumed"], false);
    })
    .await;
}

#[tokio::test]
async fn whoever_does_not_open_a_session_is_told_what_is_wrong() {
    limit(async {
        let config = Config::default().handshake_timeout(Duration::from_millis(200));
        let (server, address) = serve_tools(&Tools::default(), config).await;
        // One that leaves is not refused.
        for code in [1000, 1001] {
            let mut leaving = Client::dial(address, "").await;
            leaving.send(Frame::close(code)).await;
            assert_eq!(leaving.closed().await.0, code);
        }
        drop(Client::dial(address, "").await);
        let mut unreadable = Client::dial(address, "").await;
        unreadable.send(Frame::new(TEXT, [0xFF])).await;
        assert_eq!(unreadable.closed().await.0, 1007);
        let number = r#"@open {"session":"s","secret":"t","received":-1}"#;
        for first in [&initialize("init").to_string(), "@open", "@ack 0", "@open []", number] {
            let mut raw = Client::dial(address, "").await;
            raw.text(first).await;
            let (code, reason) = raw.closed().await;
            assert!(code == 1002 && reason.starts_with("resume: "), "{first}: {code} {reason}");
        }
        let mut raw = Client::dial(address, "").await;
        raw.send(Frame::new(crate::common::raw::BINARY, "@open {}")).await;
        assert_eq!(raw.closed().await.0, 1002);
        let mut silent = Client::dial(address, "").await;
        assert_eq!(silent.closed().await, (1008, "resume: no @open in time".into()));
        while server.registry().health().rejected < 8 {
            tokio::task::yield_now().await;
        }
        let health = server.registry().health();
        assert_eq!(health.total, 0);
        let expected = [("session_id", 7), ("timed_out", 1)];
        assert_eq!(health.rejected_by.into_iter().collect::<Vec<_>>(), expected);
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn numbers_that_cannot_be_end_the_session_and_say_so() {
    limit(async {
        let (server, address) = serve_tools(&Tools::default(), Config::default()).await;
        for received in [2, u64::MAX] {
            let client = Client::new(address).await;
            let asks = client.asks(received);
            let mut next = Client::open(address, "", &asks).await;
            assert_eq!(next.session["resumed"], true);
            let (code, reason) = next.raw.closed().await;
            assert_eq!((code, &*reason), (1002, "resume: received more than was sent"));
        }
        while server.registry().health().active > 0 {
            tokio::task::yield_now().await;
        }
        server.shutdown().await;
    })
    .await;
}

#[tokio::test]
async fn it_is_not_spoken_where_it_is_off_or_nobody_knows_who_it_is() {
    limit(async {
        let in_band = BearerTokens::default().token("a", Identity::new("alice"));
        let in_band = Config::default().authenticator(in_band).in_band_authentication();
        for config in [Config::default().sessions(None), in_band] {
            let (server, address) = serve_tools(&Tools::default(), config).await;
            let mut raw = Raw::over(tokio::net::TcpStream::connect(address).await.unwrap(), true);
            let offers = "Sec-WebSocket-Protocol: mcp, mcp.resume.v1\r\n";
            raw.write(upgrade_request(address, offers)).await;
            let head = raw.head().await.unwrap();
            assert_eq!(head.get("sec-websocket-protocol"), Some("mcp"));
            server.shutdown().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_closes_for_good_leaves_no_session() {
    limit(async {
        let (server, address) = serve_tools(&Tools::default(), Config::default()).await;
        for (code, kept) in [(1000, false), (1008, false), (1001, true)] {
            let mut client = Client::new(address).await;
            let asks = client.asks(1);
            let active = server.registry().health().active;
            client.raw.send(Frame::close(code)).await;
            let _ = client.raw.closed().await;
            while !kept && server.registry().health().active == active {
                tokio::task::yield_now().await;
            }
            let next = Client::open(address, "", &asks).await;
            assert_eq!(next.session["resumed"], kept, "{code}");
        }
        server.shutdown().await;
    })
    .await;
}
