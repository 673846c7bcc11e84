//! Several instances of one server, joined by a message bus.
//!
//! A [`Bus`] carries small messages between the instances: NATS by the crate `mcp-ws-transport-nats`, Redis by
//! `mcp-ws-transport-redis`, or whatever else implements the trait. [`Local`] is one within a process, for
//! tests and simulations.

pub(crate) mod bus;
mod faults;
mod local;
mod questions;
pub(crate) mod subject;
pub(crate) mod subscription;

pub use self::{
    bus::{AskError, Bus, PublishError, SubscribeError},
    faults::Faults,
    local::{Local, LocalBus},
    questions::{Question, Questions},
    subject::{InvalidSubject, Subject},
    subscription::{Delivery, Feed, Subscription},
};
pub use crate::server::cluster::{
    Cluster, Join,
    audience::Audience,
    event::{ClusterEvent, ClusterEvents},
    health::ClusterHealth,
    report::{ClusterNotification, ClusterReport, Reached},
    state::{ClusterError, ClusterState},
};
