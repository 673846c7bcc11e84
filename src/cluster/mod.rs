//! Several instances of one server, joined by a message bus (feature `cluster`).
//!
//! A [`Bus`] carries small messages between the instances: NATS by the crate
//! `mcp-ws-transport-nats`, Redis by `mcp-ws-transport-redis`, or whatever else implements the
//! trait. [`Local`] is one within a process, for tests and simulations. Each process
//! [joins](Cluster::join), and gives the [`Cluster`] to its server:
//!
//! ```
//! use mcp_ws_transport::{cluster::{Audience, Cluster, Local}, server::{Config, Registry}};
//! use rmcp::model::ToolListChangedNotification;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bus = Local::default().connect(); // or that of NATS, or Redis
//! let cluster = Cluster::join(bus, "prod.math").await?;
//! let registry = Registry::default();
//! let config: Config = Config::default().cluster(cluster.clone()).registry(registry.clone());
//! // … serve with that configuration; then, at any time:
//! # registry.set_cluster(cluster.clone())?;
//! # let _ = config;
//! registry.notify_cluster(&Audience::All, ToolListChangedNotification::default().into())?;
//! // … and when the server has stopped:
//! cluster.leave().await;
//! # Ok(()) }
//! ```
//!
//! # Instances
//!
//! An instance has a tag, random unless [one is set](Join::instance); the session ids that it
//! issues begin with it. That two processes have the same tag is found when the second joins, or,
//! where the bus was away or both joined at the same time, by what both publish: then both are
//! degraded until one is gone. The sessions of both are resumed at other instances all the same.
//!
//! An instance says every 2 s that it is there (a heartbeat), and is thought to be gone after 7 s
//! without one, or when it says that it [leaves](Cluster::leave). Two things depend on that: whose
//! reports are waited for, and for how long an instance that does not answer is asked for a
//! session. To which instance a session belongs does not depend on it.
//!
//! # Notifications
//!
//! [`Registry::notify_cluster`](crate::server::Registry::notify_cluster) notifies an [`Audience`],
//! here at once and on the other instances by the bus. A client receives the notifications of one
//! instance in the order in which they were sent. Each instance
//! [reports](ClusterNotification::report) for how many clients it has queued the notification, and
//! a slow or dead one delays no other. What the bus loses is not sent again: the instances that it
//! did not reach have a [`ClusterEvent::Missed`], since notifications are numbered.
//!
//! # Sessions
//!
//! A session stays at the instance where its client has opened it, whose tag is in the id. A client
//! that speaks [`mcp.resume.v1`](crate::guide::resume_v1) resumes it by whatever instance its
//! balancer leads it to: that one asks the other for the session, and carries (relays) the messages
//! by the bus. The client and the handlers notice no difference. Where the link between the two
//! instances is lost, the client's connection is closed with 1001, and it comes again; nothing is
//! lost or executed twice. A session still ends with its process: within 3 s of its return its
//! client has a new one.
//!
//! Each message of such a session crosses the bus. Where a proxy can tell from the id [which
//! instance has the session](crate::guide::deployment#which-instance-has-the-session), few sessions
//! need that. [Several instances](crate::guide::deployment#several-instances) has what happens
//! when, and figures.
//!
//! At most 1,024 sessions of a server are relayed each way, unless [`Join::max_relays`] says
//! otherwise. The times that are named here cannot be set: instances rely on those of each other.
//!
//! # Without the bus
//!
//! A server's own sessions and notifications go on while the bus is away: nothing waits for it, and
//! nothing is kept for it. The [state](Cluster::state) says so, and an [event](Cluster::events),
//! and [`Health`](crate::server::Health). All heals by itself when the bus is back. A server starts
//! without the bus, too, where the connection to it is made with `in_background(true)`, as NATS and
//! Redis have it.
//!
//! | state | when |
//! |---|---|
//! | [`Joined`](ClusterState::Joined) | what this instance publishes comes back to it |
//! | [`Degraded`](ClusterState::Degraded) | the bus is [away](ClusterError::Away) or [silent](ClusterError::Silent), another process has [the tag](ClusterError::InstanceInUse), or [rights](ClusterError::NoRights) are missing |
//! | [`Left`](ClusterState::Left) | it has left |
//!
//! # Subjects
//!
//! An instance publishes and subscribes on these, and nowhere else but on the inbox of its bus,
//! which the crates for NATS and Redis put below `{prefix}.inbox` where they are told the prefix.
//! Whoever may publish there can notify every client, and whoever may subscribe reads the relayed
//! sessions: grant both to the instances alone. The [security
//! guide](crate::guide::security#what-crosses-between-instances) says what crosses.
//!
//! | subject | |
//! |---|---|
//! | `{prefix}.m` | heartbeats of the instances: who is there |
//! | `{prefix}.n` | notifications |
//! | `{prefix}.i.{tag}` | questions to one instance, and reports |
//! | `{prefix}.i.{tag}.left` | a question that nobody answers, when an instance leaves |
//! | `{prefix}.r.{random}.home`, `….away` | messages of one relayed session: to the instance that has it, and to the one that has the client |

pub(crate) mod bus;
mod faults;
mod local;
mod questions;
pub(crate) mod subject;
pub(crate) mod subscription;
pub(crate) mod warnings;

#[doc(hidden)]
pub use self::warnings::SharedWarnLimit;
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
