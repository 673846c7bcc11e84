//! Several instances of one server, joined by a bus.

mod fan_out;
mod faults;
mod joining;
mod relay;
mod test_bus;

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use mcp_ws_transport::cluster::{
    Bus, Cluster, ClusterEvent, ClusterEvents, ClusterState, Local, LocalBus, Subject,
};
use rmcp::model::{CustomNotification, ServerNotification};
use serde_json::{Value, json};

fn connect(local: &Local) -> Arc<LocalBus> {
    Arc::new(local.connect())
}

/// Joins as an instance with this tag. Returns its connection to the bus too.
async fn join(local: &Local, tag: &str) -> (Cluster, Arc<LocalBus>) {
    let bus = connect(local);
    let cluster = Cluster::join(bus.clone(), "p").instance(tag).await.unwrap();
    assert_eq!(*cluster.state().borrow(), ClusterState::Joined);
    (cluster, bus)
}

/// Waits for this event.
async fn until(events: &mut ClusterEvents, wanted: ClusterEvent) {
    while events.next().await.expect("the events end") != wanted {}
}

/// Waits until an instance has heard of these others.
async fn heard_of(cluster: &Cluster, others: &[&str]) {
    while cluster.others() != others {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn up(tag: &str) -> ClusterEvent {
    ClusterEvent::InstanceUp(tag.into())
}

fn down(tag: &str) -> ClusterEvent {
    ClusterEvent::InstanceDown(tag.into())
}

/// Returns the heartbeat of an instance with this tag, as another process.
fn heartbeat(tag: &str, sent: u64) -> String {
    json!({ "instance": tag, "run": 1, "says": "here", "sent": sent }).to_string()
}

fn publish(bus: &LocalBus, subject: &str, payload: impl AsRef<[u8]>) {
    let payload = payload.as_ref().to_vec().into();
    bus.publish(&Subject::new(subject).unwrap(), payload).unwrap();
}

/// Returns the notification of this number.
fn notification(number: u64) -> ServerNotification {
    let params = json!({ "number": number });
    CustomNotification::new("notifications/number", Some(params)).into()
}

fn number_of(message: &Value) -> u64 {
    assert_eq!(message["method"], "notifications/number", "{message}");
    message["params"]["number"].as_u64().unwrap()
}
