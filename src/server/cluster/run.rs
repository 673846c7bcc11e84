//! The task of an instance in its cluster: heartbeats, and what comes by the bus.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{
    check::{Subscriptions, check},
    members::{HEARTBEAT_INTERVAL, Says},
    node::Node,
    state::{ClusterError, ClusterState},
};

/// Time after which subscribing is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// Time after which a [`Says::Hello`] is answered, once for several that come together.
const HELLO_DELAY: Duration = Duration::from_millis(50);

/// Takes part in the cluster until it is left.
pub(super) async fn run(
    node: Arc<Node>,
    mut subscriptions: Option<Subscriptions>,
    mut state: watch::Receiver<ClusterState>,
) {
    let left = async {
        let _ = state.wait_for(|state| *state == ClusterState::Left).await;
    };
    let running = async {
        loop {
            match subscriptions.take() {
                Some(subscriptions) => serve(&node, subscriptions).await,
                None => subscriptions = subscribe(&node).await,
            }
        }
    };
    tokio::select! {
        () = left => {}
        () = running => {}
    }
}

/// Waits until the bus is connected, and subscribes. `None` if that fails, after a while.
async fn subscribe(node: &Arc<Node>) -> Option<Subscriptions> {
    for bus in [&node.bus, &node.relay_bus] {
        if bus.watch_up().wait_for(|is_up| *is_up).await.is_err() {
            // The bus has ended, and its state changes no more.
            sleep(RETRY_INTERVAL).await;
        }
    }
    match check(node).await {
        Ok(subscriptions) => Some(subscriptions),
        Err(cause) => {
            node.degrade(cause);
            sleep(RETRY_INTERVAL).await;
            None
        }
    }
}

/// Takes part in the cluster until a subscription ends.
async fn serve(node: &Arc<Node>, subscriptions: Subscriptions) {
    let Subscriptions { mut own, mut notifications, mut members } = subscriptions;
    let (mut is_up, mut is_relay_up) = (node.bus.watch_up(), node.relay_bus.watch_up());
    let mut next_heartbeat = Instant::now() + HEARTBEAT_INTERVAL;
    node.set_up(node.is_bus_up());
    node.heartbeat(Says::Hello);
    loop {
        tokio::select! {
            delivery = own.next() => match delivery {
                Some(delivery) => node.on_ask(&delivery),
                None => break,
            },
            delivery = notifications.next() => match delivery {
                Some(delivery) => node.on_notification(&delivery.payload),
                None => break,
            },
            delivery = members.next() => match delivery {
                Some(delivery) => if node.on_heartbeat(&delivery.payload) {
                    next_heartbeat = next_heartbeat.min(Instant::now() + HELLO_DELAY);
                },
                None => break,
            },
            () = sleep_until(next_heartbeat) => {
                next_heartbeat = Instant::now() + HEARTBEAT_INTERVAL;
                node.on_tick();
                node.heartbeat(Says::Here);
            }
            Ok(()) = is_up.changed() => {
                node.set_up(node.is_bus_up());
                if *is_up.borrow_and_update() {
                    node.heartbeat(Says::Hello);
                }
            }
            Ok(()) = is_relay_up.changed() => node.set_up(node.is_bus_up()),
        }
        // A subscription that always has a message would let nobody else run.
        tokio::task::coop::consume_budget().await;
    }
    node.degrade(ClusterError::Away);
    sleep(RETRY_INTERVAL).await;
}
