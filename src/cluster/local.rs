//! [`Local`]: a bus within one process.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use tokio::{sync::watch, time::timeout};

use super::{
    bus::{AskError, Bus, PublishError, SubscribeError},
    subject::Subject,
    subscription::{Feed, Subscription},
};

/// Largest payload, in bytes: that of NATS as it comes.
const MAX_PAYLOAD: usize = 1 << 20;

/// Bus within one process, for tests and simulations; a cheap handle.
///
/// Each instance has a [connection](Self::connect) of its own, which can be cut.
#[derive(Clone, Default)]
pub struct Local {
    hub: Arc<Hub>,
}

/// Connection of one instance to a [`Local`] bus.
pub struct LocalBus {
    hub: Arc<Hub>,
    is_up: watch::Sender<bool>,
}

#[derive(Default)]
struct Hub {
    subscribers: Mutex<HashMap<Subject, Vec<Subscriber>>>,
    next_inbox: AtomicU64,
}

struct Subscriber {
    feed: Feed,
    is_up: watch::Receiver<bool>,
}

impl Local {
    /// Creates a connection.
    #[must_use]
    pub fn connect(&self) -> LocalBus {
        LocalBus { hub: self.hub.clone(), is_up: watch::Sender::new(true) }
    }
}

impl LocalBus {
    /// Cuts this instance off from the bus, or brings it back.
    pub fn set_up(&self, is_up: bool) {
        self.is_up.send_replace(is_up);
    }

    fn check(&self, payload: &Bytes) -> Result<(), PublishError> {
        if !*self.is_up.borrow() {
            return Err(PublishError::Away);
        }
        let (size, max) = (payload.len(), MAX_PAYLOAD);
        if size > max { Err(PublishError::TooLarge { size, max }) } else { Ok(()) }
    }

    fn subscribe_now(&self, subject: &Subject, max_bytes: usize) -> Subscription {
        let (feed, subscription) = Subscription::bounded(max_bytes);
        let subscriber = Subscriber { feed, is_up: self.is_up.subscribe() };
        self.hub.lock().entry(subject.clone()).or_default().push(subscriber);
        subscription
    }
}

impl Bus for LocalBus {
    fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), PublishError> {
        self.check(&payload)?;
        self.hub.deliver(subject, &payload, None);
        Ok(())
    }

    fn subscribe(
        &self,
        subject: &Subject,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Subscription, SubscribeError>> {
        let subscription = if *self.is_up.borrow() {
            Ok(self.subscribe_now(subject, max_bytes))
        } else {
            Err(SubscribeError::Away)
        };
        async { subscription }.boxed()
    }

    fn ask(
        &self,
        subject: &Subject,
        payload: Bytes,
        time: Duration,
    ) -> BoxFuture<'_, Result<Bytes, AskError>> {
        let subject = subject.clone();
        async move {
            self.check(&payload)?;
            let inbox = format!("inbox.{}", self.hub.next_inbox.fetch_add(1, Relaxed));
            let inbox = Subject::new(inbox).map_err(|_| AskError::Nobody)?;
            let mut answers = self.subscribe_now(&inbox, MAX_PAYLOAD);
            if self.hub.deliver(&subject, &payload, Some(&inbox)) == 0 {
                return Err(AskError::Nobody);
            }
            let answer = timeout(time, answers.next()).await;
            answer.ok().flatten().map(|answer| answer.payload).ok_or(AskError::TimedOut)
        }
        .boxed()
    }

    fn max_payload(&self) -> usize {
        MAX_PAYLOAD
    }

    fn is_up(&self) -> watch::Receiver<bool> {
        self.is_up.subscribe()
    }
}

impl Hub {
    /// Delivers a message, and returns to how many.
    fn deliver(&self, subject: &Subject, payload: &Bytes, reply_to: Option<&Subject>) -> usize {
        let mut all = self.lock();
        let Some(subscribers) = all.get_mut(subject) else { return 0 };
        subscribers.retain(|subscriber| {
            !*subscriber.is_up.borrow() || subscriber.feed.push(payload.clone(), reply_to.cloned())
        });
        let reached = subscribers.iter().filter(|subscriber| *subscriber.is_up.borrow()).count();
        if subscribers.is_empty() {
            all.remove(subject);
        }
        reached
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Subject, Vec<Subscriber>>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").finish_non_exhaustive()
    }
}

impl fmt::Debug for LocalBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalBus").field("is_up", &*self.is_up.borrow()).finish_non_exhaustive()
    }
}
