//! Two instances with one tag, which is a mistake: no client loses its session by it.

use mcp_ws_transport::{
    cluster::{ClusterError, ClusterState, Local},
    server::Config,
};

use super::{Client, Instance};
use crate::common::limit;

/// The first is cut off while the other joins, as where both come at the same moment.
#[tokio::test]
async fn a_session_is_resumed_that_one_of_two_with_its_tag_has() {
    limit(async {
        let local = Local::default();
        let first = Instance::new(&local, "a", Config::default()).await;
        first.bus.set_half_open(true);
        let second = Instance::new(&local, "a", Config::default()).await;
        first.bus.set_half_open(false);
        let is_taken = |state: &ClusterState| {
            let in_use = ClusterError::InstanceInUse("a".into());
            matches!(state, ClusterState::Degraded { cause, .. } if *cause == in_use)
        };
        for instance in [&first, &second] {
            instance.cluster.state().wait_for(is_taken).await.unwrap();
        }
        let other = Instance::new(&local, "b", Config::default()).await;
        for instance in [&first, &second] {
            let mut client = Client::new(instance).await;
            client.move_to(&other);
            client.resumed().await;
            assert_eq!(client.echo("still").await, "still");
            instance.relays(1, 0).await;
        }
    })
    .await;
}
