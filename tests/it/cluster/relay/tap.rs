//! A bus on which a test sees what one instance says, and holds it back.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use mcp_ws_transport::cluster::{
    AskError, Bus, LocalBus, PublishError, Subject, SubscribeError, Subscription,
};
use tokio::sync::watch;

/// Connection to a bus that is looked at; a handle.
#[derive(Clone)]
pub struct Tap {
    bus: Arc<LocalBus>,
    log: Arc<Mutex<Log>>,
}

#[derive(Default)]
struct Log {
    said: Vec<(Subject, Bytes)>,
    /// End of the subjects on which nothing is published, and what would have been.
    holds: Option<&'static str>,
    held: Vec<(Subject, Bytes)>,
}

impl Tap {
    pub fn new(bus: Arc<LocalBus>) -> Self {
        Self { bus, log: Arc::default() }
    }

    /// Returns what was said on subjects with this beginning or end.
    pub fn said(&self, on: &str) -> Vec<(Subject, Bytes)> {
        let log = self.log.lock().unwrap();
        let is_on =
            |subject: &Subject| subject.as_str().starts_with(on) || subject.as_str().ends_with(on);
        log.said.iter().filter(|(subject, _)| is_on(subject)).cloned().collect()
    }

    /// Holds back what is published on subjects with this end.
    pub fn hold(&self, end: &'static str) {
        self.log.lock().unwrap().holds = Some(end);
    }

    /// Forgets what was held back, as if the bus had lost it. Returns how much it was.
    pub fn lose(&self) -> usize {
        let mut log = self.log.lock().unwrap();
        log.holds = None;
        std::mem::take(&mut log.held).len()
    }

    /// Publishes what was held back, too late.
    pub fn release(&self) -> usize {
        let mut log = self.log.lock().unwrap();
        log.holds = None;
        let held = std::mem::take(&mut log.held);
        for (subject, payload) in &held {
            self.bus.publish(subject, payload.clone()).unwrap();
        }
        held.len()
    }

    fn note(&self, subject: &Subject, payload: &Bytes) -> bool {
        let mut log = self.log.lock().unwrap();
        let message = (subject.clone(), payload.clone());
        if log.holds.is_some_and(|end| subject.as_str().ends_with(end)) {
            log.held.push(message);
            return false;
        }
        log.said.push(message);
        true
    }
}

impl Bus for Tap {
    fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), PublishError> {
        if self.note(subject, &payload) { self.bus.publish(subject, payload) } else { Ok(()) }
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
        if self.note(subject, &payload) {
            return self.bus.ask(subject, payload, timeout);
        }
        async move {
            tokio::time::sleep(timeout).await;
            Err(AskError::TimedOut)
        }
        .boxed()
    }

    fn max_payload(&self) -> usize {
        self.bus.max_payload()
    }

    fn is_up(&self) -> watch::Receiver<bool> {
        self.bus.is_up()
    }
}
