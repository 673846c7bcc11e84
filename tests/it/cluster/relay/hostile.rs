//! Whoever may not have a session does not get it by way of another instance.

use std::time::Duration;

use bytes::Bytes;
use mcp_ws_transport::{
    cluster::{Bus, Local, Subject},
    server::{BearerTokens, Config, Identity},
};
use proptest::{
    prelude::RngExt as _,
    test_runner::{RngAlgorithm, TestRng},
};
use serde_json::{Value, json};

use super::{Instance, instances, open, open_with, resume};
use crate::common::{call, limit, text_of};

fn with_tokens() -> Config {
    let tokens = BearerTokens::default()
        .token("token-of-anna", Identity::new("anna"))
        .token("token-of-ben", Identity::new("ben"));
    Config::default().authenticator(tokens)
}

#[tokio::test]
async fn a_session_is_resumed_by_its_owner_and_nobody_else() {
    limit(async {
        let local = Local::default();
        let a = Instance::new(&local, "a", with_tokens()).await;
        let b = Instance::new(&local, "b", with_tokens()).await;
        let (anna, ben) =
            ("Authorization: Bearer token-of-anna\r\n", "Authorization: Bearer token-of-ben\r\n");
        let (mut raw, session) = open_with(&a, anna, &json!({})).await;
        raw.initialize().await;
        let asked = resume(&session, 1);
        let mut guess = asked.clone();
        guess["secret"] = json!("guess");
        for (who, asked) in [(ben, &asked), (anna, &guess)] {
            let (_, other) = open_with(&b, who, asked).await;
            assert_eq!((&other["resumed"], &other["why"]), (&json!(false), &json!("unknown")));
            assert_ne!(other["session"], session["session"]);
        }
        raw.text(call(1, "echo", json!({ "text": "mine" })).to_string()).await;
        assert_eq!(text_of(&raw.receive().await), "mine");
        let asked = resume(&session, 2);
        assert_eq!(open_with(&b, anna, &asked).await.1["resumed"], true);
        // What crosses has neither tokens nor the secret that was presented.
        for (_, question) in b.test_bus.published("test.i.a") {
            let question = String::from_utf8_lossy(&question).into_owned();
            let secret = session["secret"].as_str().unwrap();
            assert!(!question.contains(secret) && !question.contains("token-of"), "{question}");
            assert!(question.contains("anna") || question.contains("ben"), "{question}");
        }
    })
    .await;
}

/// Nobody but the instances should be able to publish there; who can all the same breaks nothing.
#[tokio::test]
async fn what_is_no_question_is_answered_by_no_and_costs_nothing() {
    limit(async {
        let [a, b] = instances(["a", "b"]).await;
        let (mut raw, session) = open(&a, &json!({})).await;
        raw.initialize().await;
        assert_eq!(open(&b, &resume(&session, 1)).await.1["resumed"], true);
        let (subject, question) = b.test_bus.published("test.i.a").pop().unwrap();
        let question: Value = serde_json::from_slice(&question[1..]).unwrap();
        let ask = async |payload: Vec<u8>| {
            let payload = Bytes::from([b"s", &payload[..]].concat());
            b.bus.ask(&subject, payload, Duration::from_secs(1)).await.unwrap()
        };
        for (field, value) in [
            ("v", json!(2)),
            ("session", json!("a.other")),
            ("session", json!(7)),
            ("secret_sha256", json!("AAAA")),
            ("secret_sha256", json!("A".repeat(43))),
            ("identity", json!("ben")),
            ("received", json!("many")),
            ("pipe", json!("../../*.>")),
            ("pipe", json!("> > > > > > > > > > > ")),
        ] {
            let mut changed = question.clone();
            changed[field] = value;
            let answer = ask(changed.to_string().into_bytes()).await;
            assert!(["", "unknown"].contains(&std::str::from_utf8(&answer).unwrap()), "{answer:?}");
        }
        let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[3; 32]);
        let valid = question.to_string().into_bytes();
        for _ in 0..300 {
            let mut changed = valid.clone();
            let at = random.random_range(0..changed.len());
            changed[at] = random.random();
            changed.truncate(random.random_range(0..=changed.len()));
            ask(changed).await;
        }
        assert_eq!(ask(vec![b'['; 100_000]).await, "");
        let health = a.server.registry().health();
        assert_eq!((health.active, health.total), (1, 1), "{health:?}");
    })
    .await;
}

/// Parts that no instance sends end the relay, and not the session.
#[tokio::test]
async fn whoever_writes_into_a_relay_ends_it() {
    limit(async {
        let [a, b] = instances(["a", "b"]).await;
        let (mut raw, session) = open(&a, &json!({})).await;
        raw.initialize().await;
        let mut session = session;
        for (end, part) in [
            (".home", &b"t\0\0\0\0\0\0\0\x09{}"[..]),
            (".home", b"nonsense"),
            (".away", b"t\0\0\0\0\0\0\0\x09{}"),
            (".away", b""),
        ] {
            let (mut raw, resumed) = open(&b, &resume(&session, 1)).await;
            assert_eq!(resumed["resumed"], true, "{end} {part:?}");
            raw.text("@ack 1").await;
            let who = if end == ".home" { &b } else { &a };
            let subject: Subject = who.test_bus.published(end).pop().unwrap().0;
            b.bus.publish(&subject, Bytes::from_static(part)).unwrap();
            assert_eq!(raw.closed().await.0, 1001, "{end} {part:?}");
            session = resumed;
        }
        let (mut raw, _) = open(&b, &resume(&session, 1)).await;
        raw.text(call(1, "echo", json!({ "text": "all the same" })).to_string()).await;
        assert_eq!(text_of(&raw.receive().await), "all the same");
    })
    .await;
}
