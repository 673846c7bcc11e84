//! [`Link`]: what the bus and the task that runs its connection share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use mcp_ws_transport::cluster::{Feed, PublishError, Questions, SharedWarnLimit, Subject};
use redis::{PushInfo, PushKind, Value};
use tokio::sync::{oneshot, watch};

use crate::{
    body::{Body, Kind},
    outbox::{Command, Outbox},
};

/// State of the connection, what is sent on it, and who receives from it.
pub(crate) struct Link {
    pub(crate) is_up: watch::Sender<bool>,
    pub(crate) outbox: Outbox,
    pub(crate) questions: Questions,
    /// Channel on which answers arrive.
    pub(crate) inbox: Subject,
    pub(crate) warnings: Warnings,
    subscribers: Mutex<Subscribers>,
}

/// Limits of the warnings, by what they are of.
#[derive(Default)]
pub(crate) struct Warnings {
    pub(crate) not_connected: SharedWarnLimit,
    pub(crate) lost: SharedWarnLimit,
    pub(crate) refused: SharedWarnLimit,
}

#[derive(Default)]
struct Subscribers {
    by_channel: HashMap<String, Vec<(u64, Arc<Feed>)>>,
    last_number: u64,
}

impl Link {
    pub(crate) fn new(inbox: Subject, max_queued_bytes: usize) -> Self {
        Self {
            is_up: watch::Sender::new(false),
            outbox: Outbox::new(max_queued_bytes),
            questions: Questions::default(),
            inbox,
            warnings: Warnings::default(),
            subscribers: Mutex::default(),
        }
    }

    /// Returns the channels that a new connection has to subscribe to.
    pub(crate) fn channels(&self) -> Vec<String> {
        let inbox = self.inbox.to_string();
        self.lock().by_channel.keys().cloned().chain([inbox]).collect()
    }

    /// Takes messages, now that a new connection has subscribed to these channels.
    pub(crate) fn open(&self, channels: &[String]) -> Result<(), PublishError> {
        let subscribers = self.lock();
        self.outbox.open();
        for channel in channels {
            // Who has left meanwhile could not say so.
            if !subscribers.by_channel.contains_key(channel) && *channel != self.inbox.as_str() {
                self.outbox.push(Command::Unsubscribe { channel: channel.clone() })?;
            }
        }
        drop(subscribers);
        self.is_up.send_replace(true);
        Ok(())
    }

    /// Takes no messages any more: the connection is lost.
    pub(crate) fn close(&self) {
        self.is_up.send_replace(false);
        self.outbox.close();
    }

    /// Adds a subscriber, and returns its number and a future that resolves once it has subscribed.
    pub(crate) fn add(
        &self,
        subject: &Subject,
        feed: Arc<Feed>,
    ) -> Result<(u64, oneshot::Receiver<Result<(), String>>), PublishError> {
        let (done, confirmed) = oneshot::channel();
        let channel = subject.to_string();
        let mut subscribers = self.lock();
        // Under the lock, so that Redis is told in this order.
        self.outbox.push(Command::Subscribe { channel: channel.clone(), done })?;
        subscribers.last_number += 1;
        let number = subscribers.last_number;
        subscribers.by_channel.entry(channel).or_default().push((number, feed));
        Ok((number, confirmed))
    }

    /// Removes a subscriber, and tells Redis if it was the last of its channel.
    pub(crate) fn remove(&self, subject: &Subject, number: u64) {
        let mut subscribers = self.lock();
        let Some(all) = subscribers.by_channel.get_mut(subject.as_str()) else { return };
        all.retain(|(one, _)| *one != number);
        if all.is_empty() {
            subscribers.by_channel.remove(subject.as_str());
            // Without a connection Redis has forgotten it.
            let _ = self.outbox.push(Command::Unsubscribe { channel: subject.to_string() });
        }
    }

    /// Receives what Redis pushes.
    pub(crate) fn on_push(&self, info: PushInfo) {
        if let (PushKind::Message, Ok([Value::BulkString(channel), Value::BulkString(published)])) =
            (info.kind, <[Value; 2]>::try_from(info.data))
        {
            self.on_message(&channel, published.into());
        }
    }

    fn on_message(&self, channel: &[u8], published: Bytes) {
        let Some(Body { kind, payload }) = Body::parse(published) else {
            tracing::debug!("what another program has published is passed over");
            return;
        };
        let reply_to = match kind {
            Kind::Answer { question } => {
                self.questions.answer(question, Ok(payload));
                return;
            }
            Kind::Question { reply_to } => Some(reply_to),
            Kind::Plain => None,
        };
        let Ok(channel) = std::str::from_utf8(channel) else { return };
        let feeds: Vec<_> = match self.lock().by_channel.get(channel) {
            Some(all) => all.iter().map(|(_, feed)| feed.clone()).collect(),
            None => return,
        };
        for feed in feeds {
            feed.push(payload.clone(), reply_to.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Subscribers> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
