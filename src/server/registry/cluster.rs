//! Notifications of a [`Registry`] to the clients of all instances of a cluster.

use std::{
    io,
    sync::{Arc, Weak},
};

use rmcp::{model::JsonRpcMessage, service::TxJsonRpcMessage};

use super::{
    Inner, Listed, Registry,
    connection::Connection,
    health::Health,
    report::{BroadcastReport, NotifyError},
};
use crate::{
    error::{Error, MessageError},
    role::McpRole,
    server::cluster::{
        Cluster, audience::Audience, fan_out::Deliver, relay::count::RelayCounts,
        report::ClusterNotification,
    },
};

impl<R: McpRole> Registry<R> {
    /// Sets the cluster of the registry: its clients get the notifications to that.
    /// [`notify_cluster`](Self::notify_cluster) notifies it.
    ///
    /// A server does so for [`Config::cluster`](crate::server::Config::cluster), so that only a
    /// process without a server has to.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] when it has another cluster already.
    #[cfg_attr(docsrs, doc(cfg(feature = "cluster")))]
    pub fn set_cluster(&self, cluster: Cluster) -> io::Result<()> {
        let mut is_new = false;
        let present = self.inner.cluster.get_or_init(|| {
            is_new = true;
            cluster.clone()
        });
        if is_new {
            cluster.node().add_registry(Arc::new(Registered(Arc::downgrade(&self.inner))));
        } else if !Arc::ptr_eq(present.node(), cluster.node()) {
            let what = "the registry has another cluster already; give each cluster a registry";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        Ok(())
    }

    /// Queues `notification` for the clients of the `audience`, without waiting: slow clients miss it.
    /// They may be on any instance of the cluster.
    ///
    /// It is queued here first, whatever becomes of the bus, and then published; await
    /// [`ClusterNotification::report`] to know what the other instances say. A client is notified
    /// in the order in which one instance calls this. What the bus loses is not sent again: the
    /// instance that misses it [says so](crate::cluster::ClusterEvent::Missed). Without a cluster
    /// there are the clients of this process.
    ///
    /// ```no_run
    /// # async fn example(registry: mcp_ws_transport::server::Registry) -> Result<(), mcp_ws_transport::Error> {
    /// use std::time::Duration;
    /// use mcp_ws_transport::cluster::Audience;
    /// use rmcp::model::ToolListChangedNotification;
    ///
    /// let changed = ToolListChangedNotification::default();
    /// let sent = registry.notify_cluster(&Audience::All, changed.into())?;
    /// println!("{} clients here", sent.local.sent);
    /// let report = sent.report(Duration::from_secs(1)).await;
    /// println!("{:?}, and nothing is known of {:?}", report.others, report.silent);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Message`] when the notification cannot be encoded, or is larger than the [bus
    /// takes](crate::cluster::Bus::max_payload); no client gets it then.
    #[cfg_attr(docsrs, doc(cfg(feature = "cluster")))]
    pub fn notify_cluster(
        &self,
        audience: &Audience,
        notification: R::Not,
    ) -> Result<ClusterNotification, Error> {
        let message = JsonRpcMessage::notification(notification);
        let Some(cluster) = self.inner.cluster.get() else {
            let local = self.send_to(self.chosen(audience), &message)?;
            return Ok(ClusterNotification::new(local, Ok(None)));
        };
        let node = cluster.node();
        let json = R::encode(&message).map_err(|error| MessageError::Encode(Arc::new(error)))?;
        let prepared = node.prepare(audience, &json)?;
        let is_here = audience.may_be_at(node.instance());
        let chosen = if is_here { self.chosen(audience) } else { Vec::new() };
        let mut local = self.send_to(chosen, &message)?;
        if is_here {
            local.add(node.deliver_here(audience, &json, Some(self.key())));
        }
        Ok(ClusterNotification::new(local, node.publish(prepared)))
    }

    /// Returns `health` with the figures of the cluster, if there is one.
    pub(super) fn with_cluster(&self, health: Health) -> Health {
        let cluster = self.inner.cluster.get().map(|cluster| cluster.node().health());
        let relays = &self.inner.relays;
        let (relayed_in, relayed_out) = (relays.relayed_in(), relays.relayed_out());
        Health { cluster, relayed_in, relayed_out, ..health }
    }

    /// Returns the counts of the relayed links.
    pub(in crate::server) fn relay_counts(&self) -> RelayCounts {
        self.inner.relays.clone()
    }

    /// Returns the connections of an audience at this instance.
    fn chosen(&self, audience: &Audience) -> Vec<Listed<R>> {
        let connections = self.lock();
        if let Audience::Connection { id, .. } = audience {
            return connections.get(id).cloned().into_iter().collect();
        }
        let is_meant = |listed: &&Listed<R>| is_in(&listed.connection, audience);
        connections.values().filter(is_meant).cloned().collect()
    }

    /// Returns what tells this registry from others.
    fn key(&self) -> usize {
        Arc::as_ptr(&self.inner).addr()
    }

    /// Queues a message for those of the audience.
    fn deliver(&self, audience: &Audience, message: &TxJsonRpcMessage<R>) -> BroadcastReport {
        let chosen = self.chosen(audience);
        let connections: Vec<_> = chosen.iter().map(|listed| listed.connection.clone()).collect();
        self.send_to(chosen, message).unwrap_or_else(|error| {
            let failed = |connection| (connection, NotifyError::Unsendable(error.clone()));
            BroadcastReport { sent: 0, failed: connections.into_iter().map(failed).collect() }
        })
    }
}

/// Returns `true` if the client of a connection is in the audience.
fn is_in(connection: &Connection, audience: &Audience) -> bool {
    match audience {
        Audience::All => true,
        Audience::Identity(name) => {
            connection.identity().is_some_and(|identity| identity.subject() == name)
        }
        Audience::Group(name) => connection.is_in_group(name),
        Audience::Session(id) => connection.has_session(id),
        Audience::Connection { id, .. } => connection.id() == *id,
    }
}

/// Registry that a cluster knows of, and does not keep.
struct Registered<R: McpRole>(Weak<Inner<R>>);

impl<R: McpRole> Deliver for Registered<R> {
    fn key(&self) -> Option<usize> {
        self.0.upgrade().map(|inner| Arc::as_ptr(&inner).addr())
    }

    fn deliver(&self, audience: &Audience, json: &[u8]) -> Option<BroadcastReport> {
        let registry = Registry { inner: self.0.upgrade()? };
        match R::decode_own(json) {
            Ok(message @ JsonRpcMessage::Notification(_)) => {
                Some(registry.deliver(audience, &message))
            }
            _ => None,
        }
    }
}
