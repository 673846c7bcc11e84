//! What happens when an instance or the bus goes away.

use std::time::{Duration, Instant};

use mcp_ws_transport::event::Event;
use serde_json::json;

use super::{Client, instances, message, open, result, resume};
use crate::common::{
    call, limit,
    raw::{Frame, PING, PONG, Raw},
    text_of, within,
};

const UNKNOWN: &str = "outcome_unknown";

/// As if the process was killed: the bus brings it nothing any more, and nobody answers.
#[tokio::test]
async fn a_client_is_told_soon_that_its_sessions_instance_is_gone() {
    limit(async {
        let [a, b] = instances(["a", "b"]).await;
        let mut client = Client::new(&a).await;
        client.move_to(&b);
        client.resumed().await;
        let pending = client.call("wait", json!({}));
        a.tools.begun(1).await;
        // The connections to the bus are not new.
        tokio::time::sleep(Duration::from_secs(3)).await;

        let began = Instant::now();
        a.bus.set_up(false);
        assert_eq!(result(pending).await.unwrap_err(), UNKNOWN);
        let took = began.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
        let lost = client.event().await;
        let told = lost_code(&lost);
        assert_eq!(told, Some(1001), "{lost:?}");
        assert!(matches!(client.event().await, Event::Restarted { .. }));
        assert_eq!(client.echo("anew").await, "anew");
        assert_eq!(b.server.registry().health().active, 1);
        b.relays(0, 0).await;
    })
    .await;
}

fn lost_code(event: &Event) -> Option<u16> {
    let Event::Lost(mcp_ws_transport::Error::Link(error)) = event else { return None };
    Some(error.close_reason().code.into())
}

#[tokio::test]
async fn when_the_bus_goes_away_the_client_goes_elsewhere_and_loses_nothing() {
    limit(async {
        let [a, b] = instances(["a", "b"]).await;
        let mut client = Client::new(&a).await;
        client.move_to(&b);
        client.resumed().await;
        let waiting = client.call("wait", json!({}));
        a.tools.begun(1).await;
        client.lead_to(&a);
        // The instance that has the client is cut off, and the client says something.
        b.bus.set_up(false);
        assert_eq!(client.echo("once").await, "once");
        let lost = client.event().await;
        assert_eq!(lost_code(&lost), Some(1001), "{lost:?}");
        assert!(matches!(client.event().await, Event::Resumed { .. }));
        a.tools.gate.notify_waiters();
        assert_eq!(result(waiting).await.unwrap(), "waited");

        // Back by the other instance, once it is back itself.
        b.bus.set_up(true);
        client.move_to(&b);
        client.resumed().await;
        assert_eq!(client.echo("twice").await, "twice");
        b.relays(0, 1).await;
    })
    .await;
}

/// An outage in which nothing was to be said loses nothing.
#[tokio::test]
async fn an_idle_relay_outlives_a_short_outage() {
    limit(async {
        let [a, b] = instances(["a", "b"]).await;
        let (mut raw, session) = open(&a, &json!({})).await;
        raw.initialize().await;
        let (mut raw, _) = open(&b, &resume(&session, 1)).await;
        // A pong says that all is done that was to be said.
        raw.send(Frame::new(PING, [])).await;
        assert_eq!(raw.next().await, Some(Frame::new(PONG, [])));
        for instance in [&a, &b] {
            instance.bus.set_up(false);
        }
        tokio::time::sleep(Duration::from_millis(1500)).await;
        for instance in [&a, &b] {
            instance.bus.set_up(true);
        }
        raw.text(call(1, "echo", json!({ "text": "still" })).to_string()).await;
        assert_eq!(text_of(&message(&mut raw).await), "still");
    })
    .await;
}

/// The answer to a question is awaited while the bus is away, and then there is a new session.
#[tokio::test]
async fn a_client_that_comes_while_the_bus_is_away_waits_for_it() {
    limit(async {
        let [a, b] = instances(["a", "b"]).await;
        let (mut raw, session) = open(&a, &json!({})).await;
        raw.initialize().await;
        b.bus.set_up(false);
        let asked = resume(&session, 1);
        let coming = open(&b, &asked);
        tokio::pin!(coming);
        assert!(tokio::time::timeout(Duration::from_millis(500), &mut coming).await.is_err());
        b.bus.set_up(true);
        let (_raw, resumed) = coming.await;
        assert_eq!(resumed["resumed"], true);

        b.bus.set_up(false);
        let began = Instant::now();
        let (mut raw, new) = open(&b, &resume(&resumed, 1)).await;
        assert_eq!((&new["resumed"], &new["why"]), (&json!(false), &json!("unknown")));
        let took = began.elapsed();
        assert!((Duration::from_secs(2)..Duration::from_secs(4)).contains(&took), "{took:?}");
        raw.initialize().await;
    })
    .await;
}

/// What is said late takes nothing over: neither a question nor what takes the offer.
#[tokio::test]
async fn what_comes_late_takes_no_session_over() {
    limit(async {
        let [a, b] = instances(["a", "b"]).await;
        let (mut first, session) = open(&a, &json!({})).await;
        first.initialize().await;
        let answers = async |id: u64, raw: &mut Raw| {
            raw.text(call(id, "echo", json!({ "text": "mine" })).to_string()).await;
            assert_eq!(text_of(&message(raw).await), "mine");
        };
        // What takes the offer is held back; the client is told to come again.
        b.test_bus.hold(".home");
        let (_, closed) = open(&b, &resume(&session, 1)).await;
        assert_eq!(closed["closed"], 1001);
        assert!(b.test_bus.release() > 0);
        answers(1, &mut first).await;
        // A question that nobody waits for any more.
        let (subject, question) = b.test_bus.published("test.i.a").pop().unwrap();
        let answer = mcp_ws_transport::cluster::Bus::ask(
            &*b.bus,
            &subject,
            question,
            Duration::from_secs(1),
        );
        assert_eq!(answer.await.unwrap(), "offer");
        answers(2, &mut first).await;
        a.relays(0, 0).await;
        answers(3, &mut first).await;

        // The client leaves while it is asked: the offer is not taken.
        let (mut second, session) = open(&a, &json!({})).await;
        second.initialize().await;
        b.test_bus.hold(".i.a");
        let mut leaving = crate::common::handshake::upgrade(b.address, super::RESUMES).await;
        leaving.text(format!("@open {}", resume(&session, 1))).await;
        b.relays(0, 1).await;
        drop(leaving);
        b.relays(0, 0).await;
        b.test_bus.release();
        answers(1, &mut second).await;
        a.relays(0, 0).await;
    })
    .await;
}

#[tokio::test]
async fn a_question_that_the_bus_has_lost_is_asked_again() {
    limit(async {
        let [a, b] = instances(["a", "b"]).await;
        let mut client = Client::new(&a).await;
        b.test_bus.hold(".i.a");
        client.move_to(&b);
        while b.test_bus.drop_held() == 0 {
            b.test_bus.hold(".i.a");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        client.resumed().await;
        assert_eq!(client.echo("still").await, "still");
    })
    .await;
}

#[tokio::test]
async fn a_session_that_has_ended_is_told_at_once() {
    limit(async {
        let [a, b] = instances(["a", "b"]).await;
        let began = Instant::now();
        let gone = json!({ "session": "a.gone", "secret": "x", "received": 3 });
        for (asked, within_ms) in [
            (gone, 500),
            // Nobody has that tag, though the connection to the bus is new.
            (json!({ "session": "z.gone", "secret": "x", "received": 3 }), 4000),
            // No tag at all, and none that could be one.
            (json!({ "session": "gone", "secret": "x", "received": 3 }), 500),
            (json!({ "session": "~..~", "secret": "x", "received": 3 }), 500),
            (json!({ "session": "b.gone", "secret": "x", "received": 3 }), 500),
        ] {
            let began = Instant::now();
            let (_, new) = open(&b, &asked).await;
            assert_eq!((&new["resumed"], &new["why"]), (&json!(false), &json!("unknown")));
            assert!(
                began.elapsed() < Duration::from_millis(within_ms),
                "{asked} {:?}",
                began.elapsed()
            );
        }
        tokio::time::sleep(Duration::from_secs(3).saturating_sub(began.elapsed())).await;
        let began = Instant::now();
        let asked = json!({ "session": "z.gone", "secret": "x", "received": 3 });
        assert_eq!(open(&b, &asked).await.1["why"], "unknown");
        assert!(began.elapsed() < Duration::from_millis(500));
        // An instance that has left is not awaited.
        let (_raw, session) = open(&a, &json!({})).await;
        a.cluster.leave().await;
        within(Duration::from_millis(500), async {
            assert_eq!(open(&b, &resume(&session, 0)).await.1["why"], "unknown");
        })
        .await;
    })
    .await;
}
