//! What every bus must do, by the contract of `Bus`. `tests/bus/main.rs` runs it for the one within a
//! process, and those of NATS and of Redis run it in their crates.

#![allow(dead_code, reason = "not each crate uses all of it")]

use std::{
    fmt::Debug,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, join_all},
};
use mcp_ws_transport::cluster::{
    AskError, Bus, PublishError, Subject, SubscribeError, Subscription,
};
use tokio::time::{sleep, timeout};

/// Connection, whose `Debug` shows its `Questions`.
pub(crate) trait Connection: Bus + Debug {}

impl<B: Bus + Debug> Connection for B {}

/// What carries the messages, and can be stopped.
pub(crate) trait Engine {
    /// Returns another connection, which is up.
    fn connect(&mut self) -> BoxFuture<'_, Arc<dyn Connection>>;
    fn stop(&mut self) -> BoxFuture<'_, ()>;
    fn start(&mut self) -> BoxFuture<'_, ()>;
}

/// Longer than anything takes that is expected to happen.
const LONG: Duration = Duration::from_secs(20);

const ROOM: usize = 64 << 20;

pub(crate) fn subject(text: &str) -> Subject {
    Subject::new(text).unwrap()
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(LONG, future).await.unwrap_or_else(|_| panic!("never: {what}"))
}

async fn subscribe(bus: &dyn Bus, on: &str) -> Subscription {
    soon("subscribed", bus.subscribe(&subject(on), ROOM)).await.unwrap()
}

/// Publishes a message, as soon as the bus has room for it.
async fn publish(bus: &dyn Bus, on: &str, payload: impl Into<Bytes>) {
    let (on, payload) = (subject(on), payload.into());
    while let Err(error) = bus.publish(&on, payload.clone()) {
        assert_eq!(error, PublishError::Full);
        sleep(Duration::from_millis(1)).await;
    }
}

async fn received(subscription: &mut Subscription) -> Bytes {
    soon("received", subscription.next()).await.unwrap().payload
}

/// Waits until the bus is up, or until it is not.
pub(crate) async fn up(bus: &dyn Bus, is_up: bool) {
    soon("is_up", bus.watch_up().wait_for(|now| *now == is_up)).await.unwrap();
}

/// Answers each question with the question itself, behind this prefix.
fn answer(bus: &Arc<dyn Connection>, mut questions: Subscription, prefix: &'static str) {
    let bus = bus.clone();
    tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            let answer = [prefix.as_bytes(), &question.payload].concat();
            publish(&*bus, question.reply_to.unwrap().as_str(), answer).await;
        }
    });
}

/// Asks until somebody is there, or nobody, as wanted.
async fn ask_until(bus: &dyn Bus, on: &str, is_wanted: impl Fn(&Result<Bytes, AskError>) -> bool) {
    soon("asked", async {
        while !is_wanted(&bus.ask(&subject(on), "?".into(), Duration::from_millis(500)).await) {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(crate) async fn the_order_of_each_publisher_is_kept(engine: &mut impl Engine) {
    let (a, b, c) = (engine.connect().await, engine.connect().await, engine.connect().await);
    let mut subscriptions = [subscribe(&*a, "s").await, subscribe(&*c, "s").await];
    let send = async |bus: &dyn Bus, name: &str| {
        for number in 0..1000 {
            publish(bus, "s", format!("{name}{number}")).await;
            if number % 100 == 0 {
                tokio::task::yield_now().await;
            }
        }
    };
    futures::join!(send(&*a, "a"), send(&*b, "b"));
    // The publisher is among those who receive.
    for subscription in &mut subscriptions {
        let (mut from_a, mut from_b) = (0..1000, 0..1000);
        for _ in 0..2000 {
            let payload = received(subscription).await;
            let (from, expected) = match payload[0] {
                b'a' => ("a", from_a.next()),
                _ => ("b", from_b.next()),
            };
            assert_eq!(payload, format!("{from}{}", expected.unwrap()));
        }
    }
}

pub(crate) async fn a_question_has_the_first_answer(engine: &mut impl Engine) {
    let (a, b) = (engine.connect().await, engine.connect().await);
    let on = subject("q.a");
    assert_eq!(a.ask(&on, "?".into(), LONG).await, Err(AskError::Nobody));
    let mut silent = subscribe(&*b, "q.a").await;
    let short = Duration::from_millis(100);
    assert_eq!(a.ask(&on, "?".into(), short).await, Err(AskError::TimedOut));
    let question = soon("asked", silent.next()).await.unwrap();
    let reply_to = question.reply_to.unwrap();
    // An answer that nobody waits for is passed over.
    b.publish(&reply_to, "late".into()).unwrap();

    let asked = a.ask(&on, "?".into(), LONG);
    let answered = async {
        let question = silent.next().await.unwrap();
        let reply_to = question.reply_to.unwrap();
        b.publish(&reply_to, "first".into()).unwrap();
        b.publish(&reply_to, "second".into()).unwrap();
    };
    let (asked, ()) = soon("answered", async { futures::join!(asked, answered) }).await;
    assert_eq!(asked.unwrap(), "first");
    // What is published is no question.
    publish(&*a, "q.a", "plain").await;
    let plain = soon("published", silent.next()).await.unwrap();
    assert_eq!((&plain.payload[..], plain.reply_to), (&b"plain"[..], None));
}

pub(crate) async fn a_thousand_questions_have_their_own_answers(engine: &mut impl Engine) {
    let (a, b) = (engine.connect().await, engine.connect().await);
    let on = subject("q");
    answer(&b, subscribe(&*b, "q").await, "=");
    let ask = async |number: u32| {
        let question: Bytes = number.to_string().into();
        loop {
            match a.ask(&on, question.clone(), LONG).await {
                Err(AskError::NotSent(PublishError::Full)) => sleep(Duration::from_millis(1)).await,
                answer => return answer,
            }
        }
    };
    for (number, answer) in join_all((0..1000).map(ask)).await.into_iter().enumerate() {
        assert_eq!(answer.unwrap(), format!("={number}"));
    }
}

pub(crate) async fn questions_that_are_given_up_leave_nothing(engine: &mut impl Engine) {
    let (a, b) = (engine.connect().await, engine.connect().await);
    let on = subject("q");
    let mut questions = subscribe(&*b, "q").await;
    for _ in 0..1000 {
        let asked = a.ask(&on, "given up".into(), LONG).now_or_never();
        assert!(matches!(asked, None | Some(Err(AskError::NotSent(PublishError::Full)))));
    }
    assert!(format!("{a:?}").contains("Questions { waiting: 0 }"), "{a:?}");
    let last = a.ask(&on, "last".into(), LONG);
    let answered = async {
        while let Some(question) = questions.next().await {
            publish(&*b, question.reply_to.unwrap().as_str(), question.payload.clone()).await;
            if question.payload == "last" {
                break;
            }
        }
    };
    let (last, ()) = soon("answered", async { futures::join!(last, answered) }).await;
    assert_eq!(last.unwrap(), "last");
}

pub(crate) async fn what_a_slow_subscriber_misses_is_counted(engine: &mut impl Engine) {
    let (a, b) = (engine.connect().await, engine.connect().await);
    let mut slow = b.subscribe(&subject("s"), 10 << 10).await.unwrap();
    let mut fast = subscribe(&*b, "s").await;
    let numbered = |number: u64| [&number.to_be_bytes()[..], &[b'x'; 1 << 10]].concat();
    for number in 0..100 {
        publish(&*a, "s", numbered(number)).await;
    }
    for _ in 0..100 {
        received(&mut fast).await;
    }
    let (mut seen, mut next) = (0, 0);
    for number in 100.. {
        while let Ok(Some(delivery)) = timeout(Duration::from_millis(50), slow.next()).await {
            let number = u64::from_be_bytes(delivery.payload[..8].try_into().unwrap());
            assert_eq!(delivery.dropped_before, number - next);
            (seen, next) = (seen + 1, number + 1);
        }
        if next > 100 {
            break;
        }
        publish(&*a, "s", numbered(number)).await;
    }
    assert!(seen < 50, "{seen} of 1 KiB in 10 KiB");
}

pub(crate) async fn what_is_too_large_is_refused(engine: &mut impl Engine) {
    let bus = engine.connect().await;
    let mut subscription = subscribe(&*bus, "s").await;
    let max = bus.max_payload();
    let too_large = PublishError::TooLarge { size: max + 1, max };
    let payload = Bytes::from(vec![b'x'; max + 1]);
    assert_eq!(bus.publish(&subject("s"), payload.clone()), Err(too_large));
    let asked = bus.ask(&subject("s"), payload.clone(), LONG).await;
    assert_eq!(asked, Err(AskError::NotSent(too_large)));
    publish(&*bus, "s", payload.slice(1..)).await;
    assert_eq!(received(&mut subscription).await, payload.slice(1..));
    publish(&*bus, "s", "").await;
    assert_eq!(received(&mut subscription).await, "");
}

pub(crate) async fn who_leaves_is_nobody(engine: &mut impl Engine) {
    let (a, b) = (engine.connect().await, engine.connect().await);
    let (first, second) = (subscribe(&*b, "q").await, subscribe(&*b, "q").await);
    drop(first);
    answer(&b, second, "");
    // The other one goes on.
    a.ask(&subject("q"), "?".into(), LONG).await.unwrap();
    let third = subscribe(&*b, "r").await;
    drop(third);
    ask_until(&*a, "r", |answer| *answer == Err(AskError::Nobody)).await;
    a.ask(&subject("q"), "?".into(), LONG).await.unwrap();
    // A bus that is dropped ends its subscriptions, and is nobody as well.
    let c = engine.connect().await;
    let mut ends = subscribe(&*c, "t").await;
    drop(c);
    assert_eq!(soon("ended", ends.next()).await, None);
    ask_until(&*a, "t", |answer| *answer == Err(AskError::Nobody)).await;
}

pub(crate) async fn an_outage_is_told_and_healed(engine: &mut impl Engine) {
    let (a, b) = (engine.connect().await, engine.connect().await);
    let mut subscription = subscribe(&*b, "s").await;
    answer(&b, subscribe(&*b, "q").await, "");
    for round in 0..2 {
        publish(&*a, "s", "before").await;
        assert_eq!(received(&mut subscription).await, "before");
        engine.stop().await;
        futures::join!(up(&*a, false), up(&*b, false));
        for _ in 0..100 {
            assert_eq!(a.publish(&subject("s"), "meanwhile".into()), Err(PublishError::Away));
        }
        let away = AskError::NotSent(PublishError::Away);
        assert_eq!(a.ask(&subject("q"), "?".into(), LONG).await, Err(away));
        let refused = b.subscribe(&subject("s"), ROOM).await.unwrap_err();
        assert_eq!(refused, SubscribeError::Away);
        engine.start().await;
        futures::join!(up(&*a, true), up(&*b, true));
        // Each has subscribed again by itself: by then "nobody" may be said.
        ask_until(&*a, "q", Result::is_ok).await;
        publish(&*a, "s", "after").await;
        assert_eq!(received(&mut subscription).await, "after", "round {round}");
    }
}

pub(crate) async fn an_end_of_an_outage_is_no_end_of_who_left(engine: &mut impl Engine) {
    let (a, b) = (engine.connect().await, engine.connect().await);
    let (stays, leaves) = (subscribe(&*b, "q").await, subscribe(&*b, "r").await);
    answer(&b, stays, "");
    engine.stop().await;
    futures::join!(up(&*a, false), up(&*b, false));
    drop(leaves);
    engine.start().await;
    futures::join!(up(&*a, true), up(&*b, true));
    ask_until(&*a, "q", Result::is_ok).await;
    ask_until(&*a, "r", |answer| *answer == Err(AskError::Nobody)).await;
}

/// Checks that a server that hangs is noticed, and holds nobody up. Until then, no more than `most`
/// messages of 256 KiB are taken.
pub(crate) async fn a_server_that_hangs_is_noticed(
    bus: &dyn Bus,
    signal: impl Fn(&str),
    most: usize,
) {
    let mut subscription = subscribe(bus, "s").await;
    let payload = Bytes::from(vec![b'x'; 256 << 10]);
    signal("STOP");
    let stopped = Instant::now();
    let (mut taken, mut slowest) = (0, Duration::ZERO);
    loop {
        let began = Instant::now();
        let published = bus.publish(&subject("s"), payload.clone());
        slowest = slowest.max(began.elapsed());
        match published {
            Ok(()) => taken += 1,
            Err(PublishError::Full) => {}
            Err(PublishError::Away) => break,
            Err(error) => panic!("{error}"),
        }
        assert!(stopped.elapsed() < LONG);
        tokio::task::yield_now().await;
    }
    up(bus, false).await;
    assert!(stopped.elapsed() < Duration::from_secs(5), "{:?}", stopped.elapsed());
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    assert!(taken <= most, "{taken} of 256 KiB");
    signal("CONT");
    up(bus, true).await;
    bus.publish(&subject("s"), "after".into()).unwrap();
    soon("after", async { while received(&mut subscription).await != "after" {} }).await;
}

/// Prints how long a question and its answer take.
pub(crate) async fn print_round_trip(name: &str, a: &dyn Bus, b: Arc<dyn Connection>) {
    answer(&b, subscribe(&*b, "q").await, "");
    let mut took = Vec::new();
    for _ in 0..5000 {
        let began = Instant::now();
        a.ask(&subject("q"), "?".into(), LONG).await.unwrap();
        took.push(began.elapsed());
    }
    took.sort_unstable();
    println!("{name}: p50 {:?}, p99 {:?}", took[took.len() / 2], took[took.len() * 99 / 100]);
}

/// Defines a test for each of the functions above, on what the expression starts.
macro_rules! run {
    (ignore = $reason:literal, $start:expr) => {
        suite::run!(@each [#[ignore = $reason]] $start);
    };
    (@one $attributes:tt $start:expr; $($name:ident)*) => {
        $(suite::run!(@test $attributes $start; $name);)*
    };
    (@test [$($attribute:tt)*] $start:expr; $name:ident) => {
        #[tokio::test]
        $($attribute)*
        async fn $name() {
            suite::$name(&mut $start.await).await;
        }
    };
    (@each $attributes:tt $start:expr) => {
        suite::run!(@one $attributes $start;
            the_order_of_each_publisher_is_kept
            a_question_has_the_first_answer
            a_thousand_questions_have_their_own_answers
            questions_that_are_given_up_leave_nothing
            what_a_slow_subscriber_misses_is_counted
            what_is_too_large_is_refused
            who_leaves_is_nobody
            an_outage_is_told_and_healed
            an_end_of_an_outage_is_no_end_of_who_left
        );
    };
    ($start:expr) => {
        suite::run!(@each [] $start);
    };
}
pub(crate) use run;
