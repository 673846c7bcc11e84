//! A bus on which a test sees what one instance publishes, and decides what becomes of it.

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

/// Connection to a bus that does with messages as the test says; a handle.
#[derive(Clone)]
pub struct TestBus {
    bus: Arc<LocalBus>,
    state: Arc<Mutex<State>>,
}

/// Messages that were published, and what becomes of further ones.
#[derive(Default)]
struct State {
    published: Vec<(Subject, Bytes)>,
    /// End of the subjects on which messages are held back, and those that are.
    holds: Option<&'static str>,
    held: Vec<(Subject, Bytes)>,
    /// End of the subjects on which publishing fails, and how.
    refuses: Option<(&'static str, PublishError)>,
    /// End of the subjects on which each question is asked twice.
    doubles: Option<&'static str>,
    /// End of the subjects to which subscribing fails, and how; with `None` it waits for ever.
    unsubscribable: Option<(&'static str, Option<SubscribeError>)>,
}

impl TestBus {
    pub fn new(bus: Arc<LocalBus>) -> Self {
        Self { bus, state: Arc::default() }
    }

    /// Returns what was published on subjects with this beginning or end.
    pub fn published(&self, on: &str) -> Vec<(Subject, Bytes)> {
        let state = self.state.lock().unwrap();
        let is_on =
            |subject: &Subject| subject.as_str().starts_with(on) || subject.as_str().ends_with(on);
        state.published.iter().filter(|(subject, _)| is_on(subject)).cloned().collect()
    }

    /// Holds back what is published on subjects with this end: on all of them, if it is empty.
    /// This goes on until [`drop_held`](Self::drop_held) or [`release`](Self::release).
    pub fn hold(&self, end: &'static str) {
        self.state.lock().unwrap().holds = Some(end);
    }

    /// Refuses what is published on subjects with this end, until [`accept`](Self::accept).
    pub fn refuse(&self, end: &'static str, error: PublishError) {
        self.state.lock().unwrap().refuses = Some((end, error));
    }

    /// Asks each question twice on subjects with this end.
    pub fn double(&self, end: &'static str) {
        self.state.lock().unwrap().doubles = Some(end);
    }

    /// Refuses subscriptions to subjects with this end, or has them wait for ever without an
    /// `error`, until [`accept`](Self::accept).
    pub fn refuse_subscriptions(&self, end: &'static str, error: Option<SubscribeError>) {
        self.state.lock().unwrap().unsubscribable = Some((end, error));
    }

    /// Refuses nothing any more.
    pub fn accept(&self) {
        let mut state = self.state.lock().unwrap();
        (state.refuses, state.unsubscribable) = (None, None);
    }

    /// Drops what was held back, as if the bus had lost it, and holds back nothing more. Returns
    /// how many messages there were.
    pub fn drop_held(&self) -> usize {
        let mut state = self.state.lock().unwrap();
        state.holds = None;
        std::mem::take(&mut state.held).len()
    }

    /// Waits until something is held back.
    pub async fn holding(&self) {
        while self.state.lock().unwrap().held.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Publishes what was held back, late, and holds back nothing more. Returns how many messages
    /// there were.
    pub fn release(&self) -> usize {
        let mut state = self.state.lock().unwrap();
        state.holds = None;
        let held = std::mem::take(&mut state.held);
        for (subject, payload) in &held {
            self.bus.publish(subject, payload.clone()).unwrap();
        }
        held.len()
    }

    /// Notes a message. Returns `false` if it is held back.
    fn note(&self, subject: &Subject, payload: &Bytes) -> bool {
        let mut state = self.state.lock().unwrap();
        let message = (subject.clone(), payload.clone());
        if state.holds.is_some_and(|end| subject.as_str().ends_with(end)) {
            state.held.push(message);
            return false;
        }
        state.published.push(message);
        true
    }
}

impl Bus for TestBus {
    fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), PublishError> {
        let refuses = self.state.lock().unwrap().refuses;
        if let Some((_, error)) = refuses.filter(|(end, _)| subject.as_str().ends_with(end)) {
            return Err(error);
        }
        if self.note(subject, &payload) { self.bus.publish(subject, payload) } else { Ok(()) }
    }

    fn subscribe(
        &self,
        subject: &Subject,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Subscription, SubscribeError>> {
        let refused = self.state.lock().unwrap().unsubscribable.clone();
        match refused.filter(|(end, _)| subject.as_str().ends_with(end)) {
            Some((_, Some(error))) => async { Err(error) }.boxed(),
            Some((_, None)) => std::future::pending().boxed(),
            None => self.bus.subscribe(subject, max_bytes),
        }
    }

    fn ask(
        &self,
        subject: &Subject,
        payload: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Bytes, AskError>> {
        let doubles = self.state.lock().unwrap().doubles;
        if doubles.is_some_and(|end| subject.as_str().ends_with(end)) {
            let (bus, subject, payload) = (self.bus.clone(), subject.clone(), payload.clone());
            tokio::spawn(async move { bus.ask(&subject, payload, timeout).await });
        }
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

    fn watch_up(&self) -> watch::Receiver<bool> {
        self.bus.watch_up()
    }
}
