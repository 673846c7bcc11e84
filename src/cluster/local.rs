//! [`Local`]: a bus within one process.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    fmt,
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};

use super::{
    bus::{AskError, Bus, PublishError, SubscribeError},
    faults::{Arrival, FaultSource, Faults},
    questions::Questions,
    subject::Subject,
    subscription::{Feed, Subscription},
};

/// Largest payload, in bytes: that of NATS as it comes.
const MAX_PAYLOAD: usize = 1 << 20;

/// First word of the subjects on which answers are published.
const REPLY: &str = "_reply";

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

struct Hub {
    state: Mutex<State>,
    /// Tells the task that delivers that a message is due before all others.
    is_earlier: Arc<Notify>,
}

struct State {
    faults: Option<FaultSource>,
    instances: HashMap<u64, Arc<Instance>>,
    subscribers: HashMap<Subject, Vec<Subscriber>>,
    /// Subscriptions made since those that have ended were last looked for.
    made: usize,
    /// Time at which the last answer of one instance to another arrives, by their numbers.
    last_answers: HashMap<(u64, u64), Instant>,
    on_the_way: BinaryHeap<Reverse<Due>>,
    /// Number of the last instance, or message on its way.
    last_number: u64,
    has_task: bool,
}

struct Instance {
    number: u64,
    is_up: watch::Sender<bool>,
    is_half_open: AtomicBool,
    questions: Questions,
}

struct Subscriber {
    instance: Arc<Instance>,
    feed: Arc<Feed>,
    /// Time at which the last message of each publisher arrives, by its number.
    last_due: HashMap<u64, Instant>,
}

/// Message on its way to an instance.
#[derive(Clone)]
enum Content {
    Message { feed: Arc<Feed>, payload: Bytes, reply_to: Option<Subject> },
    Answer { question: u64, answer: Result<Bytes, AskError> },
}

/// Content on its way to an instance.
struct Due {
    at: Instant,
    number: u64,
    to: Arc<Instance>,
    content: Content,
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
        let mut state = self.hub.lock();
        let instance = Arc::new(Instance {
            number: state.next_number(),
            is_up: watch::Sender::new(true),
            is_half_open: AtomicBool::new(false),
            questions: Questions::default(),
        });
        state.instances.insert(instance.number, instance.clone());
        drop(state);
        LocalBus { hub: self.hub.clone(), instance }
    }

    fn new(faults: Option<FaultSource>) -> Self {
        let state = State {
            faults,
            instances: HashMap::new(),
            subscribers: HashMap::new(),
            made: 0,
            last_answers: HashMap::new(),
            on_the_way: BinaryHeap::new(),
            last_number: 0,
            has_task: false,
        };
        Self { hub: Arc::new(Hub { state: Mutex::new(state), is_earlier: Arc::default() }) }
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
        let subscriber = Subscriber {
            instance: self.instance.clone(),
            feed: Arc::new(feed),
            last_due: HashMap::new(),
        };
        self.hub.lock().subscribe(subject, subscriber);
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
            let reply_to = format!("{REPLY}.{}.{}", self.instance.number, question.number());
            let reply_to = Subject::new(reply_to).map_err(|_| AskError::Nobody)?;
            if !self.instance.is_half_open() {
                let reached = self.hub.publish(&self.instance, &subject, &payload, Some(&reply_to));
                if reached == 0 {
                    self.hub.say_nobody(&self.instance, question.number());
                }
            }
            question.answered(timeout).await
        }
        .boxed()
    }

    fn max_payload(&self) -> usize {
        MAX_PAYLOAD
    }

    fn is_up(&self) -> watch::Receiver<bool> {
        self.instance.is_up.subscribe()
    }
}

impl Drop for LocalBus {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        let number = self.instance.number;
        state.instances.remove(&number);
        state.last_answers.retain(|(from, to), _| ![*from, *to].contains(&number));
        let ended: Vec<_> = state
            .subscribers
            .values_mut()
            .flat_map(|all| all.extract_if(.., move |one| one.instance.number == number))
            .collect();
        drop(state);
        drop(ended); // Wakes those who read.
    }
}

impl Instance {
    fn is_half_open(&self) -> bool {
        self.is_half_open.load(Relaxed)
    }

    fn is_reached(&self) -> bool {
        *self.is_up.borrow() && !self.is_half_open()
    }

    fn receive(&self, content: Content) {
        match content {
            _ if !self.is_reached() => {}
            Content::Message { feed, payload, reply_to } => {
                feed.push(payload, reply_to);
            }
            Content::Answer { question, answer } => {
                self.questions.answer(question, answer);
            }
        }
    }
}

impl Hub {
    /// Sends a message on its way, and returns how many have subscribed.
    fn publish(
        self: &Arc<Self>,
        from: &Instance,
        subject: &Subject,
        payload: &Bytes,
        reply_to: Option<&Subject>,
    ) -> usize {
        let mut state = self.lock();
        let (arrived, subscribed) = match asker(subject) {
            Some((asker, question)) => (state.reply(from.number, asker, question, payload), 1),
            None => state.publish(from.number, subject, payload, reply_to),
        };
        self.deliver(state, arrived);
        subscribed
    }

    /// Tells an instance that nobody has subscribed to what it asks.
    fn say_nobody(self: &Arc<Self>, asker: &Arc<Instance>, question: u64) {
        let content = Content::Answer { question, answer: Err(AskError::Nobody) };
        let mut state = self.lock();
        let mut arrived = Vec::new();
        let after = state.faults.as_mut().map_or(Duration::ZERO, FaultSource::latency);
        state.send(asker, content, Instant::now() + after, &mut arrived);
        self.deliver(state, arrived);
    }

    /// Hands over what has arrived at once, and the rest when it is due.
    fn deliver(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        arrived: Vec<(Arc<Instance>, Content)>,
    ) {
        if !state.on_the_way.is_empty() && !state.has_task {
            state.has_task = true;
            tokio::spawn(deliver_when_due(Arc::downgrade(self), self.is_earlier.clone()));
        }
        drop(state);
        self.is_earlier.notify_one();
        for (to, content) in arrived {
            to.receive(content);
        }
    }

    /// Delivers what is due, and returns when the next message is; `None` ends the task.
    fn deliver_due(&self) -> Option<Instant> {
        loop {
            let mut state = self.lock();
            match state.on_the_way.peek() {
                None => {
                    state.has_task = false;
                    return None;
                }
                Some(Reverse(next)) if next.at > Instant::now() => return Some(next.at),
                Some(_) => {
                    let due = state.on_the_way.pop();
                    drop(state);
                    if let Some(Reverse(Due { to, content, .. })) = due {
                        to.receive(content);
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Delivers messages when they are due, until none is on its way.
async fn deliver_when_due(hub: Weak<Hub>, is_earlier: Arc<Notify>) {
    while let Some(next) = hub.upgrade().and_then(|hub| hub.deliver_due()) {
        let _ = timeout_at(next, is_earlier.notified()).await;
    }
}

/// Returns whom an answer on this subject is for: the numbers of the instance and its question.
fn asker(subject: &Subject) -> Option<(u64, u64)> {
    let (word, numbers) = subject.as_str().split_once('.')?;
    let (instance, question) = numbers.split_once('.')?;
    if word != REPLY {
        return None;
    }
    Some((instance.parse().ok()?, question.parse().ok()?))
}

impl State {
    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn subscribe(&mut self, subject: &Subject, subscriber: Subscriber) {
        self.made += 1;
        if self.made > 16 + self.subscribers.len() {
            self.made = 0;
            self.subscribers.retain(|_, all| {
                all.retain(|one| !one.feed.is_closed());
                !all.is_empty()
            });
        }
        self.subscribers.entry(subject.clone()).or_default().push(subscriber);
    }

    /// Returns what arrives at once of a message, and how many have subscribed to it.
    fn publish(
        &mut self,
        from: u64,
        subject: &Subject,
        payload: &Bytes,
        reply_to: Option<&Subject>,
    ) -> (Vec<(Arc<Instance>, Content)>, usize) {
        let mut arrived = Vec::new();
        let Some(mut all) = self.subscribers.remove(subject) else { return (arrived, 0) };
        all.retain(|one| !one.feed.is_closed());
        let mut subscribed = 0;
        for one in &mut all {
            if !*one.instance.is_up.borrow() {
                continue;
            }
            subscribed += 1;
            let (feed, reply_to) = (one.feed.clone(), reply_to.cloned());
            let content = Content::Message { feed, payload: payload.clone(), reply_to };
            for arrival in self.arrivals() {
                let at = due(&mut one.last_due, from, arrival);
                self.send(&one.instance, content.clone(), at, &mut arrived);
            }
        }
        if !all.is_empty() {
            self.subscribers.insert(subject.clone(), all);
        }
        (arrived, subscribed)
    }

    /// Returns what arrives at once of an answer.
    fn reply(
        &mut self,
        from: u64,
        asker: u64,
        question: u64,
        payload: &Bytes,
    ) -> Vec<(Arc<Instance>, Content)> {
        let mut arrived = Vec::new();
        let Some(asker) = self.instances.get(&asker).cloned() else { return arrived };
        for arrival in self.arrivals() {
            let content = Content::Answer { question, answer: Ok(payload.clone()) };
            let at = due(&mut self.last_answers, (from, asker.number), arrival);
            self.send(&asker, content, at, &mut arrived);
        }
        arrived
    }

    fn arrivals(&mut self) -> impl Iterator<Item = Arrival> + use<> {
        let at_once = Arrival { after: Duration::ZERO, overtakes: false };
        let arrivals = self.faults.as_mut().map_or([Some(at_once), None], FaultSource::arrivals);
        arrivals.into_iter().flatten()
    }

    /// Puts content on its way, or to what has `arrived`.
    fn send(
        &mut self,
        to: &Arc<Instance>,
        content: Content,
        at: Instant,
        arrived: &mut Vec<(Arc<Instance>, Content)>,
    ) {
        if self.faults.is_none() {
            arrived.push((to.clone(), content));
            return;
        }
        let number = self.next_number();
        self.on_the_way.push(Reverse(Due { at, number, to: to.clone(), content }));
    }
}

/// Returns when a message arrives: not before those that went the same way earlier.
fn due<K: Eq + Hash>(last: &mut HashMap<K, Instant>, way: K, arrival: Arrival) -> Instant {
    let at = Instant::now() + arrival.after;
    if arrival.overtakes {
        return at;
    }
    let last = last.entry(way).or_insert(at);
    *last = at.max(*last);
    *last
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
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
