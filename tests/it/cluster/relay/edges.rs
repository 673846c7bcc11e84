//! Where a relay begins, or does not: limits, stops, what the bus does not take. On virtual time.

use std::time::Duration;

use futures::future::{join, join_all};
use mcp_ws_transport::{
    cluster::{Bus, Cluster, Local, PublishError, SubscribeError},
    layer::{framed, socket},
    server::{Config, Health, Limits, Server, serve_on},
    transport,
};
use rmcp::RoleServer;
use serde_json::{Value, json};
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{RESUMES, message, resume};
use crate::{
    cluster::test_bus::TestBus,
    common::{
        Tools, call, limit,
        pipes::Pipes,
        raw::{Raw, upgrade_request},
        text_of,
    },
};

/// As many relays as lead to an instance, or away from it, at most.
const MAX_RELAYS: u64 = 1024;

/// Time for which a session is offered.
const OFFER: Duration = Duration::from_secs(2);

struct Instance {
    bus: TestBus,
    cluster: Cluster,
    server: Server<RoleServer, ()>,
    connections: mpsc::UnboundedSender<DuplexStream>,
}

impl Instance {
    async fn new(local: &Local, tag: &str, config: Config) -> Self {
        let bus = TestBus::new(std::sync::Arc::new(local.connect()));
        let cluster = Cluster::join(bus.clone(), "test").instance(tag).await.unwrap();
        let (connections, accepted) = mpsc::unbounded_channel();
        let config = config.cluster(cluster.clone());
        let server = serve_on(Pipes(accepted), Tools::default).config(config).await.unwrap();
        Self { bus, cluster, server, connections }
    }

    async fn upgrade(&self) -> Raw<DuplexStream> {
        let (near, far) = duplex(64 << 10);
        self.connections.send(far).unwrap();
        let mut raw = Raw::over(near, true);
        raw.write(upgrade_request(([127, 0, 0, 1], 80).into(), RESUMES)).await;
        assert_eq!(raw.head().await.unwrap().status(), 101);
        raw
    }

    /// Begins a session. Returns what is said of it.
    async fn begin(&self) -> (Raw<DuplexStream>, Value) {
        let (mut raw, session) = self.open(&json!({})).await;
        raw.initialize().await;
        (raw, session)
    }

    /// Opens a session, which the instance must not reject.
    async fn open(&self, open: &Value) -> (Raw<DuplexStream>, Value) {
        let mut raw = self.ask(open).await;
        let frame = raw.next().await.unwrap();
        let text = String::from_utf8_lossy(&frame.payload).into_owned();
        let session = text.strip_prefix("@session ").unwrap_or_else(|| panic!("{frame:?}"));
        (raw, serde_json::from_str(session).unwrap())
    }

    /// Asks for a session, and does not wait for the answer.
    async fn ask(&self, open: &Value) -> Raw<DuplexStream> {
        let mut raw = self.upgrade().await;
        raw.text(format!("@open {open}")).await;
        raw
    }

    /// The clients that were rejected, by reason.
    fn rejected(&self) -> Vec<(&'static str, u64)> {
        self.server.registry().health().rejected_by.into_iter().collect()
    }

    async fn until(&self, is_so: impl Fn(&Health) -> bool) {
        while !is_so(&self.server.registry().health()) {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn two(of_b: Config) -> [Instance; 2] {
    let local = Local::default();
    let a = Instance::new(&local, "a", Config::default()).await;
    [a, Instance::new(&local, "b", of_b).await]
}

/// Has a call answered in the session of a link.
async fn answers(id: u64, raw: &mut Raw<DuplexStream>) {
    raw.text(call(id, "echo", json!({ "text": "here" })).to_string()).await;
    assert_eq!(text_of(&message(raw).await), "here");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_stops_while_it_asks_tells_the_client_to_come_again() {
    limit(async {
        let [a, b] = two(Config::default()).await;
        let (mut first, session) = a.begin().await;
        b.bus.hold(".i.a");
        let mut asking = b.ask(&resume(&session, 1)).await;
        b.until(|health| health.relayed_out == 1).await;
        let began = Instant::now();
        let registry = b.server.registry().clone();
        let stopping = tokio::spawn(b.server.shutdown());
        assert_eq!(asking.closed().await.0, 1012);
        assert_eq!(registry.health().rejected_by["stopping"], 1);
        drop(asking);
        stopping.await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        b.cluster.leave().await;
        answers(1, &mut first).await;
    })
    .await;
}

/// The session is where it was, and the client comes again.
#[tokio::test(start_paused = true)]
async fn an_offer_that_cannot_be_taken_takes_nothing_over() {
    limit(async {
        let [a, b] = two(Config::default()).await;
        let (mut first, session) = a.begin().await;
        for error in [PublishError::Away, PublishError::Full] {
            b.bus.refuse(".home", error);
            let began = Instant::now();
            let mut raw = b.ask(&resume(&session, 1)).await;
            assert_eq!(raw.closed().await.0, 1001);
            assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
            answers(1, &mut first).await;
        }
        assert_eq!(b.rejected(), [("unavailable", 2)]);
        b.bus.accept();
        a.until(|health| health.relayed_in == 0).await;
        answers(2, &mut first).await;
        let (mut raw, resumed) = b.open(&resume(&session, 1)).await;
        assert_eq!(resumed["resumed"], true);
        answers(3, &mut raw).await;
    })
    .await;
}

/// The session goes on, and its client comes back soon: it may come to that instance itself.
#[tokio::test(start_paused = true)]
async fn an_instance_that_cannot_subscribe_says_that_the_cluster_is_degraded() {
    limit(async {
        let [a, b] = two(Config::default()).await;
        let (mut first, session) = a.begin().await;
        let refused = SubscribeError::Refused("rights are missing".into());
        for error in [Some(SubscribeError::Away), Some(refused), None] {
            a.bus.refuse_subscriptions(".home", error);
            let began = Instant::now();
            let mut raw = b.ask(&resume(&session, 1)).await;
            let told = "the cluster is degraded: the session's instance cannot relay it";
            assert_eq!(raw.closed().await, (1001, told.into()));
            assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
            answers(1, &mut first).await;
        }
        assert_eq!(b.rejected(), [("unavailable", 3)]);
        a.until(|health| health.relayed_in == 0).await;
        a.bus.accept();
        let (mut raw, resumed) = b.open(&resume(&session, 1)).await;
        assert_eq!(resumed["resumed"], true);
        answers(2, &mut raw).await;
    })
    .await;
}

/// Soon after the bus was away, it means little that nobody is there: the other may yet come back.
#[tokio::test(start_paused = true)]
async fn an_instance_that_has_just_joined_asks_less_and_less_often() {
    limit(async {
        let b = Instance::new(&Local::default(), "b", Config::default()).await;
        let began = Instant::now();
        let gone = json!({ "session": "z.gone", "secret": "x", "received": 3 });
        assert_eq!(b.open(&gone).await.1["why"], "unknown");
        let took = began.elapsed();
        assert!((2500..=3000).contains(&took.as_millis()), "{took:?}");
        // After 0, 100, 300, 700, 1500, 2300 and 2900 ms.
        assert_eq!(b.bus.published("test.i.z").len(), 7);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_comes_back_is_asked_at_once() {
    limit(async {
        let local = Local::default();
        let b = Instance::new(&local, "b", Config::default()).await;
        let began = Instant::now();
        let gone = json!({ "session": "z.gone", "secret": "x", "received": 3 });
        let coming = async {
            sleep(Duration::from_millis(1600)).await;
            Instance::new(&local, "z", Config::default()).await
        };
        // It knows the session no more, and says so.
        let ((_raw, new), _z) = join(b.open(&gone), coming).await;
        assert_eq!(new["why"], "unknown");
        let took = began.elapsed();
        assert!((1600..1700).contains(&took.as_millis()), "{took:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn beyond_so_many_relays_a_client_is_told_to_try_later() {
    limit(async {
        let many = Limits::default().connections(2000).handshakes(2000);
        let [a, b] = two(Config::default().limits(many)).await;
        let (mut first, session) = a.begin().await;
        // The instance that has the session offers it that often at once, and to nobody more.
        let (_, resumed) = b.open(&resume(&session, 1)).await;
        b.until(|health| health.relayed_out == 0).await;
        let (subject, question) = b.bus.published("test.i.a").pop().unwrap();
        let question: Value = serde_json::from_slice(&question[1..]).unwrap();
        let ask = async |number: u64| {
            let mut question = question.clone();
            question["pipe"] = json!(format!("{number:022}"));
            let payload = [b"s", question.to_string().as_bytes()].concat();
            b.bus.ask(&subject, payload.into(), Duration::from_secs(1)).await.unwrap()
        };
        let began = Instant::now();
        for answer in join_all((0..MAX_RELAYS).map(ask)).await {
            assert_eq!(answer, "offer");
        }
        assert_eq!(ask(MAX_RELAYS).await, "full");
        let mut raw = b.ask(&resume(&resumed, 1)).await;
        assert_eq!(raw.closed().await, (1013, "too many sessions of other instances".into()));
        assert_eq!(b.rejected(), [("at_capacity", 1)]);
        assert!(began.elapsed() < OFFER);
        a.until(|health| health.relayed_in == 0).await;
        let (mut raw, resumed) = b.open(&resume(&resumed, 1)).await;
        answers(1, &mut raw).await;
        assert_eq!(first.closed().await.0, 4409);
        drop(raw);

        // The instance that has the clients asks that often at once.
        b.bus.hold(".i.a");
        let open = resume(&resumed, 2);
        let asking = join_all((0..MAX_RELAYS).map(|_| b.ask(&open))).await;
        b.until(|health| health.relayed_out == MAX_RELAYS).await;
        let mut raw = b.ask(&open).await;
        assert_eq!(raw.closed().await, (1013, "too many sessions of other instances".into()));
        assert_eq!(b.rejected(), [("at_capacity", 2)]);
        b.bus.drop_held();
        drop(asking);
        b.until(|health| health.relayed_out == 0).await;
        let (mut raw, _) = b.open(&open).await;
        answers(2, &mut raw).await;
    })
    .await;
}

/// A message that one instance takes and the other does not is an error, and ends no relay.
#[tokio::test(start_paused = true)]
async fn limits_of_the_instance_that_has_the_client_are_kept_by_the_other() {
    limit(async {
        let (framed, socket) = (framed::Config::default(), socket::Config::default());
        let small = transport::Config::default()
            .framed(framed.max_message_size(64 << 10))
            .socket(socket.max_message_size(64 << 10));
        let [a, b] = two(Config::default().transport(small)).await;
        let (mut raw, session) = a.begin().await;
        raw.text(call(1, "big", json!({ "size": 100_000 })).to_string()).await;
        assert_eq!(text_of(&message(&mut raw).await).len(), 100_000);
        let (mut raw, resumed) = b.open(&resume(&session, 2)).await;
        raw.text(call(2, "big", json!({ "size": 100_000 })).to_string()).await;
        let answer = message(&mut raw).await;
        assert_eq!(answer["id"], 2);
        assert!(answer["error"].is_object(), "{answer}");
        raw.text(call(3, "big", json!({ "size": 60_000 })).to_string()).await;
        assert_eq!(text_of(&message(&mut raw).await).len(), 60_000);
        b.until(|health| health.relayed_out == 1).await;
        assert_eq!(resumed["max_message"].as_u64(), Some(64 << 10), "{resumed}");
    })
    .await;
}
