//! A session that is resumed at other instances than its own, with calls in flight.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicI64, Ordering::SeqCst},
    time::Duration,
};

use futures::{StreamExt, future::join_all};
use mcp_ws_transport::{
    client::ReconnectPolicy,
    cluster::Cluster,
    connect,
    event::{Event, Events},
    serve,
    server::{self, Config},
};
use rmcp::{
    Peer, RoleClient, ServiceError, ServiceExt,
    model::{CallToolRequestParams, CallToolResult},
};
use serde_json::{Value, json};
use tokio::{
    task::{JoinHandle, block_in_place},
    time::{sleep, timeout},
};

use super::{counting::Counting, instances::Broker, proxy::Proxy, server::Server};

const LIMIT: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(LIMIT, future).await.unwrap()
}

async fn until(is_so: impl Fn() -> bool) {
    soon(async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

async fn resumed(events: &mut Events<Event>) {
    soon(async {
        loop {
            match events.next().await.unwrap() {
                Event::Resumed { .. } => return,
                Event::Restarted { .. } => panic!("the session is lost"),
                _ => {}
            }
        }
    })
    .await;
}

/// Calls, each with a number of its own.
struct Calls {
    peer: Peer<RoleClient>,
    last: AtomicI64,
}

type Calling = (i64, JoinHandle<Result<CallToolResult, ServiceError>>);

impl Calls {
    /// Begins a call that takes so long, with so many bytes.
    fn begin(&self, ms: u64, bytes: usize) -> Calling {
        let (peer, number) = (self.peer.clone(), self.last.fetch_add(1, SeqCst));
        let arguments = json!({ "number": number, "ms": ms, "bytes": "x".repeat(bytes) });
        let Value::Object(arguments) = arguments else { unreachable!() };
        let call = CallToolRequestParams::new("count").with_arguments(arguments);
        (number, tokio::spawn(async move { peer.call_tool(call).await }))
    }
}

async fn answered((number, calling): Calling) {
    let result = soon(calling).await.unwrap().unwrap();
    assert_eq!(result.content[0].as_text().unwrap().text, number.to_string());
}

pub(crate) async fn sessions_are_resumed_by_other_instances<B: Broker>() {
    let mut broker = Server::start(B::PROGRAM, B::arguments);
    let address = broker.address.to_string();
    let counting = Counting::default();
    let instance = async |tag: &'static str| -> (server::Server, SocketAddr) {
        let (bus, relays) = (B::connect(&address).await, B::connect(&address).await);
        let cluster = Cluster::join(bus, "relay").instance(tag).relay_bus(relays).await.unwrap();
        let counting = counting.clone();
        let serve = serve("127.0.0.1:0", move || counting.clone());
        let server = serve.config(Config::default().cluster(cluster)).await.unwrap();
        let address = server.local_addr();
        (server, address)
    };
    let instances = [instance("a").await, instance("b").await, instance("c").await];
    let relays = |which: usize| {
        let health = instances[which].0.registry().health();
        (health.relayed_in, health.relayed_out)
    };

    let balancer = Proxy::new(instances[0].1).await;
    let bound = Duration::from_millis(5);
    let policy = ReconnectPolicy::default().first(bound).min(bound).max(bound);
    let connect = connect(balancer.url()).reconnect(policy);
    let mut events = connect.events();
    let client = ().serve(connect.await.unwrap()).await.unwrap();
    let calls = Calls { peer: client.peer().clone(), last: AtomicI64::new(0) };

    for to in [1, 2, 0, 1, 2, 1, 0, 2] {
        let in_flight: Vec<_> = (0..5).map(|_| calls.begin(200, 0)).collect();
        until(|| in_flight.iter().all(|(number, _)| counting.times(*number) == 1)).await;
        *balancer.target.lock().unwrap() = instances[to].1;
        balancer.cut();
        resumed(&mut events).await;
        // In more parts than one, while those are still in flight.
        let large = calls.begin(0, 3 << 20);
        join_all(in_flight.into_iter().chain([large]).map(answered)).await;
        let is_relayed = u64::from(to > 0);
        until(|| relays(0) == (is_relayed, 0)).await;
        for other in 1..3 {
            until(|| relays(other) == (0, u64::from(to == other))).await;
        }
    }
    // The broker goes away under a relay, with calls in flight.
    for _ in 0..2 {
        let in_flight: Vec<_> = (0..5).map(|_| calls.begin(500, 0)).collect();
        until(|| in_flight.iter().all(|(number, _)| counting.times(*number) == 1)).await;
        block_in_place(|| broker.kill());
        let meanwhile = calls.begin(0, 100);
        sleep(Duration::from_millis(100)).await;
        assert!(block_in_place(|| broker.restart()));
        resumed(&mut events).await;
        join_all(in_flight.into_iter().chain([meanwhile]).map(answered)).await;
    }
    client.cancel().await.unwrap();
    for number in 0..calls.last.load(SeqCst) {
        assert_eq!(counting.times(number), 1, "{number}");
    }
    for (server, _) in instances {
        soon(server.shutdown()).await;
    }
}
