//! [`check`]: the questions with which an instance comes into its cluster.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use tokio::time::timeout;

use super::{
    asks::AskKind,
    node::Node,
    state::{ClusterError, Membership},
};
use crate::cluster::{
    bus::{AskError, Bus, SubscribeError},
    subject::Subject,
    subscription::Subscription,
};

/// Time that each question of the check may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Time that a subscription may take.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that may wait on each subscription.
const MAX_WAITING: usize = 8 << 20;

/// Subscriptions of an instance.
pub(super) struct Subscriptions {
    pub(super) own: Subscription,
    pub(super) notifications: Subscription,
    pub(super) members: Subscription,
}

/// Subscribes to the subjects of an instance, and checks its tag and its rights.
///
/// | question to the own tag | answer | then |
/// |---|---|---|
/// | before it is subscribed to | there is one | `InstanceInUse` |
/// | | none, or nobody | go on |
/// | after, by each connection | the own | it works |
/// | | another | `InstanceInUse` |
/// | | none | `NoRights`: a bus that refuses to publish says nothing |
///
/// # Errors
/// [`ClusterError`]: as in the table; `Refused` when the bus refuses to subscribe, and `Away` when
/// it is away, or goes away meanwhile.
pub(super) async fn check(node: &Node) -> Result<Subscriptions, ClusterError> {
    if !node.is_bus_up() {
        return Err(ClusterError::Away);
    }
    let in_use = || ClusterError::InstanceInUse(node.this.instance.clone());
    match ask_who(node, &node.bus).await {
        Ok(_) => return Err(in_use()),
        Err(AskError::NotSent(_)) => return Err(ClusterError::Away),
        // The bus may not have noticed yet that a process with this tag is gone.
        Err(AskError::Nobody | AskError::TimedOut) => {}
    }
    let subjects = &node.subjects;
    let mut subscriptions = Subscriptions {
        own: subscribe(node, &subjects.own).await?,
        notifications: subscribe(node, &subjects.notifications).await?,
        members: subscribe(node, &subjects.members).await?,
    };
    // Each connection may have rights of its own.
    for bus in [&node.bus, &node.relay_bus] {
        let asked = ask_who(node, bus);
        tokio::pin!(asked);
        let answer = loop {
            tokio::select! {
                answer = &mut asked => break answer,
                Some(delivery) = subscriptions.own.next() => node.on_ask(&delivery),
            }
        };
        match answer {
            Ok(run) if run[..] == node.this.run.to_be_bytes() => {}
            Ok(_) => return Err(in_use()),
            Err(AskError::NotSent(_)) => return Err(ClusterError::Away),
            Err(_) if !node.is_bus_up() => return Err(ClusterError::Away),
            Err(_) => {
                return Err(ClusterError::NoRights { prefix: subjects.prefix.to_string() });
            }
        }
    }
    node.set_up(true);
    node.change(Membership::note_self);
    Ok(subscriptions)
}

/// Asks over `bus` which process has joined with the tag of this instance.
async fn ask_who(node: &Node, bus: &Arc<dyn Bus>) -> Result<Bytes, AskError> {
    let asked = Bytes::from(vec![AskKind::WHO.0]);
    bus.ask(&node.subjects.own, asked, ASK_TIMEOUT).await
}

async fn subscribe(node: &Node, subject: &Subject) -> Result<Subscription, ClusterError> {
    match timeout(SUBSCRIBE_TIMEOUT, node.bus.subscribe(subject, MAX_WAITING)).await {
        Ok(Ok(subscription)) => Ok(subscription),
        Ok(Err(SubscribeError::Refused(why))) => {
            Err(ClusterError::Refused { prefix: node.subjects.prefix.to_string(), why })
        }
        Ok(Err(SubscribeError::Away)) | Err(_) => Err(ClusterError::Away),
    }
}
