//! [`CountedBus`]: a bus that counts what is published.

use std::{
    ops::Sub,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use mcp_ws_transport::cluster::{
    AskError, Bus, LocalBus, PublishError, Subject, SubscribeError, Subscription,
};
use tokio::sync::watch;

/// Messages that were published, by what they are for.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    /// Heartbeats of the instances.
    pub(crate) heartbeats: u64,
    /// Questions for sessions, and other messages to one instance.
    pub(crate) questions: u64,
    /// Answers to questions.
    pub(crate) answers: u64,
    /// Messages of relayed sessions, with their questions to each other.
    pub(crate) relayed: u64,
}

impl Sub for Counts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            heartbeats: self.heartbeats - before.heartbeats,
            questions: self.questions - before.questions,
            answers: self.answers - before.answers,
            relayed: self.relayed - before.relayed,
        }
    }
}

/// Counts of all instances; a cheap handle.
#[derive(Debug, Default, Clone)]
pub(crate) struct Counter(Arc<Mutex<Counts>>);

impl Counter {
    pub(crate) fn counts(&self) -> Counts {
        *self.lock()
    }

    fn count(&self, subject: &Subject) {
        let mut counts = self.lock();
        let mut words = subject.as_str().split('.');
        let count = match (words.next(), words.next()) {
            (Some("simulation"), Some("m")) => &mut counts.heartbeats,
            (Some("simulation"), Some("i")) => &mut counts.questions,
            (Some("simulation"), _) => &mut counts.relayed,
            _ => &mut counts.answers,
        };
        *count += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connection to the bus that counts what is published.
pub(crate) struct CountedBus {
    pub(crate) bus: LocalBus,
    pub(crate) counter: Counter,
}

impl Bus for CountedBus {
    fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), PublishError> {
        self.counter.count(subject);
        self.bus.publish(subject, payload)
    }

    fn subscribe(
        &self,
        subject: &Subject,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Subscription, SubscribeError>> {
        self.bus.subscribe(subject, max_bytes)
    }

    fn ask(
        &self,
        subject: &Subject,
        payload: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Bytes, AskError>> {
        self.counter.count(subject);
        self.bus.ask(subject, payload, timeout)
    }

    fn max_payload(&self) -> usize {
        self.bus.max_payload()
    }

    fn watch_up(&self) -> watch::Receiver<bool> {
        self.bus.watch_up()
    }
}
