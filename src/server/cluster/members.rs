//! [`Members`]: the other instances that are heard of, and how many notifications each has sent.

use std::{collections::HashMap, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{event::ClusterEvent, state::SILENCE_TIMEOUT};
use crate::server::sessions::instance::InstanceTag;

/// Time between two heartbeats of an instance.
pub(super) const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);

/// Time for which an instance that is gone is kept, with the number of its notifications.
const RETENTION_TIME: Duration = Duration::from_secs(24 * 3600);

/// The most instances that are kept.
const MAX_MEMBERS: usize = 4096;

/// The largest heartbeat, in bytes.
const MAX_HEARTBEAT: usize = 1024;

/// Process among the instances of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    /// Tag of the instance.
    pub(super) instance: String,
    /// Random number that tells a process from another with the same tag.
    pub(super) run: u64,
}

impl Process {
    /// Returns `true` if this can be the tag of an instance.
    pub(super) fn is_tag(text: &str) -> bool {
        InstanceTag::is_tag(text)
    }

    /// Returns `true` if the tag is valid.
    pub(super) fn is_valid(&self) -> bool {
        Self::is_tag(&self.instance)
    }
}

/// Message by which an instance says that it is there, or leaves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Heartbeat {
    #[serde(flatten)]
    pub(super) from: Process,
    pub(super) says: Says,
    /// Number of notifications that it has sent.
    pub(super) sent: u64,
}

/// Reason for a heartbeat of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Says {
    /// The instance has come or is back, and asks for a heartbeat of the others.
    Hello,
    /// The instance is there.
    Here,
    /// The instance leaves.
    Bye,
}

impl Heartbeat {
    /// Parses a heartbeat; `None` if it is none.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let heartbeat: Self =
            (payload.len() <= MAX_HEARTBEAT).then(|| serde_json::from_slice(payload).ok())??;
        heartbeat.from.is_valid().then_some(heartbeat)
    }
}

/// Other instances, by tag.
#[derive(Debug, Default)]
pub(super) struct Members(HashMap<String, Member>);

/// Instance that was heard of.
#[derive(Debug)]
struct Member {
    run: u64,
    presence: Presence,
    heard: Instant,
    /// Number of its notifications up to which all have come, or were told to be missed.
    received: u64,
    /// Number up to which it had sent notifications by an earlier heartbeat. A second later all of
    /// them are here, or lost.
    announced: u64,
    /// Time of that heartbeat.
    announced_at: Instant,
}

/// Presence of an instance.
///
/// | presence | when | then |
/// |---|---|---|
/// | none, `Gone` | a heartbeat or a notification comes | `Up` |
/// | `Up` | it says that it leaves, or nothing comes for 7 s | `Gone` |
/// | `Gone` | a day has passed | none |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Up,
    Gone,
}

impl Members {
    /// Takes a heartbeat of another instance.
    pub(super) fn on_heartbeat(&mut self, heartbeat: &Heartbeat, events: &mut Vec<ClusterEvent>) {
        if heartbeat.says == Says::Bye {
            if let Some(member) = self.0.get_mut(&heartbeat.from.instance)
                && member.run == heartbeat.from.run
                && std::mem::replace(&mut member.presence, Presence::Gone) == Presence::Up
            {
                events.push(ClusterEvent::InstanceDown(heartbeat.from.instance.clone()));
            }
            return;
        }
        let Some(member) = self.heard(&heartbeat.from, heartbeat.sent, events) else { return };
        if member.announced_at.elapsed() < HEARTBEAT_INTERVAL / 2 {
            return;
        }
        member.announced_at = Instant::now();
        // What it had sent by the earlier heartbeat is here by now, or lost.
        let count = member.announced.saturating_sub(member.received);
        member.received += count;
        member.announced = heartbeat.sent;
        note_missed(&heartbeat.from, count, events);
    }

    /// Takes the notification with this `number`, which another instance has sent.
    pub(super) fn on_notification(
        &mut self,
        from: &Process,
        number: u64,
        events: &mut Vec<ClusterEvent>,
    ) {
        let before = number.saturating_sub(1);
        let Some(member) = self.heard(from, before, events) else { return };
        let count = before.saturating_sub(member.received);
        member.received = member.received.max(number);
        note_missed(from, count, events);
    }

    /// Records that an instance was heard of; `None` if there is no room for it.
    ///
    /// A new member had `sent` that many notifications.
    fn heard(
        &mut self,
        from: &Process,
        sent: u64,
        events: &mut Vec<ClusterEvent>,
    ) -> Option<&mut Member> {
        if !self.0.contains_key(&from.instance) {
            if self.0.len() >= MAX_MEMBERS {
                self.forget_one()?;
            }
            self.0.insert(from.instance.clone(), Member::new(from.run, sent));
        }
        let member = self.0.get_mut(&from.instance)?;
        if member.run != from.run {
            // Another process has the tag now, as after a restart.
            if member.presence == Presence::Up {
                events.push(ClusterEvent::InstanceDown(from.instance.clone()));
            }
            *member = Member::new(from.run, sent);
        }
        member.heard = Instant::now();
        if std::mem::replace(&mut member.presence, Presence::Up) == Presence::Gone {
            events.push(ClusterEvent::InstanceUp(from.instance.clone()));
        }
        Some(member)
    }

    /// Forgets the instance that has been gone for the longest time; `None` if none is gone.
    fn forget_one(&mut self) -> Option<()> {
        let gone = self.0.iter().filter(|(_, member)| member.presence == Presence::Gone);
        let oldest = gone.min_by_key(|(_, member)| member.heard)?.0.clone();
        self.0.remove(&oldest);
        Some(())
    }

    /// Marks instances as gone that were not heard of for 7 s, and forgets them after a day.
    pub(super) fn sweep(&mut self, events: &mut Vec<ClusterEvent>) {
        self.0.retain(|_, member| member.heard.elapsed() < RETENTION_TIME);
        for (instance, member) in &mut self.0 {
            if member.presence == Presence::Up && member.heard.elapsed() > SILENCE_TIMEOUT {
                member.presence = Presence::Gone;
                events.push(ClusterEvent::InstanceDown(instance.clone()));
            }
        }
    }

    /// Returns the tags of the instances that are there, in alphabetical order.
    pub(super) fn up(&self) -> Vec<String> {
        let up = self.0.iter().filter(|(_, member)| member.presence == Presence::Up);
        let mut up: Vec<String> = up.map(|(instance, _)| instance.clone()).collect();
        up.sort_unstable();
        up
    }

    /// Returns the number of instances that are there.
    pub(super) fn count(&self) -> usize {
        self.0.values().filter(|member| member.presence == Presence::Up).count()
    }

    /// Returns when the instance was last heard of.
    pub(super) fn last_heard(&self, instance: &str) -> Option<Instant> {
        Some(self.0.get(instance)?.heard)
    }

    /// Returns `true` if the instance was heard of within the last 7 s, and has not left since.
    pub(super) fn is_up(&self, instance: &str) -> bool {
        let member = self.0.get(instance);
        member.is_some_and(|member| {
            member.presence == Presence::Up && member.heard.elapsed() <= SILENCE_TIMEOUT
        })
    }
}

impl Member {
    fn new(run: u64, sent: u64) -> Self {
        let (presence, heard) = (Presence::Gone, Instant::now());
        Self { run, presence, heard, received: sent, announced: sent, announced_at: heard }
    }
}

fn note_missed(from: &Process, count: u64, events: &mut Vec<ClusterEvent>) {
    if count > 0 {
        events.push(ClusterEvent::Missed { from: from.instance.clone(), count });
    }
}
