//! [`Nats`]: the bus.

use std::{fmt, sync::Arc, time::Duration};

use async_nats::{
    Client, Message, StatusCode, Subscriber, client::traits::Publisher, connection::State,
    message::OutboundMessage,
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use mcp_ws_transport::cluster::{
    AskError, Bus, Feed, PublishError, Questions, Subject, SubscribeError, Subscription,
};
use tokio::{
    sync::watch,
    task::{unconstrained, yield_now},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    connect::{Connect, ConnectError},
    link::Link,
    outbox,
};

/// Connection to NATS, as the bus between the instances of a server.
///
/// A lost connection is made again by itself, and its subscriptions with it. Dropping this ends
/// both.
pub struct Nats {
    client: Client,
    link: Arc<Link>,
    questions: Questions,
    /// Subject below which answers arrive, each on the number of its question.
    inbox: String,
    ended: CancellationToken,
    _end: DropGuard,
}

impl Nats {
    /// The longest wait for the server to confirm a subscription.
    const CONFIRMATION: Duration = Duration::from_secs(5);

    /// Connects to a server, such as `nats://127.0.0.1:4222`, once the [`Connect`] is awaited.
    pub fn connect(url: impl Into<String>) -> Connect {
        Connect::new(url.into())
    }

    pub(crate) async fn start(client: Client, link: Arc<Link>) -> Result<Self, ConnectError> {
        let inbox = client.new_inbox();
        let answers = client.subscribe(format!("{inbox}.*")).await;
        let answers = answers.map_err(|error| ConnectError::Unreachable(error.to_string()))?;
        let (questions, ended) = (Questions::default(), CancellationToken::new());
        let receiving = receive_answers(answers, questions.clone());
        tokio::spawn(ended.clone().run_until_cancelled_owned(receiving));
        let sending = send_queued(client.clone(), link.clone());
        tokio::spawn(ended.clone().run_until_cancelled_owned(sending));
        let (watched, followed) = (client.clone(), link.clone());
        let following = async move { followed.follow(|| watched.connection_state()).await };
        tokio::spawn(ended.clone().run_until_cancelled_owned(following));
        Ok(Self { client, link, questions, inbox, _end: ended.clone().drop_guard(), ended })
    }

    fn is_connected(&self) -> bool {
        *self.link.is_up.borrow() && self.client.connection_state() == State::Connected
    }

    fn send(
        &self,
        subject: &Subject,
        reply: Option<String>,
        payload: Bytes,
    ) -> Result<(), PublishError> {
        if !self.is_connected() {
            return Err(PublishError::Away);
        }
        let (size, max) = (payload.len(), self.client.max_payload());
        if size > max {
            return Err(PublishError::TooLarge { size, max });
        }
        self.link.outbox.push(outbound(subject.as_str(), reply, payload), |message| {
            // Tokio's budget for this task must not decide whether the message waits.
            let sent = unconstrained(self.client.publish_message(message)).now_or_never();
            matches!(sent, Some(Ok(())))
        })
    }

    async fn subscribe_to(
        &self,
        subject: Subject,
        max_bytes: usize,
    ) -> Result<Subscription, SubscribeError> {
        if !self.is_connected() {
            return Err(SubscribeError::Away);
        }
        let subscribing = self.subscribe_and_confirm(subject, max_bytes);
        tokio::select! {
            biased;
            () = self.link.lost() => Err(SubscribeError::Away),
            subscribed = subscribing => subscribed,
        }
    }

    async fn subscribe_and_confirm(
        &self,
        subject: Subject,
        max_bytes: usize,
    ) -> Result<Subscription, SubscribeError> {
        let refusal = self.link.watch_refusal(&subject);
        let (feed, subscription) = Subscription::bounded(max_bytes);
        let subscriber = self.client.subscribe(subject.to_string()).await;
        let subscriber = subscriber.map_err(|error| SubscribeError::Refused(error.to_string()))?;
        tokio::spawn(self.ended.clone().run_until_cancelled_owned(forward(subscriber, feed)));

        // A refusal comes before the first confirmation, but by way of another task.
        let confirmed = async { self.confirm().await.and(self.confirm().await) }.await;
        match (refusal.get(), confirmed) {
            (Some(refusal), _) => Err(SubscribeError::Refused(refusal.clone())),
            (None, Err(refusal)) => Err(SubscribeError::Refused(refusal)),
            (None, Ok(())) => Ok(subscription),
        }
    }

    /// Waits until the server has seen all that was sent to it: a message to this client is back.
    async fn confirm(&self) -> Result<(), String> {
        let question = self.questions.open();
        let subject = format!("{}.{}", self.inbox, question.number());
        let message = outbound(&subject, None, Bytes::new());
        let sent = self.client.publish_message(message).await;
        sent.map_err(|error| error.to_string())?;
        question.answered(Self::CONFIRMATION).await.map(drop).map_err(|_| {
            let inbox = &self.inbox;
            format!("nothing arrives on {inbox}.>; this client needs the right to subscribe and publish to it")
        })
    }
}

impl Bus for Nats {
    fn publish(&self, subject: &Subject, payload: Bytes) -> Result<(), PublishError> {
        self.send(subject, None, payload)
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
            let question = self.questions.open();
            let reply = format!("{}.{}", self.inbox, question.number());
            self.send(&subject, Some(reply), payload)?;
            question.answered(timeout).await
        }
        .boxed()
    }

    fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    fn watch_up(&self) -> watch::Receiver<bool> {
        self.link.is_up.subscribe()
    }
}

fn outbound(subject: &str, reply: Option<String>, payload: Bytes) -> OutboundMessage {
    let reply = reply.map(async_nats::Subject::from);
    OutboundMessage { subject: subject.into(), reply, payload, headers: None }
}

/// Hands the messages of the outbox to the client library, in order.
async fn send_queued(client: Client, link: Arc<Link>) {
    loop {
        let message = link.outbox.next().await;
        let bytes = outbox::size(&message);
        tokio::select! {
            biased;
            () = link.lost() => {}
            _ = client.publish_message(message) => {}
        }
        link.outbox.note_sent(bytes);
    }
}

/// Hands the answers that arrive on the inbox to their questions.
async fn receive_answers(answers: Subscriber, questions: Questions) {
    receive(answers, |message| {
        let number = message.subject.rsplit('.').next().and_then(|word| word.parse().ok());
        let answer = match message.status {
            Some(StatusCode::NO_RESPONDERS) => Err(AskError::Nobody),
            _ => Ok(message.payload),
        };
        if let Some(number) = number {
            questions.answer(number, answer);
        }
    })
    .await;
}

/// Moves what arrives into a subscription, until either end is gone.
async fn forward(subscriber: Subscriber, feed: Feed) {
    let receiving = receive(subscriber, |message| {
        let reply_to = message.reply.and_then(|reply| Subject::new(reply.as_str()).ok());
        feed.push(message.payload, reply_to);
    });
    tokio::select! {
        biased;
        () = feed.closed() => {}
        () = receiving => {}
    }
}

/// Takes whatever the client library has received, until the subscription ends. So nothing waits in
/// the library, where nothing would bound it.
async fn receive(mut subscriber: Subscriber, mut on_message: impl FnMut(Message)) {
    /// Number of messages after which other tasks may run.
    const BATCH: u32 = 1 << 14;

    loop {
        for _ in 0..BATCH {
            // Tokio's budget for a task is less than what the library receives at a time.
            let Some(message) = unconstrained(subscriber.next()).await else { return };
            on_message(message);
        }
        yield_now().await;
    }
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nats")
            .field("is_up", &*self.link.is_up.borrow())
            .field("inbox", &self.inbox)
            .field("questions", &self.questions)
            .finish_non_exhaustive()
    }
}
