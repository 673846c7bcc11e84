//! Several instances of one server, joined by a bus.

mod fan_out;
mod faults;
mod joining;
mod relay;

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use mcp_ws_transport::cluster::{
    AskError, Bus, Cluster, ClusterEvent, ClusterEvents, ClusterState, Local, LocalBus,
    PublishError, Subject, SubscribeError, Subscription,
};
use rmcp::model::{CustomNotification, ServerNotification};
use serde_json::{Value, json};
use tokio::sync::watch;

fn connect(local: &Local) -> Arc<LocalBus> {
    Arc::new(local.connect())
}

/// An instance with this tag, and its connection to the bus.
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

/// What the instance with this tag, as another process, says of itself.
fn beat(tag: &str, sent: u64) -> String {
    json!({ "instance": tag, "run": 1, "says": "here", "sent": sent }).to_string()
}

fn publish(bus: &LocalBus, subject: &str, payload: impl AsRef<[u8]>) {
    let payload = payload.as_ref().to_vec().into();
    bus.publish(&Subject::new(subject).unwrap(), payload).unwrap();
}

/// The notification of this number.
fn number(number: u64) -> ServerNotification {
    let params = json!({ "number": number });
    CustomNotification::new("notifications/number", Some(params)).into()
}

fn number_of(message: &Value) -> u64 {
    assert_eq!(message["method"], "notifications/number", "{message}");
    message["params"]["number"].as_u64().unwrap()
}

/// A bus that does as it is told.
struct Unruly {
    inner: LocalBus,
    fault: watch::Sender<Fault>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Everything that is published is lost, as where a right is missing.
    LosesAll,
    /// Everything that is published on `p.n` is lost.
    LosesNotifications,
    RefusesSubscriptions,
}

impl Unruly {
    fn connect(local: &Local, fault: Fault) -> Arc<Self> {
        Arc::new(Self { inner: local.connect(), fault: watch::Sender::new(fault) })
    }

    fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    fn has(&self, fault: Fault) -> bool {
        *self.fault.borrow() == fault
    }
}

impl Bus for Unruly {
    fn publish(&self, subject: &Subject, payload: bytes::Bytes) -> Result<(), PublishError> {
        let is_notification = subject.as_str() == "p.n";
        if self.has(Fault::LosesAll) || self.has(Fault::LosesNotifications) && is_notification {
            return Ok(());
        }
        self.inner.publish(subject, payload)
    }

    fn subscribe(
        &self,
        subject: &Subject,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Subscription, SubscribeError>> {
        if self.has(Fault::RefusesSubscriptions) {
            let refused = Err(SubscribeError::Refused("permissions violation".into()));
            return async { refused }.boxed();
        }
        self.inner.subscribe(subject, max_bytes)
    }

    fn ask(
        &self,
        subject: &Subject,
        payload: bytes::Bytes,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<bytes::Bytes, AskError>> {
        if self.has(Fault::LosesAll) {
            let timed_out = tokio::time::sleep(timeout).map(|()| Err(AskError::TimedOut));
            return timed_out.boxed();
        }
        self.inner.ask(subject, payload, timeout)
    }

    fn max_payload(&self) -> usize {
        self.inner.max_payload()
    }

    fn is_up(&self) -> watch::Receiver<bool> {
        self.inner.is_up()
    }
}
