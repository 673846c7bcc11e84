//! The registry: who is connected, whom a notification reaches, and who does not read it.
//!
//! With `MCP_WS_FULL` set: 1,000 clients and 1,000 notifications. What a broadcast costs is printed
//! (`--release -- --nocapture`).

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use futures::{FutureExt, StreamExt, future::join_all};
use mcp_ws_transport::{
    CloseCode, CloseReason,
    layer::{heartbeat, shared_link, socket},
    server::{self, Config, Health, NotifyError, Registry, RegistryEvent, Server, serve_on},
    transport,
};
use rmcp::model::{CustomNotification, ServerNotification};
use serde_json::json;
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::Notify,
    time::{sleep, timeout},
};

use crate::common::{
    Tools, call, limit, ms,
    raw::{Frame, Raw, initialize},
    scale, serve_tools, within,
};

/// Returns the notification of this number.
fn notification(number: u64, padding: usize) -> ServerNotification {
    let params = json!({ "number": number, "padding": "x".repeat(padding) });
    CustomNotification::new("notifications/number", Some(params)).into()
}

/// Starts a server whose kernel buffers are as small as they can be.
async fn serve_with_small_buffers(
    tools: &Tools,
    queue: usize,
    write_timeout: Duration,
) -> (Server, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(4096).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let tools = tools.clone();
    // The raw clients answer no ping while they wait for the end of another.
    let heartbeat = heartbeat::Config::default().ping_interval(None).idle_timeout(None);
    let layers = transport::Config::default()
        .shared_link(shared_link::Config::default().queue_bytes(queue))
        .socket(socket::Config::default().write_timeout(write_timeout).min_send_rate(None))
        .heartbeat(heartbeat);
    let config = Config::default().transport(layers);
    let config = config.limits(server::Limits::default().connections(10_000));
    let server = serve_on(socket.listen(1024).unwrap(), move || tools.clone());
    let server = server.config(config).await.unwrap();
    let address = server.local_addr();
    (server, address)
}

/// Connects a client that takes as little as it can while it does not read.
async fn connect_with_small_buffer(address: SocketAddr) -> Raw {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    Raw::initialized_over(socket.connect(address).await.unwrap(), address).await
}

async fn wait_until_initialized(registry: &Registry, connections: usize) {
    while registry.list().iter().filter(|one| one.is_initialized()).count() < connections {
        sleep(ms(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_who_read_get_everything_in_order_whoever_does_not() {
    alone!();
    let (clients, stalled) = (scale(95, 990), scale(5, 10));
    let (broadcasts, queue, padding) = (scale(200, 1000) as u64, 64 << 10, 1000);
    within(Duration::from_secs(scale(60, 300) as u64), async {
        // Nobody is closed as long as this test takes.
        let (server, address) = serve_with_small_buffers(&Tools::default(), queue, ms(600_000)).await;
        let registry = server.registry();
        let mut idle = Vec::new();
        for _ in 0..stalled {
            idle.push(connect_with_small_buffer(address).await);
        }
        let mut raws = Vec::new();
        for _ in 0..clients {
            raws.push(Raw::initialized(address).await);
        }
        wait_until_initialized(registry, clients + stalled).await;
        let slow: Vec<u64> = registry.list().iter().take(stalled).map(|one| one.id()).collect();
        let mut events = registry.events();
        let read: Vec<AtomicU64> = (0..clients).map(|_| AtomicU64::new(0)).collect();
        let news = Notify::new();
        let reading = join_all(raws.iter_mut().zip(&read).map(async |(raw, read)| {
            for expected in 0..broadcasts {
                assert_eq!(raw.receive().await["params"]["number"], expected);
                read.fetch_add(1, Ordering::Relaxed);
                news.notify_one();
            }
        }));
        let telling = async {
            let (mut reached, mut longest) = (BTreeMap::<u64, usize>::new(), Duration::ZERO);
            let mut told = Duration::ZERO;
            for count in 0..broadcasts {
                let notification = notification(count, padding);
                let start = Instant::now();
                let broadcast = registry.notify_all(notification).unwrap();
                longest = longest.max(start.elapsed());
                told += start.elapsed();
                assert_eq!(broadcast.sent + broadcast.failed.len(), clients + stalled);
                for (connection, why) in &broadcast.failed {
                    assert!(matches!(why, NotifyError::Slow), "{why:?}");
                    assert!(slow.contains(&connection.id()));
                }
                let missing = broadcast.failed.iter().map(|(one, _)| one.id()).collect::<Vec<_>>();
                for id in slow.iter().filter(|id| !missing.contains(id)) {
                    *reached.entry(*id).or_default() += 1;
                }
                // None of those who read is so far behind that it may miss something.
                while read.iter().any(|read| read.load(Ordering::Relaxed) + 16 < count + 1) {
                    news.notified().await;
                }
            }
            let mean = told / broadcasts as u32;
            println!(
                "figure: {broadcasts} to {} peers of whom {stalled} do not read, {mean:.1?} a broadcast, \
                 {longest:.1?} at most",
                clients + stalled
            );
            reached
        };
        let (reached, _) = tokio::join!(telling, reading);
        // The queue and one message, and what the kernel's buffers took.
        for (id, count) in &reached {
            let bytes = count * (padding + 100);
            assert!(bytes < queue + padding + 100 + (64 << 10), "{id} was sent {bytes} bytes");
        }
        for connection in registry.list() {
            assert_eq!(connection.info().slow, slow.contains(&connection.id()));
        }
        let mut seen = Vec::new();
        while seen.len() < stalled {
            match events.next().await.unwrap() {
                RegistryEvent::Slow(connection) => seen.push(connection.id()),
                other => panic!("{other:?}"),
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, slow);
        assert_eq!(registry.list().len(), clients + stalled);
    })
    .await;
}

/// One of a hundred stops reading while a lot is pushed: what waits for it is bounded, it is closed
/// in the end, and the others wait no longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_who_stops_reading_harms_nobody() {
    alone!();
    let (clients, size, queue) = (scale(50, 99), 16 << 10, 64 << 10);
    let rounds = scale(30, 700) as u64;
    within(Duration::from_secs(scale(60, 300) as u64), async {
        let stall = ms(scale(3000, 60_000) as u64);
        let (server, address) = serve_with_small_buffers(&Tools::default(), queue, stall).await;
        let registry = server.registry();
        let mut raws = Vec::new();
        for _ in 0..clients {
            raws.push(Raw::initialized(address).await);
        }
        wait_until_initialized(registry, clients).await;
        let push = async |raws: &mut Vec<Raw>| {
            let (mut times, mut others) = (Vec::new(), 0);
            for round in 0..rounds {
                let start = Instant::now();
                others += registry.notify_all(notification(round, size)).unwrap().sent - clients;
                let reading = join_all(raws.iter_mut().map(async |raw| {
                    assert_eq!(raw.receive().await["params"]["number"], round);
                    start.elapsed()
                }));
                times.extend(reading.await);
            }
            times.sort_unstable();
            (times[times.len() * 99 / 100], others)
        };
        let (alone, _) = push(&mut raws).await;

        let idle = connect_with_small_buffer(address).await;
        wait_until_initialized(registry, clients + 1).await;
        let mut events = registry.events();
        let (beside, waiting) = push(&mut raws).await;
        println!(
            "figure: {} MiB to {clients} clients, p99 {alone:.1?}; beside one that does not read, and has {} \
             KiB waiting, {beside:.1?} ({:.2} ×)",
            (clients as u64 * rounds * size as u64) >> 20,
            (waiting * (size + 100)) >> 10,
            beside.as_secs_f64() / alone.as_secs_f64()
        );
        assert!(beside < scale(10, 2) as u32 * alone + ms(5), "{alone:?} {beside:?}");
        // The queue and one message, and what the kernel's buffers took.
        let waiting = waiting * (size + 100);
        assert!(waiting < queue + size + 100 + (64 << 10), "{waiting} bytes wait for it");
        let reason = loop {
            match events.next().await.unwrap() {
                RegistryEvent::Disconnected { reason, .. } => break reason,
                RegistryEvent::Slow(_) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(u16::from(reason.code), 1013, "{reason}");
        assert_eq!(registry.list().len(), clients);
        drop(idle);
    })
    .await;
}

#[tokio::test]
async fn a_notification_goes_to_whom_it_is_for() {
    alone!();
    limit(async {
        let (server, address) = serve_tools(&Tools::default(), Config::default()).await;
        let registry = server.registry();
        let mut raws = [Raw::initialized(address).await, Raw::initialized(address).await];
        let mut early = Raw::dial(address).await;
        wait_until_initialized(registry, 2).await;
        while registry.list().len() < 3 {
            sleep(ms(1)).await;
        }
        let ids: Vec<u64> = registry.list().iter().map(|connection| connection.id()).collect();
        registry.notify(ids[1], notification(1, 0)).unwrap();
        assert!(matches!(
            registry.notify(ids[2], notification(1, 0)),
            Err(NotifyError::NotInitialized)
        ));
        assert!(matches!(registry.notify(99, notification(1, 0)), Err(NotifyError::Gone)));
        let broadcast = registry.notify_all(notification(2, 0)).unwrap();
        let [(missed, NotifyError::NotInitialized)] = &broadcast.failed[..] else {
            panic!("{broadcast:?}")
        };
        assert_eq!((broadcast.sent, missed.id()), (2, ids[2]));
        // A filter may ask the registry itself.
        let filter = |one: &server::Connection| {
            registry.get(one.id()).is_some() && registry.health().active == 3 && one.id() == ids[0]
        };
        assert_eq!(registry.notify_where(notification(3, 0), filter).unwrap().sent, 1);
        let numbers = |messages: Vec<serde_json::Value>| {
            messages.iter().map(|one| one["params"]["number"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        let first = vec![raws[0].receive().await, raws[0].receive().await];
        let second = vec![raws[1].receive().await, raws[1].receive().await];
        assert_eq!((numbers(first), numbers(second)), (vec![2, 3], vec![1, 2]));
        early.initialize().await;
    })
    .await;
}

#[tokio::test]
async fn a_connection_is_closed_for_the_reason_given() {
    alone!();
    limit(async {
        let tools = Tools::default();
        let (server, address) = serve_tools(&tools, Config::default()).await;
        let registry = server.registry();
        let mut events = registry.events();
        let mut raws = [Raw::initialized(address).await, Raw::initialized(address).await];
        let mut early = Raw::dial(address).await;
        raws[0].json(&call(1, "uncancellable", json!({}))).await;
        tools.begun(1).await;
        while registry.list().len() < 3 {
            sleep(ms(1)).await;
        }
        let reason = || CloseReason::new(CloseCode::from(4321), "enough");
        assert!(!registry.disconnect(99, reason()));
        for (connection, raw) in
            registry.list().into_iter().zip(raws.iter_mut().chain([&mut early]))
        {
            assert!(registry.disconnect(connection.id(), reason()));
            assert!(!registry.disconnect(connection.id(), CloseReason::from(CloseCode::Normal)));
            assert_eq!(raw.closed().await, (4321, "enough".to_owned()));
            assert!(matches!(
                registry.notify(connection.id(), notification(1, 0)),
                Err(NotifyError::Gone | NotifyError::NotInitialized)
            ));
            raw.send(Frame::close(4321)).await;
        }
        let mut open = Vec::new();
        let mut closed = 0;
        while closed < 3 {
            match events.next().await.unwrap() {
                RegistryEvent::Connected(connection) => open.push(connection.id()),
                RegistryEvent::Disconnected { connection, reason } => {
                    assert!(open.contains(&connection.id()));
                    assert_eq!(
                        (u16::from(reason.code), reason.reason.as_ref()),
                        (4321, "by this side: enough")
                    );
                    closed += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(registry.list().is_empty());
    })
    .await;
}

/// Broadcasts while clients come, initialize, call and go in every way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broadcasts_meet_connections_at_every_moment() {
    alone!();
    let rounds = scale(40, 500);
    within(Duration::from_secs(scale(60, 300) as u64), async {
        let (server, address) = serve_tools(&Tools::default(), Config::default()).await;
        let registry = server.registry().clone();
        let clients = (0..8).map(|client| tokio::spawn(come_and_go(address, client, rounds)));
        let clients = join_all(clients);
        let telling = async {
            let (mut count, mut before) = (0, Health::default());
            loop {
                registry.notify_all(notification(count, 10)).unwrap();
                count += 1;
                let health = registry.health();
                assert!(health.active <= health.total, "{health:?}");
                assert!(health.messages_sent >= before.messages_sent, "{before:?} {health:?}");
                assert!(health.bytes_received >= before.bytes_received, "{before:?} {health:?}");
                before = health;
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = telling => {}
            ended = clients => ended.into_iter().for_each(Result::unwrap),
        }
        server.shutdown().await;
        let health = registry.health();
        assert_eq!((health.active, health.total), (0, 8 * rounds as u64), "{health:?}");
        assert_eq!(health.rejected, 0, "{health:?}");
    })
    .await;
}

async fn come_and_go(address: SocketAddr, client: usize, rounds: usize) {
    for round in 0..rounds {
        let mut raw = Raw::dial(address).await;
        if (client + round).is_multiple_of(5) {
            raw.json(&initialize("init")).await;
            continue;
        }
        // Nothing comes before the answer.
        let answer = raw.ask(&initialize("init")).await;
        assert_eq!(answer["id"], "init", "{answer}");
        raw.json(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        raw.json(&call(1, "echo", json!({ "text": "x" }))).await;
        let mut last = None;
        loop {
            let message = raw.receive().await;
            match message["params"]["number"].as_u64() {
                Some(number) => {
                    assert!(last.is_none_or(|last| number == last + 1), "{last:?} {number}");
                    last = Some(number);
                }
                None => break assert_eq!(message["id"], 1, "{message}"),
            }
        }
        match round % 3 {
            0 => raw.reset(),
            1 => {
                raw.send(Frame::close(1000)).await;
                while raw.next().await.is_some() {}
            }
            _ => drop(raw),
        }
    }
}

/// The counters add up once all has ended.
#[tokio::test]
async fn figures_add_up() {
    alone!();
    limit(async {
        let limits = server::Limits::default().connections(3);
        let (server, address) =
            serve_tools(&Tools::default(), Config::default().limits(limits)).await;
        let registry = server.registry().clone();
        let mut raws = Vec::new();
        for _ in 0..3 {
            raws.push(Raw::initialized(address).await);
        }
        let mut one_more = Raw::over(TcpStream::connect(address).await.unwrap(), true);
        one_more.write(crate::common::raw::upgrade_request(address, "")).await;
        assert_eq!(one_more.head().await.unwrap().status(), 503);
        for raw in &mut raws {
            raw.ping().await;
            raw.json(&json!([])).await;
            raw.receive().await;
        }
        let connections = registry.list();
        for raw in &mut raws {
            raw.send(Frame::close(1000)).await;
            while raw.next().await.is_some() {}
        }
        server.shutdown().await;
        let health = registry.health();
        let sum = |count: fn(&mcp_ws_transport::stats::Snapshot) -> u64| {
            connections.iter().map(|one| count(&one.stats().snapshot())).sum::<u64>()
        };
        assert_eq!((health.active, health.total, health.rejected), (0, 3, 1), "{health:?}");
        assert_eq!(health.rejected_by, BTreeMap::from([("at_capacity", 1)]));
        assert_eq!(health.messages_received, sum(|stats| stats.messages_received));
        assert_eq!(health.messages_sent, sum(|stats| stats.messages_sent));
        assert_eq!(health.bytes_received, sum(|stats| stats.bytes_received));
        assert_eq!(health.bytes_sent, sum(|stats| stats.bytes_sent));
        assert_eq!((health.messages_received, health.errors), (4 * 3, 3), "{health:?}");
        assert!(timeout(ms(10), registry.events().next()).now_or_never().is_none());
    })
    .await;
}
