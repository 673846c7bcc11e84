//! [`Hub`]: the instances of a bus within a process, and what is on its way between them.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};

use crate::cluster::{
    bus::AskError,
    faults::{Arrival, FaultSource},
    questions::Questions,
    subject::Subject,
    subscription::Feed,
};

/// First word of the subjects on which answers are published.
const REPLY: &str = "_reply";

/// Instances of a bus within a process, and the messages on their way between them.
pub(super) struct Hub {
    state: Mutex<State>,
    /// Wakes the delivering task, since a message may be due before all others.
    rescheduled: Arc<Notify>,
}

struct State {
    faults: Option<FaultSource>,
    instances: HashMap<u64, Arc<Instance>>,
    subscribers: HashMap<Subject, Vec<Subscriber>>,
    /// Number of subscriptions made since those that have ended were last removed.
    made_since_sweep: usize,
    /// Time at which the last answer of one instance to another arrives, by their numbers.
    last_answers: HashMap<(u64, u64), Instant>,
    on_the_way: BinaryHeap<Reverse<Due>>,
    /// Number of the last instance, or message on its way.
    last_number: u64,
    has_task: bool,
}

/// Instance that has a connection.
pub(super) struct Instance {
    number: u64,
    pub(super) is_up: watch::Sender<bool>,
    pub(super) is_half_open: AtomicBool,
    pub(super) questions: Questions,
}

struct Subscriber {
    instance: Arc<Instance>,
    feed: Arc<Feed>,
    /// Time at which the last message of each publisher arrives, by its number.
    last_due: HashMap<u64, Instant>,
}

/// Content of what is on its way to an instance.
#[derive(Clone)]
enum Content {
    Message { feed: Arc<Feed>, payload: Bytes, reply_to: Option<Subject> },
    Answer { question: u64, answer: Result<Bytes, AskError> },
}

/// Content that is due at an instance at some time.
struct Due {
    at: Instant,
    number: u64,
    to: Arc<Instance>,
    content: Content,
}

impl Instance {
    /// Returns the subject for the answer to the question with this number.
    pub(super) fn reply_to(&self, question: u64) -> Result<Subject, AskError> {
        let subject = format!("{REPLY}.{}.{question}", self.number);
        Subject::new(subject).map_err(|_| AskError::Nobody)
    }

    pub(super) fn is_half_open(&self) -> bool {
        self.is_half_open.load(Relaxed)
    }

    pub(super) fn is_reached(&self) -> bool {
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
    /// Creates a hub with these faults, without any instance.
    pub(super) fn new(faults: Option<FaultSource>) -> Self {
        let state = State {
            faults,
            instances: HashMap::new(),
            subscribers: HashMap::new(),
            made_since_sweep: 0,
            last_answers: HashMap::new(),
            on_the_way: BinaryHeap::new(),
            last_number: 0,
            has_task: false,
        };
        Self { state: Mutex::new(state), rescheduled: Arc::default() }
    }

    /// Adds an instance.
    pub(super) fn connect(&self) -> Arc<Instance> {
        let mut state = self.lock();
        let instance = Arc::new(Instance {
            number: state.next_number(),
            is_up: watch::Sender::new(true),
            is_half_open: AtomicBool::new(false),
            questions: Questions::default(),
        });
        state.instances.insert(instance.number, instance.clone());
        instance
    }

    /// Removes an instance, and ends its subscriptions.
    pub(super) fn remove(&self, instance: &Instance) {
        let mut state = self.lock();
        let number = instance.number;
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

    /// Adds a subscription of an instance, which is filled by `feed`.
    pub(super) fn subscribe(&self, instance: &Arc<Instance>, subject: &Subject, feed: Feed) {
        let subscriber = Subscriber {
            instance: instance.clone(),
            feed: Arc::new(feed),
            last_due: HashMap::new(),
        };
        self.lock().subscribe(subject, subscriber);
    }

    /// Publishes a message, and returns the number of subscribers; 1 for an answer.
    pub(super) fn publish(
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

    /// Answers a question of an instance: nobody has subscribed to its subject.
    pub(super) fn answer_nobody(self: &Arc<Self>, asker: &Arc<Instance>, question: u64) {
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
            tokio::spawn(deliver_when_due(Arc::downgrade(self), self.rescheduled.clone()));
        }
        drop(state);
        self.rescheduled.notify_one();
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
async fn deliver_when_due(hub: Weak<Hub>, rescheduled: Arc<Notify>) {
    while let Some(next) = hub.upgrade().and_then(|hub| hub.deliver_due()) {
        let _ = timeout_at(next, rescheduled.notified()).await;
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
        self.made_since_sweep += 1;
        if self.made_since_sweep > 16 + self.subscribers.len() {
            self.made_since_sweep = 0;
            self.subscribers.retain(|_, all| {
                all.retain(|one| !one.feed.is_closed());
                !all.is_empty()
            });
        }
        self.subscribers.entry(subject.clone()).or_default().push(subscriber);
    }

    /// Publishes a message. Returns what of it arrives at once, and the number of subscribers.
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

    /// Sends an answer. Returns what of it arrives at once.
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

    /// Puts content on its way, or into `arrived` where there are no faults.
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
