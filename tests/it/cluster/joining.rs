//! Who is in a cluster: instances that come and go, tags that are taken, rights that are missing.

use std::{io::ErrorKind, time::Duration};

use mcp_ws_transport::{
    cluster::{Cluster, ClusterError, ClusterEvent, ClusterState, Local, SubscribeError},
    server::{Config, Registry, WebSocketService},
};
use rmcp::RoleServer;
use tokio::time::{Instant, sleep};

use super::{connect, down, heard_of, heartbeat, join, publish, test_bus::TestBus, until, up};
use crate::common::{Tools, limit};

#[tokio::test(start_paused = true)]
async fn instances_hear_of_each_other_as_they_come_and_go() {
    limit(async {
        let local = Local::default();
        let (a, _) = join(&local, "a").await;
        let mut events = a.events();
        // Until its first heartbeat has passed.
        sleep(Duration::from_millis(2500)).await;
        let start = Instant::now();
        let (b, _) = join(&local, "b").await;
        until(&mut events, up("b")).await;
        heard_of(&b, &["a"]).await;
        assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());

        b.leave().await;
        until(&mut events, down("b")).await;
        assert_eq!((a.others().len(), b.state().borrow().clone()), (0, ClusterState::Left));
        let (c, _) = join(&local, "c").await;
        until(&mut events, up("c")).await;
        drop(c);
        until(&mut events, down("c")).await;
        // The tag is free again.
        let (b, _) = join(&local, "b").await;
        until(&mut events, up("b")).await;
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
        drop(b);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_cut_off_is_gone_after_seven_seconds_and_comes_back() {
    limit(async {
        let local = Local::default();
        let (a, _) = join(&local, "a").await;
        let (b, bus) = join(&local, "b").await;
        heard_of(&b, &["a"]).await;
        let (mut of_a, mut of_b) = (a.events(), b.events());
        let cut = Instant::now();
        bus.set_up(false);
        until(&mut of_b, ClusterEvent::Degraded(ClusterError::Away)).await;
        let state = b.state().borrow().clone();
        assert_eq!(state, ClusterState::Degraded { cause: ClusterError::Away, since: cut });
        until(&mut of_a, down("b")).await;
        let seconds = cut.elapsed().as_secs_f64();
        assert!((5.0..9.1).contains(&seconds), "{seconds}");
        until(&mut of_b, down("a")).await;

        bus.set_up(true);
        until(&mut of_b, ClusterEvent::Healed).await;
        until(&mut of_b, up("a")).await;
        until(&mut of_a, up("b")).await;
        assert_eq!(*b.state().borrow(), ClusterState::Joined);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_tag_that_another_process_has_is_found_at_the_start() {
    limit(async {
        let local = Local::default();
        let (a, _) = join(&local, "a").await;
        let error = Cluster::join(connect(&local), "p").instance("a").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        assert!(error.to_string().contains(r#"the instance "a""#), "{error}");
        assert_eq!(*a.state().borrow(), ClusterState::Joined);
        // Neither in another cluster, nor by chance.
        drop(Cluster::join(connect(&local), "q").instance("a").await.unwrap());
        let (b, c) = (Cluster::join(connect(&local), "p"), Cluster::join(connect(&local), "p"));
        assert_ne!(b.await.unwrap().instance(), c.await.unwrap().instance());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_tag_that_another_process_has_is_found_later_if_the_bus_was_away() {
    limit(async {
        let local = Local::default();
        let (first, _) = join(&local, "a").await;
        let bus = connect(&local);
        bus.set_up(false);
        let second = Cluster::join(bus.clone(), "p").instance("a").await.unwrap();
        let mut events = second.events();
        bus.set_up(true);
        let in_use = ClusterError::InstanceInUse("a".into());
        until(&mut events, ClusterEvent::Degraded(in_use)).await;
        first.leave().await;
        until(&mut events, ClusterEvent::Healed).await;
    })
    .await;
}

/// As two that have asked for the tag at the same moment.
#[tokio::test(start_paused = true)]
async fn a_process_with_the_same_tag_is_heard_of_by_its_heartbeats() {
    limit(async {
        let local = Local::default();
        let (a, _) = join(&local, "a").await;
        let mut events = a.events();
        publish(&local.connect(), "p.m", heartbeat("a", 0));
        let in_use = ClusterError::InstanceInUse("a".into());
        until(&mut events, ClusterEvent::Degraded(in_use)).await;
        let start = Instant::now();
        until(&mut events, ClusterEvent::Healed).await;
        assert!(start.elapsed() >= Duration::from_secs(7), "{:?}", start.elapsed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_instance_without_the_rights_is_told_which() {
    limit(async {
        let local = Local::default();
        for loses_all in [true, false] {
            let bus = TestBus::new(connect(&local));
            if loses_all {
                bus.hold("")
            } else {
                let refused = SubscribeError::Refused("permissions violation".into());
                bus.refuse_subscriptions("", Some(refused))
            }
            let error = Cluster::join(bus, "prod.math").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
            let rights = "the rights to publish and to subscribe on prod.math.> and on the inbox";
            assert!(error.to_string().contains(rights), "{error}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_prefix_or_a_tag_that_is_no_part_of_a_subject_is_an_error() {
    limit(async {
        let local = Local::default();
        for (prefix, tag) in [("", "a"), ("a..b", "a"), ("p.>", "a"), ("p", ""), ("p", "a.b")] {
            let error = Cluster::join(connect(&local), prefix).instance(tag).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_is_the_instance_that_its_cluster_knows() {
    limit(async {
        let local = Local::default();
        let ((a, _), (b, _)) = (join(&local, "a").await, join(&local, "b").await);
        let kind = |config: Config| {
            WebSocketService::new(|| Ok(Tools::default()), config)
                .map_err(|error| error.kind())
                .err()
        };
        let config = || Config::default().cluster(a.clone());
        assert_eq!(kind(config()), None);
        assert_eq!(kind(config().instance("a")), None);
        assert_eq!(kind(config().instance("b")), Some(ErrorKind::InvalidInput));
        let error = config().instance("b").guard().err().unwrap();
        let text = r#"the instance is "b", and has joined its cluster as "a""#;
        assert!(error.to_string().starts_with(text), "{error}");

        let registry = Registry::<RoleServer>::default();
        assert_eq!(kind(config().registry(registry.clone())), None);
        assert_eq!(kind(config().registry(registry.clone())), None);
        let other = Config::default().cluster(b).registry(registry);
        assert_eq!(kind(other), Some(ErrorKind::InvalidInput));
    })
    .await;
}

/// Nothing of a cluster that was left runs on.
#[tokio::test(start_paused = true)]
async fn a_cluster_that_was_left_has_no_task() {
    limit(async {
        let local = Local::default();
        let (a, _) = join(&local, "a").await;
        let (b, _) = join(&local, "b").await;
        a.leave().await;
        drop(b);
        let metrics = tokio::runtime::Handle::current().metrics();
        while metrics.num_alive_tasks() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}
