//! The bus within a process: by the tests of every bus, and what it has besides.

#![cfg(feature = "cluster")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod suite;

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use mcp_ws_transport::cluster::{
    AskError, Bus, Faults, Local, LocalBus, PublishError, Subscription,
};
use tokio::time::Instant;

use suite::{Connection, Engine, subject};

const ROOM: usize = 1 << 20;

#[derive(Default)]
struct Within {
    local: Local,
    connections: Vec<std::sync::Weak<LocalBus>>,
}

impl Within {
    fn set_up(&self, is_up: bool) {
        for bus in self.connections.iter().filter_map(std::sync::Weak::upgrade) {
            bus.set_up(is_up);
        }
    }
}

impl Engine for Within {
    fn connect(&mut self) -> BoxFuture<'_, Arc<dyn Connection>> {
        let bus = Arc::new(self.local.connect());
        self.connections.push(Arc::downgrade(&bus));
        async { bus as Arc<dyn Connection> }.boxed()
    }

    fn stop(&mut self) -> BoxFuture<'_, ()> {
        async { self.set_up(false) }.boxed()
    }

    fn start(&mut self) -> BoxFuture<'_, ()> {
        async { self.set_up(true) }.boxed()
    }
}

mod at_once {
    use super::{Within, suite};

    suite::run!(async { Within::default() });
}

mod late {
    use std::time::Duration;

    use super::{Faults, Local, Within, suite};

    fn engine() -> Within {
        let latency = Duration::from_micros(200)..=Duration::from_millis(3);
        let local = Local::with_faults(Faults::new(1).latency(latency));
        Within { local, ..Within::default() }
    }

    suite::run!(async { engine() });
}

/// Publishes numbers on the clock of a test that is paused, and returns which arrive, and when.
async fn numbers(faults: Faults, count: u32) -> Vec<(u32, Duration)> {
    let local = Local::with_faults(faults);
    let (from, to) = (local.connect(), local.connect());
    let mut subscription = to.subscribe(&subject("s"), ROOM).await.unwrap();
    let began = Instant::now();
    for number in 0..count {
        from.publish(&subject("s"), number.to_be_bytes().to_vec().into()).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut arrived = Vec::new();
    while let Some(number) = within_a_second(&mut subscription).await {
        arrived.push((number, began.elapsed()));
    }
    arrived
}

async fn within_a_second(subscription: &mut Subscription) -> Option<u32> {
    let delivery =
        tokio::time::timeout(Duration::from_secs(1), subscription.next()).await.ok()??;
    Some(u32::from_be_bytes(delivery.payload[..].try_into().unwrap()))
}

fn latency() -> Faults {
    Faults::new(7).latency(Duration::from_millis(1)..=Duration::from_millis(30))
}

#[tokio::test(start_paused = true)]
async fn latency_keeps_the_order_and_a_seed_repeats_itself() {
    let arrived = numbers(latency(), 300).await;
    assert!(arrived.iter().map(|(number, _)| *number).eq(0..300));
    assert_eq!(arrived, numbers(latency(), 300).await);
    assert_ne!(arrived, numbers(Faults::new(8).loss(0.5), 300).await);
}

#[tokio::test(start_paused = true)]
async fn the_shares_of_faults_are_kept() {
    let lost = numbers(latency().loss(0.2), 1000).await;
    assert!((150..250).contains(&(1000 - lost.len())), "{} arrived", lost.len());
    assert!(lost.is_sorted_by_key(|(number, _)| *number));

    let twice = numbers(latency().duplication(0.2), 1000).await;
    assert!((1150..1250).contains(&twice.len()), "{} arrived", twice.len());
    assert!(twice.is_sorted_by_key(|(number, _)| *number));

    let mut overtaken: Vec<_> = numbers(latency().reordering(0.2), 1000)
        .await
        .into_iter()
        .map(|(number, _)| number)
        .collect();
    assert!(!overtaken.is_sorted());
    overtaken.sort_unstable();
    assert!(overtaken.into_iter().eq(0..1000));
}

#[tokio::test(start_paused = true)]
async fn a_half_open_connection_loses_all_and_does_not_know() {
    let local = Local::default();
    let (a, b) = (local.connect(), local.connect());
    let mut to_a = a.subscribe(&subject("a"), ROOM).await.unwrap();
    let mut to_b = b.subscribe(&subject("b"), ROOM).await.unwrap();
    a.set_half_open(true);
    assert!(*a.watch_up().borrow());
    a.publish(&subject("b"), "lost".into()).unwrap();
    b.publish(&subject("a"), "lost".into()).unwrap();
    let second = Duration::from_secs(1);
    assert_eq!(a.ask(&subject("b"), "?".into(), second).await, Err(AskError::TimedOut));
    assert_eq!(b.ask(&subject("a"), "?".into(), second).await, Err(AskError::TimedOut));
    a.set_half_open(false);
    a.publish(&subject("b"), "here".into()).unwrap();
    b.publish(&subject("a"), "here".into()).unwrap();
    assert_eq!(to_a.next().await.unwrap().payload, "here");
    assert_eq!(to_b.next().await.unwrap().payload, "here");
}

#[tokio::test(start_paused = true)]
async fn what_is_on_the_way_to_an_instance_that_is_cut_off_is_lost() {
    let local = Local::with_faults(latency());
    let (a, b) = (local.connect(), local.connect());
    let mut to_b = b.subscribe(&subject("b"), ROOM).await.unwrap();
    a.publish(&subject("b"), "lost".into()).unwrap();
    b.set_up(false);
    tokio::time::sleep(Duration::from_millis(50)).await;
    b.set_up(true);
    assert_eq!(b.publish(&subject("b"), "here".into()), Ok(()));
    assert_eq!(to_b.next().await.unwrap().payload, "here");
    b.set_up(false);
    assert_eq!(b.publish(&subject("b"), "away".into()), Err(PublishError::Away));
}
