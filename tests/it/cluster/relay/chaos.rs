//! Three instances, and a balancer that knows nothing of sessions: connections are cut at random,
//! instances are cut off from the bus, the bus loses, doubles, delays and reorders, and each call
//! ends once.
//!
//! `MCP_WS_SEED` sets the seed. Over NATS and Redis the same is done to processes, one of which is
//! killed: `tests/bus/chaos.rs`.

use std::{
    collections::HashMap,
    env,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use mcp_ws_transport::{
    cluster::{Cluster, Faults, Local, LocalBus},
    connect,
    event::Event,
    serve,
    server::Config,
};
use proptest::{
    prelude::RngExt as _,
    test_runner::{RngAlgorithm, TestRng},
};
use rmcp::{ServiceError, ServiceExt, model::CallToolRequestParams};
use serde_json::json;

use crate::common::{
    counting::Counting, ms, proxy::Proxy, reconnect_within, scale, tool_call, within,
};

fn count(number: i64, ms: i64) -> CallToolRequestParams {
    tool_call("count", json!({ "number": number, "ms": ms }))
}

/// What the bus does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outages {
    None,
    /// Now and then one instance is cut off, for 300 ms at most.
    Short,
    /// One instance is cut off for 6 s, with the session that it has, and knows it.
    Long,
    /// The same, and it does not know it: nothing comes, and nothing arrives.
    Silent,
    /// Messages are late; some are lost, doubled, or overtaken.
    Faults,
}

impl Outages {
    /// Returns `true` if sessions may be lost.
    fn may_lose_sessions(self) -> bool {
        matches!(self, Self::Long | Self::Silent)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_three_instances_each_call_ends_once() {
    run(scale(2000, 10_000), Outages::None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_three_instances_each_call_ends_once_though_the_bus_goes_away() {
    run(scale(1000, 10_000), Outages::Short).await;
}

/// A call whose session is lost ends with an error; none is executed twice, at whatever instance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_three_instances_no_call_is_executed_twice_though_one_is_cut_off() {
    run(scale(400, 2000), Outages::Long).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_three_instances_no_call_is_executed_twice_though_one_is_silently_cut_off() {
    run(scale(400, 10_000), Outages::Silent).await;
}

/// A bus must not double or reorder messages, and yet no call is executed twice by it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_three_instances_each_call_ends_once_though_the_bus_breaks_its_promises() {
    run(scale(1000, 10_000), Outages::Faults).await;
}

/// Joins the cluster, as soon as the bus does not lose the questions by which it is done.
async fn join(local: &Local, tag: &str) -> (Cluster, Arc<LocalBus>) {
    loop {
        let bus = Arc::new(local.connect());
        if let Ok(cluster) = Cluster::join(bus.clone(), "test").instance(tag).await {
            return (cluster, bus);
        }
    }
}

async fn run(calls: usize, outages: Outages) {
    let seed = env::var("MCP_WS_SEED").map_or(11, |seed| seed.parse().unwrap());
    println!("MCP_WS_SEED={seed}");
    let calls = i64::try_from(calls).unwrap();
    let counting = Counting::default();
    let local = match outages {
        Outages::Faults => {
            let latency = Duration::ZERO..=Duration::from_millis(3);
            let faults = Faults::new(seed).latency(latency).loss(0.003);
            Local::with_faults(faults.duplication(0.003).reordering(0.003))
        }
        _ => Local::default(),
    };
    let (mut servers, mut buses) = (Vec::new(), Vec::new());
    for tag in ["a", "b", "c"] {
        let (cluster, bus) = join(&local, tag).await;
        let counting = counting.clone();
        let config = Config::default().cluster(cluster);
        servers.push(serve("127.0.0.1:0", move || counting.clone()).config(config).await.unwrap());
        buses.push(bus);
    }
    let addresses: Vec<_> = servers.iter().map(|server| server.local_addr()).collect();
    let balancer = Arc::new(Proxy::new(addresses[0]).await);
    let connect = reconnect_within(ms(5), connect(balancer.url()));
    let mut events = connect.events();
    let client = ().serve(connect.await.unwrap()).await.unwrap();
    let returns = tokio::spawn(async move {
        let (mut resumed, mut restarted) = (0, 0);
        while let Some(event) = events.next().await {
            match event {
                Event::Resumed { .. } => resumed += 1,
                Event::Restarted { .. } => restarted += 1,
                _ => {}
            }
        }
        (resumed, restarted)
    });

    let faults = {
        let (balancer, buses) = (balancer.clone(), buses.clone());
        tokio::spawn(async move {
            let seed_bytes = [seed.to_be_bytes(); 4].concat();
            let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &seed_bytes);
            for round in 1_usize.. {
                *balancer.target.lock().unwrap() = addresses[random.random_range(0..3)];
                let mut wait = |ms: std::ops::Range<u64>| {
                    tokio::time::sleep(Duration::from_millis(random.random_range(ms)))
                };
                balancer.cut();
                match outages {
                    Outages::Long | Outages::Silent => wait(200..1000).await,
                    Outages::Faults => wait(1..300).await,
                    Outages::Short | Outages::None => wait(1..60).await,
                }
                if outages == Outages::Short && round % 8 == 0 {
                    let bus = &buses[round / 8 % 3];
                    bus.set_up(false);
                    wait(1..300).await;
                    bus.set_up(true);
                }
                if outages.may_lose_sessions() && round % 20 == 2 {
                    let which = round / 20 % 3;
                    let bus = buses[which].clone();
                    let cut_off = move |is_cut_off: bool| match outages {
                        Outages::Silent => bus.set_half_open(is_cut_off),
                        _ => bus.set_up(!is_cut_off),
                    };
                    cut_off(true);
                    // Longer than the client waits for its session.
                    *balancer.target.lock().unwrap() = addresses[(which + 1) % 3];
                    balancer.cut();
                    wait(3500..4500).await;
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_secs(2)).await;
                        cut_off(false);
                    });
                }
            }
        })
    };
    let ended: Mutex<HashMap<bool, usize>> = Mutex::default();
    let slowest = Mutex::new(Duration::ZERO);
    let all = (0..calls).map(|number| {
        let (client, counting) = (&client, &counting);
        let (ended, slowest) = (&ended, &slowest);
        let ms = match outages {
            Outages::Long | Outages::Silent => 200,
            Outages::Faults => 20,
            Outages::None | Outages::Short => number % 4,
        };
        async move {
            let began = Instant::now();
            let result = within(Duration::from_secs(40), client.call_tool(count(number, ms))).await;
            match &result {
                Ok(result) => {
                    assert_eq!(result.content[0].as_text().unwrap().text, number.to_string());
                    assert_eq!(counting.times(number), 1, "{number}");
                }
                Err(ServiceError::McpError(error)) => {
                    assert_eq!(error.data.as_ref().unwrap()["reason"], "outcome_unknown");
                }
                Err(error) => panic!("{error}"),
            }
            *ended.lock().unwrap().entry(result.is_ok()).or_default() += 1;
            let mut slowest = slowest.lock().unwrap();
            *slowest = slowest.max(began.elapsed());
        }
    });
    stream::iter(all).buffer_unordered(10).collect::<()>().await;
    faults.abort();
    for number in 0..calls {
        assert!(
            counting.times(number) <= 1,
            "{number} was executed {} times",
            counting.times(number)
        );
    }
    let (answered, failed) = {
        let ended = ended.lock().unwrap();
        [true, false].map(|how| ended.get(&how).copied().unwrap_or(0)).into()
    };
    client.cancel().await.unwrap();
    let (resumed, restarted) = within(Duration::from_secs(5), returns).await.unwrap();
    println!(
        "{answered} answered, {failed} failed; resumed {resumed} times, {restarted} new sessions; the \
         slowest call took {:?}",
        slowest.lock().unwrap()
    );
    assert_eq!(i64::try_from(answered + failed).unwrap(), calls);
    match outages {
        Outages::None | Outages::Short | Outages::Faults => {
            assert!(resumed > 2 && (failed, restarted) == (0, 0));
        }
        Outages::Long | Outages::Silent => assert!(resumed > 0 && restarted > 0),
    }
    for server in servers {
        within(Duration::from_secs(20), server.shutdown()).await;
    }
}
