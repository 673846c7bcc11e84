//! [`Redis`]: the bus.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use mcp_ws_transport::cluster::{
    AskError, Bus, PublishError, Subject, SubscribeError, Subscription,
};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    body::{Body, Kind},
    connect::Connect,
    link::Link,
    outbox::Command,
    run::{Connection, Runner},
};

/// Connection to Redis, as the bus between the instances of a server.
///
/// A lost connection is made again by itself, and its subscriptions with it. Dropping this ends
/// both.
pub struct Redis {
    link: Arc<Link>,
    max_payload: usize,
    ended: CancellationToken,
    _end: DropGuard,
}

impl Redis {
    /// Connects to a server, such as `redis://127.0.0.1:6379`, once the [`Connect`] is awaited.
    pub fn connect(url: impl Into<String>) -> Connect {
        Connect::new(url.into())
    }

    pub(crate) fn start(
        runner: Runner,
        connection: Option<Connection>,
        max_payload: usize,
    ) -> Self {
        let (link, ended) = (runner.link.clone(), CancellationToken::new());
        tokio::spawn(ended.clone().run_until_cancelled_owned(runner.run(connection)));
        Self { link, max_payload, _end: ended.clone().drop_guard(), ended }
    }

    fn send(
        &self,
        channel: &str,
        kind: Kind,
        payload: Bytes,
        question: Option<u64>,
    ) -> Result<(), PublishError> {
        let (size, max) = (payload.len(), self.max_payload);
        if size > max {
            return Err(PublishError::TooLarge { size, max });
        }
        let body = Body { kind, payload }.to_vec();
        self.link.outbox.push(Command::Publish { channel: channel.into(), body, question })
    }

    /// Returns the channel and the number of the question if answers are published on this subject.
    fn answered<'a>(&self, subject: &'a Subject) -> Option<(&'a str, u64)> {
        let (channel, question) = subject.as_str().rsplit_once('.')?;
        let (inboxes, _) = channel.rsplit_once('.')?;
        let (own_inboxes, _) = self.link.inbox.as_str().rsplit_once('.')?;
        if inboxes != own_inboxes {
            return None;
        }
        Some((channel, question.parse().ok()?))
    }

    async fn subscribe_to(
        &self,
        subject: Subject,
        max_bytes: usize,
    ) -> Result<Subscription, SubscribeError> {
        let (feed, subscription) = Subscription::bounded(max_bytes);
        let feed = Arc::new(feed);
        let added = self.link.add(&subject, feed.clone());
        let (number, confirmed) = added.map_err(|_| SubscribeError::Away)?;
        let link = self.link.clone();
        let ended = self.ended.clone();
        tokio::spawn(ended.run_until_cancelled_owned(async move {
            feed.closed().await;
            link.remove(&subject, number);
        }));
        match confirmed.await {
            Ok(Ok(())) => Ok(subscription),
            Ok(Err(refusal)) => Err(SubscribeError::Refused(refusal)),
            Err(_) => Err(SubscribeError::Away),
        }
    }
}

impl Bus for Redis {
    fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), PublishError> {
        match self.answered(subject) {
            Some((channel, question)) => {
                self.send(channel, Kind::Answer { question }, payload, None)
            }
            None => self.send(subject.as_str(), Kind::Plain, payload, None),
        }
    }

    fn subscribe(
        &self,
        subject: &Subject,
        max_bytes: usize,
    ) -> BoxFuture<'_, Result<Subscription, SubscribeError>> {
        self.subscribe_to(subject.clone(), max_bytes).boxed()
    }

    fn ask(
        &self,
        subject: &Subject,
        payload: Bytes,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Bytes, AskError>> {
        let subject = subject.clone();
        async move {
            let question = self.link.questions.open();
            let number = question.number();
            let reply_to =
                self.link.inbox.join(&number.to_string()).map_err(|_| AskError::Nobody)?;
            self.send(subject.as_str(), Kind::Question { reply_to }, payload, Some(number))?;
            question.answered(timeout).await
        }
        .boxed()
    }

    fn max_payload(&self) -> usize {
        self.max_payload
    }

    fn watch_up(&self) -> watch::Receiver<bool> {
        self.link.is_up.subscribe()
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("is_up", &*self.link.is_up.borrow())
            .field("inbox", &self.link.inbox)
            .field("questions", &self.link.questions)
            .finish_non_exhaustive()
    }
}
