//! What a relayed session is: the same as any, wherever its client comes from.

use std::time::{Duration, Instant};

use mcp_ws_transport::server::{Config, Drain};
use serde_json::json;

use super::{Client, Instance, instances, open, result, resume};
use crate::common::{
    call, limit,
    logs::Log,
    raw::{Frame, PING, PONG},
    text_of, within,
};

#[tokio::test]
async fn a_client_resumes_by_another_instance_and_no_call_notices() {
    limit(async {
        let [a, b, c] = instances(["a", "b", "c"]).await;
        let mut client = Client::new(&a).await;
        let waiting: Vec<_> = (0..3).map(|_| client.call("wait", json!({}))).collect();
        a.tools.begun(3).await;

        for other in [&b, &c] {
            client.move_to(other);
            client.resumed().await;
            assert_eq!(client.echo("by another").await, "by another");
            a.relays(1, 0).await;
            other.relays(0, 1).await;
            let health = a.server.registry().health();
            assert_eq!((health.active, health.detached, health.total), (1, 0, 1), "{health:?}");
            let health = other.server.registry().health();
            assert_eq!((health.active, health.total), (0, 0), "{health:?}");
        }
        b.relays(0, 0).await;
        // The connection counts what crosses the relay.
        let listed = a.server.registry().list();
        let before = listed[0].stats().snapshot();
        assert_eq!(client.echo("x".repeat(1000)).await.len(), 1000);
        let after = listed[0].stats().snapshot();
        assert!(after.messages_received > before.messages_received, "{after:?}");
        assert!(after.messages_sent > before.messages_sent, "{after:?}");
        assert!(after.bytes_received >= before.bytes_received + 1000, "{after:?}");
        assert!(after.bytes_sent >= before.bytes_sent + 1000, "{after:?}");

        a.tools.gate.notify_waiters();
        for waiting in waiting {
            assert_eq!(result(waiting).await.unwrap(), "waited");
        }
        // Home again.
        client.move_to(&a);
        client.resumed().await;
        assert_eq!(client.echo("home").await, "home");
        a.relays(0, 0).await;
        c.relays(0, 0).await;
        // Nothing that a client knows, but for the proof of its secret, is in the questions.
        assert_eq!(b.test_bus.published("test.i.a").len(), 1);

        client.client.cancel().await.unwrap();
        for instance in [a, b, c] {
            instance.server.shutdown().await;
        }
    })
    .await;
}

/// The session is logged at home, the connection where its client is.
#[tokio::test]
async fn a_relayed_connection_is_logged_where_its_client_is() {
    let (log, _capture) = Log::capture();
    let told = |event: &str| {
        let text = log.text();
        let lines = text.lines().filter(|line| line.contains("otel.kind=\"server\""));
        lines.filter(|line| line.contains(event)).map(str::to_owned).collect::<Vec<_>>()
    };
    limit(async {
        let [a, b] = instances(["a", "b"]).await;
        let mut client = Client::new(&a).await;
        assert_eq!(told(": connected ").len(), 1);
        client.move_to(&b);
        client.resumed().await;
        assert_eq!(client.echo("by another").await, "by another");
        let [_, relayed] = &told(": connected ")[..] else { panic!("{}", log.text()) };
        assert!(relayed.contains("session=\"relayed\"") && relayed.contains(" INFO "), "{relayed}");
        assert_eq!(told(": reconnected ").len(), 1);
        assert!(told(": connection ended ").is_empty());
        client.client.cancel().await.unwrap();
        for instance in [a, b] {
            instance.server.shutdown().await;
        }
    })
    .await;
    let ended = told(": connection ended ");
    assert_eq!(ended.len(), 2, "{ended:#?}");
    for line in ended {
        assert!(line.contains(" INFO ") && line.contains("code=1000"), "{line}");
        assert!(!line.contains("messages_sent=0"), "{line}");
    }
}

#[tokio::test]
async fn messages_of_four_megabytes_cross_both_ways() {
    limit(async {
        let [a, b] = instances(["a", "b"]).await;
        let mut client = Client::new(&a).await;
        client.move_to(&b);
        client.resumed().await;
        let large = "x".repeat((4 << 20) - 1000);
        let began = Instant::now();
        let [one, other] = [(); 2].map(|()| client.call("echo", json!({ "text": large })));
        let answer = client.call("big", json!({ "size": 4_000_000 }));
        assert!(result(one).await.unwrap() == large && result(other).await.unwrap() == large);
        assert_eq!(result(answer).await.unwrap().len(), 4_000_000);
        println!("three answers and two requests of 4 MB in {:?}", began.elapsed());
        assert_eq!(client.echo("after").await, "after");
        // Within the same relay.
        assert_eq!(b.test_bus.published("test.i.a").len(), 1);
    })
    .await;
}

/// The secret is valid until it is known that the client has the next one.
#[tokio::test]
async fn of_two_relays_at_once_the_last_wins() {
    limit(async {
        let [a, b, c] = instances(["a", "b", "c"]).await;
        let (mut first, session) = open(&a, &json!({})).await;
        first.initialize().await;
        let asked = resume(&session, 1);
        let (mut by_b, next) = open(&b, &asked).await;
        assert_eq!((&next["resumed"], &next["session"]), (&json!(true), &session["session"]));
        assert_eq!(first.closed().await.0, 4409);
        let (mut by_c, again) = open(&c, &asked).await;
        assert_eq!((&again["resumed"], &again["secret"]), (&json!(true), &next["secret"]));
        assert_eq!(by_b.closed().await, (4409, "a newer connection took over".into()));
        b.relays(0, 0).await;
        by_c.text(call(1, "echo", json!({ "text": "last" })).to_string()).await;
        assert_eq!(text_of(&by_c.receive().await), "last");
        // The secret before is over by now, at whatever instance.
        let (_, late) = open(&b, &asked).await;
        assert_eq!((&late["resumed"], &late["why"]), (&json!(false), &json!("unknown")));
        a.relays(1, 0).await;
    })
    .await;
}

#[tokio::test]
async fn each_end_is_told_how_the_other_closes() {
    limit(async {
        let [a, b] = instances(["a", "b"]).await;
        // The client closes for good: the session ends.
        let (mut raw, session) = open(&a, &json!({})).await;
        raw.initialize().await;
        let (mut raw, _) = open(&b, &resume(&session, 1)).await;
        raw.send(Frame::close(1000)).await;
        assert_eq!(raw.closed().await.0, 1000);
        a.relays(0, 0).await;
        a.until(|health| health.active == 0).await;

        // The server does.
        let (mut raw, session) = open(&a, &json!({})).await;
        raw.initialize().await;
        let (mut raw, _) = open(&b, &resume(&session, 1)).await;
        let listed = a.server.registry().list();
        let reason = mcp_ws_transport::CloseReason::new(4001.into(), "as it likes");
        assert!(listed[0].disconnect(reason));
        assert_eq!(raw.closed().await, (4001, "as it likes".into()));
        raw.send(Frame::close(4001)).await;
        a.relays(0, 0).await;
        b.relays(0, 0).await;

        // A client that breaks the protocol: home says so.
        let (mut raw, session) = open(&a, &json!({})).await;
        raw.initialize().await;
        let (mut raw, _) = open(&b, &resume(&session, 1)).await;
        raw.text("@ack 99").await;
        assert_eq!(raw.closed().await.0, 1002);
        // Or this instance does.
        let (mut raw, session) = open(&a, &json!({})).await;
        raw.initialize().await;
        let (mut raw, _) = open(&b, &resume(&session, 1)).await;
        raw.send(Frame::new(3, "no such opcode")).await;
        assert_eq!(raw.closed().await.0, 1002);
        a.relays(0, 0).await;
    })
    .await;
}

#[tokio::test]
async fn pings_of_the_client_are_answered_where_it_is() {
    limit(async {
        let [a, b] = instances(["a", "b"]).await;
        let (mut raw, session) = open(&a, &json!({})).await;
        raw.initialize().await;
        let (mut raw, _) = open(&b, &resume(&session, 1)).await;
        // Home says nothing any more.
        a.test_bus.hold(".away");
        raw.send(Frame::new(PING, "here?")).await;
        assert_eq!(raw.next().await, Some(Frame::new(PONG, "here?")));
        // A pong that nobody has asked for crosses, and means nothing.
        raw.send(Frame::new(PONG, "unasked")).await;
        a.test_bus.release();
        raw.text(call(1, "echo", json!({ "text": "here" })).to_string()).await;
        assert_eq!(text_of(&raw.receive().await), "here");
    })
    .await;
}

/// A client that speaks before it has the session is heard all the same.
#[tokio::test]
async fn a_call_that_does_not_wait_for_the_session_is_answered() {
    limit(async {
        let [a, b] = instances(["a", "b"]).await;
        let (mut raw, session) = open(&a, &json!({})).await;
        raw.initialize().await;
        let mut raw = crate::common::handshake::upgrade(b.address, super::RESUMES).await;
        raw.text(format!("@open {}", resume(&session, 1))).await;
        raw.text(call(1, "echo", json!({ "text": "early" })).to_string()).await;
        let frame = raw.next().await.unwrap();
        assert!(frame.payload.starts_with(b"@session "), "{frame:?}");
        assert_eq!(text_of(&raw.receive().await), "early");
        // Of a session that is not there, it is not said in another.
        let mut raw = crate::common::handshake::upgrade(b.address, super::RESUMES).await;
        let gone = json!({ "session": "z.gone", "secret": "x", "received": 0 });
        raw.text(format!("@open {gone}")).await;
        raw.text(call(1, "echo", json!({ "text": "early" })).to_string()).await;
        assert_eq!(raw.closed().await.0, 1002);
    })
    .await;
}

/// Its calls are at home, and go on: nobody waits for them here.
#[tokio::test]
async fn an_instance_that_stops_closes_its_relays_at_their_turn() {
    limit(async {
        let local = mcp_ws_transport::cluster::Local::default();
        let a = Instance::new(&local, "a", Config::default()).await;
        let c = Instance::new(&local, "c", Config::default()).await;
        let drain = Drain::default().deadline(Duration::from_secs(20)).closes_per_second(5);
        let b = Instance::new(&local, "b", Config::default().drain(drain)).await;
        let mut raws = Vec::new();
        for _ in 0..3 {
            let (mut raw, session) = open(&a, &json!({})).await;
            raw.initialize().await;
            raws.push(open(&b, &resume(&session, 1)).await.0);
        }
        let mut client = Client::new(&a).await;
        client.move_to(&b);
        client.resumed().await;
        let waiting = client.call("wait", json!({}));
        a.tools.begun(1).await;
        client.lead_to(&c);
        b.relays(0, 4).await;

        let began = Instant::now();
        let stopping = tokio::spawn(b.server.shutdown());
        for raw in &mut raws {
            assert_eq!(raw.closed().await, (1012, "the server is stopping".into()));
            raw.send(Frame::close(1012)).await;
        }
        client.resumed().await;
        stopping.await.unwrap();
        // Four closes, five in a second.
        let took = began.elapsed();
        assert!((Duration::from_millis(600)..Duration::from_secs(5)).contains(&took), "{took:?}");
        a.tools.gate.notify_waiters();
        assert_eq!(result(waiting).await.unwrap(), "waited");
        c.relays(0, 1).await;
        // Those whose clients have not come back wait for them at home.
        a.until(|health| health.detached == 3).await;
    })
    .await;
}

#[tokio::test]
async fn one_relay_more_than_may_be_is_turned_away_at_either_end() {
    limit(async {
        for [at_a, at_b] in [[1, 9], [9, 1]] {
            let local = mcp_ws_transport::cluster::Local::default();
            let config = Config::default;
            let a = Instance::joined(&local, "a", config(), |join| join.max_relays(at_a)).await;
            let b = Instance::joined(&local, "b", config(), |join| join.max_relays(at_b)).await;
            let mut sessions = Vec::new();
            for _ in 0..2 {
                let (mut raw, session) = open(&a, &json!({})).await;
                raw.initialize().await;
                sessions.push(session);
            }
            let (first, _) = open(&b, &resume(&sessions[0], 1)).await;
            let asked = resume(&sessions[1], 1);
            assert_eq!(open(&b, &asked).await.1["closed"], 1013);
            drop(first);
            a.relays(0, 0).await;
            b.relays(0, 0).await;
            let (_second, resumed) = open(&b, &asked).await;
            assert_eq!(resumed["resumed"], true);
        }
    })
    .await;
}

#[tokio::test]
async fn where_nothing_may_be_relayed_a_client_begins_anew() {
    limit(async {
        for [at_a, at_b] in [[0, 9], [9, 0]] {
            let local = mcp_ws_transport::cluster::Local::default();
            let config = Config::default;
            let a = Instance::joined(&local, "a", config(), |join| join.max_relays(at_a)).await;
            let b = Instance::joined(&local, "b", config(), |join| join.max_relays(at_b)).await;
            let (mut raw, session) = open(&a, &json!({})).await;
            raw.initialize().await;
            let (_raw, other) = open(&b, &resume(&session, 1)).await;
            assert_eq!(other["resumed"], false, "{other}");
            assert_ne!(other["session"], session["session"], "{other}");
        }
    })
    .await;
}

/// What a client does not read waits at both instances, and is no more than the credit.
#[tokio::test]
async fn for_a_client_that_does_not_read_little_crosses_the_bus() {
    limit(async {
        let [a, b] = instances(["a", "b"]).await;
        let (mut raw, session) = open(&a, &json!({})).await;
        raw.initialize().await;
        let (mut raw, _) = open(&b, &resume(&session, 1)).await;
        for id in 1..=60 {
            raw.text(call(id, "big", json!({ "size": 500_000 })).to_string()).await;
        }
        let crossed =
            || a.test_bus.published(".away").iter().map(|(_, part)| part.len()).sum::<usize>();
        let mut last = (crossed(), Instant::now());
        // Until nothing but heartbeats has crossed for a second.
        while last.1.elapsed() < Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if crossed() > last.0 + 1000 {
                last = (crossed(), Instant::now());
            }
        }
        // The session keeps 1 MiB and a message at most for a client that acknowledges nothing.
        assert!(crossed() < 3 << 20, "{} bytes", crossed());
        let mut got = 0;
        while got < 60 {
            let message = within(Duration::from_secs(10), raw.next()).await.unwrap();
            if message.payload.starts_with(b"{") {
                got += 1;
                raw.text(format!("@ack {}", got + 1)).await;
            }
        }
        b.relays(0, 1).await;
    })
    .await;
}
