//! [`Local`]: a bus within one process.

mod hub;

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use tokio::sync::watch;

use self::hub::{Hub, Instance};
use super::{
    bus::{AskError, Bus, PublishError, SubscribeError},
    faults::{FaultSource, Faults},
    subject::Subject,
    subscription::Subscription,
};

/// Largest payload, in bytes: that of NATS by default.
const MAX_PAYLOAD: usize = 1 << 20;

/// Bus within one process, for tests and simulations; a cheap handle.
///
/// Each instance has a [connection](Self::connect) of its own, which can be cut. Messages arrive at
/// once, unless there are [`Faults`] that delay them: then a task delivers them, in order, for
/// which they have to be published within a tokio runtime.
#[derive(Clone)]
pub struct Local {
    hub: Arc<Hub>,
}

/// Connection of one instance to a [`Local`] bus. Dropping it ends its subscriptions.
pub struct LocalBus {
    hub: Arc<Hub>,
    instance: Arc<Instance>,
}

impl Local {
    /// Creates a bus with these faults.
    #[must_use]
    pub fn with_faults(faults: Faults) -> Self {
        Self::new(Some(FaultSource::new(faults)))
    }

    /// Creates a connection, for one instance.
    #[must_use]
    pub fn connect(&self) -> LocalBus {
        let instance = self.hub.connect();
        LocalBus { hub: self.hub.clone(), instance }
    }

    fn new(faults: Option<FaultSource>) -> Self {
        Self { hub: Arc::new(Hub::new(faults)) }
    }
}

impl Default for Local {
    fn default() -> Self {
        Self::new(None)
    }
}

impl LocalBus {
    /// Cuts this instance off from the bus, or brings it back.
    pub fn set_up(&self, is_up: bool) {
        self.instance.is_up.send_replace(is_up);
    }

    /// Makes the connection of this instance half-open, or ends that: what it sends and would
    /// receive is lost, while it believes that it is connected.
    pub fn set_half_open(&self, is_half_open: bool) {
        self.instance.is_half_open.store(is_half_open, Relaxed);
    }

    fn check(&self, payload: &Bytes) -> Result<(), PublishError> {
        if !*self.instance.is_up.borrow() {
            return Err(PublishError::Away);
        }
        let (size, max) = (payload.len(), MAX_PAYLOAD);
        if size > max { Err(PublishError::TooLarge { size, max }) } else { Ok(()) }
    }

    fn subscribe_now(
        &self,
        subject: &Subject,
        max_bytes: usize,
    ) -> Result<Subscription, SubscribeError> {
        if !self.instance.is_reached() {
            return Err(SubscribeError::Away);
        }
        let (feed, subscription) = Subscription::bounded(max_bytes);
        self.hub.subscribe(&self.instance, subject, feed);
        Ok(subscription)
    }
}

impl Bus for LocalBus {
    fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), PublishError> {
        self.check(&payload)?;
        if !self.instance.is_half_open() {
            self.hub.publish(&self.instance, subject, &payload, None);
        }
        Ok(())
    }

    fn subscribe(
        &self,
        subject: &Subject,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Subscription, SubscribeError>> {
        std::future::ready(self.subscribe_now(subject, max_bytes)).boxed()
    }

    fn ask(
        &self,
        subject: &Subject,
        payload: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Bytes, AskError>> {
        let subject = subject.clone();
        async move {
            self.check(&payload)?;
            let question = self.instance.questions.open();
            let reply_to = self.instance.reply_to(question.number())?;
            if !self.instance.is_half_open() {
                let reached = self.hub.publish(&self.instance, &subject, &payload, Some(&reply_to));
                if reached == 0 {
                    self.hub.answer_nobody(&self.instance, question.number());
                }
            }
            question.answered(timeout).await
        }
        .boxed()
    }

    fn max_payload(&self) -> usize {
        MAX_PAYLOAD
    }

    fn watch_up(&self) -> watch::Receiver<bool> {
        self.instance.is_up.subscribe()
    }
}

impl Drop for LocalBus {
    fn drop(&mut self) {
        self.hub.remove(&self.instance);
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}

impl fmt::Debug for LocalBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalBus")
            .field("is_up", &*self.instance.is_up.borrow())
            .field("is_half_open", &self.instance.is_half_open())
            .field("questions", &self.instance.questions)
            .finish_non_exhaustive()
    }
}
