//! Attempts to have a call run twice, or not at all, by way of two instances at once.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use mcp_ws_transport::{
    cluster::{Cluster, Faults, Local},
    connect,
    event::{Event, Events},
    serve,
    server::{Config, Server},
};
use proptest::{
    prelude::RngExt as _,
    test_runner::{RngAlgorithm, TestRng},
};
use rmcp::{RoleClient, ServiceExt, service::RunningService};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{Calling, RESUMES, resume};
use crate::{
    cluster::test_bus::TestBus,
    common::{
        call,
        counting::Counting,
        handshake::upgrade,
        limit, ms,
        proxy::Proxy,
        raw::{CLOSE, Frame, Raw},
        reconnect_within, scale, text_of, tool_call, within,
    },
};

/// Instances that know how often each call was executed at any of them.
struct Scene {
    counting: Counting,
    buses: Vec<TestBus>,
    servers: Vec<Server>,
    addresses: Vec<SocketAddr>,
}

impl Scene {
    async fn new(local: Local) -> Self {
        let counting = Counting::default();
        let (mut buses, mut servers) = (Vec::new(), Vec::new());
        for tag in ["a", "b", "c"] {
            let bus = TestBus::new(Arc::new(local.connect()));
            let cluster = Cluster::join(bus.clone(), "test").instance(tag).await.unwrap();
            let (counting, config) = (counting.clone(), Config::default().cluster(cluster));
            let serve = serve("127.0.0.1:0", move || counting.clone());
            servers.push(serve.config(config).await.unwrap());
            buses.push(bus);
        }
        let addresses = servers.iter().map(Server::local_addr).collect();
        Self { counting, buses, servers, addresses }
    }

    async fn executed(&self, number: i64) {
        within(Duration::from_secs(10), async {
            while self.counting.times(number) == 0 {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// Waits until an instance has so many links of others.
    async fn relayed_in(&self, count: u64) {
        within(Duration::from_secs(10), async {
            while self.servers[0].registry().health().relayed_in != count {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}

/// Client of the first instance at first.
struct Client {
    service: RunningService<RoleClient, ()>,
    events: Events<Event>,
    balancer: Proxy,
}

impl Client {
    async fn new(scene: &Scene) -> Self {
        let balancer = Proxy::new(scene.addresses[0]).await;
        let connect = reconnect_within(ms(5), connect(balancer.url()));
        let events = connect.events();
        let service = ().serve(connect.await.unwrap()).await.unwrap();
        Self { service, events, balancer }
    }

    fn move_to(&self, address: SocketAddr) {
        *self.balancer.target.lock().unwrap() = address;
        self.balancer.cut();
    }

    async fn resumed(&mut self) {
        within(Duration::from_secs(10), async {
            loop {
                match self.events.next().await.unwrap() {
                    Event::Resumed { .. } => return,
                    Event::Restarted { .. } => panic!("the session is lost"),
                    _ => {}
                }
            }
        })
        .await;
    }

    fn begin(&self, number: i64, ms: u64) -> Calling {
        let call = tool_call("count", json!({ "number": number, "ms": ms }));
        let peer = self.service.peer().clone();
        tokio::spawn(async move { peer.call_tool(call).await })
    }

    /// Has a call answered, which has begun when this returns.
    fn call(&self, number: i64, ms: u64) -> impl Future<Output = ()> + use<> {
        let calling = self.begin(number, ms);
        async move {
            let result = within(Duration::from_secs(20), calling).await.unwrap().unwrap();
            assert_eq!(result.content[0].as_text().unwrap().text, number.to_string());
        }
    }
}

/// What takes an offer comes when the client has its session by another way, and has said nothing
/// yet: it throws the client out, who comes back. Twice, by two instances.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_takeover_loses_no_call() {
    limit(async {
        let scene = Scene::new(Local::default()).await;
        let mut client = Client::new(&scene).await;
        let mut number = 0;
        for round in 0..4 {
            let in_flight = client.call(number, 1500);
            scene.executed(number).await;
            for (relayed, away) in [(1, 1), (2, 2)] {
                scene.buses[away].hold(".home");
                client.move_to(scene.addresses[away]);
                scene.relayed_in(relayed).await;
                scene.buses[away].holding().await;
            }
            client.move_to(scene.addresses[0]);
            client.resumed().await;
            for (bus, further) in scene.buses[1..].iter().zip(1..) {
                assert!(bus.release() > 0);
                client.call(number + further, 0).await;
            }
            in_flight.await;
            scene.relayed_in(0).await;
            for number in number..number + 3 {
                assert_eq!(scene.counting.times(number), 1, "{number}, round {round}");
            }
            number += 3;
        }
    })
    .await;
}

/// A bus that breaks its promise, and doubles each question: the session is offered twice for one
/// pipe, and the same part takes both offers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_that_is_doubled_runs_no_call_twice() {
    limit(async {
        let scene = Scene::new(Local::default()).await;
        scene.buses[1].double(".i.a");
        let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[5; 32]);
        let mut answered = 0;
        for round in 0..i64::try_from(scale(40, 400)).unwrap() {
            let client = Client::new(&scene).await;
            let numbers = 4 * round..4 * round + 4;
            let mut calls = Vec::new();
            for number in numbers.clone() {
                calls.push(client.begin(number, 10));
                client.move_to(scene.addresses[usize::from(random.random::<bool>())]);
                sleep(Duration::from_micros(random.random_range(0..6000))).await;
            }
            for (call, number) in calls.into_iter().zip(numbers) {
                let result = within(Duration::from_secs(20), call).await.unwrap();
                let times = scene.counting.times(number);
                // Of the two links the first is closed as if another client had the session.
                assert!(times <= 1 && (times == 1 || result.is_err()), "{number}: {times}");
                answered += u32::from(result.is_ok());
            }
        }
        println!("{answered} answered");
        assert!(answered > 80);
    })
    .await;
}

/// A client that says a call over one link and opens two more at other instances meanwhile: what
/// the last one is told was received was executed, and what was not is executed once it is said
/// again there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_opens_two_links_at_once_has_each_call_once() {
    let late = Faults::new(3).latency(Duration::ZERO..=Duration::from_micros(500));
    for local in [Local::default(), Local::with_faults(late)] {
        let scene = Scene::new(local).await;
        let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[9; 32]);
        let mut link = upgrade(scene.addresses[0], RESUMES).await;
        link.text("@open {}").await;
        let text = String::from_utf8(link.next().await.unwrap().payload).unwrap();
        let mut session: Value =
            serde_json::from_str(text.strip_prefix("@session ").unwrap()).unwrap();
        link.initialize().await;
        // Messages of the client, `initialize` and what follows it, and those of the server.
        let (mut said, mut received) = (2_u64, 1_u64);
        let (mut resent, mut told, mut raced) = (0, 0, 0);
        let began = Instant::now();
        for number in 0..i64::try_from(scale(150, 3000)).unwrap() {
            let message = call(number as u64, "count", json!({ "number": number })).to_string();
            let [one, other] = [0; 2].map(|_| scene.addresses[random.random_range(0..3)]);
            let wait = Duration::from_micros(random.random_range(0..1500));
            let (_, one, other) = tokio::join!(
                async {
                    sleep(Duration::from_micros(random.random_range(0..600))).await;
                    // It may be closed by now.
                    let _ = link.try_write(Frame::text(&message).bytes(true)).await;
                },
                Link::open(one, &session, received),
                async {
                    sleep(wait).await;
                    Link::open(other, &session, received).await
                },
            );
            let both: Vec<_> = [one, other].into_iter().flatten().collect();
            let mut both = both.into_iter().filter(|link| link.session["resumed"] == true);
            let mut now = match (both.next(), both.next()) {
                (Some(one), Some(other)) => {
                    raced += 1;
                    winner(one, other).await
                }
                (Some(only), None) => only,
                (None, _) => panic!("{number}: no link has the session"),
            };
            let has = now.session["received"].as_u64().unwrap();
            match has - said {
                0 => {
                    now.raw.text(&message).await;
                    resent += 1;
                }
                1 => told += 1,
                _ => panic!("{number}: {has} received, {said} said before"),
            }
            said += 1;
            assert_eq!(text_of(&now.answer().await), number.to_string());
            received += 1;
            assert_eq!(scene.counting.times(number), 1, "{number}");
            (link, session) = (now.raw, now.session);
        }
        println!(
            "{resent} calls said again, {told} not; {raced} times both links had the session; {:?}",
            began.elapsed()
        );
        assert!(resent > 0 && told > 0 && raced > 0);
    }
}

/// Link that was told of a session, and what else has come on it.
struct Link {
    raw: Raw,
    session: Value,
    frames: VecDeque<Frame>,
}

impl Link {
    /// Opens a link that resumes a session. `None` if another takes the session before it is told.
    async fn open(address: SocketAddr, session: &Value, received: u64) -> Option<Self> {
        let mut raw = upgrade(address, RESUMES).await;
        raw.text(format!("@open {}", resume(session, received))).await;
        let frame = within(Duration::from_secs(10), raw.try_next()).await.ok()??;
        let text = String::from_utf8_lossy(&frame.payload).into_owned();
        let session = serde_json::from_str(text.strip_prefix("@session ")?).unwrap();
        Some(Self { raw, session, frames: VecDeque::new() })
    }

    /// Resolves when it is closed.
    async fn closed(&mut self) {
        loop {
            match self.raw.try_next().await {
                Ok(Some(frame)) if frame.opcode != CLOSE => self.frames.push_back(frame),
                _ => return,
            }
        }
    }

    /// Returns the next message that is not a control frame of the session.
    async fn answer(&mut self) -> Value {
        loop {
            let frame = match self.frames.pop_front() {
                Some(frame) => frame,
                None => within(Duration::from_secs(10), self.raw.next()).await.unwrap(),
            };
            assert_ne!(frame.opcode, CLOSE, "{frame:?}");
            if frame.payload.starts_with(b"{") {
                return serde_json::from_slice(&frame.payload).unwrap();
            }
        }
    }
}

/// Returns the one that has the session in the end: the other is closed.
async fn winner(mut one: Link, mut other: Link) -> Link {
    let is_other = timeout(Duration::from_secs(10), async {
        tokio::select! {
            () = one.closed() => true,
            () = other.closed() => false,
        }
    })
    .await;
    if is_other.expect("two links have the session") { other } else { one }
}
