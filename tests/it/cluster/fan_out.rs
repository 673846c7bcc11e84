//! Notifications to the clients of all instances.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use mcp_ws_transport::{
    cluster::{Audience, Cluster, ClusterReport, Local},
    relay,
    server::{BearerTokens, Config, Identity, Registry, Server},
};
use rmcp::{
    RoleServer,
    model::{CustomNotification, ServerNotification},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{heard_of, heartbeat, join, notification, number_of, publish};
use crate::common::{Tools, handshake::upgrade, limit, raw::Raw, serve_tools};

struct Instance {
    cluster: Cluster,
    server: Server,
    address: SocketAddr,
}

impl Instance {
    async fn start(local: &Local, tag: &str) -> Self {
        let (cluster, _) = join(local, tag).await;
        let tokens = ["alice", "bob"]
            .into_iter()
            .fold(BearerTokens::default(), |tokens, name| tokens.token(name, Identity::new(name)));
        let config = Config::default().cluster(cluster.clone()).authenticator(tokens);
        let (server, address) = serve_tools(&Tools::default(), config).await;
        Self { cluster, server, address }
    }

    /// A client of this name, with header lines of its own.
    async fn client(&self, name: &str) -> Raw {
        let mut raw = upgrade(self.address, &format!("Authorization: Bearer {name}\r\n")).await;
        raw.initialize().await;
        self.initialized().await;
        raw
    }

    async fn initialized(&self) {
        while !self.registry().list().iter().all(|connection| connection.is_initialized()) {
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn registry(&self) -> &Registry {
        self.server.registry()
    }

    async fn notify(&self, audience: &Audience, notified: u64) -> ClusterReport {
        let sent = self.registry().notify_cluster(audience, notification(notified)).unwrap();
        sent.report(Duration::from_secs(5)).await
    }
}

/// Three instances that have heard of each other.
async fn three() -> [Instance; 3] {
    let local = Local::default();
    let [a, b, c] = [
        Instance::start(&local, "a").await,
        Instance::start(&local, "b").await,
        Instance::start(&local, "c").await,
    ];
    heard_of(&a.cluster, &["b", "c"]).await;
    heard_of(&b.cluster, &["a", "c"]).await;
    heard_of(&c.cluster, &["a", "b"]).await;
    [a, b, c]
}

/// How many clients a notification was queued for, by the instance that says so.
fn sent(report: &ClusterReport) -> BTreeMap<&str, u64> {
    assert!(report.silent.is_empty() && report.not_sent.is_none(), "{report:?}");
    report.others.iter().map(|(tag, reached)| (tag.as_str(), reached.sent)).collect()
}

/// The numbers of the notifications up to `last`.
async fn received(raw: &mut Raw, last: u64) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.last() != Some(&last) {
        numbers.push(number_of(&raw.receive().await));
    }
    numbers
}

#[tokio::test]
async fn a_notification_reaches_whom_it_is_for_on_whatever_instance() {
    limit(async {
        let [a, b, c] = three().await;
        let mut at_a = a.client("alice").await;
        let (mut alice, mut bob) = (b.client("alice").await, b.client("bob").await);
        let mut at_c = c.client("bob").await;
        let room = &c.registry().list()[0];
        assert!(room.join_group("room") && room.is_in_group("room"));

        let report = a.notify(&Audience::All, 1).await;
        assert_eq!(report.local.sent, 1);
        assert_eq!(sent(&report), BTreeMap::from([("b", 2), ("c", 1)]));
        let report = a.notify(&Audience::Identity("bob".into()), 2).await;
        assert_eq!(report.local.sent, 0);
        assert_eq!(sent(&report), BTreeMap::from([("b", 1), ("c", 1)]));
        let report = b.notify(&Audience::Group("room".into()), 3).await;
        assert_eq!(sent(&report), BTreeMap::from([("a", 0), ("c", 1)]));

        let one = |instance: &Instance, id| Audience::Connection {
            instance: instance.cluster.instance().to_owned(),
            id,
        };
        let of_alice = b.registry().list()[0].id();
        let report = a.notify(&one(&b, of_alice), 4).await;
        assert_eq!((report.local.sent, sent(&report)), (0, BTreeMap::from([("b", 1)])));
        let report = b.notify(&one(&b, of_alice), 5).await;
        assert_eq!((report.local.sent, sent(&report)), (1, BTreeMap::new()));
        let report = a.notify(&one(&c, 99), 6).await;
        assert_eq!(sent(&report), BTreeMap::from([("c", 0)]));

        assert!(room.leave_group("room") && !room.leave_group("room"));
        let report = b.notify(&Audience::Group("room".into()), 7).await;
        assert_eq!(sent(&report), BTreeMap::from([("a", 0), ("c", 0)]));
        for instance in [&a, &b, &c] {
            instance.notify(&Audience::All, 8).await;
        }
        assert_eq!(received(&mut at_a, 8).await, [1, 8]);
        assert_eq!(received(&mut alice, 8).await, [1, 4, 5, 8]);
        assert_eq!(received(&mut bob, 8).await, [1, 2, 8]);
        assert_eq!(received(&mut at_c, 8).await, [1, 2, 3, 8]);
    })
    .await;
}

#[tokio::test]
async fn a_session_is_notified_by_its_id() {
    limit(async {
        let [a, b, c] = three().await;
        let _other = b.client("bob").await;
        let header =
            "Authorization: Bearer alice\r\nSec-WebSocket-Protocol: mcp, mcp.resume.v1\r\n";
        let mut raw = upgrade(b.address, header).await;
        raw.text("@open {}").await;
        let frame = String::from_utf8(raw.next().await.unwrap().payload).unwrap();
        let session: Value =
            serde_json::from_str(frame.strip_prefix("@session ").unwrap()).unwrap();
        let id = session["session"].as_str().unwrap();
        assert!(id.starts_with("b."), "{id}");
        raw.initialize().await;
        b.initialized().await;

        let audience = Audience::Session(id.to_owned());
        assert!(!format!("{audience:?}").contains(id));
        let report = a.notify(&audience, 1).await;
        assert_eq!(sent(&report), BTreeMap::from([("b", 1), ("c", 0)]));
        assert_eq!(received(&mut raw, 1).await, [1]);
        drop(c);
    })
    .await;
}

#[tokio::test]
async fn notifications_of_one_instance_come_in_order() {
    limit(async {
        let [a, b, c] = three().await;
        let mut raws = [a.client("alice").await, b.client("alice").await, c.client("alice").await];
        let alice = Audience::Identity("alice".into());
        let last = 1000;
        for notified in 0..=last {
            let audience = if notified % 2 == 0 { &alice } else { &Audience::All };
            drop(a.registry().notify_cluster(audience, notification(notified)).unwrap());
            tokio::task::yield_now().await;
        }
        for raw in &mut raws {
            assert!(received(raw, last).await.into_iter().eq(0..=last));
        }
    })
    .await;
}

#[tokio::test]
async fn what_the_bus_does_not_take_is_refused_as_a_whole() {
    limit(async {
        let [a, b, c] = three().await;
        let (mut at_a, mut at_b) = (a.client("alice").await, b.client("alice").await);
        let params = json!({ "text": "x".repeat(1 << 20) });
        let large = CustomNotification::new("notifications/large", Some(params));
        let large = ServerNotification::from(large);
        let error = a.registry().notify_cluster(&Audience::All, large).unwrap_err().to_string();
        assert!(error.contains("exceeds the limit of 1048576"), "{error}");
        // An audience that fits into what comes before the notification, and one that does not.
        let group = |bytes| Audience::Group("x".repeat(bytes));
        let report = a.notify(&group(3900), 0).await;
        assert_eq!(sent(&report), [("b", 0), ("c", 0)].into());
        let error =
            a.registry().notify_cluster(&group(4100), notification(0)).unwrap_err().to_string();
        assert!(error.contains("the audience takes more than 4,000 bytes"), "{error}");
        a.notify(&Audience::All, 1).await;
        assert_eq!(received(&mut at_a, 1).await, [1]);
        assert_eq!(received(&mut at_b, 1).await, [1]);
        drop(c);
    })
    .await;
}

/// One that says that it is there, and does nothing.
#[tokio::test(start_paused = true)]
async fn an_instance_that_does_not_answer_delays_no_other() {
    limit(async {
        let local = Local::default();
        let ((a, _), (b, _)) = (join(&local, "a").await, join(&local, "b").await);
        heard_of(&a, &["b"]).await;
        let (of_a, of_b) = (Registry::<RoleServer>::default(), Registry::<RoleServer>::default());
        of_a.set_cluster(a.clone()).unwrap();
        of_b.set_cluster(b).unwrap();
        let start = Instant::now();
        let sent = of_a.notify_cluster(&Audience::All, notification(1)).unwrap();
        let report = sent.report(Duration::from_secs(1)).await;
        assert!(report.silent.is_empty() && report.others.contains_key("b"), "{report:?}");
        assert_eq!(start.elapsed(), Duration::ZERO);

        publish(&local.connect(), "p.m", heartbeat("ghost", 0));
        heard_of(&a, &["b", "ghost"]).await;
        let start = Instant::now();
        let sent = of_a.notify_cluster(&Audience::All, notification(2)).unwrap();
        let report = sent.report(Duration::from_secs(1)).await;
        assert_eq!(report.silent, ["ghost"]);
        assert!(report.others.contains_key("b"), "{report:?}");
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        // When it is gone nobody waits for it.
        heard_of(&a, &["b"]).await;
        let sent = of_a.notify_cluster(&Audience::All, notification(3)).unwrap();
        assert!(sent.report(Duration::from_secs(1)).await.silent.is_empty());
    })
    .await;
}

/// A relay's notifications are text, and those of rmcp's own roles values.
#[tokio::test(start_paused = true)]
async fn every_role_of_a_server_takes_part() {
    limit(async {
        let local = Local::default();
        let ((a, _), (b, _)) = (join(&local, "a").await, join(&local, "b").await);
        heard_of(&a, &["b"]).await;
        let (of_a, of_b) =
            (Registry::<RoleServer>::default(), Registry::<relay::Server>::default());
        of_a.set_cluster(a).unwrap();
        of_b.set_cluster(b).unwrap();
        let sent = of_a.notify_cluster(&Audience::All, notification(1)).unwrap();
        let report = sent.report(Duration::from_secs(1)).await;
        assert!(report.silent.is_empty() && report.others.contains_key("b"), "{report:?}");
    })
    .await;
}

#[tokio::test]
async fn the_figures_of_a_server_show_its_cluster_if_there_is_one() {
    limit(async {
        let [a, b, c] = three().await;
        let health = serde_json::to_value(a.registry().health()).unwrap();
        let cluster =
            json!({ "instance": "a", "connected": true, "instances": 3, "last_error": null });
        assert_eq!(health["cluster"], cluster);
        c.cluster.leave().await;
        let health = serde_json::to_value(c.registry().health()).unwrap();
        assert_eq!(health["cluster"]["connected"], false);
        heard_of(&a.cluster, &["b"]).await;
        assert_eq!(a.registry().health().cluster.unwrap().instances, 2);
        let (alone, _) = serve_tools(&Tools::default(), Config::default()).await;
        let health = serde_json::to_value(alone.registry().health()).unwrap();
        assert_eq!(health.get("cluster"), None);
        let sent = alone.registry().notify_cluster(&Audience::All, notification(1)).unwrap();
        let report = sent.report(Duration::from_secs(1)).await;
        assert!(report.others.is_empty() && report.not_sent.is_none(), "{report:?}");
        drop(b);
    })
    .await;
}
