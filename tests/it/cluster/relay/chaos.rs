//! Three instances, and a balancer that knows nothing of sessions: connections are cut at random,
//! instances are cut off from the bus, and each call ends once.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use mcp_ws_transport::{
    cluster::{Cluster, Local},
    connect,
    event::Event,
    serve,
    server::Config,
};
use proptest::{
    prelude::RngExt as _,
    test_runner::{RngAlgorithm, TestRng},
};
use rmcp::{ServiceExt, model::CallToolRequestParams};
use serde_json::{Value, json};

use super::quick;
use crate::common::{counting::Counting, proxy::Proxy, scale, within};

fn count(number: i64, ms: i64) -> CallToolRequestParams {
    let Value::Object(arguments) = json!({ "number": number, "ms": ms }) else { unreachable!() };
    CallToolRequestParams::new("count").with_arguments(arguments)
}

/// Outages of the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outages {
    None,
    /// Now and then one instance is cut off, for 300 ms at most.
    Short,
    /// One instance is cut off for 6 s, with the session that it has.
    Long,
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

async fn run(calls: usize, outages: Outages) {
    let calls = i64::try_from(calls).unwrap();
    let (local, counting) = (Local::default(), Counting::default());
    let (mut servers, mut buses) = (Vec::new(), Vec::new());
    for tag in ["a", "b", "c"] {
        let bus = Arc::new(local.connect());
        let cluster = Cluster::join(bus.clone(), "test").instance(tag).await.unwrap();
        let counting = counting.clone();
        let config = Config::default().cluster(cluster);
        servers.push(serve("127.0.0.1:0", move || counting.clone()).config(config).await.unwrap());
        buses.push(bus);
    }
    let addresses: Vec<_> = servers.iter().map(|server| server.local_addr()).collect();
    let balancer = Arc::new(Proxy::new(addresses[0]).await);
    let connect = quick(connect(balancer.url()));
    let mut events = connect.events();
    let client = ().serve(connect.await.unwrap()).await.unwrap();

    let faults = {
        let (balancer, buses) = (balancer.clone(), buses.clone());
        tokio::spawn(async move {
            let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[11; 32]);
            let mut wait = move |ms: std::ops::Range<u64>| {
                tokio::time::sleep(Duration::from_millis(random.random_range(ms)))
            };
            for round in 1_usize.. {
                *balancer.target.lock().unwrap() = addresses[round * round % 7 % 3];
                balancer.cut();
                match outages {
                    Outages::Long => wait(300..1500).await,
                    Outages::Short | Outages::None => wait(1..60).await,
                }
                if outages == Outages::Short && round % 8 == 0 {
                    let bus = &buses[round / 8 % 3];
                    bus.set_up(false);
                    wait(1..300).await;
                    bus.set_up(true);
                }
                if outages == Outages::Long && round == 2 {
                    let bus = buses[0].clone();
                    bus.set_up(false);
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_secs(6)).await;
                        bus.set_up(true);
                    });
                }
            }
        })
    };
    let ended: Mutex<HashMap<bool, usize>> = Mutex::default();
    let (slowest, done) = (Mutex::new(Duration::ZERO), AtomicUsize::new(0));
    let all = (0..calls).map(|number| {
        let (client, ended, slowest, done) = (&client, &ended, &slowest, &done);
        let ms = if outages == Outages::Long { 200 } else { number % 4 };
        async move {
            let began = Instant::now();
            let result = within(Duration::from_secs(40), client.call_tool(count(number, ms))).await;
            if let Ok(result) = &result {
                assert_eq!(result.content[0].as_text().unwrap().text, number.to_string());
            }
            *ended.lock().unwrap().entry(result.is_ok()).or_default() += 1;
            let mut slowest = slowest.lock().unwrap();
            *slowest = slowest.max(began.elapsed());
            done.fetch_add(1, SeqCst);
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
    let (mut resumed, mut restarted) = (0, 0);
    while let Some(event) = within(Duration::from_secs(5), events.next()).await {
        match event {
            Event::Resumed { .. } => resumed += 1,
            Event::Restarted { .. } => restarted += 1,
            _ => {}
        }
    }
    println!(
        "{answered} answered, {failed} failed; resumed {resumed} times, {restarted} new sessions; the \
         slowest call took {:?}",
        slowest.lock().unwrap()
    );
    assert_eq!(i64::try_from(answered + failed).unwrap(), calls);
    match outages {
        Outages::None | Outages::Short => {
            assert!(resumed > 20 && (failed, restarted) == (0, 0));
        }
        Outages::Long => assert!(resumed > 0 && restarted > 0),
    }
    for server in servers {
        within(Duration::from_secs(20), server.shutdown()).await;
    }
}
