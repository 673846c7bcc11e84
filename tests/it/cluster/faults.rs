//! Buses that are away, lose messages, or bring what nobody has sent.

use std::time::Duration;

use mcp_ws_transport::{
    cluster::{Audience, Bus, Cluster, ClusterError, ClusterEvent, ClusterState, Local, Subject},
    server::Registry,
};
use rmcp::RoleServer;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    connect, down, heard_of, heartbeat, join, notification, publish, test_bus::TestBus, until, up,
};
use crate::common::within;

/// Longer than any of these tests takes, by a clock that is paused.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The result of `test`, in virtual time.
async fn limit<T>(test: impl Future<Output = T>) -> T {
    within(DAY, test).await
}

fn registry(cluster: &Cluster) -> Registry<RoleServer> {
    let registry = Registry::default();
    registry.set_cluster(cluster.clone()).unwrap();
    registry
}

#[tokio::test(start_paused = true)]
async fn an_instance_starts_without_the_bus_and_joins_when_it_comes() {
    limit(async {
        let local = Local::default();
        let (b, _) = join(&local, "b").await;
        let bus = connect(&local);
        bus.set_up(false);
        let a = Cluster::join(bus.clone(), "p").instance("a").await.unwrap();
        let is_away = |state: &ClusterState| {
            matches!(state, ClusterState::Degraded { cause: ClusterError::Away, .. })
        };
        assert!(is_away(&a.state().borrow()));
        let registry = registry(&a);
        let health = registry.health().cluster.unwrap();
        assert_eq!((health.connected, health.instances), (false, 1));
        assert_eq!(health.last_error.as_deref(), Some("the bus is away"));

        let sent = registry.notify_cluster(&Audience::All, notification(1)).unwrap();
        let start = Instant::now();
        let report = sent.report(Duration::from_secs(1)).await;
        assert_eq!(report.not_sent.unwrap().to_string(), "the bus is away");
        assert_eq!(start.elapsed(), Duration::ZERO);

        let mut events = a.events();
        sleep(Duration::from_secs(60)).await;
        bus.set_up(true);
        until(&mut events, ClusterEvent::Healed).await;
        heard_of(&b, &["a"]).await;
        heard_of(&a, &["b"]).await;
        let health = registry.health().cluster.unwrap();
        assert_eq!((health.connected, health.instances), (true, 2));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_brings_nothing_is_noticed() {
    limit(async {
        let local = Local::default();
        let bus = TestBus::new(connect(&local));
        let cluster = Cluster::join(bus.clone(), "p").await.unwrap();
        let mut events = cluster.events();
        bus.hold("");
        let start = Instant::now();
        until(&mut events, ClusterEvent::Degraded(ClusterError::Silent)).await;
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
        bus.drop_held();
        until(&mut events, ClusterEvent::Healed).await;
    })
    .await;
}

/// All that was sent meanwhile is told to be missed, once, and nothing of it is kept.
#[tokio::test(start_paused = true)]
async fn an_hour_of_notifications_without_the_bus_is_missed() {
    limit(async {
        let local = Local::default();
        let (a, bus) = join(&local, "a").await;
        let (b, _) = join(&local, "b").await;
        heard_of(&b, &["a"]).await;
        let (registry, mut events) = (registry(&a), b.events());
        bus.set_up(false);
        for second in 0..3600 {
            drop(registry.notify_cluster(&Audience::All, notification(second)).unwrap());
            sleep(Duration::from_secs(1)).await;
        }
        until(&mut events, down("a")).await;
        bus.set_up(true);
        until(&mut events, up("a")).await;
        until(&mut events, ClusterEvent::Missed { from: "a".into(), count: 3600 }).await;
        heard_of(&a, &["b"]).await;
        let sent = registry.notify_cluster(&Audience::All, notification(0)).unwrap();
        assert!(sent.report(Duration::from_secs(1)).await.silent.is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn each_notification_that_is_lost_is_told_to_be_missed() {
    limit(async {
        let local = Local::default();
        let bus = TestBus::new(connect(&local));
        let a = Cluster::join(bus.clone(), "p").instance("a").await.unwrap();
        let (b, _) = join(&local, "b").await;
        heard_of(&b, &["a"]).await;
        let (registry, mut events) = (registry(&a), b.events());
        let notify = || drop(registry.notify_cluster(&Audience::All, notification(0)).unwrap());
        let missed = |count| ClusterEvent::Missed { from: "a".into(), count };
        notify();
        bus.hold("p.n");
        notify();
        notify();
        bus.drop_held();
        // The next one shows it at once.
        let start = Instant::now();
        notify();
        until(&mut events, missed(2)).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        // The last one shows by the heartbeats.
        bus.hold("p.n");
        notify();
        until(&mut events, missed(1)).await;
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        bus.drop_held();
        notify();
        sleep(Duration::from_secs(10)).await;
        bus.hold("p.n");
        notify();
        until(&mut events, missed(1)).await;
    })
    .await;
}

/// Messages that are none, or nearly, on each subject of an instance.
fn hostile() -> Vec<Vec<u8>> {
    let head = |to: &str| {
        let head = format!(r#"{{"instance":"x","run":1,"to":{to}}}"#);
        [&[1, 0, 0, 0, 0, 0, 0, 0, 1][..], head.as_bytes(), b"\n"].concat()
    };
    let all = head(r#""all""#);
    let mut messages: Vec<Vec<u8>> =
        ["", "x", "{}", "null", "?", "r", "r{}", "rx", "s", "\u{1}", "\u{1}12345678", "\n"]
            .iter()
            .map(|text| text.as_bytes().to_vec())
            .collect();
    messages.push(vec![b'{'; 1 << 20]);
    messages.push([&all[..], &b"[".repeat(100_000)].concat());
    messages.push([&all[..], br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#].concat());
    messages.push([&all[..], b"\xff\xfe"].concat());
    messages.push(head(r#""nobody""#));
    messages.push(head(r#"{"connection":{"instance":"a","id":-1}}"#));
    messages.push(head(&format!(r#"{{"identity":"{}"}}"#, "x".repeat(10_000))));
    messages
        .push(json!({ "instance": "a.b", "run": 1, "says": "here", "sent": 0 }).to_string().into());
    messages
        .push(json!({ "instance": "y", "run": -1, "says": "here", "sent": 0 }).to_string().into());
    let report = json!({ "by": "b", "to": { "instance": "a", "run": 1 }, "number": 1, "sent": 1 });
    messages.push(format!("r{report}").into());
    let seeds = (0..500u64).map(|seed| {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let bytes = (0..seed).map(move |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        });
        bytes.collect()
    });
    messages.extend(seeds);
    messages
}

#[tokio::test(start_paused = true)]
async fn what_is_no_message_of_the_cluster_harms_nobody() {
    limit(async {
        let local = Local::default();
        let ((a, _), (b, _)) = (join(&local, "a").await, join(&local, "b").await);
        heard_of(&b, &["a"]).await;
        let (of_a, of_b) = (registry(&a), registry(&b));
        let hostile_bus = local.connect();
        for message in hostile() {
            for subject in ["p.m", "p.n", "p.i.a"] {
                publish(&hostile_bus, subject, &message);
            }
            // Lets the instances read: what waits on a subscription is bounded.
            sleep(Duration::from_millis(1)).await;
        }
        let own = Subject::new("p.i.a").unwrap();
        for question in ["", "x", "r{}"] {
            let asked = hostile_bus.ask(&own, question.into(), Duration::from_millis(10)).await;
            assert!(asked.is_err(), "{question}: {asked:?}");
        }
        // For a session, which is not here.
        let asked = hostile_bus.ask(&own, "s{}".into(), Duration::from_millis(10)).await;
        assert_eq!(asked.unwrap(), "");
        // `x` has a tag that it may have.
        assert_eq!(a.others(), ["b", "x"]);
        let sent = of_a.notify_cluster(&Audience::All, notification(1)).unwrap();
        let report = sent.report(Duration::from_secs(1)).await;
        assert!(report.others.contains_key("b"), "{report:?}");
        assert_eq!(*a.state().borrow(), ClusterState::Joined);
        drop(of_b);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn no_number_of_tags_takes_more_than_so_much() {
    limit(async {
        let local = Local::default();
        let (a, _) = join(&local, "a").await;
        let bus = local.connect();
        for tag in 0..6000 {
            publish(&bus, "p.m", heartbeat(&format!("t{tag}"), 0));
        }
        sleep(Duration::from_secs(1)).await;
        assert_eq!(a.others().len(), 4096);
        sleep(Duration::from_secs(10)).await;
        assert!(a.others().is_empty());
        let (_b, _) = join(&local, "b").await;
        heard_of(&a, &["b"]).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_connection_for_relayed_sessions_is_watched_as_well() {
    let local = Local::default();
    let (bus, relays) = (connect(&local), connect(&local));
    let joining = Cluster::join(bus, "p").instance("a").relay_bus(relays.clone());
    let cluster = joining.await.unwrap();
    let mut state = cluster.state();
    assert_eq!(*state.borrow(), ClusterState::Joined);
    relays.set_up(false);
    let is_degraded = |state: &ClusterState| matches!(state, ClusterState::Degraded { .. });
    state.wait_for(is_degraded).await.unwrap();
    relays.set_up(true);
    state.wait_for(|state| *state == ClusterState::Joined).await.unwrap();

    // Each connection may have rights of its own.
    let mute = TestBus::new(connect(&local));
    mute.hold("");
    let joining = Cluster::join(connect(&local), "p").instance("b").relay_bus(mute);
    let error = joining.await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied, "{error}");
}
